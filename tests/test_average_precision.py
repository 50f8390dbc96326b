"""Average precision against hand-worked cases and against the devkit's procedure, written out step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from zfrepro import statistics
from zfrepro.evaluator.average_precision import average_precisions, mean_precision, precision_gain


def average_precision(scores: np.ndarray, truth: np.ndarray, levels: int | None = None) -> float:
    """Of one class, (N,) both."""
    return float(average_precisions(scores[:, None], truth[:, None], levels)[0])


def devkit(scores: np.ndarray, truth: np.ndarray) -> float:
    """VOCevalcls.m and VOCap.m of the VOC 2010-2012 devkit, line by line: difficult images count as neither tp nor fp."""
    order = np.argsort(-scores, kind="stable")
    tp, fp = np.cumsum(truth[order] == 1), np.cumsum(truth[order] == 0)
    recall = tp / (truth == 1).sum()
    precision = np.divide(tp, tp + fp, out=np.zeros(len(tp)), where=tp + fp > 0)
    mrec, mpre = np.r_[0, recall, 1], np.r_[0, precision, 0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    return float(sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)) if mrec[i] != mrec[i - 1]))


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ([1, 1, 0, 0], 1.0),  # the positives first
        ([0, 0, 1], 1 / 3),  # the only one last
        ([1, 0, 1], 0.5 * 1 + 0.5 * 2 / 3),
        ([0, 1, 1], 0.5 * 2 / 3 + 0.5 * 2 / 3),  # the envelope lifts the 1/2 at the first positive to the later 2/3
        ([0, 1, 0, 1, 1], 3 * (1 / 3) * 3 / 5),  # precisions 1/2, 2/4, 3/5: all lifted
        ([-1, 1, -1, 0, 1], 0.5 * 1 + 0.5 * 2 / 3),  # difficult images are not there
    ],
)
def test_hand_worked(truth: list[int], expected: float) -> None:
    scores = np.linspace(1, 0, len(truth))
    assert average_precision(scores, np.array(truth)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_devkit_on_random_lists_with_ties_and_difficult_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 60))
    truth = rng.choice([-1, 0, 1], count, p=[0.2, 0.5, 0.3])
    truth[0] = 1
    scores = rng.integers(0, 8, count) / 7.0  # many equal ones
    assert average_precision(scores, truth) == pytest.approx(devkit(scores, truth), abs=1e-12)


def test_the_envelope_is_what_scikit_learn_lacks() -> None:
    truth, scores = np.array([0, 1, 1]), np.array([3.0, 2.0, 1.0])
    assert average_precision_score(truth, scores) == pytest.approx(7 / 12)
    assert average_precision(scores, truth) == pytest.approx(8 / 12)


def test_a_class_without_positive_images_has_none() -> None:
    assert math.isnan(average_precision(np.array([1.0, 0.5]), np.array([0, -1])))


def devkit_2007(scores: np.ndarray, truth: np.ndarray) -> float:
    """VOCap.m of the VOC 2007 devkit: for t = 0:0.1:1, the largest precision at a recall of t or more."""
    order = np.argsort(-scores, kind="stable")
    tp, fp = np.cumsum(truth[order] == 1), np.cumsum(truth[order] == 0)
    recall = tp / (truth == 1).sum()
    precision = np.divide(tp, tp + fp, out=np.zeros(len(tp)), where=tp + fp > 0)
    return sum(max(precision[recall >= t - 1e-9]) / 11 for t in np.arange(11) / 10)


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ([1, 1, 0, 0], 1.0),
        ([0, 0, 1], 1 / 3),
        ([1, 0, 1], (6 * 1 + 5 * 2 / 3) / 11),  # levels 0 to 0.5 are reached by the first image
        ([0, 1, 1], 2 / 3),
        ([1, 0, 0, 1, 0, 1], (4 * 1 + 3 * 1 / 2 + 4 * 1 / 2) / 11),  # recall 1/3 covers 0 to 0.3
        ([-1, 1, -1, 0, 1], (6 * 1 + 5 * 2 / 3) / 11),
        ([1] * 3 + [0] * 4 + [1] * 7, (4 * 1 + 7 * 10 / 14) / 11),  # three of ten reach 0.3, whatever rounding says
    ],
)
def test_eleven_levels_by_hand(truth: list[int], expected: float) -> None:
    scores = np.linspace(1, 0, len(truth))
    assert average_precision(scores, np.array(truth), 11) == pytest.approx(expected, abs=1e-12)


def test_eleven_levels_follow_the_devkit() -> None:
    rng = np.random.default_rng(4)
    for count in (5, 10, 20, 83):
        scores, truth = rng.normal(size=count), rng.choice([-1, 0, 1], count, p=[0.1, 0.5, 0.4])
        truth[0] = 1
        assert average_precision(scores, truth, 11) == pytest.approx(devkit_2007(scores, truth), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 11])
def test_all_classes_at_once_are_each_alone(levels: int | None) -> None:
    rng = np.random.default_rng(1)
    scores, truth = rng.integers(0, 9, (40, 6)).astype(float), rng.choice([-1, 0, 1], (40, 6))
    truth[:, 4] = 0  # no positive image
    found = average_precisions(scores, truth, levels)
    assert math.isnan(found[4])
    np.testing.assert_allclose(found, [average_precision(s, t, levels) for s, t in zip(scores.T, truth.T)])


@pytest.mark.parametrize("levels", [None, 11])
def test_gain_is_the_difference_and_its_interval_the_plain_scores(levels: int | None) -> None:
    rng = np.random.default_rng(5)
    truth = rng.choice([-1, 0, 1], (30, 4))
    ours, others = np.round(rng.normal(size=(2, 30, 4)) + 0.7 * (truth == 1), 1)  # some are equal
    found = precision_gain(ours, others, truth, "images", levels)
    expected = statistics.bootstrap(
        lambda a, b, marks: 100 * (mean_precision(a, marks, levels) - mean_precision(b, marks, levels)),
        ours, others, truth, of="images", unit="points", draws=1000,
    )  # fmt: skip
    assert found == expected
    assert isinstance(found, statistics.Estimate) and found.low < found.value < found.high
