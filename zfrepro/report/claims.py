"""What the measurements say about the paper's claims: pure functions of the experiments' `metrics.json`.

`paper.CLAIMS` states each claim with its threshold; here is the function that applies it. A decision takes the metrics
of the claim's experiment and the claim's thresholds and returns what was measured and whether the rule is fulfilled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from scipy.stats import t as student

from zfrepro import paper
from zfrepro.paper import Claim

REPRODUCED, NOT_REPRODUCED, NOT_MEASURED = "reproduced", "not reproduced", "not measured"

Metrics = Mapping[str, Any]
Thresholds = Mapping[str, float]


@dataclass(frozen=True)
class Decision:
    """What was measured, in words and as numbers, and whether the claim's rule is fulfilled."""

    fulfilled: bool
    measured: str
    numbers: dict[str, float]


@dataclass(frozen=True)
class Finding:
    """A claim with its verdict; `numbers` is empty where it was not measured, and `measured` then says why."""

    claim: Claim
    verdict: str
    measured: str
    numbers: dict[str, float]


class Unmeasured(Exception):
    """The metrics lack what decides the claim; the text says what."""


def judge(claim: Claim, metrics: Metrics | None) -> Finding:
    """The verdict on one claim. metrics: of its experiment, None where that was not run."""
    if metrics is None:
        return Finding(claim, NOT_MEASURED, "", {})
    try:
        decision = DECISIONS[claim.id](metrics, claim.thresholds)
    except Unmeasured as error:
        return Finding(claim, NOT_MEASURED, str(error), {})
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # written by another version
        return Finding(claim, NOT_MEASURED, f"the metrics are not as expected ({type(error).__name__}: {error})", {})
    verdict = REPRODUCED if decision.fulfilled else NOT_REPRODUCED
    return Finding(claim, verdict, decision.measured, decision.numbers)


def judge_all(metrics: Mapping[str, Metrics | None]) -> list[Finding]:
    """The verdicts on all claims. metrics: by the id of the figure or table, None or missing where it was not made."""
    return [judge(claim, metrics.get(claim.item)) for claim in paper.CLAIMS]


# -------------------------------------------------------------------------------------------------------------- reading


def get(metrics: Metrics, *path: str) -> float:
    """A finite number at `path`. Raises Unmeasured where there is none."""
    value: Any = metrics
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise Unmeasured(f"no {' / '.join(path).replace('_', ' ')} in the metrics")
    return float(value)


def beyond(mean: float, error: float, errors: float) -> bool:
    """Whether a mean is above zero by so many standard errors (by anything at all, where there is no spread)."""
    return mean > 0 and mean >= errors * error


def confident(mean: float, error: float, count: int, confidence: float) -> bool:
    """Whether a mean over `count` nets or folds is above zero with that confidence in percent (two-sided, Student's t)."""
    return beyond(mean, error, float(student.ppf(0.5 + confidence / 200, count - 1)))


def spread(mean: float, error: float, digits: int = 2) -> str:
    """'1.23 ± 0.45'."""
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def named(layer: str) -> str:
    """'layer5' as one writes it."""
    return layer.replace("layer", "layer ")


def layers_in(m: Metrics) -> list[str]:
    """The layers that the metrics are about: 'layer1', 'layer10'."""
    return [key for key in m if key.removeprefix("layer").isdigit() and key.startswith("layer")]


def number(layer: str) -> int:
    """10 of 'layer10'."""
    return int(layer.removeprefix("layer"))


def standard_error(values: Sequence[float], what: str) -> float:
    """Of the mean of several values. Raises Unmeasured for a single one, which has no spread."""
    if len(values) < 2:
        raise Unmeasured(f"{what}: {len(values)}; two or more are needed for a spread")
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


# ------------------------------------------------------------------------------------------------------ Figures 2, 4, 6


def parts_exaggerated(m: Metrics, t: Thresholds) -> Decision:
    """Fig. 2, with the truth known: the highest convolutional layer that was visualised."""
    layer = max(layers_in(m), key=number, default="layer5")
    last = get(m, layer, "last_layer")
    if "energy_minus_share" not in m[layer]:
        raise Unmeasured("needs images whose objects' masks are known: the embedded data set")
    if number(layer) < last:
        raise Unmeasured(f"layer {last:.0f} is not visualised")
    mean, error = get(m, layer, "energy_minus_share"), get(m, layer, "energy_minus_share_error")
    share, area = get(m, layer, "energy_on_object"), get(m, layer, "object_share_of_field")
    text = f"{spread(mean, error, 1)} points ({share:.1f} % of the energy on {area:.1f} % of the area; {named(layer)})"
    return Decision(beyond(mean, error, t["errors"]), text, {"difference": mean, "standard_error": error})


def renormalisation(m: Metrics, t: Thresholds) -> Decision:
    """Fig. 6(a)."""
    without, kept = (get(m, name, "rms_max_over_median") for name in ("without", "with"))
    strongest, median = get(m, "without", "rms_max"), get(m, "without", "rms_median")
    text = f"{without:.1f} (largest RMS {strongest:.2g}, median {median:.2g}); with renormalisation {kept:.1f}"
    fulfilled = without >= t["dominance"] and without >= t["against_with"] * kept
    return Decision(fulfilled, text, {"without": without, "with": kept})


def architectures(m: Metrics) -> tuple[str, str]:
    """Which of Fig. 6's networks is ZFNet and which AlexNet: the run's own and its sibling, either way round."""
    models = {name: str(m.get(name, {}).get("model", "")) for name in ("own", "sibling")}
    for zfnet, alexnet in (("own", "sibling"), ("sibling", "own")):
        if models[zfnet].startswith("zfnet") and models[alexnet].startswith("alexnet"):
            return zfnet, alexnet
    raise Unmeasured("a ZFNet and an AlexNet are needed")


def first_layer(m: Metrics, t: Thresholds) -> Decision:
    """Fig. 6(b) against (c)."""
    zfnet, alexnet = architectures(m)
    dead = [get(m, name, "dead_filters") for name in (zfnet, alexnet)]
    count = [get(m, name, "filters") for name in (zfnet, alexnet)]
    middle = [get(m, name, "middle") for name in (zfnet, alexnet)]
    errors = [get(m, name, "middle_error") for name in (zfnet, alexnet)]
    more, error = middle[0] - middle[1], math.hypot(*errors)
    text = (
        f"dead: ZFNet {dead[0]:.0f} of {count[0]:.0f}, AlexNet {dead[1]:.0f} of {count[1]:.0f}; middle band "
        f"{spread(more, error, 1)} points more ({middle[0]:.1f} % against {middle[1]:.1f} %)"
    )
    fulfilled = dead[0] / count[0] < dead[1] / count[1] and beyond(more, error, t["errors"])
    numbers = {"dead_zfnet": dead[0], "dead_alexnet": dead[1], "middle_difference": more, "standard_error": error}
    return Decision(fulfilled, text, numbers)


def aliasing(m: Metrics, t: Thresholds) -> Decision:
    """Fig. 6(d) against (e)."""
    names = architectures(m)
    zfnet, alexnet = (get(m, name, "grid_peak") for name in names)
    errors = [get(m, name, "grid_peak_error") for name in names]
    text = f"AlexNet {spread(alexnet, errors[1])}, ZFNet {spread(zfnet, errors[0])}"
    numbers = {"alexnet": alexnet, "alexnet_error": errors[1], "zfnet": zfnet, "zfnet_error": errors[0]}
    return Decision(alexnet >= t["peak"] and zfnet < t["peak"], text, numbers)


def convergence(m: Metrics, t: Thresholds) -> Decision:
    """Fig. 4: the lowest two layers against the highest two, over the first half of training."""
    names = ("difference", "difference_error", "lower_layers", "upper_layers")
    mean, error, lower, upper = (get(m, "first_half", name) for name in names)
    text = f"{spread(mean, error)} (lower layers {lower:.2f}, upper {upper:.2f})"
    numbers = {"difference": mean, "standard_error": error, "lower": lower, "upper": upper}
    return Decision(beyond(mean, error, t["errors"]), text, numbers)


# ------------------------------------------------------------------------------------------------------------ Figure 5


CLAIMED = ("translation", "scale")  # the transformations under which the paper finds the network stable


def first_and_last(m: Metrics) -> tuple[str, str]:
    """The layers that Fig. 5 compares: 'layer1', 'layer7'."""
    layers = sorted(m.get("layers") or [])
    if len(layers) < 2:
        raise Unmeasured("two layers are needed")
    return f"layer{layers[0]}", f"layer{layers[-1]}"


def small_changes(m: Metrics, t: Thresholds) -> Decision:
    """Fig. 5, columns 2 and 3, at the smallest step."""
    first, last = first_and_last(m)
    root = math.sqrt(get(m, "claims", "images"))
    parts, fulfilled = [], True
    numbers: dict[str, float] = {}
    for kind in CLAIMED:
        key = "relative_distance_small_step"
        low, high = (get(m, "claims", kind, f"{layer}_{key}") for layer in (first, last))
        error = math.hypot(*(get(m, "claims", kind, f"{layer}_{key}_std") / root for layer in (first, last)))
        fulfilled &= beyond(low - high, error, t["errors"])
        parts.append(f"{kind} {spread(low - high, error)} ({low:.2f} against {high:.2f})")
        numbers |= {f"{kind}_difference": low - high, f"{kind}_error": error}
    return Decision(fulfilled, ", ".join(parts), numbers)


def quasi_linear(m: Metrics, t: Thresholds) -> Decision:
    """Fig. 5, column 3: image by image."""
    _, last = first_and_last(m)
    parts: list[str] = []
    numbers: dict[str, float] = {}
    for kind in CLAIMED:
        mean = numbers[kind] = get(m, "claims", kind, f"{last}_linearity_r2_single_images")
        std = numbers[f"{kind}_std"] = get(m, "claims", kind, f"{last}_linearity_r2_single_images_std")
        curve = get(m, "claims", kind, f"{last}_linearity_r2")
        parts.append(f"{kind} {mean:.2f} (standard deviation {std:.2f} over images; of the mean curve {curve:.2f})")
    return Decision(all(numbers[kind] >= t["r2"] for kind in CLAIMED), ", ".join(parts), numbers)


def stability(m: Metrics, t: Thresholds) -> Decision:
    """Fig. 5, column 4."""
    parts, kept = [], {}
    for kind in (*CLAIMED, "rotation"):
        kept[kind] = get(m, "claims", kind, "probability_kept_percent")
        loss = get(m, "claims", kind, "probability_loss_points")
        error = get(m, "claims", kind, "probability_loss_points_standard_error")
        parts.append(f"{kind} {kept[kind]:.0f} % (loses {spread(loss, error, 1)} points)")
    fulfilled = all(kept[kind] > t["half"] for kind in CLAIMED) and kept["rotation"] < t["half"]
    return Decision(fulfilled, ", ".join(parts), kept)


# ------------------------------------------------------------------------------------------------------------- Figure 7


def covered(m: Metrics, t: Thresholds, key: str) -> Decision:
    """A correlation over positions, beside its control with another image's truth."""
    names = ("mean", "standard_error", "control", "p_value", "images")
    mean, error, control, p, images = (get(m, "claims", key, name) for name in names)
    text = f"{spread(mean, error)} over {images:.0f} images; with another image's {control:.2f} (p = {p:.1e})"
    fulfilled = mean >= t["correlation"] and mean > control and p < t["p"]
    return Decision(
        fulfilled, text, {"correlation": mean, "standard_error": error, "control": control, "p": p, "images": images}
    )


def object_covered(m: Metrics, t: Thresholds) -> Decision:
    """Fig. 7(d)."""
    return covered(m, t, "probability_falls_where_the_object_is")


def projection_covered(m: Metrics, t: Thresholds) -> Decision:
    """Fig. 7(b) and (c)."""
    return covered(m, t, "activity_falls_where_the_projection_is")


# ------------------------------------------------------------------------------------------------------------- Table 1


def correspondence(m: Metrics, t: Thresholds) -> Decision:
    """Table 1: the relative gap between parts and random places, over draws that share no image."""
    layers = sorted(layers_in(m), key=number)
    if len(layers) < 2:
        raise Unmeasured("two layers are needed")
    low, high = (100 * get(m, layer, "random_minus_parts_relative") for layer in (layers[0], layers[-1]))
    scale = low / get(m, layers[0], "random_minus_parts") if low else 0.0
    ends = [scale * get(m, layers[0], f"random_minus_parts_{end}") for end in ("low", "high")]
    draws = get(m, layers[0], "disjoint_draws")
    interval = f"95 %: {ends[0]:.1f} to {ends[1]:.1f}, {draws:.0f} draws"
    text = f"{named(layers[0])}: {low:.1f} % ({interval}); {named(layers[-1])}: {high:.1f} %"
    fulfilled = get(m, layers[0], "random_minus_parts_low") > 0 and high < t["share"] * low
    return Decision(fulfilled, text, {"lower_layer": low, "low": ends[0], "high": ends[1], "upper_layer": high})


# ------------------------------------------------------------------------------------------------------- Tables 2 and 3


def values_of(m: Metrics, variant: str, error: str = "val_top1_error") -> list[float]:
    """A row's errors, one a net. Raises Unmeasured where the row was not trained."""
    index = ("train_top1_error", "val_top1_error", "val_top5_error").index(error)
    runs = m.get("variants", {}).get(variant, {}).get("runs", {})
    if not runs:
        raise Unmeasured(f"{variant} is not trained")
    return [float(errors[index]) for errors in runs.values()]


def gap(m: Metrics, worse: str, better: str, error: str = "val_top1_error", less: str = "") -> tuple[float, float, int]:
    """Mean error of one row minus another's, its standard error over nets (the rows' nets are independent), and how
    many nets the smaller row has. less: another error to be taken off, net by net."""
    a, b = values_of(m, worse, error), values_of(m, better, error)
    if less:
        a, b = (list(np.subtract(v, values_of(m, row, less))) for v, row in ((a, worse), (b, better)))
    errors = standard_error(a, f"nets of {worse}"), standard_error(b, f"nets of {better}")
    return float(np.mean(a) - np.mean(b)), math.hypot(*errors), min(len(a), len(b))


def compared(m: Metrics, t: Thresholds, worse: str, better: str) -> Decision:
    """Whether one row's validation error is above another's."""
    mean, error, nets = gap(m, worse, better)
    a, b = np.mean(values_of(m, worse)), np.mean(values_of(m, better))
    text = f"{spread(mean, error, 1)} points ({a:.1f} % against {b:.1f} %; {nets} nets each)"
    fulfilled = confident(mean, error, nets, t["confidence"])
    return Decision(fulfilled, text, {"difference": mean, "standard_error": error, "nets": nets})


def architecture(m: Metrics, t: Thresholds) -> Decision:
    """Table 3: AlexNet against ZFNet."""
    return compared(m, t, "alexnet", "zfnet")


def wider_middle(m: Metrics, t: Thresholds) -> Decision:
    """Table 3: layers 3-5 at 512, 1024, 512 maps."""
    return compared(m, t, "zfnet", "zfnet_maps_512")


def depth(m: Metrics, t: Thresholds) -> Decision:
    """Table 3: AlexNet without layers 3, 4, 6, 7 against its next worst variant."""
    others = [name for name in m.get("variants", {}) if name.startswith("alexnet") and name != "alexnet_no_3_4_6_7"]
    if not others:
        raise Unmeasured("no other variant of AlexNet is trained")
    worst = max(others, key=lambda name: np.mean(values_of(m, name)))
    decision = compared(m, t, "alexnet_no_3_4_6_7", worst)
    return Decision(decision.fulfilled, f"{decision.measured}; next worst: {worst.replace('_', ' ')}", decision.numbers)


def wider_top(m: Metrics, t: Thresholds) -> Decision:
    """Table 3: layers 6 and 7 at 8192 units."""
    train, train_error, _ = gap(m, "zfnet", "zfnet_fc_8192", "train_top1_error")
    val, val_error, nets = gap(m, "zfnet", "zfnet_fc_8192")
    more, error, _ = gap(m, "zfnet", "zfnet_fc_8192", "train_top1_error", less="val_top1_error")
    text = (
        f"training {spread(train, train_error, 1)}, validation {spread(val, val_error, 1)}, the one minus the other "
        f"{spread(more, error, 1)} points ({nets} nets each)"
    )
    fits, overfits, gains = (
        confident(*one, nets, t["confidence"]) for one in ((train, train_error), (more, error), (val, val_error))
    )
    numbers = {"training": train, "training_error": train_error, "validation": val, "validation_error": val_error}
    return Decision(
        fits and overfits and not gains, text, numbers | {"difference": more, "standard_error": error, "nets": nets}
    )


def averaging(m: Metrics, t: Thresholds) -> Decision:
    """Table 2: the average of several nets' softmax outputs against the nets themselves."""
    averages = [name for name in m.get("runs", {}) if name.startswith("average of ")]
    if not averages:
        raise Unmeasured("no average of several nets; give zfrepro evaluate runs=[a,b,c]")
    together = get(m, "runs", averages[0], "val_top1_error")
    members = m.get("averaged") or [name for name in m["runs"] if name not in averages]
    singles = [get(m, "runs", name, "val_top1_error") for name in members]
    mean, error = float(np.mean(singles)) - together, standard_error(singles, "nets")
    single = f"mean of {len(singles)}: {np.mean(singles):.1f} %"
    text = f"{spread(mean, error, 1)} points ({single}, their average {together:.1f} %)"
    fulfilled = confident(mean, error, len(singles), t["confidence"])
    return Decision(fulfilled, text, {"difference": mean, "standard_error": error, "nets": len(singles)})


# ------------------------------------------------------------------------------------------------------- Tables 4 and 7


def transfer(m: Metrics, t: Thresholds) -> Decision:
    """Table 4: pre-trained minus from scratch, fold by fold, at 15 and at 30 images per class."""
    gaps = {}
    for size in ("15", "30"):
        pair = [m.get(kind, {}).get(size, {}).get("folds") for kind in ("pretrained", "scratch")]
        if not pair[0] or not pair[1]:
            raise Unmeasured(f"pre-trained and from scratch at {size} images per class are needed")
        gaps[size] = np.subtract(*pair)
    few, many = float(gaps["15"].mean()), float(gaps["30"].mean())
    errors = [standard_error(list(values), "folds") for values in gaps.values()]
    more, error = few - many, math.hypot(*errors)
    text = f"{spread(few, errors[0], 1)} points at 15, {spread(many, errors[1], 1)} at 30 ({len(gaps['15'])} folds)"
    numbers = {"gap_15": few, "gap_15_error": errors[0], "gap_30": many, "gap_30_error": errors[1]}
    more_at_few = confident(more, error, len(gaps["15"]), t["confidence"])
    return Decision(few >= t["points"] and more_at_few, text, numbers)


def deeper_is_better(m: Metrics, t: Thresholds) -> Decision:
    """Table 7: on every target set that was probed."""
    targets = {name: found["svm"] for name, found in m.items() if isinstance(found, Mapping) and found.get("svm")}
    if not targets:
        raise Unmeasured("no linear SVM was trained")
    parts, fulfilled = [], True
    numbers: dict[str, float] = {}
    for name, by_layer in targets.items():
        layers = sorted(by_layer, key=int)
        if len(layers) < 3:
            raise Unmeasured("three layers or more are needed")
        rank = float(spearmanr([int(layer) for layer in layers], [get(by_layer, n, "mean") for n in layers]).statistic)
        gaps = np.subtract(by_layer[layers[-1]]["folds"], by_layer[layers[0]]["folds"])
        gain, error = float(gaps.mean()), standard_error(list(gaps), "folds")
        fulfilled &= rank >= t["rank"] and confident(gain, error, len(gaps), t["confidence"])
        means = ", ".join(f"{get(by_layer, n, 'mean'):.1f}" for n in layers)
        parts.append(f"rank correlation {rank:.2f}, gain {spread(gain, error, 1)} points ({name}: {means} %)")
        numbers |= {f"{name}_rank": rank, f"{name}_gain": gain, f"{name}_error": error}
    return Decision(fulfilled, "; ".join(parts), numbers)


DECISIONS: dict[str, Callable[[Metrics, Thresholds], Decision]] = {
    "parts_exaggerated": parts_exaggerated,
    "renormalisation": renormalisation,
    "first_layer": first_layer,
    "aliasing": aliasing,
    "convergence": convergence,
    "small_changes": small_changes,
    "quasi_linear": quasi_linear,
    "stability": stability,
    "object_covered": object_covered,
    "projection_covered": projection_covered,
    "correspondence": correspondence,
    "architecture": architecture,
    "averaging": averaging,
    "depth": depth,
    "wider_middle": wider_middle,
    "wider_top": wider_top,
    "transfer": transfer,
    "deeper_is_better": deeper_is_better,
}
