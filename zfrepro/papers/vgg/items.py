"""The tables."""

from zfrepro.papers.paper import Item

SCRATCH = "it compares trainings, and this network was trained elsewhere"

ITEMS = (
    Item(
        "vgg_table1", "Tables 1, 2", "summary", "", "The configurations and their parameters",
        context=("vgg_table2_parameters",),
    ),
    Item(
        "vgg_table3", "Table 3", "depth", "vgg_table3_single_scale", "Errors at a single test scale",
        tables_first=True, trains=SCRATCH,
    ),
    Item(
        "vgg_table4", "Table 4", "depth", "vgg_table4_multi_scale", "Errors at several test scales",
        version=2, tables_first=True, trains=SCRATCH,
    ),
    Item(
        "vgg_table5", "Table 5", "depth", "vgg_table5_evaluation", "Dense and multi-crop evaluation",
        version=2, tables_first=True, trains=SCRATCH,
    ),
    Item(
        "vgg_table6", "Tables 6, 7", "depth", "vgg_table6_fusion", "Several networks together",
        tables_first=True, trains=SCRATCH, context=("vgg_table7_classification",),
    ),
    Item(
        "vgg_table8", "Table 8", "localize", "vgg_table8_localisation", "Localisation with the true class given",
        version=3, tables_first=True,
    ),
    Item(
        "vgg_table9", "Tables 9, 10", "localize", "vgg_table9_localisation", "Localisation, dense over the whole image",
        version=4, tables_first=True, context=("vgg_table10_localisation_comparison",),
    ),
    Item(
        "vgg_table11", "Table 11", "transfer", "vgg_table11_transfer", "The features on other data sets",
        version=3, tables_first=True, options=" protocol=vgg",
    ),
    Item(
        "vgg_table12", "Table 12", "transfer", "vgg_table12_actions", "The features on the actions of PASCAL VOC 2012",
        version=3, tables_first=True, options=" protocol=vgg",
    ),
)  # fmt: skip
