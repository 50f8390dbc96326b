"""ONNX files as layer tables: the same outputs as ONNX Runtime's, or a refusal that names the node."""

from __future__ import annotations

import builtins
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import Zfrepro
from tests.test_import import IMAGENET, opened, shaken
from zfrepro.errors import UserError
from zfrepro.models.imported import assemble, read_state_dict
from zfrepro.models.network import Network
from zfrepro.models.onnx_chain import read_chain
from zfrepro.models.window import project
from zfrepro.options.shared import LayerConfig, ModelConfig

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
Node = Any


def test_an_onnx_package_that_is_broken_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By a protobuf of another version, which raises neither ImportError nor anything else that says so."""

    def broken(name: str, *rest: Any) -> Any:
        if name == "onnx":
            raise TypeError("Descriptors cannot be created directly.\nIf this call came from a _pb2.py file ...")
        return usual(name, *rest)

    usual = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(UserError, match=r"the onnx package is broken here \(Descriptors cannot be created directly"):
        read_chain(tmp_path / "net.onnx")


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1 / np.sqrt(max(1, np.prod(shape[1:]))), shape).astype(np.float32)


class Graph:
    """An ONNX graph, a node after the other."""

    def __init__(self, shape: Sequence[int | str | None] = (1, 3, 12, 12), kind: int = 1) -> None:
        self.input = onnx.helper.make_tensor_value_info("x", kind, shape)
        self.nodes: list[Node] = []
        self.constants: list[Any] = []
        self.here = "x"

    def constant(self, value: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(value, name))
        return name

    def add(self, kind: str, *given: np.ndarray | str, first: bool = True, **attributes: Any) -> Graph:
        """A node that reads the last one's output, and constants or other nodes' outputs."""
        others = [one if isinstance(one, str) else self.constant(one) for one in given]
        name = f"{kind.lower()}_{len(self.nodes)}"
        inputs = [self.here, *others] if first else [*others, self.here]
        self.nodes.append(onnx.helper.make_node(kind, inputs, [f"{name}_out"], name=name, **attributes))
        self.here = f"{name}_out"
        return self

    def conv(self, maps: int, inputs: int, kernel: int = 3, relu: bool = True, bias: bool = True, **more: Any) -> Graph:
        seed = len(self.nodes)
        weights = [numbers(maps, inputs, kernel, kernel, seed=seed), numbers(maps, seed=seed + 1)]
        self.add("Conv", *weights[: 1 + bias], **{"kernel_shape": [kernel, kernel], **more})
        return self.add("Relu") if relu else self

    def saved(self, path: Path, opset: int = 17) -> Path:
        """The graph in a file."""
        output = onnx.helper.make_tensor_value_info(self.here, 1, None)
        graph = onnx.helper.make_graph(self.nodes, "g", [self.input], [output], self.constants)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=9)
        onnx.save(model, path)
        return path


def imported(path: Path, layers: int | None = None) -> Network:
    return assemble(*read_chain(path, layers), f"weights={path}", layers)


def agrees(path: Path, batch: int = 2) -> Network:
    """The network of the file, whose logits (or their softmax, or its uppermost maps) are ONNX Runtime's."""
    network, session = imported(path), runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    batch = given.shape[0] if isinstance(given.shape[0], int) else batch
    x = torch.randn(batch, 3, network.input_size, network.input_size, generator=torch.Generator().manual_seed(3))
    fed = x if given.shape[1] == 3 else x.permute(0, 2, 3, 1)
    expected = torch.from_numpy(session.run(None, {given.name: fed.contiguous().numpy()})[0])
    found = network.features(x, [network.layers[-1].number])[network.layers[-1].number]
    if path.stem.startswith("softmax"):
        found = found.softmax(1)
    elif path.stem.startswith("logarithms"):
        found = found.log_softmax(1)
    elif found.ndim == 4 and expected.ndim == 2:
        found = found.flatten(1)
    assert expected.abs().max() > 1e-2
    assert torch.allclose(found, expected.view_as(found), atol=1e-4 * float(expected.abs().max()))
    return network


# ------------------------------------------------------------------------------------------------- exports of PyTorch


class Views(nn.Module):
    """PyTorch's ways to write a small network: 40 px, batch normalisation, a pooling that is the identity, a view."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(8, 6, 3, padding=1),
            nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(4),
        )  # fmt: skip
        self.top = nn.Sequential(nn.Dropout(), nn.Linear(96, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        return self.top(x.view(x.size(0), -1))


def export(model: nn.Module, path: Path, size: int, modern: bool = False) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        how: dict[str, Any] = {"dynamo": False, "dynamic_axes": {"x": {0: "batch"}}, "input_names": ["x"]}
        if modern:
            how = {"dynamo": True, "dynamic_shapes": {"x": {0: torch.export.Dim("batch")}}, "verbose": False}
        torch.onnx.export(model, (torch.zeros(2, 3, size, size),), str(path), **how)
    return path


@pytest.mark.parametrize("modern", [False, True])
def test_exports_of_torch_equal_the_state_dict(tmp_path: Path, modern: bool) -> None:
    if modern:
        pytest.importorskip("onnxscript")
    model = shaken(Views())
    path = export(model, tmp_path / "net.onnx", 40, modern)
    network = agrees(path)
    rows = [
        LayerConfig(maps=8, kernel=5, stride=2, padding=1, pool=3, pool_stride=2),
        LayerConfig(maps=6, kernel=3, padding=1, pool=2),
        LayerConfig(kind="fc", units=12),
    ]
    assert network.config == ModelConfig("net", 40, rows)
    same = assemble(ModelConfig("net", 40, rows), read_state_dict(model.state_dict(), "weights", 1e-5), "weights")
    x, units = torch.randn(3, 3, 40, 40), [(0, 1, 2), (3, 0, 0), (5, 3, 3)]
    for layer in (1, 2):
        found, expected = (project(one, x, layer, units) for one in (network, same))
        assert float(expected.abs().max()) > 0
        assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


def test_torchvisions_alexnet_exported(tmp_path: Path) -> None:
    """Its classes are few and its widest layers narrow: only the sizes of its maps matter."""
    from zfrepro.vision import torchvision

    with torch.device("meta"):
        model = torchvision.models.alexnet()
    model.classifier = nn.Sequential(nn.Dropout(), nn.Linear(9216, 5), nn.ReLU(), nn.Linear(5, 4))
    network = agrees(export(shaken(model.to_empty(device="cpu")), tmp_path / "alexnet.onnx", 224))
    assert [network.side(number) for number in network.conv_layers] == [27, 13, 13, 13, 6] and network.outputs == 4


# -------------------------------------------------------------------------------------------------------- single nodes


def test_maps_last(tmp_path: Path) -> None:
    """As Keras and TensorFlow have it: pictures and maps with the colours last, matrices that read them in that order."""
    graph = Graph(("batch", 14, 14, 3)).add("Transpose", perm=[0, 3, 1, 2])
    graph.conv(5, 3, bias=False, relu=False, auto_pad="SAME_UPPER").add("Add", numbers(1, 5, 1, 1, seed=9)).add("Relu")
    graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).conv(4, 5, auto_pad="VALID")
    graph.add("Transpose", perm=[0, 2, 3, 1]).add("Reshape", np.array([-1, 100]))
    graph.add("MatMul", numbers(6, 100).T.copy()).add("Add", numbers(6), first=False).add("Relu")
    graph.add("MatMul", numbers(3, 6).T.copy()).add("Add", numbers(3)).add("Softmax")
    network = agrees(graph.saved(tmp_path / "softmax.onnx"))
    assert [(row.kind, row.maps, row.units, row.padding) for row in network.config.layers] == [
        ("conv", 5, 0, 1), ("conv", 4, 0, 0), ("fc", 0, 6, 0)
    ]  # fmt: skip


@pytest.mark.parametrize("before", [True, False])
def test_contrast_normalisation(tmp_path: Path, before: bool) -> None:
    graph, norm = Graph(), {"size": 3, "alpha": 0.6, "beta": 0.7, "bias": 1.5}
    for maps, inputs in ((7, 3), (6, 7)):
        graph.conv(maps, inputs, pads=[1] * 4)
        if before:
            graph.add("LRN", **norm)
        graph.add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        if not before:
            graph.add("LRN", **norm)
    network = agrees(graph.saved(tmp_path / "lrn.onnx"))
    assert network.config.norm_alpha == pytest.approx(0.2) and network.config.norm_k == 1.5
    assert network.config.layers[0].norm == ("before_pool" if before else "after_pool")


def test_contrast_normalisation_by_its_defaults(tmp_path: Path) -> None:
    """ONNX's: alpha 0.0001, beta 0.75, bias 1."""
    network = agrees(Graph().conv(7, 3).add("LRN", size=3).conv(6, 7).saved(tmp_path / "lrn.onnx"))
    given = network.config
    assert (given.norm_alpha * 3, given.norm_beta, given.norm_k) == pytest.approx((1e-4, 0.75, 1.0))


class Normalised(nn.Module):
    """As AlexNet and ZFNet are written in PyTorch, whose exporters take the contrast normalisation to pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d, self.n = nn.Conv2d(3, 7, 5, 2), nn.Conv2d(7, 6, 3), nn.LocalResponseNorm(5, 0.9, 0.7, 2.0)
        self.pool, self.top = nn.MaxPool2d(3, 2), nn.Linear(6 * 16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.n(torch.relu(self.c(x))))
        return self.top(self.n(torch.relu(self.d(x))).flatten(1))


@pytest.mark.parametrize("modern", [False, True])
def test_contrast_normalisation_in_pieces(tmp_path: Path, modern: bool) -> None:
    if modern:
        pytest.importorskip("onnxscript")
    network = agrees(export(shaken(Normalised()), tmp_path / "pieces.onnx", 31, modern))
    assert [row.norm for row in network.config.layers] == ["before_pool", "before_pool"]
    assert network.config.norm_size == 5 and network.config.norm_alpha == pytest.approx(0.18)


def test_zeros_around_the_maps_are_the_convolutions(tmp_path: Path) -> None:
    ends = np.array([0, 1, 1, 0, 0, 1, 1, 0])
    graph = Graph(("n", 10, 10, 3)).add("Pad", ends).add("Transpose", perm=[0, 3, 1, 2]).conv(4, 3, pads=[1] * 4)
    graph.add("Pad", np.array([0, 0, 2, 2, 0, 0, 2, 2]), np.array(0, np.float32)).conv(5, 4, kernel=4, strides=[2, 2])
    network = agrees(graph.saved(tmp_path / "pads.onnx"))
    assert [row.padding for row in network.config.layers] == [2, 2]


def test_pooling_before_the_relu_and_rounding_up_where_it_makes_no_difference(tmp_path: Path) -> None:
    graph = (
        Graph((1, 3, 13, 13)).conv(4, 3, relu=False).add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    )
    agrees(graph.add("Identity").add("Relu").saved(tmp_path / "pool.onnx"))


def test_a_matrix_may_be_transposed_scaled_normalised_and_a_convolution(tmp_path: Path) -> None:
    graph = Graph().conv(4, 3, strides=[2, 2]).add("Flatten")
    graph.add("Gemm", numbers(100, 6, seed=4), numbers(6), alpha=0.5, beta=2.0)
    norm = [np.abs(numbers(6, seed=seed)) + 0.1 for seed in range(4)]
    graph.add("BatchNormalization", *norm, epsilon=0.1).add("Relu").add("Dropout")
    network = agrees(graph.add("Gemm", numbers(3, 6), transB=1).saved(tmp_path / "gemm.onnx"))
    assert network.config.layers[1].dropout == 0.5
    graph = Graph().conv(4, 3, strides=[2, 2]).conv(6, 4, kernel=5).conv(3, 6, kernel=1, relu=False)
    network = agrees(graph.add("GlobalAveragePool").add("Flatten").saved(tmp_path / "convs.onnx"))
    assert network.outputs == 3 and network.conv_layers == [1, 2]


def test_logarithms_of_probabilities_are_those_of_the_softmax(tmp_path: Path) -> None:
    """As of a network that was trained by NLLLoss."""
    graph = Graph().conv(4, 3).add("Flatten").add("Gemm", numbers(5, 400), transB=1)
    agrees(graph.add("LogSoftmax", axis=1).saved(tmp_path / "logarithms.onnx"))


def test_features_alone_and_a_tail_that_is_cut(tmp_path: Path) -> None:
    graph = Graph().conv(4, 3).conv(5, 4)
    assert agrees(graph.saved(tmp_path / "features.onnx")).softmax is None
    with pytest.raises(UserError, match="layers=3: must be between 1 and 2"):
        imported(tmp_path / "features.onnx", layers=3)
    graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).add("GlobalAveragePool").add("Flatten")
    path = graph.add("Gemm", numbers(3, 5), transB=1).saved(tmp_path / "averaged.onnx")
    with pytest.raises(
        UserError, match=r"GlobalAveragePool 'globalaveragepool_5' averages.*layers=2 takes the layers below"
    ):
        imported(path)
    cut = imported(path, layers=2)
    assert cut.softmax is None and cut.config.layers[1].pool == 2 and len(cut.layers) == 2
    assert imported(path, layers=1).feature_layers == [1]
    dense = Graph().conv(4, 3).add("Flatten").add("Gemm", numbers(6, 400), transB=1).add("Relu")
    dense.add("BatchNormalization", *[np.ones(6, np.float32)] * 4).add("Gemm", numbers(3, 6), transB=1)
    path = dense.saved(tmp_path / "dense.onnx")
    with pytest.raises(UserError, match="BatchNormalization 'batchnormalization_5' does not stand right behind"):
        imported(path)
    assert imported(path, layers=2).feature_layers == [1, 2]


# ------------------------------------------------------------------------------------------------------------- refusals

POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
REFUSED = {
    "asymmetric padding": (lambda g: g.conv(4, 3, pads=[0, 0, 1, 1]), "Conv 'conv_0' pads by"),
    "same padding, even": (lambda g: g.conv(4, 3, kernel=2, auto_pad="SAME_UPPER"), "Conv 'conv_0' pads by"),
    "pooling's padding": (lambda g: g.conv(4, 3).add("MaxPool", **POOL, pads=[0, 0, 1, 1]), "MaxPool 'maxpool_2' pads by"),
    "dilation": (lambda g: g.conv(4, 3, dilations=[2, 2]), "Conv 'conv_0' is dilated by 2"),
    "groups": (lambda g: g.conv(4, 3).conv(4, 2, group=2), "Conv 'conv_2' has 2 groups"),
    "an oblong window": (
        lambda g: g.add("Conv", numbers(4, 3, 3, 1), kernel_shape=[3, 1]).add("Relu"),
        "Conv 'conv_0' has a window of 3x1",
    ),
    "strides": (lambda g: g.conv(4, 3, strides=[1, 2]), "Conv 'conv_0' has a window of 3x3, strides [1, 2]"),
    "average pooling": (lambda g: g.conv(4, 3).add("AveragePool", **POOL).conv(4, 4), "AveragePool 'averagepool_2' averages"),
    "rounding up": (
        lambda g: g.conv(4, 3, kernel=2).add("MaxPool", **POOL, ceil_mode=1),
        "MaxPool 'maxpool_2' rounds the size of its maps up",
    ),
    "two poolings": (lambda g: g.conv(4, 3).add("MaxPool", **POOL).add("MaxPool", **POOL), "MaxPool 'maxpool_3' is the second"),
    "pooling first": (lambda g: g.add("MaxPool", **POOL).conv(4, 3), "MaxPool 'maxpool_0' does not act on"),
    "leaky": (lambda g: g.conv(4, 3, relu=False).add("LeakyRelu").conv(4, 4), "LeakyRelu 'leakyrelu_1' has no place"),
    "no relu": (lambda g: g.conv(4, 3, relu=False).conv(4, 4), "Conv 'conv_0' has no ReLU"),
    "no relu above": (lambda g: g.conv(4, 3).conv(4, 4, relu=False), "Conv 'conv_2' has no ReLU behind it and is not fully"),
    "relu first": (lambda g: g.add("Relu").conv(4, 3), "Relu 'relu_0' comes before the first"),
    "zeros before a pooling": (
        lambda g: g.conv(4, 3).add("Pad", np.array([0, 0, 1, 1] * 2)).add("MaxPool", **POOL),
        "MaxPool 'maxpool_3' comes after zeros around the maps",
    ),
    "zeros on one side": (lambda g: g.add("Pad", np.array([0] * 6 + [1, 1])).conv(4, 3), "Pad 'pad_0' pads by [0, 0, 0,"),
    "ones around": (
        lambda g: g.add("Pad", np.array([0, 0, 1, 1] * 2), np.array(1, np.float32)).conv(4, 3),
        "Pad 'pad_0' pads by something else",
    ),
    "zeros at the end": (
        lambda g: g.conv(4, 3).add("Pad", np.array([0, 0, 1, 1] * 2)),
        "Pad 'pad_2' puts zeros around the uppermost maps",
    ),
    "maps cut, then padded": (
        lambda g: g.add("Pad", np.array([0, 0, -1, -1] * 2)).conv(4, 3, pads=[1] * 4),
        "Pad 'pad_0' pads by [0, 0, -1, -1",
    ),
    "same padding of maps with zeros around": (
        lambda g: g.add("Pad", np.array([0, 0, 1, 1] * 2)).conv(4, 3, strides=[3, 3], auto_pad="SAME_UPPER"),
        "Conv 'conv_1' pads by [0, 0, 1, 1]",
    ),
    "mirrored": (
        lambda g: g.add("Pad", np.array([0, 0, 1, 1] * 2), mode="reflect").conv(4, 3),
        "Pad 'pad_0' pads by something else",
    ),
    "a square": (lambda g: g.conv(4, 3).add("Mul", "relu_1_out").conv(4, 4), "Mul 'mul_2' joins or leaves"),
    "weights that are not there": (
        lambda g: g.conv(4, 3).add("Conv", "w2", kernel_shape=[3, 3]),
        "Conv 'conv_2' needs 'w2', which the file does not hold",
    ),
    "a residual": (
        lambda g: g.conv(4, 3, relu=False).conv(4, 4, pads=[1] * 4, relu=False).add("Add", "conv_0_out").add("Relu"),
        "Conv 'conv_0' has no ReLU",
    ),
    "a shortcut": (
        lambda g: g.conv(4, 3).conv(4, 4, pads=[1] * 4).add("Add", "relu_1_out"),
        "Add 'add_4' joins or leaves the path",
    ),
    "two branches": (
        lambda g: g.conv(4, 3).conv(4, 4).add("Concat", "relu_1_out", axis=1),
        "Concat 'concat_4' joins or leaves",
    ),
    "a scale": (lambda g: g.conv(4, 3, relu=False).add("Mul", numbers(1, 4, 1, 1)), "Mul 'mul_1' has no place"),
    "pixels shifted": (
        lambda g: g.add("Add", numbers(1, 3, 1, 1)).conv(4, 3),
        "Add 'add_0' adds a constant where there is no convolution or matrix before it; export the network without what it does "
        "to pixels, and give that as mean=, std= and channels=",
    ),
    "norm of other maps": (
        lambda g: g.conv(4, 3, relu=False).add("BatchNormalization", *[np.ones(5, np.float32)] * 4).add("Relu"),
        "BatchNormalization 'batchnormalization_1' normalises by 5 numbers what has 4 maps",
    ),
    "norm of one map": (
        lambda g: g.conv(4, 3, relu=False).add("BatchNormalization", *[np.ones(1, np.float32)] * 4).add("Relu"),
        "BatchNormalization 'batchnormalization_1' normalises by 1 numbers what has 4 maps",
    ),
    "a bias by place": (
        lambda g: g.conv(4, 3, relu=False).add("Add", numbers(1, 4, 10, 10)).add("Relu"),
        "Add 'add_1' adds more than one number a map",
    ),
    "a bias by column": (
        lambda g: g.conv(10, 3, relu=False).add("Add", numbers(10)).add("Relu"),
        "Add 'add_1' adds more than one number a map",
    ),
    "norm after relu": (
        lambda g: g.conv(4, 3).add("BatchNormalization", *[np.ones(4, np.float32)] * 4),
        "BatchNormalization 'batchnormalization_2' does not stand right behind",
    ),
    "lrn of an even number": (lambda g: g.conv(4, 3).add("LRN", size=4), "LRN 'lrn_2' sums over 4 maps"),
    "two kinds of lrn": (
        lambda g: g.conv(4, 3).add("LRN", size=3).conv(4, 4).add("LRN", size=5),
        "LRN 'lrn_5' differs from",
    ),
    "softmax over places": (lambda g: g.conv(4, 3).add("Softmax", axis=1), "Softmax 'softmax_2' is no softmax"),
    "after the softmax": (
        lambda g: g.conv(4, 3).add("Flatten").add("Gemm", numbers(5, 400), transB=1).add("Softmax").add("Relu"),
        "Relu 'relu_5' comes after the softmax",
    ),
    "half a vector": (
        lambda g: g.conv(4, 3).add("Reshape", np.array([1, 2, 200])),
        "Reshape 'reshape_2' gives maps of (1, 4, 10, 10) the shape (1, 2, 200)",
    ),
    "pictures moved": (lambda g: g.add("Transpose", perm=[1, 0, 2, 3]).conv(4, 1), "Transpose 'transpose_0' moves the axis"),
    "computed weights": (
        lambda g: g.add("Conv", "x", kernel_shape=[3, 3]).add("Relu"),
        "Conv 'conv_0' joins or leaves the path",
    ),
    "a bias of other maps": (
        lambda g: g.add("Conv", numbers(4, 3, 3, 3), numbers(5)).add("Relu"),
        "Conv 'conv_0' has a bias of 5 numbers for 4 maps",
    ),
    "a window of nothing": (
        lambda g: g.conv(4, 3).add("MaxPool", kernel_shape=[0, 0]).conv(4, 4),
        "MaxPool 'maxpool_2' has a window of 0",
    ),
    "a stride of nothing": (lambda g: g.conv(4, 3, strides=[0, 0]), "Conv 'conv_0' has a window of 3, a stride of 0"),
    "a stride of nothing, padded": (
        lambda g: g.conv(4, 3, strides=[0, 0], auto_pad="SAME_UPPER"),
        "Conv 'conv_0' has a window of 3, a stride of 0",
    ),
    "zeros taken away": (
        lambda g: g.conv(4, 3).add("MaxPool", **POOL, pads=[-1] * 4),
        "MaxPool 'maxpool_2' has a window of 2, a stride of 2 and zeros of [-1",
    ),
    "no convolution": (
        lambda g: g.add("Flatten").add("Gemm", numbers(5, 432), transB=1).add("Relu"),
        "there is no convolution",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_chain_of_the_table_is_refused_by_name(tmp_path: Path, case: str) -> None:
    build, said = REFUSED[case]
    path = build(Graph()).saved(tmp_path / "net.onnx")
    with pytest.raises(UserError) as caught:
        imported(path)
    assert str(caught.value).startswith(f"weights={path}: {said}"), caught.value


@pytest.mark.parametrize(
    ("shape", "said"),
    [((1, 3, 12, 14), "1x3x12x14"), ((1, 1, 12, 12), "1x1x12x12"), ((1, 3, "h", "w"), "1x3x?x?"), ((1, 12), "1x12")],
)
def test_inputs_that_are_no_square_picture_are_refused(tmp_path: Path, shape: tuple[int, ...], said: str) -> None:
    graph = Graph(shape)
    with pytest.raises(UserError, match="its input x is") as caught:
        imported((graph.conv(4, int(shape[1])) if len(shape) == 4 else graph.add("Relu")).saved(tmp_path / "net.onnx"))
    assert said in str(caught.value)


def test_files_that_are_no_onnx(tmp_path: Path) -> None:
    whole = Graph().conv(4, 3).saved(tmp_path / "whole.onnx").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:-9], b"\xff" * 50):
        (tmp_path / "broken.onnx").write_bytes(content)
        with pytest.raises(UserError, match="not a readable ONNX file"):
            imported(tmp_path / "broken.onnx")
    graph = Graph().conv(4, 3)
    graph.nodes[0].op_type = "Convoluted"
    with pytest.raises(UserError, match="Convoluted 'conv_0' has no place"):
        imported(graph.saved(tmp_path / "unknown.onnx"))
    graph.nodes[0].op_type = "Conv"
    del graph.nodes[0].input[1:]
    with pytest.raises(UserError, match="Conv 'conv_0' is not as ONNX has it"):
        imported(graph.saved(tmp_path / "odd.onnx"))


def test_weights_beside_the_file(tmp_path: Path) -> None:
    """As PyTorch exports large networks."""
    path, data = Graph().conv(4, 3).saved(tmp_path / "net.onnx"), tmp_path / "net.data"
    how = {"save_as_external_data": True, "location": data.name, "size_threshold": 0}
    onnx.save_model(onnx.load(path), str(path), **how)
    agrees(path)
    os.truncate(data, 10)
    with pytest.raises(
        UserError, match=r"its weights lie beside it, in net\.data, and cannot be read there \(Ext.*one folder"
    ):
        imported(path)
    data.unlink()
    with pytest.raises(UserError, match=r"its weights lie beside it, in net\.data, and cannot be read there"):
        imported(path)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    graph = Graph().conv(4, 3)
    broken = numbers(4, 3, 3, 3)
    broken[0, 0, 0, 0] = np.nan
    graph.constants[0] = onnx.numpy_helper.from_array(broken, "c0")
    with pytest.raises(UserError, match="layer 1, Conv 'conv_0' holds values that are no finite numbers"):
        imported(graph.saved(tmp_path / "nan.onnx"))


# ---------------------------------------------------------------------------------------------------------- the command


def test_an_onnx_file_becomes_a_run(zfrepro: Zfrepro, tmp_path: Path) -> None:
    """Without a model: the table, the size of the pictures and the run's name are the file's."""
    model = nn.Sequential(nn.Conv2d(3, 5, 4), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 25 * 25, 3))
    path, outputs = export(shaken(model), tmp_path / "my net.onnx", 28), f"outputs={tmp_path}"
    options = f"weights={path}", outputs, "data=folder", f"data.root={tmp_path}"
    done = zfrepro("import", *options, check=False)
    assert done.returncode == 2 and "mean=[r,g,b] std=[r,g,b]" in done.stderr
    assert "1 layers and 3 classes" in zfrepro("import", *options, *IMAGENET).stdout
    run = opened(tmp_path, "my_net")
    assert run.config.data.size == 32 and run.class_names == ("class 0", "class 1", "class 2")
    picture = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    pixels = (picture[:, 2:30, 2:30] / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = model(pixels.permute(0, 3, 1, 2))
        assert torch.allclose(run.network(run.inputs(picture)), expected, atol=1e-4)
    done = zfrepro("import", *options, *IMAGENET, "run=b", "model=zfnet_demo", check=False)
    assert done.returncode == 2 and "differs from what" in done.stderr and "layer 1" in done.stderr
