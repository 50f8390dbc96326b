"""The streaming top-nine search against sorting everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.test_deconvnet import narrow, network_of
from zfrepro import search as searching
from zfrepro.options.shared import Experiment
from zfrepro.run import open_run
from zfrepro.search import Best, search, top_images


@pytest.mark.parametrize("batch", [1, 7, 16, 50])
def test_search_equals_sorting_everything(batch: int) -> None:
    network = network_of(narrow("zfnet", 71)).float()
    images = torch.randn(50, 3, 71, 71, generator=torch.Generator().manual_seed(1)) * 5
    numbers = torch.arange(100, 150)
    found = search(network, zip(images.split(batch), numbers.split(batch)), count=9)
    assert list(found) == network.conv_layers
    outputs = network.features(images, network.conv_layers)
    for layer, top in found.items():
        output = outputs[layer]
        strongest = output.flatten(2).amax(2)
        values, order = strongest.T.sort(dim=1, descending=True, stable=True)
        assert np.allclose(top.values, values[:, :9], rtol=1e-5)
        for m in top.live:
            image, row, column = top.images[m, 0] - 100, top.rows[m, 0], top.columns[m, 0]
            assert image == order[m, 0]
            assert float(output[image, m, row, column]) == pytest.approx(float(top.values[m, 0]), rel=1e-5)
            assert len(set(top.images[m])) == 9


def test_of_equals_the_earlier_image_stays_and_dead_maps_are_seen() -> None:
    best = Best(2, 2, torch.device("cpu"))
    output = torch.zeros(3, 2, 2, 2)
    output[:, 0, 1, 0] = torch.tensor([5.0, 7, 5])
    best.update(output, torch.tensor([10, 11, 12]))
    best.update(output, torch.tensor([20, 21, 22]))
    top = best.top()
    assert top.values.tolist() == [[7, 7], [0, 0]]
    assert top.images.tolist() == [[11, 21], [10, 11]]
    assert top.rows[0].tolist() == [1, 1] and top.columns[0].tolist() == [0, 0]
    assert top.live.tolist() == [0]
    assert top.units(np.array([0])).tolist() == [[0, 1, 0], [0, 1, 0]]


@pytest.fixture
def searched(tiny_run: Path) -> Iterator[Experiment]:
    yield Experiment(run="tiny", outputs=str(tiny_run), device="cpu", precision="fp32")


def test_a_stored_result_is_used_again(searched: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(searched)
    first = top_images(run, "val")
    monkeypatch.setattr(searching, "search", None)  # calling it would fail
    again = top_images(open_run(searched), "val")
    for layer, top in first.items():
        assert np.array_equal(top.images, again[layer].images) and np.array_equal(top.values, again[layer].values)
    snapshots = (open_run(searched, epoch) for epoch in (1, 2))
    other = next(one for one in snapshots if one.checkpoint_hash != run.checkpoint_hash)  # the best is one of them
    with pytest.raises(TypeError):
        top_images(other, "val")
