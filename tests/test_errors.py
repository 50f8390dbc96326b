"""Top-1 and top-5 errors by hand, ten crops by a loop."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.conftest import Refused, Zfrepro
from zfrepro.evaluator.errors import answer, notes, top_errors
from zfrepro.evaluator.testing import posteriors
from zfrepro.options.commands import EvaluateConfig, Reading
from zfrepro.run import open_run
from zfrepro.trainer.tasks import Classification


def test_top_errors_by_hand() -> None:
    probabilities = np.array(
        [
            [0.40, 0.30, 0.10, 0.10, 0.06, 0.04],  # class 0: right
            [0.40, 0.30, 0.10, 0.10, 0.06, 0.04],  # class 1: second
            [0.40, 0.30, 0.10, 0.10, 0.06, 0.04],  # class 5: sixth, wrong twice
            [0.20, 0.20, 0.20, 0.20, 0.10, 0.10],  # class 3 ties with class 0, which comes first
        ]
    )
    assert top_errors(probabilities, np.array([0, 1, 5, 3])) == pytest.approx((75.0, 25.0))


def test_fewer_than_five_classes() -> None:
    assert top_errors(np.array([[0.1, 0.9]]), np.array([0])) == pytest.approx((100.0, 0.0))


def test_a_trainings_validation_counts_the_same_errors() -> None:
    """40 random images of 7 classes in batches of 11: how many classes are above the true one."""
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(40, 7, generator=generator), torch.randint(7, (40,), generator=generator)
    task = Classification(cast(Any, SimpleNamespace(num_classes=7)))
    parts = zip(outputs.split(11), targets.split(11))
    counts = torch.stack([task.count(output, target) for output, target in parts]).sum(0)
    above = [sum(value > row[target] for value in row) for row, target in zip(outputs.tolist(), targets.tolist())]
    top1, top5 = (100 * sum(count >= k for count in above) / 40 for k in (1, 5))
    assert task.errors(counts.tolist(), 40) == pytest.approx({"val_top1_error": top1, "val_top5_error": top5})
    assert 0 < top5 < top1


@pytest.mark.parametrize("classes", [3, 60])
def test_a_validation_ranks_equally_probable_classes_as_evaluate_does(classes: int) -> None:
    """In bfloat16 the two largest of an image's scores are often one number."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(6, (1000, classes), generator=generator).bfloat16().float()
    labels = torch.randint(classes, (1000,), generator=generator)
    task = Classification(cast(Any, SimpleNamespace(num_classes=classes)))
    errors = task.errors(task.count(scores, labels).tolist(), len(labels))
    assert tuple(errors.values()) == pytest.approx(top_errors(scores.softmax(1).numpy(), labels.numpy()))


def test_ten_crops_by_a_loop(tiny_run) -> None:  # type: ignore[no-untyped-def]
    run = open_run(EvaluateConfig(run="tiny", outputs=str(tiny_run), precision="fp32"))
    split, rows = run.data.val, np.arange(3)
    outputs = [posteriors(run, split, method, rows=rows) for method in ("centre", "ten_crop")]
    size, crop = run.mean.shape[0], run.network.input_size
    last, middle = size - crop, (size - crop) // 2
    for index in range(3):
        image = (torch.from_numpy(np.array(split.images[index])).float().to(run.mean) - run.mean) * run.scale
        softmaxes = []
        for y, x in [(0, 0), (0, last), (last, 0), (last, last), (middle, middle)]:
            part = image[y : y + crop, x : x + crop].permute(2, 0, 1)[None]
            softmaxes += [run.network(part).softmax(1), run.network(part.flip(3)).softmax(1)]
        assert np.allclose(outputs[1][index], torch.cat(softmaxes).mean(0).cpu(), atol=1e-5)
        assert np.allclose(outputs[0][index], softmaxes[8][0].cpu(), atol=1e-5)


def test_every_method_on_a_trained_run(tiny_run: Path, zfrepro: Zfrepro) -> None:
    folder = tiny_run / "tiny" / "table2_imagenet"
    errors, run = {}, open_run(EvaluateConfig(run="tiny", outputs=str(tiny_run), precision="fp32"))
    for method in ("dense", "multi_crop", "ten_crop"):
        reading = {"places": "max"} if method == "dense" else {}
        scales = [64] if method == "multi_crop" else [64, 72]  # fifty crops of each image
        given = [f"method={method}", *(f"{name}={value}" for name, value in reading.items())]
        zfrepro("evaluate", f"outputs={tiny_run}", "run=tiny", *given, f"test_scales={scales}", "precision=fp32")
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["method"] == method and metrics["test_scales"] == scales
        assert metrics.get("places") == reading.get("places")
        assert (", places=max" in (folder / "table.md").read_text()) == bool(reading)
        with np.load(folder / "arrays.npz") as arrays:
            wrong = arrays["top"][0, :, 0] != arrays["labels"]
            rows = np.array([0, 17, 61, 119])
            found = posteriors(run, run.data.val, method, scales, rows, reading=Reading(**reading))
            expected = found[np.arange(len(rows)), arrays["labels"][rows]]
            np.testing.assert_allclose(arrays["probability"][0, rows], expected, atol=1e-6)
        assert metrics["runs"]["tiny"]["val_top1_error"] == pytest.approx(100 * wrong.mean())
        errors[method] = metrics["runs"]["tiny"]["val_top1_error_centre"]
        assert (folder / "errors.png").stat().st_size > 5000
    assert len(set(errors.values())) == 1, "the centre crop is the same whatever is beside it"
    table = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert table[-1]["model"] == "ours: tiny" and len(table) == 11


def test_the_table_says_for_how_long_each_net_was_trained(tiny_run: Path) -> None:
    """The nets of Table 3, which are averaged, may have been trained for shorter than the run itself."""
    run = open_run(EvaluateConfig(run="tiny", outputs=str(tiny_run), precision="fp32"))
    other = dataclasses.replace(run, epoch=7, config=dataclasses.replace(run.config, run="short"))
    said = notes(EvaluateConfig(run="tiny"), [run, other], 10)
    assert f"Epochs of training behind each: tiny {run.epoch}, short 7." in said
    assert "Epochs" not in notes(EvaluateConfig(run="tiny"), [run], 10)


def test_a_table_says_that_one_of_several_labels_counts(tiny_run: Path) -> None:
    run = open_run(EvaluateConfig(run="tiny", outputs=str(tiny_run), precision="fp32"))
    val = dataclasses.replace(run.data.val, multi=np.ones((len(run.data.val), 5), np.int8))
    several = dataclasses.replace(run)
    several.__dict__["data"] = dataclasses.replace(run.data, val=val)
    said = "Of an image's several labels the first alone counts as right."
    assert said in notes(EvaluateConfig(run="tiny"), [several], 10) and said not in notes(EvaluateConfig(), [run], 10)


def test_a_table_says_where_five_guesses_name_every_class(tiny_run: Path) -> None:
    run = open_run(EvaluateConfig(run="tiny", outputs=str(tiny_run), precision="fp32"))
    few = dataclasses.replace(run, class_names=run.class_names[:5])
    said = "Five guesses name all 5 classes: a top-5 error says nothing of them."
    assert notes(EvaluateConfig(run="tiny"), [few], 10).endswith(f". {said}")
    assert "guesses" not in notes(EvaluateConfig(run="tiny"), [run], 10)


def test_the_centre_crop_alone(tiny_run: Path, zfrepro: Zfrepro, refused: Refused) -> None:
    zfrepro("evaluate", f"outputs={tiny_run}", "run=tiny", "method=centre")
    own = json.loads((tiny_run / "tiny" / "table2_imagenet" / "metrics.json").read_text())["runs"]["tiny"]
    assert own["val_top1_error"] == own["val_top1_error_centre"]
    said = refused("evaluate", f"outputs={tiny_run}", "run=tiny", "method=dense", "test_scales=[55]")
    assert "test_scales=[55]: must be" in said


def test_the_centre_crop_at_another_size(tiny_run: Path) -> None:
    run, rows = open_run(EvaluateConfig(run="tiny", outputs=str(tiny_run), precision="fp32")), np.array([3, 0, 5])
    given, centre = answer(EvaluateConfig(run="tiny", method="centre", test_scales=[72]), run, rows)
    images = np.array(run.data.val.images[rows])
    for found, size in ((given, 72), (centre, run.mean.shape[0])):
        start, crop = (size - run.network.input_size) // 2, run.network.input_size
        part = run.whole(images, size)[:, :, start : start + crop, start : start + crop]
        np.testing.assert_allclose(found, run.network(part).softmax(1).detach().cpu(), atol=1e-5)
    assert np.abs(given - centre).max() > 1e-4
