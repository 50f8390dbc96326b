"""*Visualizing and Understanding Convolutional Networks*, M. Zeiler and R. Fergus, ECCV 2014; numbered as in arXiv
1311.2901 v3."""

from zfrepro.papers.paper import Paper
from zfrepro.papers.zfnet.claims import CLAIMS
from zfrepro.papers.zfnet.items import ITEMS

PAPER = Paper(
    id="zfnet",
    title="Visualizing and Understanding Convolutional Networks",
    authors="Zeiler & Fergus (2014)",
    url="https://arxiv.org/abs/1311.2901v3",
    models=("zfnet", "alexnet"),
    items=ITEMS,
    claims=CLAIMS,
)
