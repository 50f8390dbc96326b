"""The Python interface: the README's example runs, and each method gives what its definition says."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import autograd_projections
from PIL import Image

import zfrepro
from tests.test_without_softmax import outputs as outputs_of_bare  # noqa: F401  a fixture
from zfrepro.api import Run
from zfrepro.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("interface")
    shutil.copytree(tiny_run / "tiny" / "train", folder / "demo" / "train")
    return zfrepro.open_run(folder / "demo", device="cpu", precision="fp32")


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, zfrepro; assert zfrepro.__version__; assert not {'torch', 'hydra', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        _ = zfrepro.nonsense


def test_the_readmes_example_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## In Python\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "demo").symlink_to(run.opened.folder)
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 70, 3)).astype(np.uint8)).save(tmp_path / "dog.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    assert all(isinstance(names[name], np.ndarray) for name in ("projection", "patch"))


def test_pictures_are_packed_as_the_runs_own(run: Run, tmp_path: Path) -> None:
    side = run.opened.side
    array = np.random.default_rng(0).integers(0, 256, (side + 30, side + 11, 3)).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), array, array[None], [array], [tmp_path / "a.png"]):
        found = run.pictures(given)
        assert found.shape == (1, side, side, 3) and found.dtype == np.uint8
        assert np.array_equal(found, run.pictures(array))
    assert np.array_equal(run.pictures(run.data.val.images[:3]), run.data.val.images[:3])
    assert run.crops(array).shape == (1, run.network.input_size, run.network.input_size, 3)
    with os.scandir(tmp_path) as entries:
        assert np.array_equal(run.pictures(next(entries)), run.pictures(array))
    assert np.array_equal(run.pictures(tmp_path.glob("*.png")), run.pictures(array))
    for column in (np.array([str(tmp_path / "a.png")]), np.array([tmp_path / "a.png"], object)):  # as pandas' values
        assert np.array_equal(run.pictures(column), run.pictures(array))
    for wrong, says in (
        (array.astype(float), f"not ({side + 30}, {side + 11}, 3) of float64"),
        (array[..., 0], f"not ({side + 30}, {side + 11}) of uint8"),
        (np.dstack([array, array[..., 0]]), "4) of uint8"),
        (Image.fromarray(array), "not a Image"),
        ([torch.from_numpy(array)], "not a Tensor"),
        ([], "images=[]"),
        (array[:0], f"not (0, {side + 11}, 3) of uint8"),
        (array[:0][None][:0], "images=[]"),
        (tmp_path / "nowhere.png", "no such file"),
    ):
        with pytest.raises(UserError, match=re.escape(says)):
            run.pictures(wrong)  # type: ignore[arg-type]


def test_features_and_probabilities(run: Run) -> None:
    pixels = run.data.val.images[:5]
    edge = (run.opened.side - run.network.input_size) // 2
    inputs = torch.from_numpy(pixels) - run.opened.mean
    inputs = (inputs * run.opened.scale)[:, edge:-edge, edge:-edge].permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = run.network.features(inputs, [2, 7, 8])
    found = run.features(pixels, [2, 7])
    assert sorted(run.features(pixels[:1])) == run.layers == [1, 2, 3, 4, 5, 6, 7]
    for layer in (2, 7):
        assert np.allclose(found[layer], expected[layer].numpy(), atol=1e-4)
    assert np.allclose(run.probabilities(pixels), expected[8].softmax(1).numpy(), atol=1e-5)
    assert run.features(pixels, np.array([2, 7])).keys() == {2, 7}  # type: ignore[arg-type]
    with pytest.raises(UserError, match="layers=8"):
        run.features(pixels, [8])


@pytest.mark.parametrize("setting", ["autocast", "device", "dtype"])
def test_what_the_notebook_has_set_for_its_own_changes_nothing(run: Run, setting: str) -> None:
    pixels = run.data.val.images[:1]
    contexts = {"autocast": torch.autocast("cpu", torch.bfloat16), "device": torch.device("meta")}

    def found() -> list[np.ndarray]:
        opened = zfrepro.open_run(run.opened.folder, device="cpu", precision="fp32")
        top = opened.top_images(3, [1], 4)
        hidden = opened.occlude(pixels, square=40, stride=16)
        return [*opened.features(pixels).values(), opened.probabilities(pixels), opened.project(pixels, 3),
                hidden.activity, hidden.probability, top.values]  # fmt: skip

    expected = found()
    usual = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64 if setting == "dtype" else usual)
        with contexts.get(setting, contextlib.nullcontext()):
            others = found()
    finally:
        torch.set_default_dtype(usual)
    for own, other in zip(expected, others, strict=True):
        assert own.dtype == other.dtype and np.array_equal(own, other)


def test_mistakes_name_the_argument(run: Run) -> None:
    """What would otherwise count from the end, be cut to a whole number or stand for the default."""
    pixels = run.data.val.images[:2]
    assert run.features(pixels, 3).keys() == run.features(pixels, torch.tensor([3])).keys() == {3}  # type: ignore[arg-type]
    calls: list[tuple[Callable[..., object], dict[str, object], str]] = [
        (run.features, {"layers": [3.0]}, "layers=[3.0]: must be whole numbers"),
        (run.features, {"layers": ["3"]}, "layers=['3']: must be whole numbers"),
        (run.project, {"layer": 3.0}, "layer=3.0: the layers to choose"),
        (run.project, {"layer": 3, "units": [(0, 0.5, 0)] * 2}, "units="),
        (run.strongest, {"layer": 3, "maps": [-1, 0]}, "maps=[-1, 0]: must be numbers of maps, 0 to 31"),
        (run.strongest, {"layer": 3, "maps": [1]}, "maps=[1]: must be one for each of the 2 pictures"),
        (run.occlude, {"square": 0}, "square=0: must be 1 or more"),
        (run.occlude, {"stride": 0}, "stride=0: must be 1 or more"),
        (run.occlude, {"square": 9.5}, "square=9.5: must be whole numbers"),
        (run.occlude, {"labels": [run.class_names[0], 1]}, "labels="),
        (run.occlude, {"labels": [0.5, 1]}, "labels=[0.5, 1]: must be whole numbers"),
    ]
    for method, options, says in calls:
        with pytest.raises(UserError, match=f"^{re.escape(says)}"):
            method(pixels, **options)
    for options, says in (
        ({"maps": [-1]}, "maps=[-1]: must be numbers of maps, 0 to 31"), ({"maps": [32]}, "maps=[32]"), ({"maps": []}, "maps=[]"),
        ({"count": 0}, "count=0: must be 1 or more"), ({"count": -1}, "count=-1"), ({"count": 2.5}, "count=2.5"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"^{re.escape(says)}"):
            run.top_images(3, **options)  # type: ignore[arg-type]


def test_projections_are_those_of_automatic_differentiation(run: Run) -> None:
    pixels = run.data.val.images[:3]
    units = run.strongest(pixels, 3)
    output = run.features(pixels, [3])[3]
    for image, (number, row, column) in enumerate(units):
        assert output[image].max() == output[image, number, row, column]
    inputs = run.inputs(pixels).double()
    for ties in ("first", "drop"):
        found = run.project(pixels, 3, ties=ties)
        expected = autograd_projections(run.network.double(), inputs, 3, torch.from_numpy(units), ties)
        run.network.float()
        assert found.shape == (3, run.network.input_size, run.network.input_size, 3)
        assert np.allclose(found, expected.permute(0, 2, 3, 1).numpy(), atol=1e-4 * float(expected.abs().max()))
    same = run.project(pixels, 3, units[[2, 0]], which=[2, 0])
    assert np.allclose(same, found[[2, 0]], atol=1e-5 * np.abs(found).max())
    assert run.strongest(pixels, 3, maps=[4, 0, 4])[:, 0].tolist() == [4, 0, 4]
    with pytest.raises(UserError, match="layer=7"):
        run.project(pixels, 7)


def test_top_images(run: Run) -> None:
    output = run.features(run.data.val.images, [4])[4]
    peaks = output.max((2, 3))  # (N, maps)
    found = run.top_images(4, maps=[3, 1], count=4)
    assert np.allclose(found.values, -np.sort(-peaks[:, [3, 1]].T, axis=1)[:, :4], rtol=1e-4, atol=1e-5)
    for row, number in enumerate((3, 1)):
        for image, y, x, value in zip(found.images[row], found.rows[row], found.columns[row], found.values[row]):
            assert output[image, number, y, x] == pytest.approx(value, rel=1e-4, abs=1e-5)
    assert run.top_images(4).values.shape == (output.shape[1], 9)
    assert run.top_images(4, count=2, split="train").images.max() < len(run.data.train)
    with pytest.raises(UserError, match="split=training: must be one of val, train"):
        run.top_images(4, split="training")


def test_occlusion_is_that_of_painting_the_square(run: Run) -> None:
    pixels, labels = run.data.val.images[:2], [3, 0]
    found = run.occlude(pixels, labels, layer=5, square=14, stride=20, fill="mean")
    assert found.activity.shape == found.probability.shape == (2, len(found.starts), len(found.starts))
    inputs = run.inputs(pixels)
    for image in range(2):
        for i, y in enumerate(found.starts):
            painted = inputs[image : image + 1].clone()
            painted[:, :, y : y + 14, found.starts[1] : found.starts[1] + 14] = 0  # the mean image
            with torch.no_grad():
                outputs = run.network.features(painted, [5, 8])
            softmax = outputs[8].softmax(1)[0]
            assert float(softmax[labels[image]]) == pytest.approx(found.probability[image, i, 1], abs=1e-5)
            assert int(softmax.argmax()) == found.top_class[image, i, 1]
            activity = float(outputs[5][0, found.maps[image]].sum())
            assert activity == pytest.approx(found.activity[image, i, 1], rel=1e-3, abs=1e-4)
    assert run.occlude(pixels, square=40, stride=40).labels.tolist() == run.probabilities(pixels).argmax(1).tolist()
    for wrong, says in (([-1, 0], "numbers of classes, 0 to 59"), ([60, 0], "0 to 59"), ([0], "one for each of the 2")):
        with pytest.raises(UserError, match=says):
            run.occlude(pixels, wrong, square=40, stride=40)


def test_a_network_without_softmax(outputs_of_bare: Path) -> None:  # noqa: F811
    bare = zfrepro.open_run(outputs_of_bare / "bare")
    assert bare.class_names == () and bare.layers == [1, 2] and "bare" in repr(bare)
    found = bare.occlude(bare.data.val.images[:1], square=9, stride=11)
    assert np.isnan(found.probability).all() and found.labels.tolist() == [-1] and (found.activity >= 0).all()
    assert np.abs(bare.project(bare.data.val.images[:1], 2)).max() > 0
    with pytest.raises(UserError, match="without a classifier"):
        bare.probabilities(bare.data.val.images[:1])


def test_no_such_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained run"):
        zfrepro.open_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="precision=bfloat16"):
        zfrepro.open_run(tmp_path / "nowhere", precision="bfloat16")
