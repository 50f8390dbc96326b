"""Windowed projections against whole maps, wherever the change from maps to windows is made."""

from __future__ import annotations

import pytest
import torch
from oracle import autograd_projections

from tests.test_deconvnet import difference, narrow, network_of, random_table, samples, whole_image
from zfrepro.models import window
from zfrepro.models.deconvnet import DEFAULT, Rules
from zfrepro.models.table import ops_of, receptive_box
from zfrepro.models.window import conv_down, project, project_windows

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name, size", [("zfnet", 87), ("alexnet", 91)])
def test_every_change_over_gives_the_same(monkeypatch: pytest.MonkeyPatch, name: str, size: int) -> None:
    """Whole maps up to any op, windows above, whether the windows are smaller than the maps or not."""
    network = network_of(narrow(name, size))
    for layer in (2, 5):
        images, units = samples(network, layer, 5, layer)
        expected = autograd_projections(network, images, layer, units)
        for crop in range(len(ops_of(network.layers, layer)) + 1):
            monkeypatch.setattr(window, "cheapest_crop", lambda *_, crop=crop: crop)
            assert difference(project(network, images, layer, units), expected) < 1e-9, (layer, crop)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_change_over_under_every_rule(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    network = network_of(random_table(seed), seed)
    layer = network.conv_layers[-1]
    images, units = samples(network, layer, 6, seed)
    for rules in (Rules(ties="first"), Rules(unpool="max"), Rules("max", "first")):
        expected = whole_image(network, images, layer, units, rules)
        for crop in range(len(ops_of(network.layers, layer)) + 1):
            monkeypatch.setattr(window, "cheapest_crop", lambda *_, crop=crop: crop)
            assert difference(project(network, images, layer, units, rules=rules), expected) < 1e-9, (rules, crop)


def test_any_mix_of_images_and_units_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(narrow("zfnet", 127))
    images, _ = samples(network, 2, 3, 0)
    side = network.features(images, [2])[2].shape[-1]
    generator = torch.Generator().manual_seed(0)
    units = torch.stack([torch.randint(0, limit, (20,), generator=generator) for limit in (10, side, side)], 1)
    which = torch.randint(0, 3, (20,), generator=generator)
    expected = whole_image(network, images[which], 2, units, DEFAULT)
    for chunk_bytes in (1, 1 << 18, 1 << 30):
        monkeypatch.setattr(window, "CHUNK_BYTES", chunk_bytes)
        assert torch.allclose(project(network, images, 2, units, which), expected, rtol=1e-9, atol=1e-12)


def test_float32_on_channels_last_is_equal_to_1e_5() -> None:
    network = network_of(narrow("zfnet", 127)).float().to(memory_format=torch.channels_last)
    images, units = samples(network.double(), 4, 6, 0)
    expected = autograd_projections(network, images, 4, units)
    images = images.float().to(memory_format=torch.channels_last)
    assert difference(project(network.float(), images, 4, units).double(), expected) < 1e-5


def test_windows_stay_inside_the_receptive_field() -> None:
    network = network_of(narrow("zfnet", 127))
    for layer in (1, 2, 3):
        images, units = samples(network, layer, 6, 0)
        windows = project_windows(network, images, layer, units)
        for unit, projection in zip(units.tolist(), windows.on_images()):
            y0, x0, y1, x1 = receptive_box(ops_of(network.layers, layer), unit[1], unit[2], 127)
            outside = projection.clone()
            outside[:, y0:y1, x0:x1] = 0
            assert not outside.any() and projection.any()


def test_images_outside_the_receptive_field_change_nothing() -> None:
    """Nothing beyond the field is read, on the way up either."""
    network = network_of(narrow("zfnet", 127))
    images, units = samples(network, 2, 6, 0)
    before = project(network, images, 2, units)
    for image, (_, row, column) in zip(images, units.tolist()):
        y0, x0, y1, x1 = receptive_box(ops_of(network.layers, 2), row, column, 127)
        inside = image[:, y0:y1, x0:x1].clone()
        image.fill_(1e6)
        image[:, y0:y1, x0:x1] = inside
    assert torch.equal(project(network, images, 2, units), before)


@pytest.mark.parametrize(
    "channels, kernel, stride", [(3, 7, 2), (3, 11, 4), (1, 5, 3), (3, 2, 3), (3, 3, 1), (40, 5, 2)]
)
def test_transposed_convolution_by_phases(channels: int, kernel: int, stride: int) -> None:
    signal = torch.randn(2, 6, 9, 9, dtype=torch.float64)
    filters = torch.randn(6, channels, kernel, kernel, dtype=torch.float64)
    expected = torch.nn.functional.conv_transpose2d(signal, filters, stride=stride)
    assert torch.allclose(conv_down(signal, filters, stride), expected)
