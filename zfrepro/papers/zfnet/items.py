"""The figures and tables."""

from zfrepro.papers.paper import Item

SCRATCH = "it compares trainings, and this network was trained elsewhere"

ITEMS = (
    Item(
        "fig2", "Figure 2", "visualize", "fig2_features",
        "Features of layers 1-5, projected to pixels, and the image patches that they come from",
        version=2, panel="features", fold=True, one_checkpoint=True,
    ),
    Item(
        "fig4", "Figure 4", "evolve", "fig4_evolution", "Evolution of features through training",
        version=3, panel="evolution", trains="it needs snapshots of the training, and this network was trained elsewhere",
    ),
    Item(
        "fig5", "Figure 5", "invariance", "fig5_invariance", "Invariance to vertical translation, scale and rotation",
        version=2, one_checkpoint=True,
    ),
    Item(
        "fig6", "Figure 6", "filters", "fig6_filters",
        "First-layer filters with and without renormalisation, and second-layer projections, of AlexNet and ZFNet",
        version=2,
    ),
    Item(
        "fig7", "Figure 7", "occlude", "fig7_occlusion", "Sensitivity to occlusion",
        version=2, panel="explorer", one_checkpoint=True,
    ),
    Item(
        "table1", "Table 1, Figure 8", "correspond", "table1_correspondence", "Correspondence of object parts",
        version=2, tables_first=True, one_checkpoint=True,
    ),
    Item(
        "table2", "Table 2", "evaluate", "table2_imagenet", "Classification errors",
        version=2, tables_first=True,
    ),
    Item(
        "table3", "Table 3", "ablate", "table3_ablation", "Errors after removing or resizing layers",
        version=4, tables_first=True, trains=SCRATCH,
    ),
    Item(
        "table4", "Table 4", "transfer", "table4_caltech101", "Caltech-101 accuracy",
        version=3, tables_first=True, one_checkpoint=True,
    ),
    Item(
        "table5", "Table 5", "transfer", "table5_caltech256", "Caltech-256 accuracy",
        version=3, tables_first=True, one_checkpoint=True,
    ),
    Item(
        "table6", "Table 6", "transfer", "table6_pascal2012", "PASCAL VOC 2012 average precision",
        version=2, tables_first=True, one_checkpoint=True,
    ),
    Item(
        "fig9", "Figure 9", "transfer", "fig9_few_shot",
        "Caltech-256 accuracy against the number of training images per class",
        one_checkpoint=True,
    ),
    Item(
        "table7", "Table 7", "probe", "table7_layers", "Discriminative power of the features of each layer",
        version=2, tables_first=True, one_checkpoint=True,
    ),
)  # fmt: skip
