"""`zfrepro visualize`: what excites each feature map, projected to pixels (paper, section 4, Fig. 2).

`layer<l>.npz`, for M maps with their n strongest images each, strongest first; f px: side of the shown squares (the
receptive field, or the network's input where that is smaller):
    maps (M,) numbers of the maps; layer; activations (M, n) float32
    images (M, n) int64: rows of the split; files (M, n): their names; labels (M, n); units (M, n, 2): row, column
    boxes (M, n, 4) int16: y0, x0, y1, x1 of the receptive field in the network's input, clipped at its border, half-open
    corners (M, n, 2) int16: y, x of the shown square's corner in the network's input (negative: it hangs over)
    projections (M, n, f, f, 3) float32, both signs, in the units of the network's input; zero beyond the border
    patches (M, n, f, f, 3) uint8: the same square of the image, grey (128) beyond the border
"""

from __future__ import annotations

import dataclasses
import hashlib
from itertools import product
from typing import Any

import numpy as np

from zfrepro import statistics
from zfrepro.errors import UserError, require, require_layer
from zfrepro.figures.features import draw_features
from zfrepro.knowledge import knows_its_task
from zfrepro.models.deconvnet import Rules
from zfrepro.models.network import Network, initialise
from zfrepro.models.table import ops_of, receptive_box, receptive_field
from zfrepro.models.window import Windows, project_windows
from zfrepro.options.commands import VisualizeConfig
from zfrepro.results import writing
from zfrepro.run import TrainedRun, open_run
from zfrepro.search import Top, exact, in_groups, top_images, usual_count
from zfrepro.statistics import Measure, Missing, standard_error

TRUTH_MAPS = 48  # maps a layer on which the energy on objects is measured


def visualize(config: VisualizeConfig) -> None:
    """Write `fig2_features/layer<l>.png` and `.npz` for the layer, or for all convolutional layers."""
    run = open_run(config)
    config = dataclasses.replace(config, num_images=config.num_images or usual_count(run, config.split))
    layers = chosen_layers(config.layer, run.network.conv_layers)
    for layer, number in product(layers, config.maps):
        count = run.network.widths[layer]
        require("maps", number, number < count, f"between 0 and {count - 1}, the maps of layer {layer}")
    for layer in layers:
        own = dataclasses.replace(config, layer=str(layer))  # the same page whether made alone or with the others
        folder, part = config.folder / "fig2_features", f"layer{layer}"
        with writing(folder, own, run.checkpoint_hash, part, inputs=run.data.key) as out:
            if out is None:
                continue
            top = top_images(run, config.split, config.num_images)[layer]
            maps = chosen_maps(top, config.maps, config.num_maps, config.seed, layer)
            top, changed = exact(run, config.split, config.num_images, layer, maps)
            rules = Rules(config.unpool, config.ties)
            page = page_of(run, config.split, layer, top, maps, rules)
            split = run.split(config.split)
            names = np.array([[split.files[row] for row in rows] for rows in page["images"]], dtype=np.str_)
            out.arrays(f"layer{layer}.npz", **page, labels=split.labels[page["images"]], files=names)
            shown = f"strongest {config.num_images} {config.split} images of {len(maps)} maps"
            title = f"{config.run}, layer {layer}: {shown}"
            out.figure(f"layer{layer}.png", draw_features(page, title))
            metrics, measures = measure(run, config, layer, top, rules)
            metrics["search"] = {"precision": run.precision, "places_changed_in_float32_percent": 100 * changed}
            out.done(metrics, measures, knows_its_task(run))


def chosen_layers(layer: str, present: list[int]) -> list[int]:
    """'all' or a layer's number. Raises UserError for what the network does not have."""
    if layer == "all":
        return present
    if not layer.isdigit():
        raise UserError(f"layer={layer}: must be all or one of {', '.join(map(str, present))}")
    require_layer("layer", int(layer), present)
    return [int(layer)]


def chosen_maps(top: Top, maps: list[int], num_maps: int, seed: int, layer: int) -> np.ndarray:
    """The asked maps, or `num_maps` random live ones in rising order. Raises UserError where there are none such."""
    if maps:
        return np.array(maps)
    live, count = top.live, len(top.values)
    if not len(live):
        raise UserError(f"layer={layer}: all {count} maps are dead (no image excites them); train the run for longer")
    return np.sort(np.random.default_rng([seed, layer]).permutation(live)[:num_maps])


# ------------------------------------------------------------------------------------------------------------ one page


def project_top(run: TrainedRun, split: str, layer: int, top: Top, maps: np.ndarray, rules: Rules) -> Windows:
    """Projections of the strongest units of `maps`, map by map, strongest first."""
    groups = in_groups(run, split, top, maps, f"layer {layer}")
    return Windows.join([project_windows(run.network, x, layer, units, which, rules) for x, units, which in groups])


def page_of(run: TrainedRun, split: str, layer: int, top: Top, maps: np.ndarray, rules: Rules) -> dict[str, np.ndarray]:
    """The strongest units of `maps`, as the module's docstring has them, without labels and files."""
    windows = project_top(run, split, layer, top, maps, rules)
    images = top.images[maps]
    field, size = receptive_field(ops_of(run.network.layers, layer)), run.network.input_size
    units = np.stack([top.rows[maps], top.columns[maps]], axis=-1)
    side = min(field.size, size)
    corners = field.start + units * field.stride if field.size < size else np.zeros_like(units)
    boxes = [receptive_box(ops_of(run.network.layers, layer), int(y), int(x), size) for y, x in units.reshape(-1, 2)]
    crops = run.crops(run.split(split).images[images.ravel()]).numpy()
    flat = corners.reshape(-1, 2)
    patches = np.stack([blank_outside(cut(crop, c, side, 128), c, box) for crop, c, box in zip(crops, flat, boxes)])
    pixels = windows.pixels.permute(0, 2, 3, 1).cpu().numpy()
    starts = flat - np.stack([windows.rows, windows.columns], -1)  # of the shown squares, in the windows
    projections = np.stack([cut(window, start, side, 0) for window, start in zip(pixels, starts)])
    shape = (*images.shape, side, side, 3)
    return {
        "layer": np.array(layer),
        "maps": maps,
        "activations": top.values[maps],
        "images": images,
        "units": units,
        "boxes": np.array(boxes, dtype=np.int16).reshape(*images.shape, 4),
        "corners": corners.astype(np.int16),
        "projections": projections.reshape(shape),
        "patches": patches.reshape(shape),
    }


def cut(image: np.ndarray, corner: np.ndarray, side: int, fill: float) -> np.ndarray:
    """The square of `side` whose corner is at (y, x) of image (H, W, C), `fill` beyond its edges."""
    square = np.full((side, side, image.shape[2]), fill, dtype=image.dtype)
    y, x = int(corner[0]), int(corner[1])
    inside = image[max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)]
    top, left = max(0, -y), max(0, -x)
    square[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return square


def blank_outside(patch: np.ndarray, corner: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Grey where the shown square holds pixels that the unit does not see (where its field outgrows the input)."""
    y0, x0, y1, x1 = (value - int(corner[i % 2]) for i, value in enumerate(box))
    seen = np.full_like(patch, 128)
    seen[y0:y1, x0:x1] = patch[y0:y1, x0:x1]
    return seen


# ------------------------------------------------------------------------------------------------------------- numbers


def measure(
    run: TrainedRun, config: VisualizeConfig, layer: int, top: Top, rules: Rules
) -> tuple[dict[str, Any], dict[str, Measure]]:
    """Dead maps, how alike the strongest images of a map are, and on the embedded data set where the energy falls; and the
    number on which the claim about the last layer rests: how much more of it falls on objects than in an untrained network,
    whose projections favour them too, since what excites a unit is seldom the background."""
    split = run.split(config.split)
    live = top.live
    labels = split.labels[top.images[live]]
    purity = [np.bincount(row).max() / len(row) for row in labels]
    chance = np.random.default_rng(config.seed).choice(split.labels, (1000, labels.shape[1]))
    found: dict[str, Any] = {
        "last_layer": run.network.conv_layers[-1],
        "maps": len(top.values),
        "dead_maps": int(len(top.values) - len(live)),
        "same_class": 100 * float(np.mean(purity)),  # mean share of a map's strongest images in their commonest class
        "same_class_by_chance": 100 * float(np.mean([np.bincount(row).max() / len(row) for row in chance])),
    }
    energy: Measure = Missing("needs images whose objects' masks are known: the embedded data set")
    if split.truth is not None and len(live):
        chosen = np.sort(np.random.default_rng([config.seed, layer]).permutation(live)[:TRUTH_MAPS])
        units, _ = exact(run, config.split, config.num_images, layer, chosen)
        shares, difference = energy_on_objects(run, config.split, layer, units, chosen, rules)
        found |= shares
        if layer == found["last_layer"]:
            drawn = by_chance(run, config, layer, rules)
            found["energy_minus_share_untrained"] = float(drawn.mean()) if len(drawn) else None
            note = f"layer {layer}: {difference.mean():.1f}, untrained {drawn.mean():.1f}" if len(drawn) else ""
            energy = statistics.welch(difference, drawn, "maps", "points", note)
    if split.truth is not None and layer != found["last_layer"]:
        energy = Missing(f"layer {found['last_layer']} is not visualised; give layer=all")
    return found, {"energy_above_untrained": energy}


def by_chance(run: TrainedRun, config: VisualizeConfig, layer: int, rules: Rules) -> np.ndarray:
    """(M,) what `energy_on_objects` finds for the maps of an untrained network of the same table, in percent points."""
    drawn = untrained(run)
    top = top_images(drawn, config.split, config.num_images)[layer]
    maps = np.sort(np.random.default_rng([config.seed, layer]).permutation(top.live)[:TRUTH_MAPS])
    return energy_on_objects(drawn, config.split, layer, top, maps, rules)[1] if len(maps) else np.zeros(0)


def untrained(run: TrainedRun) -> TrainedRun:
    """The run with weights that were only drawn, from another seed than its own."""
    network = Network(run.config.model, run.network.outputs)
    initialise(network, run.config.init, run.config.seed + 1)
    network = network.placed(run.device).eval().requires_grad_(False)
    drawn = f"drawn by {run.config.init} from {run.config.seed + 1} beside {run.checkpoint_hash}"  # with its table and its pixels
    made = dataclasses.replace(run, network=network, checkpoint_hash=hashlib.sha256(drawn.encode()).hexdigest())
    vars(made)["data"] = run.data
    return made


def energy_on_objects(
    run: TrainedRun, split: str, layer: int, top: Top, maps: np.ndarray, rules: Rules
) -> tuple[dict[str, float], np.ndarray]:
    """In percent: how much of a projection's energy (sum of squares) falls on the object's mask, against the mask's
    share of the area that the unit sees; means over units, and their difference for every map."""
    truth = run.split(split).truth
    assert truth is not None
    windows = project_top(run, split, layer, top, maps, rules)
    energy = windows.pixels.square().sum(1).cpu().numpy()  # (U, w, w)
    size, ops = run.network.input_size, ops_of(run.network.layers, layer)
    start = (run.squares.size - size) // 2
    masks = truth.masks[top.images[maps].ravel(), start : start + size, start : start + size].astype(np.float32) / 255
    shares = []
    for unit, (own, mask) in enumerate(zip(energy, masks)):
        corner = np.array([windows.rows[unit], windows.columns[unit]])
        under = cut(mask[..., None], corner, own.shape[0], 0)[..., 0]
        _, row, column = top.units(maps)[unit]
        y0, x0, y1, x1 = receptive_box(ops, int(row), int(column), size)
        total = float(own.sum())
        shares.append((float((own * under).sum()) / total if total else np.nan, float(mask[y0:y1, x0:x1].mean())))
    by_unit = np.array(shares).reshape(len(maps), -1, 2)
    by_unit[np.isnan(by_unit[..., 0])] = np.nan  # a unit without a projection has no part in either mean
    by_map = np.nanmean(by_unit[~np.isnan(by_unit[..., 0]).all(1)], axis=1) * 100
    if not len(by_map):
        return {}, np.zeros(0)
    difference = by_map[:, 0] - by_map[:, 1]
    found = {
        "energy_on_object": float(by_map[:, 0].mean()),
        "object_share_of_field": float(by_map[:, 1].mean()),
        "energy_minus_share": float(difference.mean()),
        "energy_minus_share_error": float(standard_error(difference)),
        "object_share_of_image": 100 * float(masks.mean()),
    }
    return found, difference
