"""`zfrepro invariance`: translation, scale and rotation against features and output (paper, section 4.1, Fig. 5).

A transformation acts on the picture about its centre, and the network sees the centre crop of the result: a shift brings in
the rest of the picture first, and only then the fill, which is recorded with the result. Where the source has a higher
resolution than the packed picture (drawn pictures always, photographs if their files do) the picture is moved at up to
FINER times that resolution and then averaged down: bilinear resampling at the network's own would blur it, and features
answer to the blur. Each transformation has the same number of steps; one of them is the untouched picture, to which all
others are compared.

`arrays.npz`, for N images (those of the figure), T = 3 transformations (translation, scale, rotation), K steps:
    images (N, s, s, 3) uint8; names, labels (N,); class_names; layers (L,); steps (T, K): pixels down, factor, degrees
    distance (N, T, K, L): Euclidean, between the features of the transformed and the untouched image
    norm (N, L): of the untouched image's features; between (N - 1, L): their distance from the next image's
    probability (N, T, K) of the true class; NaN where the network has no softmax, as in claims.npz
    examples (N, T, 5, s, s, 3) uint8: the pictures at five of the steps, example_steps (T, 5)
`claims.npz`: distance, norm, between, probability, labels, rows of the validation images behind the claims.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from zfrepro import statistics
from zfrepro.data.transforms import centre_crop
from zfrepro.errors import require_layer
from zfrepro.evaluator import pictures as choice
from zfrepro.figures.invariance import draw_claims, draw_invariance
from zfrepro.files import digest
from zfrepro.forward import batch_size
from zfrepro.knowledge import knows_its_task
from zfrepro.options.commands import InvarianceConfig
from zfrepro.results import writing
from zfrepro.run import TrainedRun, open_run
from zfrepro.statistics import Measure, Missing, r_squared, standard_error

TRANSFORMATIONS = ("translation", "scale", "rotation")
BORDERS = {"mean": "zeros", "grey": "zeros", "black": "zeros", "edge": "border", "reflect": "reflection"}
FINER = (2, 4)  # times the packed resolution at which pictures are moved, the highest that their source has
EXAMPLES = 5  # steps that the figure shows as pictures


@dataclass(frozen=True)
class Curves:
    """What N images give; numpy float64. T transformations, K steps, L layers."""

    distance: np.ndarray  # (N, T, K, L)
    norm: np.ndarray  # (N, L)
    probability: np.ndarray  # (N, T, K)
    between: np.ndarray  # (N - 1, L): distance between the untouched features of an image and of the next one


def invariance(config: InvarianceConfig) -> None:
    """Write `fig5_invariance/`: the figure, its arrays and the claims' numbers."""
    run = open_run(config)
    layers = list(config.layers) or [run.network.feature_layers[0], run.network.feature_layers[-1]]
    for layer in layers:
        require_layer("layers", layer, run.network.feature_layers)
    own = choice.own_pictures(run, config.images, config.labels) if config.images else None
    given = digest(own.images, own.labels) + "-" if own else ""
    with writing(config.folder / "fig5_invariance", config, run.checkpoint_hash, inputs=given + run.data.key) as out:
        if out is None:
            return
        seen = choice.survey(run, run.network.conv_layers[-1], config.seed)
        shown = own or choice.chosen(run, seen, config.num_images, wrong_ones=True)
        steps = step_values(config, run.network.input_size)
        fine = choice.finely(run, shown, config.images, FINER)
        curves = measure(run, fine, shown.labels, steps, layers, config)
        pictures, at = example_pictures(run, fine, steps, config.fill)
        figure = draw_invariance(shown.titles, pictures, at, steps, curves.distance, curves.probability, layers)
        out.figure("invariance.png", figure)
        out.arrays(
            "arrays.npz",
            images=run.crops(shown.images).numpy(),
            names=np.array(shown.names),
            labels=shown.labels,
            class_names=np.array(run.label_names),
            layers=np.array(layers),
            steps=steps,
            examples=pictures,
            example_steps=at,
            **vars(curves),
        )
        metrics: dict[str, Any] = {"layers": layers, "fill": config.fill, "images": shown.titles}
        which, missing = choice.measured_on(seen, config.claims_images)
        measures: dict[str, Measure] = dict.fromkeys(
            NAMES, Missing(f"{choice.ENOUGH} images are needed, claims_images=<n>")
        )
        if len(which) >= choice.ENOUGH:
            many = choice.take(run, seen.rows[which])
            fine = choice.finely(run, many, [], FINER)
            curves = measure(run, fine, many.labels, steps, layers, config)
            if missing:
                curves = dataclasses.replace(curves, probability=np.full_like(curves.probability, np.nan))
            metrics["claims"] = claims_of(curves, steps, layers) | (
                {"probabilities": f"missing: {missing}"} if missing else {}
            )
            metrics["claims"]["moved_at"] = fine.shape[1] // run.mean.shape[0]  # times the packed resolution
            measures = estimates(curves, steps, layers, missing)
            out.figure(
                "claims.png",
                draw_claims(steps, curves.distance / curves.norm[:, None, None], curves.probability, layers),
            )
            out.arrays(
                "claims.npz", rows=many.rows, labels=many.labels, steps=steps, layers=np.array(layers), **vars(curves)
            )
        out.done(metrics, measures, knows_its_task(run, seen.wrong))
        _print(metrics)


def step_values(config: InvarianceConfig, size: int) -> np.ndarray:
    """(3, K): pixels down, magnification, degrees counter-clockwise; the paper's -60..60 px are of 224.

    Shifts are whole pixels where the steps are wide enough: a fraction of a pixel blurs the picture, and features answer
    to the blur.
    """
    shift = config.translation if config.translation is not None else 60 / 224 * size
    shifts = np.linspace(-shift, shift, config.steps)
    return np.stack(
        [
            np.round(shifts) if shifts[1] - shifts[0] >= 1 else shifts,
            np.linspace(1, config.scale, config.steps),
            np.linspace(0, config.rotation, config.steps),
        ]
    )


def untouched(steps: np.ndarray) -> list[int]:
    """The step of each transformation that changes nothing: no shift, factor 1, 0 degrees."""
    return [steps.shape[1] // 2, 0, 0]


# ---------------------------------------------------------------------------------------------------- transformations


def matrices(kind: str, steps: np.ndarray) -> Tensor:
    """(K, 2, 3): for each step the map from a place of the result to the place of the picture that it shows, (x, y) in
    pixels from the centre, y down."""
    found = torch.zeros(len(steps), 2, 3, dtype=torch.float64)
    value = torch.from_numpy(np.asarray(steps, dtype=np.float64))
    found[:, 0, 0] = found[:, 1, 1] = 1
    if kind == "translation":
        found[:, 1, 2] = -value
    elif kind == "scale":
        found[:, 0, 0] = found[:, 1, 1] = 1 / value
    else:
        turn = value * math.pi / 180
        # Counter-clockwise on the screen, where y is down.
        found[:, 0, 0] = found[:, 1, 1] = turn.cos()
        found[:, 0, 1], found[:, 1, 0] = -turn.sin(), turn.sin()
    return found


def transform(images: Tensor, matrix: Tensor, border: Tensor | None, padding: str = "zeros", factor: int = 1) -> Tensor:
    """images (B, f S, f S, 3), f = `factor`, as `matrix` (B, 2, 3) has it, in units of f pixels: (B, S, S, 3) float32 pixels,
    sampled bilinearly at f^2 places a pixel and averaged.

    border: (S, S, 3) pixels that show where the picture does not reach; None: `padding` of grid_sample decides.
    """
    fine = images.shape[1]
    place = (torch.arange(fine, dtype=torch.float64) - (fine - 1) / 2) / factor
    y, x = torch.meshgrid(place, place, indexing="ij")
    target = torch.stack([x, y, torch.ones_like(x)], -1)  # (f S, f S, 3)
    source = torch.einsum("bij,yxj->byxi", matrix, target) * (2 * factor / fine)  # grid_sample's, align_corners=False
    source = source.float().to(images.device)
    pixels = images.permute(0, 3, 1, 2).float()
    sampled = F.avg_pool2d(F.grid_sample(pixels, source, "bilinear", padding, align_corners=False), factor)
    if border is not None:
        reached = F.grid_sample(torch.ones_like(pixels[:, :1]), source, "bilinear", "zeros", align_corners=False)
        sampled = sampled + (1 - F.avg_pool2d(reached, factor)) * border.permute(2, 0, 1)
    return sampled.permute(0, 2, 3, 1)


def border_of(run: TrainedRun, fill: str) -> Tensor | None:
    """What shows beyond the picture: (S, S, 3) pixels, or None where the picture itself is continued."""
    if BORDERS[fill] != "zeros":
        return None
    return run.mean if fill == "mean" else torch.full_like(run.mean, {"grey": 128.0, "black": 0.0}[fill])


# ------------------------------------------------------------------------------------------------------------ measuring


@torch.no_grad()
def measure(
    run: TrainedRun, images: np.ndarray, labels: np.ndarray, steps: np.ndarray, layers: list[int],
    config: InvarianceConfig,
) -> Curves:  # fmt: skip
    """All steps of all transformations of all images (N, f S, f S, 3), in batches and in the run's precision."""
    factor, top = images.shape[1] // run.mean.shape[0], run.network.softmax
    matrix = torch.cat([matrices(kind, values) for kind, values in zip(TRANSFORMATIONS, steps)])  # (T * K, 2, 3)
    still = untouched(steps)[0]  # one untouched step serves all transformations: they agree there
    border, wanted = border_of(run, config.fill), [*layers, *([top] if top else [])]
    most = min(config.batch_size, batch_size(run.network, wanted, run.device.type))

    def features(pictures: Tensor, moves: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features (n, D) of each layer for pictures moved by `moves` (n, 2, 3), and probabilities (n, C)."""
        moved = transform(pictures, moves, border, BORDERS[config.fill], factor)
        with run.autocast():
            found = run.network.features(centre_crop(moved, run.mean, run.network.input_size, run.scale), wanted)
        softmax = found[top].float().softmax(1) if top else torch.full((len(moved), 1), torch.nan)
        return [found[layer].float().flatten(1) for layer in layers], softmax

    distance = torch.zeros(len(images), len(matrix), len(layers), dtype=torch.float64)
    norm = torch.zeros(len(images), len(layers), dtype=torch.float64)
    probability = torch.full(distance.shape[:2], torch.nan, dtype=torch.float64)
    between: list[Tensor] = []
    last: list[Tensor] = []  # the untouched features of the image before
    with tqdm(total=distance[..., 0].numel(), desc="Fig. 5", unit=" images", disable=None, leave=False) as bar:
        for number in range(len(images)):
            picture = torch.from_numpy(images[number : number + 1]).to(run.device)
            calm, _ = features(picture, matrix[still : still + 1])
            norm[number] = torch.cat([one.norm(dim=1) for one in calm])
            between += [torch.cat([(one - before).norm(dim=1) for one, before in zip(calm, last)])] if last else []
            last = calm
            for chosen in torch.arange(len(matrix)).split(most):
                found, softmax = features(picture.expand(len(chosen), -1, -1, -1), matrix[chosen])
                distance[number, chosen] = (
                    torch.stack([(f - c).norm(dim=1) for f, c in zip(found, calm)], 1).cpu().double()
                )
                probability[number, chosen] = softmax[:, labels[number] if top else 0].cpu().double()
                bar.update(len(chosen))
    distance = distance.unflatten(1, steps.shape)
    for t, place in enumerate(untouched(steps)):
        distance[:, t, place] = 0  # the same picture, whatever rounding makes of it in batches of another size
    apart = torch.stack(between).cpu().double() if between else torch.zeros(0, len(layers)).double()
    return Curves(distance.numpy(), norm.numpy(), probability.unflatten(1, steps.shape).numpy(), apart.numpy())


def example_pictures(
    run: TrainedRun, images: np.ndarray, steps: np.ndarray, fill: str
) -> tuple[np.ndarray, np.ndarray]:
    """What the network sees at EXAMPLES evenly spread steps: (N, T, 5, s, s, 3) uint8, and the steps' values (T, 5)."""
    index = np.linspace(0, steps.shape[1] - 1, EXAMPLES).round().astype(int)
    at = steps[:, index]
    border, rows, factor = border_of(run, fill), [], images.shape[1] // run.mean.shape[0]
    for kind, values in zip(TRANSFORMATIONS, at):
        matrix = matrices(kind, values).repeat(len(images), 1, 1)
        repeated = torch.from_numpy(images).to(run.device).repeat_interleave(EXAMPLES, 0)
        moved = transform(repeated, matrix, border, BORDERS[fill], factor).round().clamp(0, 255).to(torch.uint8)
        crops = run.crops(moved.cpu())
        rows.append(crops.unflatten(0, (len(images), EXAMPLES)))
    return torch.stack(rows, 1).numpy(), at


# --------------------------------------------------------------------------------------------------------------- claims


def turned(kind: str, values: np.ndarray, still: int) -> np.ndarray:
    """How far each step (K,) is from the untouched one, with its sign; a full turn changes nothing."""
    change = values - values[still]
    return (change + 180) % 360 - 180 if kind == "rotation" else change


def linearity(change: np.ndarray, curve: np.ndarray) -> float:
    """R^2 of straight lines through a curve (K,), one for either direction of the change (K,); their mean.

    Both directions begin at the untouched picture, but need not rise alike.
    """
    arms = [arm for arm in (change >= 0, change <= 0) if arm.sum() > 2]
    found = [r_squared(np.abs(change[arm]), curve[arm]) for arm in arms]
    return float(np.mean(found)) if found else float("nan")


def claims_of(curves: Curves, steps: np.ndarray, layers: list[int]) -> dict[str, Any]:
    """The claims of Fig. 5 in numbers, over N images.

    small_step: the smallest step; relative_distance: to the norm of the untouched features; of_between_images: to the
    mean distance between different images' features; linearity_r2: of the mean curve against the size of the change,
    see `linearity`; probability_loss: mean over steps and images of what the true class loses, in
    percentage points; kept: the mean probability as a share of the untouched picture's, in percent. Without
    probabilities (NaN) the last two are not there.
    """
    norm = np.where(curves.norm > 0, curves.norm, np.nan)  # of a dead layer there is no relative distance
    relative = curves.distance / norm[:, None, None]
    found: dict[str, Any] = {"images": len(relative)}
    for t, (kind, still) in enumerate(zip(TRANSFORMATIONS, untouched(steps))):
        change = turned(kind, steps[t], still)
        small = relative[:, t, still + 1]  # (N, L)
        clean = curves.probability[:, t, still]
        others = change != 0
        loss = 100 * (clean[:, None] - curves.probability[:, t])[:, others].mean(1)
        one: dict[str, Any] = {"small_step": float(abs(change[still + 1]))}
        for i, layer in enumerate(layers):
            one[f"layer{layer}_relative_distance_small_step"] = float(small[:, i].mean())
            one[f"layer{layer}_relative_distance_small_step_std"] = float(small[:, i].std(ddof=1))
            between = float(curves.between[:, i].mean())
            of_between = float(curves.distance[:, t, still + 1, i].mean()) / between if between else float("nan")
            one[f"layer{layer}_small_step_of_between_images"] = of_between
            one[f"layer{layer}_linearity_r2"] = linearity(change, relative[:, t, :, i].mean(0))
            per_image = np.array([linearity(change, curve) for curve in relative[:, t, :, i]])
            per_image = per_image[~np.isnan(per_image)]  # features that no step moves have no curve
            known = len(per_image)
            one[f"layer{layer}_linearity_r2_single_images"] = float(per_image.mean()) if known else math.nan
            one[f"layer{layer}_linearity_r2_single_images_std"] = (
                float(per_image.std(ddof=1)) if known > 1 else math.nan
            )
        if not np.isnan(loss).all():
            one["probability_loss_points"] = float(loss.mean())
            one["probability_loss_points_standard_error"] = float(standard_error(loss))
            one["probability_kept_percent"] = float(100 * curves.probability[:, t][:, others].mean() / clean.mean())
        found[kind] = one
    return found


CLAIMED = ("translation", "scale")  # the transformations under which the paper finds the network stable
NAMES = (*(f"{kind}_{what}" for kind in CLAIMED for what in ("first_minus_top", "r2", "kept")), "rotation_kept")


def estimates(curves: Curves, steps: np.ndarray, layers: list[int], missing: str = "") -> dict[str, Measure]:
    """The numbers on which the claims about Fig. 5 rest, over N images: see `claims_of`. missing: why there are no
    probabilities, if there are none."""
    found: dict[str, Measure] = {}
    first, top = (pick(range(len(layers)), key=lambda i: layers[i]) for pick in (min, max))
    for t, (kind, still) in enumerate(zip(TRANSFORMATIONS, untouched(steps))):
        change = turned(kind, steps[t], still)
        moved = curves.probability[:, t][:, change != 0].mean(1)
        clean = curves.probability[:, t, still]
        kept = Missing(missing) if missing else statistics.bootstrap(_kept, moved, clean, of="images", unit="%")
        found[f"{kind}_kept"] = kept
        if kind not in CLAIMED:
            continue
        names = (f"{kind}_first_minus_top", f"{kind}_r2")
        silent = [layers[i] for i in (first, top) if np.median(curves.norm[:, i]) == 0]
        if silent or first == top:
            dead = [f"layer {layer} is dead: most images excite no unit of it" for layer in silent]
            found |= dict.fromkeys(names, Missing([*dead, "two layers are needed, layers=[a,b]"][0]))
            continue
        alive = (curves.norm[:, [first, top]] > 0).all(1)
        relative = curves.distance[alive, t] / curves.norm[alive][:, None]  # (n, K, L)
        small = relative[:, still + 1]
        note = ", ".join(f"layer {layers[i]}: {small[:, i].mean():.2f}" for i in (first, top))
        lines = np.array([linearity(change, curve) for curve in relative[:, :, top]])
        found[names[0]] = statistics.paired(small[:, first], small[:, top], "images", note=note)
        found[names[1]] = statistics.mean(lines[~np.isnan(lines)], "images")  # what no step moves has no curve
    return found


def _kept(moved: np.ndarray, clean: np.ndarray) -> float:
    """Mean probability as a share of the untouched pictures', in percent."""
    return float(100 * moved.mean() / clean.mean())


def _print(metrics: dict[str, Any]) -> None:
    for kind in TRANSFORMATIONS:
        if one := metrics.get("claims", {}).get(kind):
            parts = []
            for layer in metrics["layers"]:
                small, line = one[f"layer{layer}_relative_distance_small_step"], one[f"layer{layer}_linearity_r2"]
                moves = f"moves by {small:.2f} (R2 of the curve {line:.2f})" if np.isfinite(small + line) else "is dead"
                parts.append(f"layer {layer} {moves}")
            loss = one.get("probability_loss_points")
            falls = "" if loss is None else f"; the true class loses {loss:.1f} points on average"
            print(f"{kind}: the first step, {', '.join(parts)}{falls}")
    if missing := metrics.get("claims", {}).get("probabilities"):
        print(f"probabilities: {missing}")
