"""`zfrepro evolve`: features through training, from its snapshots (paper, section 4, Fig. 4).

`arrays.npz`, for E snapshots and per layer l with R maps shown and M maps measured, f px the side of the shown squares:
    epochs (E,); maps_<l> (R,) numbers of the maps shown; images_<l> (R, E): the strongest training image of each
    activations_<l> (R, E); projections_<l> (R, E, f, f, 3) float32, both signs
    measured_<l> (M,) numbers of the maps measured; alike_<l> (M, E - 1): correlation of the projections that consecutive
    snapshots give of one image, the strongest of the last snapshot. They are laid over each other at their units, wherever
    in the image each snapshot finds the feature (where a unit reaches the whole image: as they lie there)
    floor_<l> (M, E - 1): the same, but of another map in the later snapshot: how alike projections of one image are anyway
    common_<l> (M, E - 1): share of the nine strongest images that two consecutive snapshots have in common
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from zfrepro import statistics
from zfrepro.errors import UserError, require
from zfrepro.figures.evolution import draw_alike, draw_evolution
from zfrepro.forward import forward
from zfrepro.knowledge import knows_its_task
from zfrepro.models.deconvnet import Rules
from zfrepro.models.window import project_windows
from zfrepro.options.commands import EvolveConfig
from zfrepro.results import writing
from zfrepro.run import TrainedRun, load_config, open_run, snapshots
from zfrepro.search import Top, exact, top_images
from zfrepro.statistics import Measure, Missing, standard_error, variance
from zfrepro.visualizer.features import chosen_maps, page_of


def evolve(config: EvolveConfig) -> None:
    """Write `fig4_evolution/`."""
    epochs = chosen_epochs(config)
    runs = [open_run(config, epoch) for epoch in epochs]
    together = hashlib.sha256("".join(run.checkpoint_hash for run in runs).encode()).hexdigest()
    with writing(config.folder / "fig4_evolution", config, together, inputs=runs[-1].data.key) as out:
        if out is None:
            return
        rules = Rules(config.unpool, config.ties)
        tops = [top_images(run, "train") for run in tqdm(runs, desc="snapshots", disable=None, leave=False)]
        arrays: dict[str, np.ndarray] = {"epochs": np.array(epochs)}
        for layer in runs[0].network.conv_layers:
            own = [top[layer] for top in tops]
            arrays |= {f"{name}_{layer}": value for name, value in shown_maps(runs, own, layer, config, rules).items()}
            arrays |= {f"{name}_{layer}": value for name, value in likeness(runs, own, layer, config, rules).items()}
        layers = runs[0].network.conv_layers
        metrics, fall = summary(arrays, layers, runs[0].config.epochs)
        out.arrays("arrays.npz", **arrays)
        out.figure("evolution.png", draw_evolution(arrays, layers, config.run), dpi=130)
        out.figure("alike.png", draw_alike(arrays, layers, config.run))
        out.done(metrics, {"fall_with_depth": fall}, knows_its_task(runs[-1]))


def chosen_epochs(config: EvolveConfig) -> list[int]:
    """Snapshot epochs. Raises UserError where there are fewer than two."""
    load_config(config.folder, config.run)  # refuses what is no run
    there = snapshots(config.folder)
    known = ", ".join(map(str, there))
    for epoch in config.epochs_shown:
        require("epochs_shown", epoch, epoch in there, f"snapshot epochs of the run: {known}")
    chosen = config.epochs_shown
    require("epochs_shown", chosen, len(chosen) != 1 or len(there) < 2, f"two or more of the snapshot epochs {known}")
    epochs = sorted(config.epochs_shown or there)
    if len(epochs) < 2:
        raise UserError(
            f"run={config.run}: it kept {len(epochs)} snapshots and Figure 4 needs two or more; train it with "
            "snapshot_epochs=[1,2,5,10]"
        )
    return epochs


def shown_maps(
    runs: list[TrainedRun], tops: list[Top], layer: int, config: EvolveConfig, rules: Rules
) -> dict[str, np.ndarray]:
    """The rows of the figure: each map's strongest training image in every snapshot, projected."""
    maps = chosen_maps(tops[-1], [], config.num_maps, config.seed, layer)
    count = tops[0].values.shape[1]
    strongest = [exact(run, "train", count, layer, maps)[0].first(1) for run in runs]
    pages = [page_of(run, "train", layer, top, maps, rules) for run, top in zip(runs, strongest)]
    shown = ("images", "activations", "projections")
    return {"maps": maps, **{name: np.stack([page[name][:, 0] for page in pages], axis=1) for name in shown}}


# ------------------------------------------------------------------------------------------------------------ likeness


def likeness(
    runs: list[TrainedRun], tops: list[Top], layer: int, config: EvolveConfig, rules: Rules
) -> dict[str, np.ndarray]:
    """How alike consecutive snapshots are, map by map; see the module's docstring."""
    maps = chosen_maps(tops[-1], [], config.alike_maps, config.seed + 1, layer)
    rows = tops[-1].images[maps, 0]
    projections = [project_maps(run, layer, maps, rows, rules) for run in runs]
    others = [project_maps(run, layer, np.roll(maps, 1), rows, rules) for run in runs[1:]]
    alike = [correlation(before, after) for before, after in pairwise(projections)]
    floor = [correlation(before, other) for before, other in zip(projections, others)]
    common = [
        [len(np.intersect1d(a, b)) / len(a) for a, b in zip(before.images[maps], after.images[maps])]
        for before, after in pairwise(tops)
    ]
    likenesses = {"alike": np.stack(alike, axis=1), "floor": np.stack(floor, axis=1)}
    return {"measured": maps, **likenesses, "common": np.array(common).T}


def project_maps(run: TrainedRun, layer: int, maps: np.ndarray, rows: np.ndarray, rules: Rules) -> np.ndarray:
    """Each map's strongest unit in its training image rows[i], projected, on its window: (M, channels, w, w)."""
    images, width = run.squares.train.images, run.network.side(layer)
    unique, which = np.unique(rows, return_inverse=True)
    outputs = torch.cat([found[layer].cpu() for _, found in forward(run, images, [layer], unique, exact=True)])
    places = outputs[torch.from_numpy(which), torch.from_numpy(maps)].flatten(1).argmax(1)
    units = torch.stack([torch.from_numpy(maps), places // width, places % width], dim=1)
    found = project_windows(run.network, run.inputs(images[unique]), layer, units, torch.from_numpy(which), rules)
    return found.pixels.cpu().numpy()


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each pair of projections (M, ...), 0 where one of them is empty: (M,)."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(1), norms, out=np.zeros(len(a)), where=norms > 0)


def summary(arrays: dict[str, np.ndarray], layers: list[int], epochs: int) -> tuple[dict[str, Any], Measure]:
    """Per layer the likeness of consecutive snapshots (mean, standard error over maps), its floor, and what lies above it in
    the first half of the training: on how that falls with depth the claim rests."""
    kept = arrays["epochs"]
    early = kept[1:] <= max(epochs / 2, kept[1])
    found: dict[str, Any] = {"epochs": kept.tolist(), "layers": {}}
    above = []
    for layer in layers:
        alike, common, images, floor = (arrays[f"{name}_{layer}"] for name in ("alike", "common", "images", "floor"))
        above.append(above_floor(alike[:, early], floor[:, early]))
        found["layers"][str(layer)] = {
            "correlation": alike.mean(0),
            "correlation_error": standard_error(alike),
            "floor": floor.mean(0),
            "top_nine_in_common": common.mean(0),
            "first_half_correlation": float(alike[:, early].mean()),
            "first_half_above_floor": float(above[-1].mean()),
            "strongest_image_changes": float((images[:, 1:] != images[:, :-1]).mean()),
        }
    return found, fall_with_depth(above)


def above_floor(alike: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """(M,) likeness of each map (M, E), 0 at the layer's mean floor and 1 where nothing changes; means over the E steps.

    Each is moved by what its own floor does to that mean, so that they vary as the floor does, too; their mean stays.
    """
    own, lowest = floor.mean(1), float(floor.mean())
    room = max(1 - lowest, 1e-12)
    scaled: np.ndarray = (alike.mean(1) - lowest) / room
    return scaled + (scaled.mean() - 1) * (own - lowest) / room


def fall_with_depth(above: Sequence[np.ndarray]) -> Measure:
    """How far a straight line through the layers' means falls from the first to the last. above: for each layer its maps'."""
    if len(above) < 2:
        return Missing("two convolutional layers are needed")
    place = np.arange(len(above)) - (len(above) - 1) / 2
    weights = -place * (len(above) - 1) / (place**2).sum()
    fall = sum(float(weight * values.mean()) for weight, values in zip(weights, above))
    # A layer in the middle has no weight, and no say; one of a single map has, and no spread.
    sources = [
        (weight**2 * variance(values) / len(values), len(values) - 1)
        for weight, values in zip(weights, above)
        if weight
    ]
    note = "layers: " + ", ".join(f"{values.mean():.2f}" for values in above)
    count = min(map(len, above))
    return statistics.combined(fall, sources, count, "maps", note=note)
