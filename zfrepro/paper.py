"""The paper: its figures and tables, its claims, and the numbers that it reports.

*Visualizing and Understanding Convolutional Networks*, M. Zeiler and R. Fergus, ECCV 2014; numbered as in arXiv
1311.2901 v3. Reported numbers are percent unless a column says otherwise; an empty cell (None) was not reported.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """A figure or table: the command that makes it and the sub-folder of the run that it is written to."""

    id: str
    title: str
    command: str
    folder: str
    caption: str


ITEMS = (
    Item("fig2", "Figure 2", "visualize", "fig2_features", "Features of layers 1-5, projected to pixels, and the image patches that they come from"),
    Item("fig4", "Figure 4", "evolve", "fig4_evolution", "Evolution of features through training"),
    Item("fig5", "Figure 5", "invariance", "fig5_invariance", "Invariance to vertical translation, scale and rotation"),
    Item("fig6", "Figure 6", "filters", "fig6_filters", "First-layer filters with and without renormalisation, and second-layer projections, of AlexNet and ZFNet"),
    Item("fig7", "Figure 7", "occlude", "fig7_occlusion", "Sensitivity to occlusion"),
    Item("table1", "Table 1, Figure 8", "correspond", "table1_correspondence", "Correspondence of object parts"),
    Item("table2", "Table 2", "evaluate", "table2_imagenet", "Classification errors"),
    Item("table3", "Table 3", "ablate", "table3_ablation", "Errors after removing or resizing layers"),
    Item("table4", "Table 4", "transfer", "table4_caltech101", "Caltech-101 accuracy"),
    Item("table5", "Table 5", "transfer", "table5_caltech256", "Caltech-256 accuracy"),
    Item("table6", "Table 6", "transfer", "table6_pascal2012", "PASCAL VOC 2012 average precision"),
    Item("fig9", "Figure 9", "transfer", "fig9_few_shot", "Caltech-256 accuracy against the number of training images per class"),
    Item("table7", "Table 7", "probe", "table7_layers", "Discriminative power of the features of each layer"),
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and what decides whether it is reproduced: stated here, the same for every run."""

    id: str
    item: str  # id of the figure or table whose experiment measures it
    sentence: str  # the claim in our words
    statistic: str  # what is measured
    rule: str  # what the statistic must fulfil; {names} are those of `thresholds`
    thresholds: Mapping[str, float]
    reason: str  # why this rule and these thresholds

    @property
    def threshold(self) -> str:
        """The rule in words and numbers."""
        return self.rule.format(**{name: f"{value:g}" for name, value in self.thresholds.items()})


# Where means are compared, a difference counts from 95 % confidence on: two standard errors over maps, filters or images,
# of which there are many; over nets and folds, of which there are few, as many as Student's t asks for (13 for two, 4.3 for
# three, 2.8 for five). Where hundreds of images make any trifle significant, the effect must be of a size that one would
# see in the paper's figure as well.
ERRORS = {"errors": 2.0}
CONFIDENCE = {"confidence": 95.0}

CLAIMS = (
    Claim(
        "parts_exaggerated", "fig2",
        "Projections of upper layers exaggerate what tells objects apart, not the background",
        "share of the energy of layer 5's projections that falls on the object, minus the object's share of what the unit sees "
        "(percent; data with known masks)",
        "above 0 by at least {errors} standard errors over maps",
        ERRORS,
        "A projection that reproduced the image evenly would score 0.",
    ),
    Claim(
        "renormalisation", "fig6",
        "Without renormalisation of the filters, a few of the first layer's dominate",
        "largest RMS among the first layer's filters over their median RMS, trained without renormalisation (and with it)",
        "at least {dominance} without renormalisation, and at least {against_with} times the ratio with it",
        {"dominance": 3, "against_with": 1.5},
        "Fig. 6(a) is scaled to its strongest filter: filters at a third of its strength or less look flat beside it. Some filters "
        "are always stronger than others, so renormalisation must make a clear difference too.",
    ),
    Claim(
        "first_layer", "fig6",
        "ZFNet's first layer has fewer dead filters than AlexNet's and covers the middle frequencies better",
        "share of dead filters in the first layer, and the mean share of a filter's power in the middle frequency band",
        "fewer dead filters than AlexNet's, and a middle band larger by at least {errors} standard errors over filters",
        ERRORS,
        "Both halves of the sentence must hold. Dead filters are counted, not estimated; band shares vary from filter to filter.",
    ),
    Claim(
        "aliasing", "fig6",
        "AlexNet's second-layer features show aliasing from the stride of 4 in its first layer; ZFNet's, with stride 2, do not",
        "power of the second layer's projections at the frequency of the first layer's stride, over that of neighbouring frequencies",
        "at least {peak} for AlexNet, below {peak} for ZFNet",
        {"peak": 1.5},
        "Natural spectra are smooth: without a grid the ratio is 1. Half as much again is a line that stands out of the spectrum's "
        "scatter.",
    ),
    Claim(
        "convergence", "fig4",
        "Lower layers settle within few epochs, upper layers only after many",
        "how alike projections of consecutive snapshots are (correlation, laid over each other at the unit), over the first half "
        "of training: layers 1-2 against 4-5",
        "lower layers more alike than upper ones, by at least {errors} standard errors over maps",
        ERRORS,
        "A layer that has settled no longer changes from one snapshot to the next; in the first half the paper's upper layers have "
        "not settled and its lower ones have.",
    ),
    Claim(
        "small_changes", "fig5",
        "A small transformation of the image changes the first layer dramatically and the top layer little",
        "distance of the feature vectors relative to their norm for the smallest step, mean over images: layer 1 minus layer 7",
        "above 0 by at least {errors} standard errors, for translation and for scale",
        ERRORS,
        "No difference would mean that the layers between absorb nothing. Rotation is not claimed.",
    ),
    Claim(
        "quasi_linear", "fig5",
        "For translation and scaling, the top layer's distance grows quasi-linearly",
        "share of the layer-7 curve's variance that a straight line explains (R^2), mean over images",
        "at least {r2} for translation and for scale",
        {"r2": 0.9},
        "A quarter of a sine, visibly bent, reaches 0.96; a ramp that levels off half-way 0.80, 1 - exp(-3x) 0.88. Nine tenths "
        "separates a bent line from a curve that levels off.",
    ),
    Claim(
        "stability", "fig5",
        "The output is stable under translation and scaling, and not under rotation",
        "the true class's mean probability over the transformation's range, as a share of the untouched image's (percent)",
        "above {half} for translation and for scale, below {half} for rotation",
        {"half": 50},
        "Stable: the network keeps more than half of its certainty over the range; not stable: it loses more than half.",
    ),
    Claim(
        "object_covered", "fig7",
        "The probability of the true class falls where the object is covered",
        "correlation over positions between the fall in probability and the object's share of the square, mean over images",
        "at least {correlation}, and above that with another image's object (p < {p}, Wilcoxon's signed ranks)",
        {"correlation": 0.3, "p": 0.01},
        "0.3 is by convention a medium effect, visible in a picture. Objects sit near the middle, so another image's mask "
        "correlates too: the object's own must do better.",
    ),
    Claim(
        "projection_covered", "fig7",
        "A feature map's activity falls where the structure is covered that its projection shows",
        "correlation over positions between the fall in activity and the projection's energy below the square, mean over images",
        "at least {correlation}, and above that with another image's projection (p < {p}, Wilcoxon's signed ranks)",
        {"correlation": 0.3, "p": 0.01},
        "As for the object.",
    ),
    Claim(
        "correspondence", "table1",
        "The network relates the same part of different objects at layer 5, and no longer at layer 7",
        "relative gap between parts and random places in the Hamming distance of sign changes: 1 - parts / random (percent)",
        "above 0 at layer 5 (95 % interval), and at layer 7 less than {share} times the gap at layer 5",
        {"share": 0.5},
        "The paper's gaps are 33 % at layer 5 and 6 % at layer 7: 'alike' cannot mean equal, half the gap stands between.",
    ),
    Claim(
        "architecture", "table3",
        "ZFNet's first layers (7x7 at stride 2) beat AlexNet's (11x11 at stride 4)",
        "validation top-1 error in percent, AlexNet minus ZFNet, mean over seeds",
        "above 0 with {confidence} % confidence (Student's t over seeds)",
        CONFIDENCE,
        "The paper has one net of each, 2.1 points apart; several seeds tell a difference from luck.",
    ),
    Claim(
        "averaging", "table2",
        "Averaging several nets beats one",
        "validation top-1 error in percent: mean of the single nets minus their average",
        "above 0 with {confidence} % confidence (Student's t over the single nets)",
        CONFIDENCE,
        "The paper's five nets gain 1.7 points. The average must beat nets at large, not just an unlucky one.",
    ),
    Claim(
        "depth", "table3",
        "Depth matters most: removing layers 3, 4, 6 and 7 together is by far the worst change",
        "validation top-1 error in percent of that variant minus the next worst of AlexNet's variants, mean over seeds",
        "above 0 with {confidence} % confidence (Student's t over seeds)",
        CONFIDENCE,
        "71.3 against 45.4 in the paper: the row stands alone.",
    ),
    Claim(
        "wider_middle", "table3",
        "More maps in the middle convolutional layers help",
        "validation top-1 error in percent, ZFNet minus ZFNet with wide layers 3-5, mean over seeds",
        "above 0 with {confidence} % confidence (Student's t over seeds)",
        CONFIDENCE,
        "The paper gains 0.9 points.",
    ),
    Claim(
        "wider_top", "table3",
        "Larger fully connected layers over-fit: they fit the training set better without a gain in validation",
        "top-1 errors in percent, ZFNet minus ZFNet with layers 6 and 7 doubled, mean over seeds: training; training minus "
        "validation; validation",
        "the first two above 0 with {confidence} % confidence (Student's t over seeds); validation not above 0 with as much",
        CONFIDENCE,
        "The paper: training error falls by 11 points, validation error rises by 0.4.",
    ),
    Claim(
        "transfer", "table4",
        "Pre-trained features beat training from scratch, with few images most of all",
        "accuracy in percent, pre-trained minus from scratch, at 15 and at 30 images per class, mean over folds",
        "at least {points} points at 15 per class, and more than at 30 with {confidence} % confidence (Student's t over folds)",
        {"points": 15, **CONFIDENCE},
        "The paper's gap is 61 points at 15 per class and 40 at 30. A small source data set gives less, but a gap below 15 would be "
        "no case for pre-training.",
    ),
    Claim(
        "deeper_is_better", "table7",
        "The deeper the layer, the better its features",
        "accuracy in percent of a linear SVM on layers 1-7: rank correlation with depth, and layer 7 minus layer 1",
        "rank correlation at least {rank}, and layer 7 above layer 1 with {confidence} % confidence (Student's t over folds)",
        {"rank": 0.8, **CONFIDENCE},
        "The paper's own Caltech-101 column has one swap of neighbours (layers 5 and 7), which gives 0.94; two give 0.89.",
    ),
)  # fmt: skip


def reported(name: str) -> list[dict[str, str | float | None]]:
    """The rows of `reference/<name>.csv`, numbers as floats, empty cells as None."""
    with (Path(__file__).parent / "reference" / f"{name}.csv").open(newline="") as file:
        return [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _number(text: str) -> str | float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text
