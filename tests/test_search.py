"""The streaming top-nine search against sorting everything."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import small_table
from tests.test_deconvnet import narrow, network_of
from zfrepro import forward as forwarding
from zfrepro import search as searching
from zfrepro.errors import UserError
from zfrepro.forward import batch_size, forward
from zfrepro.models.network import Network
from zfrepro.options.compose import load_model
from zfrepro.options.shared import Experiment
from zfrepro.run import open_run
from zfrepro.search import Best, exact, search, top_images


@pytest.mark.parametrize("batch", [1, 7, 16, 50])
def test_search_equals_sorting_everything(batch: int) -> None:
    network = network_of(narrow("zfnet", 71)).float()
    images = torch.randn(50, 3, 71, 71, generator=torch.Generator().manual_seed(1)) * 5
    numbers = torch.arange(100, 150)
    with torch.no_grad():
        parts = [network.features(part, network.conv_layers) for part in images.split(batch)]
    found = search(zip([part.numpy() for part in numbers.split(batch)], parts), count=9)
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


def config(tiny_run: Path, precision: str = "fp32") -> Experiment:
    return Experiment(run="tiny", outputs=str(tiny_run), device="cpu", precision=precision)


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> Path:
    """An outputs folder of the test's own with the run `tiny`, not searched yet."""
    shutil.copytree(tiny_run / "tiny" / "train", tmp_path / "tiny" / "train")
    return tmp_path


def test_a_stored_result_is_used_again(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(config(copied))
    first = top_images(run, "val")
    monkeypatch.setattr(searching, "search", None)  # calling it would fail
    again = top_images(open_run(config(copied)), "val")
    for layer, top in first.items():
        assert np.array_equal(top.images, again[layer].images) and np.array_equal(top.values, again[layer].values)
    snapshots = [open_run(config(copied), epoch) for epoch in (1, 2)]
    other = next(one for one in snapshots if one.checkpoint_hash != run.checkpoint_hash)
    for changed in (other, open_run(config(copied, "bf16"))):
        with pytest.raises(TypeError):
            top_images(changed, "val")


def test_a_damaged_result_is_searched_again(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = open_run(config(copied))
    first = top_images(run, "val")
    (path,) = (copied / "tiny" / "search").glob("*.npz")
    whole = path.read_bytes()
    with np.load(path) as stored:
        parts = dict(stored)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    odd = {**parts, "layer1_images": parts["layer1_images"] + 10**6}
    for content in (b"", b"text", whole[: len(whole) // 2], bytes(flipped), odd, {**parts, "layer1_rows": np.zeros(3)}):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.savez(path, **content)
        capsys.readouterr()
        again = top_images(run, "val")
        assert "damaged" in capsys.readouterr().out
        assert all(np.array_equal(again[layer].images, top.images) for layer, top in first.items())
        assert all(np.array_equal(again[layer].rows, top.rows) for layer, top in first.items())


def test_units_of_bf16_are_computed_again_in_float32(copied: Path) -> None:
    """The values are those of the very units in float32, and order them; the nine are nearly those of a search in float32."""
    whole, half = open_run(config(copied)), open_run(config(copied, "bf16"))
    for split in ("val", "train"):
        images = (half.squares.train if split == "train" else half.squares.val).images
        expected, rough = top_images(whole, split), top_images(half, split)
        for layer, top in expected.items():
            maps = top.live[::3]
            found, changed = exact(half, split, 9, layer, maps)
            assert found.values.shape == top.values.shape and (np.diff(found.values[maps], axis=1) <= 0).all()
            for number in maps[:4]:
                output = half.network.features(half.inputs(images[found.images[number]]), [layer])[layer][:, number]
                own = output[np.arange(9), found.rows[number], found.columns[number]]
                assert np.allclose(found.values[number], own, rtol=1e-4, atol=1e-6)
                assert np.allclose(own, output.amax((1, 2)), rtol=0.02)
            assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(found.images[maps], top.images[maps])]) > 8.8
            others = np.setdiff1d(np.arange(len(top.values)), maps)
            assert np.array_equal(found.values[others], rough[layer].values[others])
            assert changed == pytest.approx((found.images[maps] != rough[layer].images[maps]).mean())
    assert exact(whole, "val", 9, 1, np.array([0]))[1] == 0


def test_more_images_than_there_are_is_refused(copied: Path) -> None:
    with pytest.raises(UserError, match="num_images=10000: the data set has only"):
        top_images(open_run(config(copied)), "val", 10000)


# ------------------------------------------------------------------------------------------------------ the forward pass


def test_batches_are_the_rows_once_in_order_whatever_their_size(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(config(copied))
    rows, layers = np.array([7, 3, 3, 11, 0]), [2, run.network.top]
    expected = run.network.features(run.inputs(run.data.val.images[rows]), layers)
    for size in (1, 2, 5, 9):
        monkeypatch.setattr(forwarding, "batch_size", lambda *_, size=size: size)
        batches = list(forward(run, run.data.val.images, layers, rows))
        assert np.array_equal(np.concatenate([part for part, _ in batches]), rows)
        for layer in layers:
            found = torch.cat([outputs[layer] for _, outputs in batches])
            assert not found.requires_grad and torch.allclose(found, expected[layer], atol=1e-5)
    half = open_run(config(copied, "bf16"))
    for exactly, kind in ((False, torch.bfloat16), (True, torch.float32)):
        ((_, outputs),) = forward(half, half.data.val.images, [2], rows, exact=exactly)
        assert outputs[2].dtype == (kind if kind == torch.float32 else outputs[2].dtype)
        error = float((outputs[2].float() - expected[2]).abs().max() / expected[2].abs().max())
        assert (error < 1e-5) == exactly and error < 0.05


def test_batches_keep_below_their_memory() -> None:
    with torch.device("meta"):
        vgg = Network(load_model("vgg_d"), 1000)
    largest = 4 * 64 * 224 * 224
    assert batch_size(vgg, [13]) == (48 << 20) // largest and batch_size(vgg, [16]) * largest < 1 << 28
    assert batch_size(vgg, [16]) >= 16 and batch_size(vgg, [1], "cuda") > 50
    with torch.device("meta"):
        small = Network(small_table(), 3)
    assert batch_size(small, [1]) == 512
