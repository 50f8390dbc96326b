"""Numbers with their uncertainty: every interval, test and spread of the project, on scipy.

An interval covers the true value with 95 % confidence unless it says otherwise. What varies is named: nets that differ by
their seed, folds of a pool, images, maps. Values that share images or seeds are compared in pairs.
"""

from __future__ import annotations

import bisect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 95.0  # percent, two-sided
MOST = 10**6  # that `needed` asks for
GUESSES = 5  # of which one may be right: the top-5 error


@dataclass(frozen=True)
class Estimate:
    """A number with its interval. An end is infinite where no spread is known: of a single net, say.

    `n` counts what `of` says (nets, folds, images, maps). Raises ValueError for a value that is no finite number.
    """

    value: float
    low: float
    high: float
    n: int
    of: str
    unit: str = ""
    note: str = ""  # what the number is made of, in words
    confidence: float = CONFIDENCE
    df: float | None = None  # degrees of freedom behind the interval; None: many
    shared: float = 0.0  # part of a value's variance that no larger n takes away, see `resplits` and `lasting`
    size: float | None = None  # of two groups that are compared: see `even`; None: n

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or math.isnan(self.low) or math.isnan(self.high):
            raise ValueError(f"no finite number: {self}")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"the value lies outside its interval: {self}")

    @property
    def exact(self) -> bool:
        """Counted rather than estimated, or without any spread."""
        return self.low == self.high

    @property
    def bounded(self) -> bool:
        """Whether a spread is known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Missing:
    """A number that could not be measured, and why, in a line that says what is needed."""

    why: str


Measure = Estimate | Missing


def to_data(measure: Measure) -> dict[str, Any]:
    """As JSON holds it; an infinite end becomes None."""
    data = asdict(measure)
    return {key: None if isinstance(value, float) and math.isinf(value) else value for key, value in data.items()}


def from_data(data: Any) -> Measure:
    """The inverse of `to_data`. Raises ValueError for anything else."""
    if not isinstance(data, Mapping):
        raise ValueError(f"no estimate: {data}")
    if isinstance(data.get("why"), str):
        return Missing(data["why"])
    ends = {"low": -math.inf, "high": math.inf}
    given: dict[str, Any] = {key: ends.get(key) if value is None else value for key, value in data.items()}
    try:
        for key in NUMBERS & given.keys():
            given[key] = float(given[key])
        if given.get("df") is not None:
            given["df"] = float(given["df"])
        if not all(isinstance(given.get(key, ""), str) for key in ("of", "unit", "note")):
            raise TypeError("words are needed")
        return Estimate(**{**given, "n": int(given["n"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"no estimate: {error}") from error


NUMBERS = {"value", "low", "high", "confidence", "shared"}


# ------------------------------------------------------------------------------------------------------------ intervals


def quantile(df: float | None, confidence: float = CONFIDENCE) -> float:
    """How many standard errors an interval reaches to either side: Student's t, or the normal's where df is None."""
    share = 0.5 + confidence / 200
    return float(stats.norm.ppf(share) if df is None else stats.t.ppf(share, df))


def exact(value: float, of: str, unit: str = "", note: str = "") -> Estimate:
    """A number that is counted, not estimated: how many filters of a network are dead."""
    return Estimate(float(value), float(value), float(value), 1, of, unit, note)


def combined(
    value: float, sources: Sequence[tuple[float, float]], n: int, of: str, unit: str = "", note: str = "",
    confidence: float = CONFIDENCE, shared: float = 0.0, size: float | None = None,
) -> Estimate:  # fmt: skip
    """An estimate whose variance is the sum of independent sources, each (variance, degrees of freedom).

    Degrees of freedom by Welch and Satterthwaite. A source without degrees of freedom (a single net) makes the interval
    infinite.
    """
    if any(df < 1 for _, df in sources):
        return Estimate(float(value), -math.inf, math.inf, n, of, unit, note, confidence)
    total = sum(variance for variance, _ in sources)
    weights = sum(variance**2 / df for variance, df in sources)
    df = total**2 / weights if weights > 0 else None
    half = quantile(df, confidence) * math.sqrt(total)
    return Estimate(float(value), value - half, value + half, n, of, unit, note, confidence, df, shared, size)


def lasting(falling: float, constant: float, n: float) -> float:
    """`Estimate.shared` for n nets on images that all of them share: of the two variances of their mean only the first
    falls with n."""
    return constant / (n * max(falling, 1e-9 * constant)) if constant else 0.0


def even(spreads: Sequence[float], counts: Sequence[int]) -> float | None:
    """How large equal groups are whose means differ by chance as much as those of groups of these sizes; None where nothing
    varies. spreads: the variances of a single value."""
    total = sum(spread / count for spread, count in zip(spreads, counts))
    return sum(spreads) / total if total > 0 else None


def variance(values: np.ndarray) -> float:
    """Of the sample; 0 for a single value."""
    return float(np.var(values, ddof=1)) if len(values) > 1 else 0.0


def mean(
    values: Sequence[float] | np.ndarray, of: str, unit: str = "", note: str = "", confidence: float = CONFIDENCE
) -> Measure:
    """The mean of independent values, by Student's t."""
    given = np.asarray(values, dtype=np.float64)
    if not len(given):
        return Missing(f"no {of} to measure on")
    sources = [(variance(given) / len(given), len(given) - 1)]
    return combined(float(given.mean()), sources, len(given), of, unit, note, confidence)


def paired(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, of: str, unit: str = "", note: str = "",
    confidence: float = CONFIDENCE,
) -> Measure:  # fmt: skip
    """The mean of a - b, where a[i] and b[i] share an image, a seed or a fold."""
    return mean(np.subtract(a, b), of, unit, note, confidence)


def pooled(groups: Sequence[Sequence[float] | np.ndarray]) -> tuple[float, int] | None:
    """The variance within groups that all of them share, and its degrees of freedom; None where no group has two values."""
    several = [np.asarray(values, dtype=np.float64) for values in groups if len(values) > 1]
    df = sum(len(values) - 1 for values in several)
    return (sum((len(values) - 1) * variance(values) for values in several) / df, df) if df else None


def welch(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, of: str, unit: str = "", note: str = "",
    spread: tuple[float, int] | None = None,
) -> Measure:  # fmt: skip
    """The mean of a minus the mean of b, two independent groups whose spreads may differ (Welch's t); n: of the smaller.

    spread: (variance, degrees of freedom) of a single value, where a group has but one (`pooled`); None: not known, and the
    interval is then infinite. Both groups are then given it: the other group's own spread may be a part of it, and one
    spread taken for two independent ones would make the interval too short.
    """
    groups = [np.asarray(values, dtype=np.float64) for values in (a, b)]
    if not all(map(len, groups)):
        return Missing(f"no {of} to compare")
    counts, spreads = [len(values) for values in groups], [variance(values) for values in groups]
    if min(counts) > 1:
        sources = [(own / count, count - 1) for own, count in zip(spreads, counts)]
    else:
        borrowed, df = spread or (0.0, 0)
        spreads = [borrowed, borrowed]
        sources = [(borrowed * sum(1 / count for count in counts), df)]
    value = float(groups[0].mean() - groups[1].mean())
    return combined(value, sources, min(counts), of, unit, note, size=even(spreads, counts))


def resplits(
    values: Sequence[float] | np.ndarray, train: int, test: int, unit: str = "", note: str = "", of: str = "folds"
) -> Measure:
    """The mean over random re-splits of one pool into `train` and `test` images (Nadeau and Bengio 2003, section 4).

    Folds share images, so that their spread alone makes equal classifiers look different, the more so the more folds
    there are. The corrected variance of a mean over J folds is s^2 (1 / J + test / train), with J - 1 degrees of freedom.
    """
    given = np.asarray(values, dtype=np.float64)
    if not len(given):
        return Missing(f"no {of} to measure on")
    share = test / train
    sources = [(variance(given) * (1 / len(given) + share), len(given) - 1)]
    return combined(float(given.mean()), sources, len(given), of, unit, note, shared=share)


def proportion(count: int, n: int, of: str) -> Measure:
    """A share in percent, with Wilson's interval."""
    if not n:
        return Missing(f"no {of} to measure on")
    found = stats.binomtest(count, n).proportion_ci(CONFIDENCE / 100, method="wilson")
    value = 100 * count / n
    return Estimate(value, min(value, 100 * found.low), max(value, 100 * found.high), n, of, "%")


def bootstrap(
    statistic: Callable[..., float], *samples: np.ndarray, of: str, unit: str = "", note: str = "", draws: int = 2000
) -> Measure:
    """statistic(*samples), where row i of every sample belongs together; the interval from resampled rows (BCa)."""
    n = len(samples[0])
    if not n:
        return Missing(f"no {of} to measure on")
    value = float(statistic(*samples))
    if n < 2:
        return Estimate(value, -math.inf, math.inf, n, of, unit, note)
    rows = np.arange(n)

    def drawn(chosen: np.ndarray) -> float:
        return float(statistic(*(sample[chosen] for sample in samples)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where all draws are alike
        found = stats.bootstrap(
            (rows,), drawn, vectorized=False, n_resamples=draws, confidence_level=CONFIDENCE / 100, random_state=0
        )
    # Where all draws are alike, or all lie on one side of the value, BCa has no ends: the percentiles have.
    plain = np.percentile(found.bootstrap_distribution, [50 - CONFIDENCE / 2, 50 + CONFIDENCE / 2])
    ends = [end if math.isfinite(end) else float(other) for end, other in zip(found.confidence_interval, plain)]
    return Estimate(value, min(value, float(ends[0])), max(value, float(ends[1])), n, of, unit, note)


# ----------------------------------------------------------------------------------------------------- nets and images


def nets(a: np.ndarray, b: np.ndarray, note: str = "") -> Measure:
    """Error of one kind of net minus another's, in percent points: (k, N) and (m, N), True where a net is wrong on an image.

    Both the nets, drawn by their seeds, and the images, which all of them share, might have been others: the variances of
    the two add up.
    """
    wrong = [np.atleast_2d(np.asarray(one, dtype=np.float64)) * 100 for one in (a, b)]
    by_image = wrong[0].mean(0) - wrong[1].mean(0)
    spreads, counts = [variance(one.mean(1)) for one in wrong], [len(one) for one in wrong]
    sources = [(spread / count, count - 1) for spread, count in zip(spreads, counts)]
    images, size = variance(by_image) / len(by_image), even(spreads, counts)
    shared = lasting(sum(each for each, _ in sources), images, size or min(counts))
    sources.append((images, len(by_image) - 1))
    return combined(float(by_image.mean()), sources, min(counts), "nets", "points", note, shared=shared, size=size)


def same_nets(a: np.ndarray, b: np.ndarray, note: str = "", kinds: Sequence[str] | None = None) -> Measure:
    """Error of nets used one way minus the same nets' used another way, in percent points: (k, N) each, True where wrong.

    kinds: which of the nets are alike but for their seeds; None: all of them. What differs between kinds is no chance. A single
    net of each says something about itself: the interval is then over images alone.
    """
    differences = 100 * (np.atleast_2d(np.asarray(a, dtype=np.float64)) - np.atleast_2d(b))
    by_image, by_net = differences.mean(0), differences.mean(1)
    sources = [(variance(by_image) / len(by_image), len(by_image) - 1)]
    names = np.array(kinds or [""] * len(by_net))
    spread = pooled([by_net[names == name] for name in np.unique(names)])
    if spread:
        shared = lasting(spread[0] / len(by_net), sources[0][0], len(by_net))
        sources.append((spread[0] / len(by_net), spread[1]))
        return combined(float(by_image.mean()), sources, len(by_net), "nets", "points", note, shared=shared)
    return combined(float(by_image.mean()), sources, len(by_image), "images", "points", note)


def averaging(wrong: np.ndarray, together: np.ndarray, without: np.ndarray, note: str = "") -> Measure:
    """What k nets' average gains over one of them, in percent points: their mean error minus the error of their average.

    wrong: (k, N), True where a net alone is wrong on an image; together: (N,), where their average is; without: (k, N),
    where the average of all nets but one is. The average is made of the very nets that it is compared with: how far the
    gain varies from net to net is seen by leaving each out in turn (jackknife); to that adds its variance over images.
    """
    singles, average, rest = (np.asarray(one, dtype=np.float64) * 100 for one in (wrong, together, without))
    count = len(singles)
    by_image = singles.mean(0) - average
    if count < 3:
        return Estimate(float(by_image.mean()), -math.inf, math.inf, count, "nets", "points", note)
    left = (singles.sum(0) - singles) / (count - 1) - rest
    images, nets = variance(by_image) / len(by_image), (count - 1) ** 2 / count * variance(left.mean(1))
    sources, shared = [(images, len(by_image) - 1), (nets, count - 1)], lasting(nets, images, count)
    return combined(float(by_image.mean()), sources, count, "nets", "points", note, shared=shared)


# ------------------------------------------------------------------------------------------------------------ decisions


def needed(estimate: Estimate, bound: float) -> int | None:
    """How many of what the estimate counts, of two groups in each, would tell on which side of `bound` the true value lies, if
    value and spread stay as they are. None where no number would, or where no spread is known."""
    distance = abs(estimate.value - bound)
    half = estimate.high - estimate.value if estimate.value < bound else estimate.value - estimate.low
    if not math.isfinite(half) or half <= 0 or distance <= 0:
        return None
    part = 1 / (estimate.size or estimate.n) + estimate.shared
    spread = half / quantile(estimate.df, estimate.confidence) / math.sqrt(part)
    # A single net's spread is lent by others; two groups of several have their own.
    each = 2.0 if estimate.n < 2 else (estimate.df or 0) / (estimate.n - 1)

    def reach(n: int) -> float:
        df = None if estimate.df is None else each * (n - 1)
        return quantile(df, estimate.confidence) * spread * math.sqrt(1 / n + estimate.shared)

    counts = range(2, MOST)
    place = bisect.bisect_left(counts, True, key=lambda n: reach(n) < distance)
    return counts[place] if place < len(counts) else None


def below_chance(error: float, n: int, chance: float) -> bool:
    """Whether an error in percent on n images is clearly below that of guessing: Wilson's interval lies below it."""
    found = proportion(round(error * n / 100), n, "images")
    return bool(isinstance(found, Estimate) and found.high < chance)


# -------------------------------------------------------------------------------------------------- spreads, fits, tests


def has_top5(classes: int) -> bool:
    """Whether five guesses leave a class out; a top-5 error says something only then."""
    return classes > GUESSES


def remark_on_top5(classes: int) -> str:
    """What a table says of its top-5 errors, behind its other sentences; '' where they say something."""
    return "" if has_top5(classes) else f" Five guesses name all {classes} classes: a top-5 error says nothing of them."


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation of the sample (None for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def standard_error(values: np.ndarray) -> np.ndarray:
    """Of the mean over the first axis; 0 for a single value."""
    spread: np.ndarray = values.std(0, ddof=1 if len(values) > 1 else 0) / np.sqrt(len(values))
    return spread


def r_squared(x: np.ndarray, y: np.ndarray) -> float:
    """Of the straight line of least squares through the points; NaN for a constant y."""
    spread = ((y - y.mean()) ** 2).sum()
    if spread == 0:
        return float("nan")
    slope, offset = np.polyfit(x, y, 1)
    return float(1 - ((y - slope * x - offset) ** 2).sum() / spread)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, over all entries; NaN where one of them is constant."""
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's; NaN where one of them is constant."""
    if len(set(a)) < 2 or len(set(b)) < 2:
        return float("nan")
    return float(stats.spearmanr(a, b).statistic)


def signed_rank(low: np.ndarray, high: np.ndarray) -> float:
    """p of Wilcoxon's one-sided signed-rank test that pairs have low < high; 1 where all are equal."""
    if not np.any(low != high):
        return 1.0
    return float(stats.wilcoxon(low, high, alternative="less", zero_method="zsplit").pvalue)
