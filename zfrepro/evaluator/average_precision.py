"""Average precision by the official definitions of PASCAL VOC."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from zfrepro import statistics
from zfrepro.statistics import Measure

DRAWS = 1000  # of the bootstrap


def average_precisions(scores: np.ndarray, truth: np.ndarray, levels: int | None = None) -> np.ndarray:
    """Area under the precision envelope over all recall levels (VOC 2010-2012), (C,) in [0, 1]; NaN without a positive image.

    scores: (N, C), higher is more confident. truth: (N, C) 1 present, 0 absent, -1 only 'difficult' objects of the class. The
    devkit gives the latter no say: they are neither right nor wrong. Of equal scores the first counts as the higher, as in
    the devkit's stable sort. levels: the mean of the envelope at so many equally spaced recall levels instead, 0 and 1
    included; 11 for VOC 2007. (scikit-learn takes no envelope.)
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    truth = np.take_along_axis(truth, order, 0)
    right = truth == 1
    found, seen = right.cumsum(0), (truth != -1).cumsum(0)
    precision = found / np.maximum(seen, 1)
    positives = right.sum(0)
    with np.errstate(invalid="ignore"):
        if levels is not None:
            # right images behind each
            needed = [np.ceil(level * positives - 1e-9) for level in np.linspace(0, 1, levels)]
            reached = [np.where(found >= least, precision, 0).max(0, initial=0) for least in needed]
            return np.where(positives > 0, np.mean(reached, axis=0), np.nan)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a higher one
        return (envelope * right).sum(0) / positives  # recall rises by 1 / positives at every right image


def mean_precision(scores: np.ndarray, truth: np.ndarray, levels: int | None = None) -> float:
    """Mean of the classes' average precisions, in [0, 1]; classes without a positive image left out. Both (N, C)."""
    found = average_precisions(scores, truth, levels)
    return float(np.nanmean(found)) if not np.isnan(found).all() else 0.0


def precision_gain(
    ours: np.ndarray, others: np.ndarray, truth: np.ndarray, of: str, levels: int | None = None
) -> Measure:
    """By how many points the mean average precision of one method's scores exceeds another's, with an interval over images or
    boxes (`of`). All (N, C), as in `average_precisions`."""

    def gain(ours: np.ndarray, others: np.ndarray, truth: np.ndarray) -> float:
        return 100 * (mean_precision(ours, truth, levels) - mean_precision(others, truth, levels))

    return statistics.bootstrap(gain, ranks(ours), ranks(others), truth, of=of, unit="points", draws=DRAWS)


def ranks(scores: np.ndarray) -> np.ndarray:
    """(N, C) each score's place among its class's, 1 for the lowest, equal ones alike. Small integers are sorted many times as
    fast, and a bootstrap sorts thousands of times."""
    kind = np.int16 if len(scores) < 2**15 else np.int32
    return np.asarray(rankdata(scores, "dense", axis=0)).astype(kind)
