"""The claims, stated before they are measured: a part holds where its estimate's whole interval lies beyond its bound.

Intervals are of 95 % confidence: Student's t over maps, filters, images; Welch's t over nets, and where a row has one net,
Student's t with the spread that Table 3's rows of several have in common; over folds, which are re-splits of one pool, Nadeau
and Bengio's correction. Where hundreds of images make any trifle significant, the effect must be of a size that one would see
in the paper's figure as well.
"""

from zfrepro.papers.paper import Claim, Part

AND_SEEDS = " seeds=[0,1,2]"

CLAIMS = (
    Claim(
        "parts_exaggerated", "fig2",
        "Projections of upper layers exaggerate what tells objects apart, not the background",
        "share of the energy of layer 5's projections that falls on the object, minus the object's share of what the unit sees "
        "(data with known masks), over maps; minus the same of an untrained network of the same table",
        "An untrained network's projections favour objects too: what excites a unit is seldom the background. What training adds "
        "must be above nothing.",
        (Part("energy_above_untrained", "more energy falls on objects than without training", "above", 0, 10, "points"),),
    ),
    Claim(
        "renormalisation", "fig6",
        "Without renormalisation of the filters, a few of the first layer's dominate",
        "largest RMS among the first layer's filters over their median RMS, trained without renormalisation; and that ratio over "
        "the one with it",
        "Fig. 6(a) is scaled to its strongest filter: filters at a third of its strength or less look flat beside it. Some filters "
        "are always stronger than others, so renormalisation must make a clear difference too. All filters of a network are "
        "known: the ratio is counted, not estimated.",
        (
            Part("dominance", "without it, the strongest filter's RMS over the median", "above", 3, 6),
            Part("dominance_over_renormalised", "that, over the same with it", "above", 1.5, 3),
        ),
    ),
    Claim(
        "first_layer", "fig6",
        "ZFNet's first layer has fewer dead filters than AlexNet's and covers the middle frequencies better",
        "share of dead filters in the first layer, AlexNet minus ZFNet; and the mean share of a filter's power in the middle "
        "frequency band, ZFNet minus AlexNet",
        "Both halves of the sentence must hold. Dead filters are counted, not estimated; band shares vary from filter to filter.",
        (
            Part("fewer_dead_filters", "AlexNet has more dead filters", "above", 0, 20, "points"),
            Part("more_middle_band", "ZFNet has more power in the middle band", "above", 0, 10, "points"),
        ),
    ),
    Claim(
        "aliasing", "fig6",
        "AlexNet's second-layer features show aliasing from the stride of 4 in its first layer; ZFNet's, with stride 2, do not",
        "power of the second layer's projections at the frequency of the first layer's stride, over that of neighbouring frequencies",
        "Natural spectra are smooth: without a grid the ratio is 1. Half as much again is a line that stands out of the spectrum's "
        "scatter.",
        (
            Part("grid_peak_alexnet", "AlexNet's grid stands out", "above", 1.5, 3),
            Part("grid_peak_zfnet", "ZFNet's does not", "below", 1.5, 1),
        ),
    ),
    Claim(
        "convergence", "fig4",
        "Lower layers settle within few epochs, upper layers only after many",
        "how alike projections of consecutive snapshots are (correlation, laid over each other at the unit) above how alike those "
        "of different maps are, over the first half of training: fall of a straight line through all layers, from the first to the "
        "last",
        "A layer that has settled no longer changes from one snapshot to the next; in the first half the paper's upper layers have "
        "not settled and its lower ones have. Two projections of one image are somewhat alike whatever the maps: that floor is "
        "taken off, layer by layer.",
        (Part("fall_with_depth", "likeness falls from layer to layer", "above", 0, 0.3),),
    ),
    Claim(
        "small_changes", "fig5",
        "A small transformation of the image changes the first layer dramatically and the top layer little",
        "distance of the feature vectors relative to their norm for the smallest step: layer 1 minus layer 7, mean over images",
        "No difference would mean that the layers between absorb nothing. Rotation is not claimed.",
        (
            Part("translation_first_minus_top", "translation moves the first layer more than the top one", "above", 0, 0.3),
            Part("scale_first_minus_top", "scale moves the first layer more than the top one", "above", 0, 0.3),
        ),
    ),
    Claim(
        "quasi_linear", "fig5",
        "For translation and scaling, the top layer's distance grows quasi-linearly",
        "share of the layer-7 curve's variance that a straight line explains (R²), mean over images",
        "A quarter of a sine, visibly bent, reaches 0.96; a ramp that levels off half-way 0.80, 1 - exp(-3x) 0.88. Nine tenths "
        "separates a bent line from a curve that levels off.",
        (
            Part("translation_r2", "translation: R² of a straight line", "above", 0.9, 1),
            Part("scale_r2", "scale: R² of a straight line", "above", 0.9, 1),
        ),
    ),
    Claim(
        "stability", "fig5",
        "The output is stable under translation and scaling, and not under rotation",
        "the true class's mean probability over the transformation's range, as a share of the untouched image's",
        "Stable: the network keeps more than half of its certainty over the range; not stable: it loses more than half.",
        (
            Part("translation_kept", "kept under translation", "above", 50, 90, "%"),
            Part("scale_kept", "kept under scaling", "above", 50, 90, "%"),
            Part("rotation_kept", "kept under rotation", "below", 50, 20, "%"),
        ),
    ),
    Claim(
        "object_covered", "fig7",
        "The probability of the true class falls where the object is covered",
        "correlation over positions between the fall in probability and the object's share of the square, mean over images; and "
        "that minus the same with another image's object (98 % interval)",
        "0.3 is by convention a medium effect, visible in a picture. Objects sit near the middle, so another image's mask "
        "correlates too: the object's own must do better.",
        (
            Part("object_correlation", "correlation with the object", "above", 0.3, 0.6),
            Part("object_minus_other", "more than with another image's object", "above", 0, 0.3),
        ),
    ),
    Claim(
        "projection_covered", "fig7",
        "A feature map's activity falls where the structure is covered that its projection shows",
        "correlation over positions between the fall in activity and the projection's energy below the square, mean over images; "
        "and that minus the same with another image's projection (98 % interval)",
        "As for the object.",
        (
            Part("projection_correlation", "correlation with the projection", "above", 0.3, 0.6),
            Part("projection_minus_other", "more than with another image's projection", "above", 0, 0.3),
        ),
    ),
    Claim(
        "correspondence", "table1",
        "The network relates the same part of different objects at layer 5, and no longer at layer 7",
        "relative gap between parts and random places in the Hamming distance of sign changes, 1 - parts / random, over draws that "
        "share no image: at layer 5; and at layer 7, minus half the gap at layer 5. The random places are as far from the centre "
        "as the part and change as many features",
        "The paper's gaps are 33 % at layer 5 and 6 % at layer 7: 'alike' cannot mean equal, half the gap stands between. Masks "
        "that change fewer features score lower wherever they stand, and random places near the border change fewer: hence the "
        "matching. The gap without it is in the table.",
        (
            Part("gap_lower", "parts differ less than random places at the lower layer", "above", 0, 33, "%"),
            Part("gap_upper_minus_half_lower", "the gap at the upper layer is less than half of that", "below", 0, -10.5, "points"),
        ),
    ),
    Claim(
        "architecture", "table3",
        "ZFNet's first layers (7x7 at stride 2) beat AlexNet's (11x11 at stride 4)",
        "validation top-1 error, AlexNet minus ZFNet, over nets of different seeds",
        "The paper has one net of each, 2.1 points apart; several seeds tell a difference from luck.",
        (Part("alexnet_minus_zfnet", "AlexNet's error exceeds ZFNet's", "above", 0, 2.1, "points"),),
        options=AND_SEEDS,
    ),
    Claim(
        "averaging", "table2",
        "Averaging several nets beats one",
        "validation top-1 error: mean of the single nets minus their average; over images, and over nets by leaving each out in turn",
        "The paper's five nets gain 1.7 points. The average must beat nets at large, not just an unlucky one.",
        (Part("gain_of_averaging", "a single net's error exceeds their average's", "above", 0, 1.7, "points"),),
        options=" runs=[{run},<another>,<another>]",
    ),
    Claim(
        "depth", "table3",
        "Depth matters most: removing layers 3, 4, 6 and 7 together is by far the worst change",
        "validation top-1 error of that variant minus the next worst of AlexNet's variants, over nets of different seeds",
        "71.3 against 45.4 in the paper: the row stands alone.",
        (Part("no_3_4_6_7_minus_next", "its error exceeds the next worst variant's", "above", 0, 25.9, "points"),),
        options=AND_SEEDS,
    ),
    Claim(
        "wider_middle", "table3",
        "More maps in the middle convolutional layers help",
        "validation top-1 error, ZFNet minus ZFNet with wide layers 3-5, over nets of different seeds",
        "The paper gains 0.9 points.",
        (Part("gain_of_wide_middle", "ZFNet's error exceeds the wider net's", "above", 0, 0.9, "points"),),
        options=AND_SEEDS,
    ),
    Claim(
        "wider_top", "table3",
        "Larger fully connected layers over-fit: they fit the training set better without a gain in validation",
        "top-1 errors, ZFNet minus ZFNet with layers 6 and 7 doubled, over nets of different seeds: training; training minus "
        "validation; validation",
        "The paper: training error falls by 11.1 points, validation error rises by 0.4. That no gain was seen does not show that "
        "there is none: it must be shown to be smaller than one point, about what the paper counts as a gain elsewhere (0.9).",
        (
            Part("training_gain", "the training error falls", "above", 0, 11.1, "points"),
            Part("training_minus_validation_gain", "and by more than the validation error", "above", 0, 11.5, "points"),
            Part("validation_gain", "which falls by less than a point, if at all", "below", 1, -0.4, "points"),
        ),
        options=AND_SEEDS,
    ),
    Claim(
        "transfer", "table4",
        "Pre-trained features beat training from scratch, with few images most of all",
        "accuracy, pre-trained minus from scratch, fold by fold: at 15 images per class; and that minus the same at 30",
        "The paper's gap is 61 points at 15 per class and 40 at 30. A small source data set gives less, but a gap below 15 would be "
        "no case for pre-training. Folds are re-splits of one pool, and the images at 15 are among those at 30: pairs, corrected.",
        (
            Part("gap_at_15", "the gap at 15 images per class", "above", 15, 61, "points"),
            Part("gap_at_15_minus_30", "how much larger it is than at 30", "above", 0, 21, "points"),
        ),
    ),
    Claim(
        "deeper_is_better", "table7",
        "The deeper the layer, the better its features",
        "accuracy of a linear SVM on layers 1-7, on every target that was probed: rank correlation with depth, mean over folds; and "
        "layer 7 minus layer 1, fold by fold",
        "The paper's own Caltech-101 column has one swap of neighbours (layers 5 and 7), which gives 0.94; two give 0.89. Folds are "
        "re-splits of one pool: corrected.",
        (
            Part("rank_with_depth", "rank correlation of accuracy with depth", "above", 0.8, 0.94),
            Part("top_minus_first", "the top layer beats the first", "above", 0, 40.7, "points"),
        ),
    ),
)  # fmt: skip
