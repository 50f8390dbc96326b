"""The deconvnet against hand-set weights with the literal answer, and against automatic differentiation."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from oracle import autograd_projections
from torch import Tensor

from zfrepro.errors import UserError
from zfrepro.models.deconvnet import TIES, Rules, pool_up, unpool
from zfrepro.models.network import Network, initialise
from zfrepro.models.table import Op, op_sizes, ops_of
from zfrepro.models.window import project
from zfrepro.options.compose import conf_folder, to_dataclass
from zfrepro.options.shared import LayerConfig, ModelConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def network_of(config: ModelConfig, seed: int = 0) -> Network:
    """A float64 network with random weights and biases of both signs, so that zero padding differs from a bias."""
    network = Network(config, 3).double().eval().requires_grad_(False)
    initialise(network, "he", seed)
    generator = torch.Generator().manual_seed(seed)
    for number in network.conv_layers:
        network.conv(number).bias.normal_(0.2, 0.3, generator=generator)
    return network


def narrow(name: str, input_size: int, by: int = 24) -> ModelConfig:
    """A network of conf/model with its geometry and a `by`-th of its maps."""
    raw = OmegaConf.load(conf_folder() / "model" / f"{name}.yaml")
    config = to_dataclass(OmegaConf.create(raw), ModelConfig)
    config.input_size = input_size
    for layer in config.layers:
        layer.maps, layer.units = max(1, layer.maps // by), 4
    return config


def vgg11(input_size: int) -> ModelConfig:
    """VGG-11's eight convolutions with few maps."""
    pooled = [True, True, False, True, False, True, False, True]
    rows = [LayerConfig(maps=4, kernel=3, padding=1, pool=2 * pool) for pool in pooled]
    return ModelConfig("vgg11", input_size, rows + [LayerConfig("fc", units=4)])


def random_table(seed: int) -> ModelConfig:
    """2-4 layers with odd sizes, strides, paddings and overlapping pools."""
    draw = random.Random(seed)
    rows = []
    for _ in range(draw.randint(2, 4)):
        kernel, pool = draw.choice([1, 2, 3, 5]), draw.choice([0, 2, 3, 3])
        rows.append(
            LayerConfig(
                maps=draw.randint(3, 6), kernel=kernel, stride=draw.choice([1, 1, 2, 3]), padding=draw.randint(0, kernel // 2),
                pool=pool, pool_stride=draw.choice([1, 2, 3]), pool_padding=draw.randint(0, pool // 2),
                norm=draw.choice(["none", "after_pool", "before_pool"]),
            )
        )  # fmt: skip
    return ModelConfig(f"random{seed}", draw.randint(35, 51), rows)


def samples(network: Network, layer: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images, and of each one unit of the layer: corners and edges first, then places inside; active ones if possible."""
    generator = torch.Generator().manual_seed(seed)
    size = network.input_size
    images = torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64) * 5
    output = network.features(images, [layer])[layer]
    last = output.shape[-1] - 1
    places = [(0, 0), (last, last), (0, last), (last // 2, 0), (last, last // 3), (last // 2, last // 2)] * count
    units = [(int(output[i, :, y, x].argmax()), y, x) for i, (y, x) in enumerate(places[:count])]
    return images, torch.tensor(units)


def whole_image(network: Network, images: Tensor, layer: int, units: Tensor, rules: Rules) -> Tensor:
    """Projections by the plain walk on whole maps (ZFNet, section 2.1): up, then one activation alone down through the ops in
    reverse."""
    x, steps = images, list[tuple[Op, int, Tensor | None]]()
    for op in ops_of(network.layers, layer):
        side, switches = x.shape[-1], None
        if op.kind == "pool":
            x, switches = pool_up(x, op, op.padding, rules.ties)
        else:
            x = network.step(op, x)
        steps.append((op, side, switches))
    alone = (torch.arange(len(units)), *units.T)
    signal = torch.zeros_like(x)
    signal[alone] = x[alone]
    for op, side, switches in reversed(steps):
        if op.kind == "relu":
            signal = F.relu(signal)
        elif switches is not None:
            signal = unpool(signal, switches, side, rules.unpool)
        elif op.kind == "conv":
            reached = (signal.shape[-1] - 1) * op.stride - 2 * op.padding + op.kernel  # a stride may leave rows unread
            filters = network.conv(op.layer).weight
            signal = F.conv_transpose2d(signal, filters, None, op.stride, op.padding, side - reached)
    return signal


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference of a projection, relative to its largest value."""
    scale = expected.flatten(1).abs().amax(1).clamp_min(1e-30)
    assert float((scale > 1e-12).double().mean()) >= 0.5, "too few active units to show anything"
    return float(((found - expected).flatten(1).abs().amax(1) / scale).max())


def test_overlapping_windows_add_where_they_share_a_switch() -> None:
    x = torch.tensor([[0.0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 7, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]])[
        None, None
    ]
    pooled, switches = torch.nn.functional.max_pool2d(x, 3, 2, return_indices=True)
    assert pooled.flatten().tolist() == [7, 7, 7, 7]  # the 7 is the maximum of all four windows
    signal = torch.tensor([[1.0, 2], [3, -10]])[None, None]
    added, kept = (unpool(signal, switches, 5, rule)[0, 0] for rule in ("sum", "max"))
    assert added[2, 2] == -4 and added.abs().sum() == 4
    assert kept[2, 2] == 3 and kept.abs().sum() == 3
    lone = torch.tensor([[7.0, 0], [0, 0]])[None, None]  # max_unpool2d gives zeros here
    assert unpool(lone, switches, 5, "sum")[0, 0, 2, 2] == 7


def test_hand_set_weights_give_the_literal_projection() -> None:
    """One 2x2 filter with stride 2, pooled 2x2: the unit's value times the filter, at the place of the maximum."""
    network = Network(ModelConfig("hand", 8, [LayerConfig(maps=1, kernel=2, stride=2, pool=2)]), 2, channels=1)
    with torch.no_grad():
        network.conv(1).weight.copy_(torch.tensor([[[[1.0, -1], [2, 0]]]]))
        network.conv(1).bias.fill_(0.5)
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 2:4, 6:8] = torch.tensor([[3.0, 1], [1, 9]])  # 3 - 1 + 2 + 0.5 = 4.5, in the window of unit (0, 1)
    expected = torch.zeros(8, 8)
    expected[2:4, 6:8] = 4.5 * torch.tensor([[1.0, -1], [2, 0]])  # no ReLU at the pixels, no bias on the way down
    assert torch.equal(project(network, image, 1, [(0, 0, 1)])[0, 0], expected)
    assert torch.equal(project(network, image, 1, [(0, 1, 1)])[0, 0, 4:6, 4:6], 0.5 * torch.tensor([[1.0, -1], [2, 0]]))


def brute_force_switches(x: Tensor, op: Op, ties: str) -> Tensor:
    """For each pooling window of x (B, C, H, W) the flat place of its first maximum, -1 where the rule drops it."""
    side = op_sizes([op], x.shape[-1])[-1]
    found = torch.full((*x.shape[:2], side, side), -1)
    for b, c, i, j in itertools.product(*map(range, found.shape)):
        best = 0.0 if ties == "drop" else -math.inf
        for y, z in itertools.product(range(op.kernel), repeat=2):
            row, column = i * op.stride - op.padding + y, j * op.stride - op.padding + z
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3] and x[b, c, row, column] > best:
                best = float(x[b, c, row, column])
                found[b, c, i, j] = row * x.shape[3] + column
    return found


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel, stride, padding", [(3, 2, 1), (3, 2, 0), (2, 2, 0), (3, 1, 1), (2, 3, 1)])
def test_switches_of_ties(ties: str, layout: torch.memory_format, kernel: int, stride: int, padding: int) -> None:
    """Maps of few values, most of them below zero: many windows tie, below zero, at zero and above."""
    generator = torch.Generator().manual_seed(kernel)
    x = torch.randint(-6, 3, (2, 9, 8, 8), generator=generator).clamp(min=-1).to(torch.float32, memory_format=layout)
    op = Op("pool", 1, kernel, stride, padding)
    pooled, switches = pool_up(x, op, padding, ties)
    assert torch.equal(switches, brute_force_switches(x, op, ties))
    assert torch.equal(pooled, torch.nn.functional.max_pool2d(x, kernel, stride, padding))
    assert set(pooled.unique().tolist()) == {-1, 0, 1, 2}


def test_a_window_without_a_maximum_passes_nothing_down() -> None:
    x = torch.tensor([[5.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 2], [0, 0, 2, 0]])[None, None]
    signal = torch.tensor([[1.0, 10], [100, 1000]])[None, None]
    for ties, places in (
        ("drop", {(0, 0): 1, (2, 3): 1000}),
        ("first", {(0, 0): 1, (0, 2): 10, (2, 0): 100, (2, 3): 1000}),
    ):
        expected = torch.zeros(4, 4)
        for place, value in places.items():
            expected[place] = value
        _, switches = pool_up(x, Op("pool", 1, 2, 2), 0, ties)
        for rule in ("sum", "max"):
            assert torch.equal(unpool(signal, switches, 4, rule)[0, 0], expected)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize(
    "config", [narrow("zfnet", 107), narrow("alexnet", 111), vgg11(67)], ids=["zfnet", "alexnet", "vgg11"]
)
def test_projections_equal_autograd(config: ModelConfig, ties: str) -> None:
    network = network_of(config)
    for layer in network.conv_layers:
        check_against_autograd(network, layer, 7, layer, ties)


def check_against_autograd(network: Network, layer: int, count: int, seed: int, ties: str) -> None:
    """Both walks, on whole maps and on windows."""
    images, units = samples(network, layer, count, seed)
    expected = autograd_projections(network, images, layer, units, ties)
    assert difference(whole_image(network, images, layer, units, Rules(ties=ties)), expected) < 1e-9
    assert difference(project(network, images, layer, units, rules=Rules(ties=ties)), expected) < 1e-9


VGG = [f"vgg_{name}_demo" for name in ("a", "a_lrn", "b", "b_5x5", "c", "d", "e")]


@pytest.mark.parametrize("name", VGG)
def test_projections_of_vgg_equal_autograd(name: str) -> None:
    """1x1 convolutions, nineteen layers, poolings that do not overlap: at the tables' own size, with few maps."""
    network = network_of(narrow(name, 56, by=8))
    for layer in network.conv_layers:
        for ties in TIES:
            check_against_autograd(network, layer, 5, layer, ties)


def test_the_rule_for_ties_makes_another_projection() -> None:
    network = network_of(narrow("zfnet", 127))
    images, units = samples(network, 5, 4, 0)
    dropped, first = (project(network, images, 5, units, rules=Rules(ties=ties)) for ties in TIES)
    assert not torch.allclose(dropped, first, rtol=1e-2)


@pytest.mark.parametrize("seed", range(14))
def test_projections_equal_autograd_on_random_tables(seed: int) -> None:
    try:
        network = network_of(random_table(seed), seed)
    except UserError:
        pytest.skip("this table does not fit its input")
    for layer in network.conv_layers:
        for ties in TIES:
            check_against_autograd(network, layer, 6, seed, ties)


def test_enough_random_tables_fit() -> None:
    fitting = 0
    for seed in range(14):
        try:
            network_of(random_table(seed), seed)
        except UserError:
            continue
        fitting += 1
    assert fitting >= 12


def test_keeping_the_maximum_is_another_projection() -> None:
    network = network_of(narrow("zfnet", 127))
    images, units = samples(network, 3, 4, 0)
    added, kept = (project(network, images, 3, units, rules=Rules(unpool=rule)) for rule in ("sum", "max"))
    assert torch.allclose(kept, whole_image(network, images, 3, units, Rules(unpool="max")))
    assert not torch.allclose(added, kept, rtol=1e-2)


def test_what_does_not_exist_is_refused() -> None:
    network = network_of(narrow("zfnet", 127))
    images = torch.zeros(2, 3, 127, 127, dtype=torch.float64)
    with pytest.raises(ValueError, match="layer 6"):
        project(network, images, 6, [(0, 0, 0)])
    with pytest.raises(ValueError, match="outside layer 5"):
        project(network, images, 5, [(0, 3, 0)], [0])
    with pytest.raises(ValueError, match="outside layer 5"):
        project(network, images, 5, [(0, 0, -1)], [0])
    with pytest.raises(ValueError, match="image number"):
        project(network, images, 5, [(0, 0, 0)], [2])
    with pytest.raises(ValueError, match="one image number per unit"):
        project(network, images, 5, [(0, 0, 0)])
    with pytest.raises(ValueError, match="the network takes"):
        project(network, images[..., :100], 5, [(0, 0, 0)], [0])
    with pytest.raises(ValueError, match="unpool"):
        Rules(unpool="assign")
    with pytest.raises(ValueError, match="ties"):
        Rules(ties="last")
    assert project(network, images, 5, [], []).shape == (0, 3, 127, 127)
