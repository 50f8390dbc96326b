"""Average precision by the official definitions of PASCAL VOC."""

from __future__ import annotations

import numpy as np


def average_precision(scores: np.ndarray, truth: np.ndarray, levels: int | None = None) -> float:
    """Area under the precision envelope over all recall levels (VOC 2010-2012), in [0, 1]; NaN without a positive image.

    scores: (N,), higher is more confident. truth: (N,) 1 present, 0 absent, -1 only 'difficult' objects of the class. The
    devkit gives the latter no say: they are neither right nor wrong. Of equal scores the first counts as the higher, as in
    the devkit's stable sort. levels: the mean of the envelope at so many equally spaced recall levels instead, 0 and 1
    included; 11 for VOC 2007. (scikit-learn takes no envelope.)
    """
    counted = truth != -1
    scores, truth = scores[counted], truth[counted]
    positives = int((truth == 1).sum())
    if positives == 0:
        return float("nan")
    right = truth[np.argsort(-scores, kind="stable")] == 1
    found = np.cumsum(right)
    precision = found / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a higher one
    if levels is not None:
        needed = np.ceil(np.linspace(0, 1, levels) * positives - 1e-9)  # right images behind each level
        return float(envelope[np.searchsorted(found, needed)].mean())
    return float(envelope[right].sum() / positives)  # recall rises by 1 / positives at every right image
