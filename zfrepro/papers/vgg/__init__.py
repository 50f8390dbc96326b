"""*Very Deep Convolutional Networks for Large-Scale Image Recognition*, K. Simonyan and A. Zisserman, ICLR 2015; numbered as
in arXiv 1409.1556 v6."""

from zfrepro.papers.paper import Paper
from zfrepro.papers.vgg.claims import CLAIMS
from zfrepro.papers.vgg.items import ITEMS

PAPER = Paper(
    id="vgg",
    title="Very Deep Convolutional Networks for Large-Scale Image Recognition",
    authors="Simonyan & Zisserman (2015)",
    url="https://arxiv.org/abs/1409.1556v6",
    models=("vgg",),
    items=ITEMS,
    claims=CLAIMS,
)
