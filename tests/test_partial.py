"""The incremental forward pass against its definition: paint the square, run the whole network, one by one."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence

import pytest
import torch
from oracle import brute_force_features
from torch import Tensor

from zfrepro.errors import UserError
from zfrepro.models import partial
from zfrepro.models.network import Network
from zfrepro.models.table import op_sizes, ops_of
from zfrepro.options.compose import load_model
from zfrepro.options.shared import LayerConfig, ModelConfig


def conv(
    maps: int, kernel: int, stride: int, padding: int, pool: tuple[int, int, int] = (0, 2, 0), norm: str = "none"
) -> LayerConfig:
    return LayerConfig(
        "conv", maps, 0, kernel, stride, padding, pool=pool[0], pool_stride=pool[1], pool_padding=pool[2], norm=norm
    )


FC = LayerConfig("fc", units=7)
FIRST, SECOND = (conv(n, k, 2, p, (3, 2, 1), "after_pool") for n, k, p in ((5, 7, 1), (6, 5, 0)))
EARLY = [conv(n, k, s, p, (3, s // 2, 1), "before_pool") for n, k, s, p in ((6, 11, 4, 5), (5, 5, 2, 2))]
TABLES = {
    "zfnet": (61, [FIRST, SECOND, conv(4, 3, 1, 1, (3, 2, 0)), FC]),
    "alexnet": (58, [*EARLY, conv(4, 3, 1, 1), FC]),
    "no pooling, no fc": (23, [conv(3, 3, 1, 0), conv(4, 4, 3, 2)]),
    "stride beyond kernel": (29, [conv(4, 2, 3, 0), conv(3, 3, 1, 2, (2, 2, 1))]),
    "one cell": (17, [conv(4, 5, 2, 0, (7, 1, 0)), FC]),
}


def network_of(name: str, dtype: torch.dtype = torch.float64) -> Network:
    size, layers = TABLES[name]
    torch.manual_seed(3)
    network = Network(ModelConfig(name, size, layers), outputs=5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.to(dtype).eval()


def one_by_one(
    network: Network, image: Tensor, fill: Tensor, square: int, ys: Sequence[int], xs: Sequence[int], wanted: list[int]
) -> dict[int, Tensor]:
    found: dict[int, list[Tensor]] = {layer: [] for layer in wanted}
    for y in ys:
        for x in xs:
            painted = image.clone()
            painted[:, y : y + square, x : x + square] = fill[:, y : y + square, x : x + square]
            for layer, value in network.features(painted[None], wanted).items():
                found.setdefault(layer, []).append(value[0])
    return {layer: torch.stack(found[layer]) for layer in wanted}


def pictures(network: Network) -> tuple[Tensor, Tensor]:
    size = network.input_size
    torch.manual_seed(4)
    image, fill = torch.randn(2, 3, size, size, dtype=next(network.parameters()).dtype)
    return 3 * image, fill


def check_equal(name: str, square: int, stride: int, block: int, share: float = partial.PLAIN_SHARE) -> None:
    network = network_of(name)
    image, fill = pictures(network)
    ys = partial.square_positions(network.input_size, square, stride)
    xs = ys[1:]  # not a square grid
    wanted = [*network.feature_layers, network.softmax]
    with torch.no_grad():
        expected = one_by_one(network, image, fill, square, ys, xs, wanted)
    stream = list(partial.occluded_features(network, image, fill, square, ys, xs, wanted, block))
    for layer in wanted:
        got = partial.collect(iter(stream), lambda found, layer=layer: found[layer])
        torch.testing.assert_close(got, expected[layer], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("square", [1, 6, 13])
def test_equals_brute_force(name: str, square: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "PLAIN_SHARE", 2.0)  # never plainly: windows all the way, even of whole maps
    check_equal(name, square, 11, 6)


def any_table(rng: random.Random) -> tuple[int, list[LayerConfig]]:
    """Kernels, strides, paddings and pools by chance."""
    layers = []
    for _ in range(rng.randint(1, 4)):
        kernel, pool = rng.randint(1, 7), rng.choice([0, 2, 3, 4, 5])
        pooling = pool, rng.randint(1, 4), rng.randint(0, pool // 2)
        padding, norm = rng.randint(0, kernel), rng.choice(["none", "after_pool", "before_pool"])
        layers.append(conv(rng.randint(1, 4), kernel, rng.randint(1, 4), padding, pooling, norm))
    return rng.randint(9, 40), [*layers, FC]


@pytest.mark.parametrize("seed", range(30))
def test_any_table_equals_brute_force(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    while True:
        monkeypatch.setitem(TABLES, "by chance", any_table(rng))
        with contextlib.suppress(UserError):  # a map smaller than the next kernel
            network_of("by chance")
            break
    share = rng.choice([partial.PLAIN_SHARE, 2.0, 0.4])
    monkeypatch.setattr(partial, "PLAIN_SHARE", share)
    check_equal("by chance", rng.randint(1, 9), rng.randint(1, 6), rng.choice([1, 6, 20, 1000]))


@pytest.mark.parametrize("name", ["vgg_a_lrn_demo", "vgg_c_demo", "vgg_e_demo"])
def test_vgg_equals_brute_force(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1x1 convolutions and nineteen layers, at the tables' own size, with few maps."""
    config = load_model(name)
    for layer in config.layers:
        layer.maps, layer.units = layer.maps // 8, layer.units // 32
    monkeypatch.setitem(TABLES, name, (config.input_size, config.layers))
    check_equal(name, 13, 15, 6)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6])
def test_falls_back_to_whole_maps_from_any_layer_on(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "PLAIN_SHARE", share)
    check_equal("zfnet", 9, 13, 10)


def test_every_offset_in_one_block() -> None:
    check_equal("zfnet", 53, 1, 10_000)


def test_float32_agrees_to_1e_5() -> None:
    network = network_of("zfnet", torch.float32)
    image, fill = pictures(network)
    ys = partial.square_positions(network.input_size, 15, 8)
    pick = lambda found: found[network.softmax].softmax(1)  # noqa: E731
    ours = partial.collect(partial.occluded_features(network, image, fill, 15, ys, ys, [network.softmax]), pick)
    brute = partial.collect(brute_force_features(network, image, fill, 15, ys, ys, [network.softmax], 7), pick)
    assert (ours - brute).abs().max() < 1e-5
    assert ours.std(0).max() > 1e-3  # the occluder does something


def test_only_the_window_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first convolution gets no more than the square, from a multiple of its stride on."""
    network = network_of("zfnet")
    image, fill = pictures(network)
    occluder = partial.Occluder(network, image, fill, 4)
    seen = []
    original = torch.nn.functional.conv2d

    def spy(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        seen.append(tuple(x.shape[-2:]))
        return original(x, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(partial.F, "conv2d", spy)
    occluder.maps([0, 3], [20], [])
    # Rows 0-3 and 3-6 start differently modulo 2: the second window is 2-6. Columns 20-23 are as they are.
    assert seen[0] == (5, 4)


@pytest.mark.parametrize(
    ("size", "square", "stride", "expected"),
    [(10, 4, 3, [0, 3, 6]), (10, 4, 4, [0, 4, 6]), (10, 10, 3, [0]), (5, 1, 1, [0, 1, 2, 3, 4]), (9, 4, 100, [0, 5])],
)
def test_positions_reach_the_border(size: int, square: int, stride: int, expected: list[int]) -> None:
    assert partial.square_positions(size, square, stride) == expected


@pytest.mark.parametrize(("square", "stride"), [(11, 1), (0, 1), (3, 0)])
def test_impossible_squares_are_refused(square: int, stride: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        partial.square_positions(10, square, stride)


def test_spans_are_what_changes() -> None:
    """Perturb one row of the input; the rows of the output that move are exactly the span."""
    network = network_of("zfnet")
    ops = tuple(ops_of(network.layers, 3))
    image, _ = pictures(network)
    torch.manual_seed(0)
    for start in (0, 1, 17, 58):
        expected = partial.spans((start,), 3, ops, tuple(op_sizes(ops, 61)))[-1]
        moved = torch.zeros(network.side(3), dtype=torch.bool)
        for _ in range(15):  # a maximum hides most changes: try many
            other = image.clone()
            other[:, start : start + 3] += 30 * torch.randn_like(other[:, start : start + 3])
            with torch.no_grad():
                before, after = (network.features(x[None], [3])[3][0] for x in (image, other))
            moved |= (before != after).any(2).any(0)
        rows = moved.nonzero().flatten()
        first = int(expected.start[0])
        assert rows.min() >= first
        assert rows.max() < first + expected.size


def test_blocks_cover_the_grid_once() -> None:
    ys, xs = list(range(7)), list(range(11))
    for count in (1, 5, 20, 1000):
        grid = list(partial.blocks(range(len(ys)), range(len(xs)), count))
        numbers = torch.cat([partial._numbers(*block, len(xs)) for block in grid])
        assert numbers.sort()[0].tolist() == list(range(77))
        assert all(len(r) * len(c) <= count for r, c in grid)


def test_memory_is_bounded_by_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stride 1: as many positions as pixels, but never more of them in a batch than asked, and results in portions."""
    network = network_of("zfnet", torch.float32)
    image, fill = pictures(network)
    ys = partial.square_positions(network.input_size, 44, 1)
    batches = []
    original = partial.Occluder.maps

    def spy(self: partial.Occluder, ys: list[int], xs: list[int], wanted: list[int]) -> dict[int, Tensor]:
        batches.append(len(ys) * len(xs))
        return original(self, ys, xs, wanted)

    monkeypatch.setattr(partial.Occluder, "maps", spy)
    portions = [
        len(numbers)
        for numbers, _ in partial.occluded_features(network, image, fill, 44, ys, ys, [network.softmax], 30)
    ]
    assert sum(portions) == len(ys) ** 2
    assert max(batches) <= 30
    assert max(portions) < partial.HEAD_BATCH + 30
