"""Intervals and tests against simulation, hand-made numbers and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from zfrepro import statistics
from zfrepro.statistics import Estimate, Measure, Missing, from_data, needed, to_data


def found(measure: Measure) -> Estimate:
    """The estimate, which must be one."""
    assert isinstance(measure, Estimate)
    return measure


def rate(hits: list[bool]) -> tuple[float, float]:
    """The share of hits, and two standard errors of it."""
    share = float(np.mean(hits))
    return share, 2 * math.sqrt(max(share, 0.01) / len(hits))


# ------------------------------------------------------------------------------------------------------- against scipy


def test_mean_is_students() -> None:
    values = [1.0, 2.5, 2.0, 4.0, 3.5]
    ends = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    one = found(statistics.mean(values, "images"))
    assert (one.low, one.high) == pytest.approx(ends) and (one.n, one.df) == (5, 4)
    wide = found(statistics.mean(values, "images", confidence=98))
    assert wide.high == pytest.approx(stats.t.interval(0.98, 4, np.mean(values), stats.sem(values))[1])


def test_welch_is_scipys() -> None:
    a, b = [40.0, 41.0, 43.0, 39.5], [38.0, 38.5, 37.0]
    test = stats.ttest_ind(a, b, equal_var=False)
    one = found(statistics.welch(a, b, "nets"))
    assert one.df == pytest.approx(test.df)
    assert (one.low, one.high) == pytest.approx(tuple(test.confidence_interval()))
    assert one.n == 3


def test_a_single_value_borrows_the_spread_that_groups_share() -> None:
    """By hand: squares of deviations 2 and 8 + 8 in groups of two and three."""
    groups = [[40.0, 42.0], [7.0], [10.0, 14.0, 12.0], []]
    assert statistics.pooled(groups) == pytest.approx(((2 + 8) / 3, 3)) and statistics.pooled([[1.0], []]) is None
    a = [40.0, 42.0]
    one = found(statistics.welch(a, [7.0], "nets", spread=(10 / 3, 3)))
    half = math.sqrt(10 / 3 * (1 / 2 + 1))
    assert (one.value, one.high - one.value) == pytest.approx((34, half * stats.t.ppf(0.975, 3))), "one spread, not two"
    both = found(statistics.welch([9.0], [7.0], "nets", spread=(10 / 3, 3)))
    assert both.high - both.value == pytest.approx(math.sqrt(20 / 3) * stats.t.ppf(0.975, 3)), "one spread, not two"
    assert found(statistics.welch([9.0], [7.0], "nets")).low == -math.inf
    assert found(statistics.welch(a, [7.0], "nets")).low == -math.inf


@pytest.mark.parametrize("rows", [1, 3])
def test_equal_nets_are_not_told_apart_by_a_borrowed_spread(rows: int) -> None:
    """One net against three, the spread of their own row alone, or of three rows: different in at most 2.5 % of cases."""
    generator, hits = np.random.default_rng(1), []
    for _ in range(1500):
        drawn = generator.normal(0, 1, (rows, 3))
        spread = statistics.pooled(list(drawn))
        hits.append(found(statistics.welch(drawn[0], generator.normal(0, 1, 1), "nets", spread=spread)).low > 0)
    share, error = rate(hits)
    assert share <= 0.025 + error


def test_paired_is_scipys() -> None:
    a, b = np.array([3.0, 4.0, 6.0, 8.0]), np.array([2.0, 4.5, 5.0, 5.0])
    one = found(statistics.paired(a, b, "images"))
    assert (one.low, one.high) == pytest.approx(tuple(stats.ttest_rel(a, b).confidence_interval()))


def test_proportion_is_wilsons() -> None:
    one = found(statistics.proportion(7, 20, "images"))
    ends = stats.binomtest(7, 20).proportion_ci(method="wilson")
    assert (one.value, one.low, one.high) == pytest.approx((35, 100 * ends.low, 100 * ends.high))
    none, every = (found(statistics.proportion(count, 20, "images")) for count in (0, 20))
    assert none.low == 0 and none.high > 10 and every.high == 100 and every.low < 90


def test_nets_and_images() -> None:
    """By hand: two nets of each kind on four images."""
    a = np.array([[1, 1, 0, 0], [1, 1, 1, 0]])
    b = np.array([[1, 0, 0, 0], [0, 0, 0, 0]])
    one = found(statistics.nets(a, b))
    assert one.value == pytest.approx(100 * (5 / 8 - 1 / 8))
    over_nets = (25**2 / 2 / 2) + (25**2 / 2 / 2)  # errors 50, 75 and 25, 0
    by_image = np.array([50.0, 100.0, 50.0, 0.0])
    total = over_nets + by_image.var(ddof=1) / 4
    assert (one.high - one.value) / stats.t.ppf(0.975, one.df) == pytest.approx(math.sqrt(total))
    assert found(statistics.nets(a[:1], b)).low == -math.inf, "a single net has no spread"
    same = found(statistics.same_nets(a[:1], b[:1]))
    assert (same.of, same.n, same.value) == ("images", 4, 25)
    both = found(statistics.same_nets(a, b))  # 25 and 75 points of the two nets
    assert (both.of, both.n, both.value) == ("nets", 2, 50)
    total = by_image.var(ddof=1) / 4 + np.var([25.0, 75.0], ddof=1) / 2
    assert (both.high - both.value) / stats.t.ppf(0.975, both.df) == pytest.approx(math.sqrt(total))
    one_of_each = found(statistics.same_nets(a, b, kinds=["d", "e"]))
    assert (one_of_each.of, one_of_each.n, one_of_each.value) == ("images", 4, 50)
    half = stats.t.ppf(0.975, 3) * by_image.std(ddof=1) / 2
    assert one_of_each.high - 50 == pytest.approx(half), "what differs between kinds is no chance"
    four = found(statistics.same_nets(np.concatenate([a, a]), np.concatenate([b, b]), kinds=["d", "d", "e", "e"]))
    total = by_image.var(ddof=1) / 4 + np.var([25.0, 75.0], ddof=1) / 4
    assert (four.high - four.value) / stats.t.ppf(0.975, four.df) == pytest.approx(math.sqrt(total))


# ------------------------------------------------------------------------------------------------------ what they promise


def test_welch_finds_a_gap_of_two_standard_deviations() -> None:
    """In about 10 % of cases with two nets of each kind and 37 % with three; a gap of none in 2.5 % at most."""
    generator = np.random.default_rng(0)
    for count, power in ((2, 0.10), (3, 0.37)):
        for gap, expected in ((2.0, power), (0.0, 0.025)):
            hits = []
            for _ in range(1500):
                a, b = generator.normal(gap, 1, count), generator.normal(0, 1, count)
                hits.append(found(statistics.welch(a, b, "nets")).low > 0)
            share, error = rate(hits)
            assert share <= expected + error and (gap == 0 or share >= expected - error), (count, gap, share)


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_equal_classifiers_are_not_told_apart_by_resplits(folds: int) -> None:
    """Two classifiers that are equal on all images there are, not on those of the pool: at most 2.5 % are called different.

    With the folds' own spread alone it is far more, the more folds the more."""
    generator, pool, train = np.random.default_rng(folds), 400, 300
    corrected, naive = [], []
    for _ in range(1200):
        favour = generator.normal(0, 1, pool)  # how far an image favours the first; 0 at large
        gaps = []
        for _ in range(folds):
            test = generator.permutation(pool)[train:]
            gaps.append(favour[test].mean() + generator.normal(0, 0.03))
        corrected.append(found(statistics.resplits(gaps, train, pool - train)).low > 0)
        naive.append(found(statistics.mean(gaps, "folds")).low > 0)
    share, error = rate(corrected)
    assert share <= 0.025 + error
    if folds > 2:
        assert np.mean(naive) > 0.06


def test_averaging_gains_what_it_gains() -> None:
    """Nets whose outputs are the truth and noise of their own: the interval holds the gain at large in 95 % of cases."""
    generator, count, images, classes = np.random.default_rng(0), 4, 120, 3

    def draw(images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        logits = generator.normal(0, 1, (images, classes))
        logits[:, 0] += 1.2  # the true class
        outputs = (
            logits + generator.normal(0, 1.0, (count, images, classes)) + generator.normal(0, 0.2, (count, 1, classes))
        )
        total = outputs.sum(0)
        return outputs.argmax(2) != 0, total.argmax(1) != 0, (total - outputs).argmax(2) != 0

    truth = np.mean([100 * (w.mean() - t.mean()) for w, t, _ in (draw(4000) for _ in range(40))])
    held, above = [], []
    for _ in range(400):
        one = found(statistics.averaging(*draw(images)))
        held.append(one.low <= truth <= one.high)
        above.append(one.low > 0)
    assert truth > 2
    assert rate(held)[0] >= 0.95 - rate(held)[1] / 2 and np.mean(above) > 0.1
    assert found(statistics.averaging(*(part[:2] if part.ndim == 2 else part for part in draw(50)))).low == -math.inf


def test_averaging_by_hand() -> None:
    """Four nets on six images: the variance over images, and the jackknife's over nets, by loops."""
    generator = np.random.default_rng(3)
    wrong, rest = generator.random((2, 4, 6)) < 0.5
    together = generator.random(6) < 0.3
    one = found(statistics.averaging(wrong, together, rest))
    by_image = [100 * (wrong[:, j].mean() - together[j]) for j in range(6)]
    left = [100 * np.mean([wrong[k].mean() for k in range(4) if k != i]) - 100 * rest[i].mean() for i in range(4)]
    over_images = np.var(by_image, ddof=1) / 6
    over_nets = 3 / 4 * sum((value - np.mean(left)) ** 2 for value in left)
    half = (one.high - one.low) / 2
    assert one.value == pytest.approx(np.mean(by_image))
    assert half / stats.t.ppf(0.975, one.df) == pytest.approx(math.sqrt(over_images + over_nets))
    df = (over_images + over_nets) ** 2 / (over_images**2 / 5 + over_nets**2 / 3)
    assert one.df == pytest.approx(df)


def test_bootstrap_agrees_with_students_on_a_mean() -> None:
    values = np.random.default_rng(0).normal(5, 2, 200)
    own = found(statistics.bootstrap(lambda v: v.mean(), values, of="images", draws=1000))
    other = found(statistics.mean(values, "images"))
    assert (own.low, own.high) == pytest.approx((other.low, other.high), abs=0.06)
    pairs = found(statistics.bootstrap(lambda a, b: a.mean() / b.mean(), values, 2 * values, of="images", draws=200))
    assert pairs.low == pairs.high == pytest.approx(0.5), "rows stay together"
    assert found(statistics.bootstrap(lambda v: v.mean(), np.ones(9), of="images", draws=50)).exact
    least = found(statistics.bootstrap(lambda v: float(len(np.unique(v))), np.arange(60.0), of="images", draws=200))
    assert least.value == 60 and least.low < 45, "every draw lies below the value: that is no certainty"


# ----------------------------------------------------------------------------------------------------------- how many


def test_how_many_would_decide() -> None:
    """The count at which scipy's own interval first leaves the bound."""
    one = found(statistics.mean([-1.0, 1.0, 3.0], "nets"))  # mean 1, standard deviation 2
    count = needed(one, 0)
    assert count is not None
    reach = {n: stats.t.ppf(0.975, n - 1) * 2 / math.sqrt(n) for n in (count - 1, count)}
    assert reach[count] < 1 <= reach[count - 1]
    assert needed(one, 1) is None and needed(statistics.exact(1, "filters"), 0) is None
    assert needed(found(statistics.mean([1.0], "nets")), 0) is None


def test_how_many_of_each_would_decide_between_groups_of_unlike_size() -> None:
    """The count at which scipy's interval between two groups of that size, that mean and that spread first leaves zero."""

    def apart(count: int, gap: float) -> bool:
        values = np.linspace(-1, 1, count)
        values *= 3 / values.std(ddof=1)
        return bool(stats.ttest_ind(values + gap, values, equal_var=False).confidence_interval().low > 0)

    three, six = np.array([-3.0, 0, 3]), np.array([-1.0, 1, 1, -1, 0, 0]) * math.sqrt(45 / 4)
    assert three.var(ddof=1) == pytest.approx(9) == six.var(ddof=1)
    for gap in (2.5, 4.0, 5.0):
        pairs = (([gap], six), ([gap], [0.0]), (three + gap, six), (six + gap, three))
        for measure in (statistics.welch(a, b, "nets", spread=(9.0, 7)) for a, b in pairs):
            count = needed(found(measure), 0)
            assert count is not None and apart(count, gap) and not apart(count - 1, gap), (gap, measure)


def test_unlike_groups_and_the_images_that_they_share() -> None:
    """Two nets and three on four images: of the variance of a gap between groups of n, the nets' part is their variances' sum
    over n, the images' stays."""
    a = np.array([[1, 1, 0, 0], [1, 1, 1, 0]])
    b = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]])
    one = found(statistics.nets(a, b))
    by_net = 312.5 + 625.0  # of the errors 50, 75 and 25, 0, 50
    images = np.var(100 * (a.mean(0) - b.mean(0)), ddof=1) / 4
    assert one.size is not None and one.size == pytest.approx(by_net / (312.5 / 2 + 625 / 3))
    assert one.shared == pytest.approx(images / by_net)
    reach = (one.high - one.value) / stats.t.ppf(0.975, one.df)
    assert reach**2 == pytest.approx(by_net * (1 / one.size + one.shared))
    assert from_data(to_data(one)) == one


def test_no_number_of_folds_decides_what_the_pool_cannot() -> None:
    """Half as many test as training images: of the variance s^2 (1 / J + 1 / 2) a half stays whatever J is."""
    gaps = [0.0, 1.0, 2.0, 1.0]  # s^2 = 2 / 3: 1.96 s / sqrt(2) = 1.13
    assert needed(found(statistics.resplits(gaps, 200, 100)), 0) is None
    assert needed(found(statistics.resplits(gaps, 1000, 100)), 0) is not None


def test_no_number_of_nets_decides_what_the_images_cannot() -> None:
    """Forty images, of which each net of one kind misses a quarter or more, those of the other a fifth: the variance over
    images stays, however many nets; ten times the images tell."""
    a, b = np.zeros((2, 3, 40), dtype=bool)
    a[:, :10] = a[0, 10] = b[:, 6:14] = True
    ways = [statistics.nets, statistics.same_nets, lambda a, b: statistics.averaging(a, b[0], b)]
    for compare in ways:
        one = found(compare(a, b))
        assert one.low < 0 and needed(one, 0) is None
        assert needed(found(compare(np.tile(a, 10), np.tile(b, 10))), 0) is not None
        assert from_data(to_data(one)) == one
    same = found(statistics.nets(a[1:], b[1:]))  # nothing differs between nets: not one more helps
    assert needed(same, 0) is None and from_data(to_data(same)) == same


def test_the_part_of_the_images_by_hand() -> None:
    """Two nets of each kind on four images, as above: variances 416.7 over images, 312.5 over nets."""
    a, b = np.array([[1, 1, 0, 0], [1, 1, 1, 0]]), np.array([[1, 0, 0, 0], [0, 0, 0, 0]])
    assert found(statistics.nets(a, b)).shared == pytest.approx((5000 / 3 / 4) / (2 * 312.5))


# ------------------------------------------------------------------------------------------------------------- the rest


def test_no_nan_is_an_estimate() -> None:
    for ends in ((math.nan, 0, 1), (0, math.nan, 1), (2, 0, 1), (math.inf, 0, math.inf)):
        with pytest.raises(ValueError):
            Estimate(*ends, n=3, of="nets")
    with pytest.raises(ValueError):
        statistics.mean([1.0, math.nan], "images")
    assert isinstance(statistics.mean([], "images"), Missing)
    assert isinstance(statistics.welch([1.0], [], "nets"), Missing)


def test_data_and_back() -> None:
    for measure in (
        statistics.mean([1.0, 2.0], "nets", "points", "a note"),
        statistics.mean([1.0], "nets"),
        statistics.resplits([1.0, 3.0], 10, 5),
        statistics.exact(3, "filters"),
        Missing("no masks"),
    ):
        assert from_data(to_data(measure)) == measure
    whole = {"value": 0, "low": 0, "high": 1, "n": 1, "of": "nets"}
    wrong = ({"value": "x"}, {"of": 3}, {"note": 3}, {"df": "x"}, {"df": []})
    for bad in (None, 3, {}, {"value": 1}, *({**whole, **one} for one in wrong)):
        with pytest.raises(ValueError):
            from_data(bad)


def test_chance() -> None:
    assert not statistics.below_chance(94.9, 1000, 95.0) and not statistics.below_chance(94.0, 500, 95.0)
    assert statistics.below_chance(90.0, 1000, 95.0) and not statistics.below_chance(90.0, 40, 95.0)


def test_straight_lines_and_ranks() -> None:
    x = np.array([0.0, 1.0, 2.0, 3.0])
    assert statistics.r_squared(x, 3 - 2 * x) == pytest.approx(1)
    y = np.array([0.0, 1.0, 1.0, 5.0])
    assert statistics.r_squared(x, y) == pytest.approx(stats.linregress(x, y).rvalue ** 2)
    assert statistics.r_squared(x, np.array([0.0, 1, 0, 1])) == pytest.approx(0.2)
    assert math.isnan(statistics.r_squared(x, np.ones(4)))
    assert statistics.correlation(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert math.isnan(statistics.correlation(x, np.ones(4)))
    assert statistics.rank_correlation([1, 2, 3, 4, 5, 7], [40, 50, 60, 65, 70, 69]) == pytest.approx(1 - 6 * 2 / 210)
    assert statistics.signed_rank(x, x) == 1 and statistics.signed_rank(x, x + 1) == pytest.approx(
        stats.wilcoxon(x, x + 1, alternative="less").pvalue
    )
