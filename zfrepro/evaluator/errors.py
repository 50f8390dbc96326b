"""`zfrepro evaluate`: top-1 and top-5 errors of one network and of averages of several (paper, Table 2)."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from tqdm import tqdm

from zfrepro import papers
from zfrepro.data.transforms import ten_crops
from zfrepro.errors import UserError
from zfrepro.options.commands import EvaluateConfig
from zfrepro.results import Output, writing
from zfrepro.run import TrainedRun, open_run

CROPS = 10


def evaluate(config: EvaluateConfig) -> None:
    """Write `table2_imagenet/`: the errors of the run, of every one of `runs`, and of the average of their softmax outputs."""
    averaged = list(config.runs) or [config.run]
    alone = config.run not in averaged and (config.folder / "train" / "config.yaml").exists()
    names = [config.run, *averaged] if alone else averaged
    runs = [open_run(dataclasses.replace(config, run=name)) for name in names]
    for name, run in zip(names[1:], runs[1:]):
        if run.data.key != runs[0].data.key:
            raise UserError(
                f"runs={names}: {name} was trained on other data than {names[0]}; average runs of one data set"
            )
    hashes = "-".join(run.checkpoint_hash for run in runs)
    with writing(config.folder / "table2_imagenet", config, hashes, inputs=runs[0].data.key) as out:
        if out is None:
            return
        labels = runs[0].data.val.labels
        results: dict[str, dict[str, float]] = {}
        total = np.zeros(())
        for name, run in zip(names, runs):
            probabilities = softmax_outputs(run, config.batch_size)
            results[name] = _errors_of(probabilities, labels)
            if name in averaged:
                total = total + probabilities
        if len(averaged) > 1:
            results[f"average of {len(averaged)}"] = _errors_of(total / len(averaged), labels)
        _write(out, results, averaged, runs[0])


@torch.no_grad()
def softmax_outputs(run: TrainedRun, batch_size: int) -> np.ndarray:
    """Softmax outputs for the validation images, (2, N, C) float32: of the centre crop, and the mean over the ten crops
    (section 3: four corners and the centre, and their mirror images)."""
    images = run.data.val.images
    outputs = np.empty((2, len(images), len(run.class_names)), dtype=np.float32)
    step = max(1, batch_size // CROPS)
    centre = 4  # the unflipped centre among the ten crops
    for start in tqdm(range(0, len(images), step), desc=f"evaluating {run.folder.name}", unit="batch", disable=None):
        rows = slice(start, start + step)
        batch = torch.from_numpy(images[rows]).to(run.device)
        crops = ten_crops(batch, run.mean, run.network.input_size, run.scale)
        with run.autocast():
            logits = run.network(crops.flatten(0, 1).contiguous(memory_format=torch.channels_last)).float()
        softmax = logits.softmax(1).unflatten(0, (-1, CROPS))
        outputs[0, rows] = softmax[:, centre].cpu().numpy()
        outputs[1, rows] = softmax.mean(1).cpu().numpy()
    return outputs


def top_errors(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Top-1 and top-5 errors in percent. probabilities (N, C), labels (N,); of equal ones, the first class wins."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    right = best == labels[:, None]
    return 100 * float(1 - right[:, 0].mean()), 100 * float(1 - right.any(axis=1).mean())


def _errors_of(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Both errors of the centre crop and of the ten crops."""
    (centre1, centre5), (ten1, ten5) = (top_errors(p, labels) for p in probabilities)
    return {
        "val_top1_error": ten1,
        "val_top5_error": ten5,
        "val_top1_error_centre": centre1,
        "val_top5_error_centre": centre5,
    }


def _write(out: Output, results: dict[str, dict[str, float]], averaged: list[str], run: TrainedRun) -> None:
    """Table 2: the paper's rows, then ours."""
    columns = [
        "model",
        "val_top1_error",
        "val_top5_error",
        "test_top5_error",
        "val_top1_error_centre",
        "val_top5_error_centre",
    ]
    rows = [[row.get(column) for column in columns] for row in papers.reported("table2_imagenet")]
    rows += [[f"ours: {name}", *(result.get(column) for column in columns[1:])] for name, result in results.items()]
    data = run.config.data
    notes = (
        f"Errors in percent; the first columns average ten crops. Rows of the paper: ImageNet 2012. "
        f"Ours: {run.config.model.name}, "
        f"{len(run.data.val)} validation images of {len(run.class_names)} classes of {data.name} at {data.size} px."
    )
    out.table(columns, rows, notes)
    out.done({"runs": results, "averaged": averaged})
    for name, result in results.items():
        print(
            f"{name}: {result['val_top1_error']:.1f} % top-1, {result['val_top5_error']:.1f} % top-5 error (ten crops)"
        )
