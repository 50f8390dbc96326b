"""`zfrepro occlude`: a square slides over images; what becomes of the class and of a map (paper, section 4.2, Fig. 7).

The map that is watched is the one whose maximum is largest in the clean image; its activation at a position is the sum
over space. All positions are computed incrementally (`models/partial.py`), up to the border exactly.

`arrays.npz`, for N images, P x Q positions of the square, s px network inputs:
    images (N, s, s, 3) uint8; names (N,); labels (N,) true classes; class_names (classes,)
    ys (P,), xs (Q,): the square's top left corner in pixels; square, stride: pixels; fill_pixels (s, s, 3) uint8
    probability (N, P, Q) of the true class; top_class (N, P, Q) and top_probability (N, P, Q): the most probable class
    activity (N, P, Q) of the map; layer; maps (N,) the maps' numbers; units (N, 2) row, column of their maxima
    clean_probability, clean_activity, clean_top_class (N,): without a square
    projections (N, s, s, 3): the map's maximum, projected; others (N, K, s, s, 3): the same map for images of other
    classes, other_images (N, K, s, s, 3) uint8 and other_labels (N, K)
`claims.npz`, for the M images that the claims are measured on: rows (M,) of the validation split; probability_drop and
activity_drop (M, P, Q); energy (M, P, Q): the projection's energy below the square; where the truth is known, cover
(M, P, Q): the object's share of the square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from zfrepro import statistics
from zfrepro.errors import require, require_layer
from zfrepro.evaluator import pictures as choice
from zfrepro.evaluator.pictures import Pictures, Survey
from zfrepro.figures.occlusion import draw_claims, draw_occlusion
from zfrepro.files import digest
from zfrepro.knowledge import knows_its_task
from zfrepro.models.network import Network
from zfrepro.models.partial import collect, occluded_features, square_positions
from zfrepro.models.window import project
from zfrepro.options.commands import OccludeConfig
from zfrepro.results import Output, writing
from zfrepro.run import TrainedRun, open_run
from zfrepro.statistics import Measure, Missing, correlation, signed_rank, standard_error


@dataclass(frozen=True)
class Slide:
    """The square and where it goes: the positions are starts x starts."""

    square: int  # side in pixels
    stride: int
    starts: list[int]  # offsets of its top left corner, down and across
    fill: Tensor  # (3, s, s): what it shows, place by place
    layer: int  # whose map is watched


@dataclass(frozen=True)
class Maps:
    """What one image gives at P x P positions; floats are float64."""

    map: int
    unit: tuple[int, int]  # row, column of the map's maximum in the clean image
    activity: np.ndarray  # (P, P): the map's sum over space
    probability: np.ndarray  # (P, P) of the true class; here and below NaN and -1 where the network has no softmax
    top_class: np.ndarray  # (P, P) int64
    top_probability: np.ndarray  # (P, P)
    clean_activity: float
    clean_probability: float
    clean_top_class: int

    @property
    def strongest(self) -> tuple[int, int, int]:
        """The unit of the map's maximum: map, row, column."""
        return self.map, *self.unit


def occlude(config: OccludeConfig) -> None:
    """Write `fig7_occlusion/`: the figure, its arrays and the claims' numbers."""
    run = open_run(config)
    slide = slide_of(run, config)
    own = choice.own_pictures(run, config.images, config.labels) if config.images else None
    given = digest(own.images, own.labels) + "-" if own else ""
    with writing(config.folder / "fig7_occlusion", config, run.checkpoint_hash, inputs=given + run.data.key) as out:
        if out is None:
            return
        seen = choice.survey(run, slide.layer, config.seed)
        shown = own or choice.chosen(run, seen, config.num_images)
        inputs = run.inputs(shown.images)
        maps = [slide_over(run.network, image, int(label), slide) for image, label in zip(inputs, shown.labels)]
        metrics: dict[str, Any] = {
            "layer": slide.layer,
            "square": slide.square,
            "positions": len(slide.starts) ** 2,
            "fill": config.fill,
            "images": [_summary(run, *one) for one in zip(shown.names, maps, shown.titles)],
        }
        _draw(out, run, shown, slide, maps, _projections(run, seen, shown, slide, maps, config.others))
        which, missing = choice.measured_on(seen, config.claims_images)
        measures: dict[str, Measure] = dict.fromkeys(
            NAMES, Missing(f"{choice.ENOUGH} images are needed, claims_images=<n>")
        )
        if len(which) >= choice.ENOUGH:
            claims, arrays = measure_claims(run, seen, slide, which, missing)
            out.arrays("claims.npz", **arrays)
            out.figure("claims.png", draw_claims(claims))
            metrics["claims"] = claims
            measures = estimates(arrays, missing)
        out.done(metrics, measures, knows_its_task(run, seen.wrong))
        _print(metrics)


def slide_of(run: TrainedRun, config: OccludeConfig) -> Slide:
    """The square's side, stride and positions for this run's input size. Raises UserError for impossible ones."""
    size = run.network.input_size
    square = config.square or max(1, round(size * 50 / 224))
    stride = config.stride or max(1, round(size * 8 / 224))
    require("square", square, square <= size, f"at most the side of the network's input, {size} pixels")
    layer = run.network.conv_layers[-1] if config.layer is None else config.layer
    require_layer("layer", layer, run.network.conv_layers)
    fill = choice.fill_input(run, config.fill, config.seed)
    return Slide(square, stride, square_positions(size, square, stride), fill, layer)


# --------------------------------------------------------------------------------------------------------- one image


@torch.no_grad()
def slide_over(network: Network, image: Tensor, label: int, slide: Slide) -> Maps:
    """All maps of one image (3, s, s) in one pass over the positions. label: ignored where the network has no softmax."""
    wanted = [slide.layer, *([network.softmax] if network.softmax else [])]
    clean = network.features(image[None], wanted)
    layer = clean[slide.layer][0]
    number = int(layer.amax((1, 2)).argmax())
    place = int(layer[number].argmax())

    def reduce(found: dict[int, Tensor]) -> Tensor:
        """(N, 4): the map's activity, the true class's probability, the most probable class and its probability."""
        activity = found[slide.layer][:, number].double().sum((1, 2))
        if network.softmax is None:
            nothing = [torch.full_like(activity, value) for value in (torch.nan, -1, torch.nan)]
            return torch.stack([activity, *nothing], 1)
        probabilities = found[network.softmax].double().softmax(1)
        top = probabilities.max(1)
        return torch.stack([activity, probabilities[:, label], top.indices.double(), top.values], 1)

    stream = occluded_features(network, image, slide.fill, slide.square, slide.starts, slide.starts, wanted)
    side = len(slide.starts)
    activity, probability, classes, top = collect(stream, reduce).T.reshape(4, side, side).numpy()
    before = reduce(clean)[0].tolist()
    return Maps(
        map=number,
        unit=divmod(place, layer.shape[2]),
        activity=activity,
        probability=probability,
        top_class=classes.astype(np.int64),
        top_probability=top,
        clean_activity=before[0],
        clean_probability=before[1],
        clean_top_class=int(before[2]),
    )


STACKED = (
    "probability", "top_class", "top_probability", "activity", "clean_probability", "clean_activity", "clean_top_class",
)  # fmt: skip


def stacked(maps: Sequence[Maps]) -> dict[str, np.ndarray]:
    """Several images' maps as arrays, by the names that they have in `arrays.npz`."""
    places = {"maps": np.array([m.map for m in maps]), "units": np.array([m.unit for m in maps])}
    return places | {name: np.stack([getattr(m, name) for m in maps]) for name in STACKED}


def projected(network: Network, images: Tensor, layer: int, units: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """One unit of each image (map, row, column), projected: (N, s, s, 3), both signs."""
    return project(network, images, layer, units, range(len(units))).permute(0, 2, 3, 1).cpu().numpy()


def other_images(seen: Survey, number: int, label: int, count: int) -> np.ndarray:
    """Numbers (into the survey) of the images that excite a map most, of classes other than `label` and one another."""
    order = torch.argsort(seen.strongest[:, number], descending=True).numpy()
    order = order[seen.labels[order] != label]
    _, first = np.unique(seen.labels[order], return_index=True)
    return order[np.sort(first)[:count]]


# ------------------------------------------------------------------------------------------------------------ claims


def covers(starts: Sequence[int], square: int, size: int) -> np.ndarray:
    """(P, size): 1 where position p's square covers the place, along one axis."""
    place = np.arange(size)
    corner = np.asarray(starts)[:, None]
    return ((place >= corner) & (place < corner + square)).astype(np.float64)


def below_square(pixels: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Sum of pixels (size, size) below the square at each position, (P, P). cover: from `covers`."""
    return cover @ pixels @ cover.T


def heat_map(drop: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Mean drop of the positions that cover a pixel, (size, size); pixels that no square covers get 0. drop: (P, P)."""
    counts = cover.T @ np.ones_like(drop) @ cover
    return (cover.T @ drop @ cover) / np.maximum(counts, 1)


def correlations(drops: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) of each image's drop with what lies below the square, over positions, and with what lies below it in the next image;
    NaN where one of them is the same everywhere. drops, below: (M, P, P)."""
    own, others = (
        np.array([correlation(drop, given) for drop, given in zip(drops, several)])
        for several in (below, np.roll(below, -1, 0))
    )
    return own, others


def measure_claims(
    run: TrainedRun, seen: Survey, slide: Slide, which: np.ndarray, missing: str = ""
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The two claims of Fig. 7 over the images `which` of the survey: numbers, and arrays behind them. missing: why they have
    no probabilities that mean something, if they have none; those are left out then.

    Each comparison stands beside a control that knows nothing of the image at hand: the same with the next image's
    projection or mask. Objects sit near the middle; a measure must beat that to mean something.
    """
    split = run.squares.val
    inputs = run.inputs(split.images[seen.rows[which]])
    pairs = zip(inputs, seen.labels[which].tolist())
    bar = tqdm(pairs, total=len(which), desc="claims of Fig. 7", unit="image", disable=None)
    maps = [slide_over(run.network, image, label, slide) for image, label in bar]
    cover = covers(slide.starts, slide.square, run.network.input_size)
    projections = projected(run.network, inputs, slide.layer, [m.strongest for m in maps])
    arrays = {
        "rows": seen.rows[which],
        "activity_drop": np.stack([m.clean_activity - m.activity for m in maps]),
        "energy": np.stack([below_square(energy, cover) for energy in (projections**2).sum(3)]),
        "ys": np.array(slide.starts),
        "xs": np.array(slide.starts),
        "square": np.array(slide.square),
    }
    claims: dict[str, Any] = {"images": len(which)}
    if missing:
        claims["probabilities"] = f"missing: {missing}"
    else:
        arrays["probability_drop"] = np.stack([m.clean_probability - m.probability for m in maps])
    falls = correlations(arrays["activity_drop"], arrays["energy"])
    claims["activity_falls_where_the_projection_is"] = _beside_control(*falls)
    if split.truth is not None:
        masks = run.crops(np.stack([split.truth.masks[row] for row in seen.rows[which]])).numpy() / 255.0
        arrays["cover"] = np.stack([below_square(mask, cover) for mask in masks]) / slide.square**2
        claims |= {} if missing else _mask_claims(arrays["probability_drop"], masks, arrays["cover"], cover)
    return claims, arrays


NAMES = ("object_correlation", "object_minus_other", "projection_correlation", "projection_minus_other")


def estimates(arrays: dict[str, np.ndarray], missing: str = "") -> dict[str, Measure]:
    """The numbers on which the claims about Fig. 7 rest: correlations over positions, and what they exceed those with the
    next image's object or projection by. arrays, missing: see `measure_claims`."""
    found: dict[str, Measure] = {}
    kinds = (("object", "probability_drop", "cover"), ("projection", "activity_drop", "energy"))
    for kind, drop, below in kinds:
        names = (f"{kind}_correlation", f"{kind}_minus_other")
        if below not in arrays or drop not in arrays:
            why = "needs images whose objects' masks are known: the embedded data set"
            found |= dict.fromkeys(names, Missing(why if below not in arrays else missing))
            continue
        own, other = correlations(arrays[drop], arrays[below])
        both = ~(np.isnan(own) | np.isnan(other))  # an image in which nothing falls has no correlation
        found[names[0]] = statistics.mean(own[both], "images")
        note = f"{own[both].mean():.2f} against {other[both].mean():.2f}" if both.any() else ""
        found[names[1]] = statistics.paired(own[both], other[both], "images", note=note, confidence=98)
    return found


def _mask_claims(drops: np.ndarray, masks: np.ndarray, covered: np.ndarray, cover: np.ndarray) -> dict[str, Any]:
    """Does the probability fall where the object is? drops, covered: (M, P, P); masks: (M, size, size) in [0, 1]."""
    heats, both = [heat_map(np.maximum(drop, 0), cover) for drop in drops], (masks, np.roll(masks, -1, 0))
    shares, hits = (
        [[100.0 * measure(heat, mask) for heat, mask in zip(heats, given)] for given in both]
        for measure in (share_inside, points_at)
    )
    return {
        "probability_falls_where_the_object_is": _beside_control(*correlations(drops, covered)),
        "drop_inside_mask_percent": _beside_control(*shares),
        "pointing_accuracy_percent": _beside_control(*hits),
        "mask_share_percent": float(100 * masks.mean()),  # what a drop that is spread evenly would score
    }


def share_inside(heat: np.ndarray, mask: np.ndarray) -> float:
    """Share of the heat that lies inside the mask (size, size) in [0, 1]; NaN without heat."""
    return float((heat * mask).sum() / heat.sum()) if heat.sum() > 0 else float("nan")


def points_at(heat: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the hottest pixel lies on the object (of equally hot ones the first)."""
    return bool(mask.flat[heat.argmax()] >= 0.5)


def _beside_control(own: Sequence[float] | np.ndarray, control: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Mean, spread and control of a measure, and the one-sided Wilcoxon signed-rank test that own > control."""
    a, b = np.array(own), np.array(control)
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    if len(a) < 2:
        return {"mean": float("nan"), "control": float("nan"), "images": len(a)}
    return {
        "mean": float(a.mean()),
        "standard_error": float(standard_error(a)),
        "std": float(a.std(ddof=1)),
        "control": float(b.mean()),
        "p_value": signed_rank(b, a),
        "images": len(a),
    }


# ------------------------------------------------------------------------------------------------------------- output


def _summary(run: TrainedRun, name: str, m: Maps, title: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "class": title, "map": m.map}
    if run.network.softmax is None:
        return found | {"clean_activity": m.clean_activity, "lowest_activity": float(m.activity.min())}
    lowest = np.unravel_index(m.probability.argmin(), m.probability.shape)
    return found | {
        "clean_probability": m.clean_probability,
        "lowest_probability": float(m.probability.min()),
        "class_there": run.class_names[int(m.top_class[lowest])],
    }


def _projections(
    run: TrainedRun, seen: Survey, shown: Pictures, slide: Slide, maps: list[Maps], count: int
) -> dict[str, np.ndarray]:
    """Panel (c): each image's projection, and those of its map for images of other classes."""
    network, val, side = run.network, run.squares.val, run.network.side(slide.layer)
    which = [other_images(seen, m.map, int(label), count) for m, label in zip(maps, shown.labels)]
    common = min(len(one) for one in which)  # few classes: not all images have as many others
    which = [one[:common] for one in which]
    rows = seen.rows[np.stack(which)]
    units = [[(m.map, *divmod(int(seen.places[n, m.map]), side)) for n in one] for m, one in zip(maps, which)]
    others = [projected(network, run.inputs(val.images[own]), slide.layer, them) for own, them in zip(rows, units)]
    images = run.crops(val.images[rows.ravel()]).numpy()
    return {
        "projections": projected(network, run.inputs(shown.images), slide.layer, [m.strongest for m in maps]),
        "others": np.stack(others),
        "other_images": images.reshape(*rows.shape, *images.shape[1:]),
        "other_labels": run.labels_of(val)[rows],
    }


def _draw(
    out: Output, run: TrainedRun, shown: Pictures, slide: Slide, maps: list[Maps], panel_c: dict[str, np.ndarray]
) -> None:
    """`occlusion.png` and `arrays.npz`, as the module's docstring has it."""
    arrays = {
        "images": run.crops(shown.images).numpy(),
        "names": np.array(shown.names),
        "labels": shown.labels,
        "class_names": np.array(run.label_names),
        "ys": np.array(slide.starts),
        "xs": np.array(slide.starts),
        "square": np.array(slide.square),
        "stride": np.array(slide.stride),
        "fill_pixels": choice.fill_pixels(run, slide.fill),
        "layer": np.array(slide.layer),
        **stacked(maps),
        **panel_c,
    }
    out.figure("occlusion.png", draw_occlusion(arrays, shown.titles, run.class_names))
    out.arrays("arrays.npz", **arrays)


def _print(metrics: dict[str, Any]) -> None:
    claims = metrics.get("claims", {})
    if missing := claims.get("probabilities"):
        print(f"probabilities: {missing}")
    for key, value in claims.items():
        if isinstance(value, dict) and "p_value" in value:
            control = f"control {value['control']:.2f}, p = {value['p_value']:.1e}"
            print(f"{key.replace('_', ' ')}: {value['mean']:.2f} ({control})")
