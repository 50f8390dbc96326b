"""The claims, stated before they are measured: a part holds where its estimate's whole interval lies beyond its bound.

Intervals are of 95 % confidence. Two kinds of nets, of several seeds each: over nets and the images that they share
(`statistics.nets`). The same nets used in two ways: over images, and over nets where there are several of a configuration (`statistics.same_nets`).
Folds are re-splits of one pool: Nadeau and Bengio's correction. Errors are top-1 and in percent.

Where the paper says that something makes no difference, a difference that was not seen does not show that there is none: the
interval must lie within a margin of one point, about what two more layers bring in the paper (A to B: 0.9).
"""

from zfrepro.papers.paper import Claim, Part

SEEDS = " seeds=[0,1,2]"


def exceeds(estimate: str, says: str, typical: float, bound: float = 0) -> tuple[Part, ...]:
    """A difference in percent points that must lie above a bound."""
    return (Part(estimate, says, "above", bound, typical, "points"),)


CLAIMS = (
    Claim(
        "lrn", "vgg_table3",
        "Local response normalisation does not help",
        "validation error at one test scale, A minus A-LRN, over nets of different seeds",
        "The paper: 29.6 without, 29.7 with it.",
        (Part("gain_of_lrn", "what normalisation takes from A's error", "below", 1, -0.1, "points"),),
        options=SEEDS,
    ),
    Claim(
        "depth_helps", "vgg_table3",
        "Deeper is better, from 11 to 16 weight layers",
        "validation error at one test scale and one training scale, A minus D, over nets of different seeds",
        "The paper: 29.6 and 27.0.",
        exceeds("a_minus_d", "A's error exceeds D's", 2.6),
        options=SEEDS,
    ),
    Claim(
        "depth_saturates", "vgg_table3",
        "The error saturates at 19 layers",
        "validation error at one test scale and one training scale, D minus E, over nets of different seeds",
        "The paper: 27.0 and 27.3 at S = 256, 26.8 and 26.9 at 384, 25.6 and 25.5 with jitter. Neither a gain nor a loss of a point.",
        (Part("d_minus_e", "what three more layers change", "within", 1, -0.3, "points"),),
        options=SEEDS,
    ),
    Claim(
        "nonlinearity", "vgg_table3",
        "Additional non-linearity helps: 1x1 convolutions (C) beat none (B)",
        "validation error at one test scale and one training scale, B minus C, over nets of different seeds",
        "The paper: 28.7 and 28.1.",
        exceeds("b_minus_c", "B's error exceeds C's", 0.6),
        options=SEEDS,
    ),
    Claim(
        "context", "vgg_table3",
        "Spatial context helps more: 3x3 convolutions (D) beat 1x1 (C) at the same depth",
        "validation error at one test scale and one training scale, C minus D, over nets of different seeds",
        "The paper: 28.1 and 27.0.",
        exceeds("c_minus_d", "C's error exceeds D's", 1.1),
        options=SEEDS,
    ),
    Claim(
        "small_filters", "vgg_table3",
        "A deep net with small filters beats a shallow one with large ones: two 3x3 layers beat one of 5x5",
        "validation error on the centre crop, B with each pair of 3x3 layers replaced by one of 5x5 minus B, over nets of different seeds",
        "The paper (section 4.1): 7 % higher.",
        exceeds("b_5x5_minus_b", "the error of B with 5x5 filters exceeds B's", 7),
        options=SEEDS,
    ),
    Claim(
        "scale_jitter", "vgg_table3",
        "Scale jitter in training helps, even at a single test scale",
        "validation error at one test scale, the better of the fixed training scales minus jitter, of the same configurations",
        "The paper: D 26.8 and 25.6, E 26.9 and 25.5.",
        exceeds("gain_of_jitter", "the error at a fixed scale exceeds that with jitter", 1.3),
        options=SEEDS,
    ),
    Claim(
        "test_scales", "vgg_table4",
        "Several test scales beat one",
        "validation error of the same nets trained with scale jitter, one test scale minus several",
        "The paper: D 25.6 and 24.8, E 25.5 and 24.8.",
        exceeds("gain_of_scales", "the error at one scale exceeds that at several", 0.75),
    ),
    Claim(
        "complementary", "vgg_table5",
        "Multi-crop and dense evaluation complement each other",
        "validation error of the same nets: dense minus both, and multi-crop minus both",
        "The paper: E 24.8 dense, 24.6 multi-crop, 24.4 both. Both must beat either.",
        (
            Part("dense_minus_both", "dense evaluation's error exceeds that of both", "above", 0, 0.4, "points"),
            Part("multi_crop_minus_both", "multi-crop's error exceeds that of both", "above", 0, 0.2, "points"),
        ),
    ),
    Claim(
        "fusion", "vgg_table6",
        "Two nets beat one",
        "validation error of the better of D and E minus that of their average, evaluated alike",
        "The paper: 24.8 and 24.0, dense. Against the better one, so that a poor partner is no help.",
        exceeds("best_minus_fusion", "the better net's error exceeds their average's", 0.8),
    ),
    Claim(
        "per_class_boxes", "vgg_table8",
        "A box for each class beats one for all",
        "localisation error with the true class given, one box for all classes minus one for each",
        "The paper: 36.4 and 34.3. (OverFeat found the opposite.)",
        exceeds("scr_minus_pcr", "one box for all: its error exceeds that of one for each", 2.1),
    ),
    Claim(
        "all_layers", "vgg_table8",
        "Fine-tuning all layers beats fine-tuning the fully connected ones",
        "localisation error with the true class given, fully connected layers alone minus all",
        "The paper: 34.3 and 33.1.",
        exceeds("fc_minus_all", "the error with fully connected layers alone exceeds that with all", 1.2),
    ),
    Claim(
        "dense_boxes", "vgg_table9",
        "Dense localisation beats the centre crop, although the class must be guessed",
        "localisation error of the same net, centre crop with the true class given minus dense with the class guessed",
        "The paper: 33.1 and 28.2, at S = 384.",
        exceeds("centre_minus_dense", "the centre crop's error exceeds that of dense application", 4.9),
    ),
    Claim(
        "more_boxes", "vgg_table9",
        "Several scales help localisation, and several nets help it further",
        "localisation error: one test scale minus several; and the better net minus both together",
        "The paper: 28.2, 27.5, 26.9.",
        (
            Part("one_minus_scales", "the error at one scale exceeds that at several", "above", 0, 0.7, "points"),
            Part("one_minus_nets", "the better net's error exceeds that of both", "above", 0, 0.6, "points"),
        ),
    ),
    Claim(
        "nineteen_on_caltech", "vgg_table11",
        "On Caltech, 19 layers are as good as 16 or better",
        "mean class recall, E minus D, fold by fold, on every Caltech set that was measured",
        "The paper: 92.3 and 91.8, 85.1 and 85.0, within one standard deviation: 'as good' is shown by an interval above minus one "
        "point.",
        (Part("e_minus_d", "what three more layers bring", "above", -1, 0.5, "points"),),
    ),
    Claim(
        "both_nets", "vgg_table11",
        "The descriptors of two nets together beat one's",
        "mean class recall, both stacked minus the better one, fold by fold, on every set that was measured",
        "The paper: 92.7 and 92.3, 86.2 and 85.1.",
        exceeds("both_minus_best", "both nets' recall exceeds the better one's", 0.75),
    ),
    Claim(
        "stacking", "vgg_table11",
        "On Caltech, stacking the scales beats averaging them",
        "mean class recall, descriptors of several scales stacked minus averaged, fold by fold, on every Caltech set that was measured",
        "The paper says so without a number; a difference that is always there is what it can mean.",
        exceeds("stack_minus_mean", "recall with stacked scales exceeds that with averaged ones", 0.5),
    ),
    Claim(
        "stacking_on_voc", "vgg_table11",
        "On PASCAL VOC, stacking the scales is no better than averaging them",
        "mean average precision, descriptors of several scales stacked minus averaged, over test images",
        "The paper averages there, 'as the two perform alike'; its steps in this table are tenths of a point to a few points.",
        (Part("stack_minus_mean_voc", "what stacking changes", "within", 1, 0, "points"),),
    ),
    Claim(
        "beats_zfnet", "vgg_table11",
        "Very deep features beat shallower ones by far",
        "mean class recall on the same images, VGG's minus ZFNet's (Zeiler & Fergus), fold by fold, on every set that was measured",
        "The paper: 91.8 and 86.5 on Caltech-101, 85.0 and 74.2 on Caltech-256. 'By far': 2.5 points, about half the smaller of these "
        "gaps.",
        exceeds("vgg_minus_zfnet", "VGG's recall exceeds ZFNet's", 5.3, bound=2.5),
    ),
    Claim(
        "person_box", "vgg_table12",
        "For actions, the image with the person's box beats the image alone",
        "mean average precision, image and box stacked minus image alone, over test images",
        "The paper: 84.0 and 79.2.",
        exceeds("box_minus_image", "precision with the box exceeds that without", 4.8),
    ),
)  # fmt: skip
