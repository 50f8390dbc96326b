"""Dense evaluation (VGG paper, section 3.2): fully connected layers at every place of a larger image, against a loop over
the places, in float64. The convolutional part is run by torch's own modules, once on the whole image: a crop of its own
would be padded where the whole image has neighbours."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import narrow, small_table
from zfrepro.errors import UserError
from zfrepro.models.network import Network, Noise, initialise
from zfrepro.models.table import op_sizes
from zfrepro.options.shared import LayerConfig, ModelConfig


def vgg() -> ModelConfig:
    """3x3 and 1x1 convolutions, 2x2 pooling, fully connected layers over 7x7."""
    rows = [LayerConfig(maps=4, kernel=3, padding=1, pool=2), LayerConfig(maps=5, kernel=3, padding=1)]
    rows += [LayerConfig(maps=6, kernel=1, pool=2), LayerConfig("fc", units=8, dropout=0.5), LayerConfig("fc", units=9)]
    return ModelConfig("vgg", 28, rows)


TABLES = {"zfnet": lambda: narrow("zfnet", 32), "alexnet": lambda: narrow("alexnet", 32), "vgg": vgg,
          "zfnet_demo": lambda: narrow("zfnet_demo", 8), "no fc": lambda: without_fc(), "small": small_table}  # fmt: skip


def without_fc() -> ModelConfig:
    """Table 3's row whose softmax reads the maps."""
    config = narrow("zfnet_demo", 8)
    config.remove = [6, 7]
    return config


def network_of(name: str) -> Network:
    network = Network(TABLES[name](), 5).double().eval().requires_grad_(False)
    initialise(network, "he", 1)
    for number, module in enumerate(network.weights.values()):
        assert isinstance(module.bias, Tensor)
        module.bias.normal_(0.1, 0.3, generator=torch.Generator().manual_seed(number))
    return network


def convolutional_part(network: Network, x: Tensor) -> Tensor:
    """The convolutional layers, written out."""
    c = network.config
    norm = nn.LocalResponseNorm(c.norm_size, c.norm_alpha * c.norm_size, c.norm_beta, c.norm_k)
    for number, row in enumerate(c.layers, 1):
        if row.kind == "conv" and number not in c.remove:
            x = F.relu(network.conv(number)(x))
            x = norm(x) if row.norm == "before_pool" else x
            x = F.max_pool2d(x, row.pool, row.pool_stride, row.pool_padding) if row.pool else x
            x = norm(x) if row.norm == "after_pool" else x
    return x


def head(network: Network, window: Tensor) -> list[Tensor]:
    """The fully connected layers and the logits of one window of maps (B, C, k, k)."""
    x, found = window.flatten(1), []
    linear = [m for m in network.weights.values() if isinstance(m, nn.Linear)]
    for layer in linear:
        x = F.linear(x, layer.weight, layer.bias)
        x = x if layer is linear[-1] else F.relu(x)
        found.append(x)
    return found


def place_by_place(network: Network, images: Tensor) -> list[Tensor]:
    """The fully connected layers and the logits at every place: each (B, U, h, w)."""
    maps, k = convolutional_part(network, images), network.side(network.conv_layers[-1])
    rows = [
        [head(network, maps[:, :, y : y + k, x : x + k]) for x in range(maps.shape[3] - k + 1)]
        for y in range(maps.shape[2] - k + 1)
    ]
    layers = range(len(rows[0][0]))
    return [torch.stack([torch.stack([at[n] for at in row], -1) for row in rows], -2) for n in layers]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("extra", [(0, 1), (37, 0), (48, 93)])
def test_larger_images_equal_a_loop_over_their_places(name: str, extra: tuple[int, int]) -> None:
    """Rectangles of odd and even sides; one side may be the training size."""
    network = network_of(name)
    height, width = (network.input_size + more for more in extra)
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 5
    expected = place_by_place(network, images)
    wanted = [n for n in (*network.feature_layers, network.top) if n not in network.conv_layers]
    found = network.features(images, wanted)
    assert list(found) == wanted and len(expected) == len(wanted)
    for layer, loop in zip(wanted, expected):
        own = found[layer] if found[layer].ndim == 4 else found[layer][..., None, None]
        assert own.shape == loop.shape
        assert torch.allclose(own, loop, rtol=1e-10, atol=1e-12)
    places = [op_sizes(network.ops, side)[-1] for side in (height, width)]
    assert list(expected[-1].shape[2:]) == places  # known without running
    assert torch.equal(network(images), found[network.top])


@pytest.mark.parametrize("name", TABLES)
def test_crop_equals_dense_at_the_training_size(name: str) -> None:
    """The one place of an image of the training size, by convolutions with the weights seen as filters, in float32."""
    network = network_of(name)
    side = network.input_size
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 5
    x, k = convolutional_part(network, images), network.side(network.conv_layers[-1])
    linear = [m for m in network.weights.values() if isinstance(m, nn.Linear)]
    for layer in linear:
        x = F.conv2d(x, layer.weight.view(len(layer.weight), -1, k, k), layer.bias)
        x, k = x if layer is linear[-1] else F.relu(x), 1
    logits = network.float()(images.float())
    assert logits.shape == (2, 5)
    assert (logits - x[..., 0, 0]).abs().max() < 1e-5 * x.abs().max()


def test_order_of_the_weights() -> None:
    """One weight that reads map 1 at row 2, column 0 of a 3x3 input: the score map is that map, shifted."""
    rows = [LayerConfig(maps=2, kernel=1), LayerConfig("fc", units=1)]
    network = Network(ModelConfig("order", 3, rows), 0, channels=2).requires_grad_(False)
    network.conv(1).weight.copy_(torch.eye(2)[:, :, None, None])
    linear = network.weights["2"]
    assert isinstance(linear, nn.Linear)
    for parameter in (network.conv(1).bias, linear.bias, linear.weight):
        parameter.zero_()
    linear.weight[0, 1 * 9 + 2 * 3 + 0] = 1
    image = torch.arange(2 * 5 * 6, dtype=torch.float32).view(1, 2, 5, 6)
    assert torch.equal(network.features(image, [2])[2], image[:, 1:, 2:5, 0:4])


def test_dropout_on_larger_images_zeroes_places() -> None:
    network = network_of("vgg")
    images = torch.randn(3, 3, 32, 36, dtype=torch.float64)
    clean, noisy = network.features(images, [4])[4], network.features(images, [4], Noise(0, 0, 0, 3))[4]
    assert noisy.shape == clean.shape == (3, 8, 2, 3)
    kept = noisy != 0
    assert torch.allclose(noisy[kept], 2 * clean[kept]) and 0.3 < float(kept[clean != 0].double().mean()) < 0.7


def test_images_below_the_training_size_are_refused() -> None:
    network = network_of("vgg")
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 3, 27, 40, dtype=torch.float64))
    with pytest.raises(UserError, match=r"the conv of layer 4 \(7x7\) gets maps of 6x6 only"):
        op_sizes(network.ops, 27)


def test_features_go_on_after_a_layer() -> None:
    network = network_of("zfnet_demo")
    images = torch.randn(2, 3, 64, 56, dtype=torch.float64)
    whole = network.features(images, [3, 5, 7, 8])
    later = network.features(whole[3], [3, 5, 7, 8], after=3)
    assert sorted(later) == [5, 7, 8]
    assert all(torch.equal(later[layer], whole[layer]) for layer in later)


def test_a_network_without_a_top() -> None:
    network = Network(small_table(), 0)
    assert network.softmax is None and network.feature_layers == [1, 2, 3, 4] and "5" not in network.weights
    found = network.features(torch.randn(2, 3, 31, 31), network.feature_layers)
    assert found[4].shape == (2, 7)
    with pytest.raises(UserError, match="model=small: this network has no softmax layer"):
        network(torch.randn(2, 3, 31, 31))
