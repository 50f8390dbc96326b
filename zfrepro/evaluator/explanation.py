"""Does a box lie where the evidence is? Our own question to Appendix A of the VGG paper, in the spirit of ZFNet's Fig. 7.

Evidence is what a network's answer rests on, pixel by pixel: how far the true class's probability falls where a square covers
the pixel, or the energy of the strongest top feature's projection there. A region's density is its share of the evidence over
its share of the picture: 1 is what a region laid at random has.
"""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from zfrepro.evaluator.occlusion import Slide, covers, heat_map, projected, slide_over
from zfrepro.run import TrainedRun


def evidence(run: TrainedRun, images: np.ndarray, labels: np.ndarray, slide: Slide) -> dict[str, np.ndarray]:
    """Both kinds of packed square images (N, S, S, 3), seen through their centre crops: (N, s, s) float64 each, at least 0, at
    the places of the network's input."""
    inputs, size = run.inputs(images), run.network.input_size
    cover = covers(slide.starts, slide.square, size)
    bar = tqdm(
        zip(inputs, labels.tolist()), total=len(labels), desc="where the evidence is", unit="image", disable=None
    )
    maps = [slide_over(run.network, image, label, slide) for image, label in bar]
    drops = [heat_map(np.maximum(m.clean_probability - m.probability, 0), cover) for m in maps]
    projections = projected(run.network, inputs, slide.layer, [m.strongest for m in maps])
    return {"occlusion": np.stack(drops), "projection": (projections.astype(np.float64) ** 2).sum(3)}


def density(evidence: np.ndarray, region: np.ndarray) -> np.ndarray:
    """(N,) share of the evidence (N, s, s) in regions (N, s, s) in [0, 1] over their share of the picture; NaN without
    evidence or region."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (evidence * region).sum((1, 2)) / evidence.sum((1, 2))
        return share / region.mean((1, 2))


def painted(boxes: np.ndarray, size: int) -> np.ndarray:
    """(N, size, size) in [0, 1]: how much of each pixel boxes (N, 4) cover."""
    edges = np.arange(size)

    def along(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return (np.minimum(high[:, None], edges + 1) - np.maximum(low[:, None], edges)).clip(0, 1)

    across, down = along(boxes[:, 0], boxes[:, 2]), along(boxes[:, 1], boxes[:, 3])
    return down[:, :, None] * across[:, None, :]
