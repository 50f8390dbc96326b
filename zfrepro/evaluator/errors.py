"""`zfrepro evaluate`: top-1 and top-5 errors of one network and of averages of several (ZFNet, Table 2; VGG, section 3.2).

`arrays.npz`, for R rows (runs, then their average) and N validation images: names (R,); labels (N,); top (R, N, 5) int64: the
most probable classes, most probable first; probability (R, N) float32 of the true class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from zfrepro import papers, statistics
from zfrepro.errors import UserError, require
from zfrepro.evaluator.testing import METHODS, posteriors, told
from zfrepro.figures.errors import draw_errors
from zfrepro.knowledge import chance, verdict
from zfrepro.options.commands import EvaluateConfig
from zfrepro.results import Output, writing
from zfrepro.run import TrainedRun, naming, open_run, require_apart
from zfrepro.statistics import Measure, Missing, has_top5

# by the method asked for, and of the centre crop
ERRORS = ("val_top1_error", "val_top5_error", "val_top1_error_centre", "val_top5_error_centre")


def evaluate(config: EvaluateConfig) -> None:
    """Write `table2_imagenet/`: the errors of the run, of every one of `runs`, and of the average of their softmax outputs."""
    averaged = list(config.runs) or [config.run]
    alone = config.run not in averaged and (config.folder / "train" / "config.yaml").exists()
    names = [config.run, *averaged] if alone else averaged
    runs = []
    for name in names:
        with naming("runs" if name in config.runs else "run", name):
            runs.append(open_run(dataclasses.replace(config, run=name)))
    for name, run in zip(names[1:], runs[1:]):
        if run.data.key != runs[0].data.key:
            raise UserError(
                f"runs={names}: {name} was trained on other data than {names[0]}; average runs of one data set"
            )
        if run.class_names != runs[0].class_names:
            raise UserError(
                f"runs={names}: {name} tells other classes apart than {names[0]}; average runs of the same ones"
            )
    require_apart(runs[-len(averaged) :])
    least = max(run.network.input_size for run in runs)
    fits = all(scale >= least for scale in config.test_scales)
    require("test_scales", list(config.test_scales), fits, f"sizes of at least the network's input, {least} pixels")
    rows = tested(runs[0])
    hashes = "-".join(run.checkpoint_hash for run in runs)
    with writing(config.folder / "table2_imagenet", config, hashes, inputs=runs[0].data.key) as out:
        if out is None:
            return
        answers = {name: answer(config, run, rows) for name, run in zip(names, runs)}
        members = [answers[name][0] for name in averaged]
        if len(members) > 1:
            centres = np.mean([answers[name][1] for name in averaged], axis=0)
            answers[f"average of {len(averaged)}"] = np.mean(members, axis=0), centres
        write(out, config, answers, members, averaged, runs, rows)


def tested(run: TrainedRun) -> np.ndarray:
    """The rows of the validation images whose classes the network has. Raises UserError where there are none."""
    rows = np.flatnonzero(run.labels_of(run.data.val) >= 0)
    if not len(rows):
        raise UserError(
            f"run={run.config.run}: no class of the data set is one of the network's; import it with classes=<file>, or give "
            "data whose classes have their names or WordNet ids"
        )
    return rows


def answer(config: EvaluateConfig, run: TrainedRun, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) posteriors for some validation images, by the method asked for and of the centre crop at the size of the packed
    images, or of the training images where they were rescaled."""
    split = run.data.val
    centre = posteriors(run, split, "centre", rows=rows, batch=config.batch_size)
    if config.method == "centre" and not config.test_scales:
        return centre, centre
    return posteriors(run, split, config.method, config.test_scales, rows, config.batch_size, config), centre


def most_probable(probabilities: np.ndarray) -> np.ndarray:
    """(N, 5) int64: the five most probable classes in their order; of equal ones, the first wins. probabilities: (N, C)."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :5]


def top_errors(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Top-1 and top-5 errors in percent. probabilities (N, C), labels (N,)."""
    right = most_probable(probabilities) == labels[:, None]
    return 100 * float(1 - right[:, 0].mean()), 100 * float(1 - right.any(axis=1).mean())


def gain_of_averaging(outputs: Sequence[np.ndarray], labels: np.ndarray) -> Measure:
    """How much lower the top-1 error of several nets' averaged outputs is than theirs alone. outputs: (N, C) of each."""
    if len(outputs) < 2:
        return Missing("it needs several nets: give runs=[a,b,c]")
    total: np.ndarray = np.sum(outputs, axis=0)
    wrong = [np.argmax(one, axis=1) != labels for one in outputs]
    without = [np.argmax(total - one, axis=1) != labels for one in outputs]
    alone, average = 100 * np.mean(wrong), 100 * np.mean(total.argmax(1) != labels)
    note = f"{alone:.1f} % alone, {average:.1f} % together"
    return statistics.averaging(np.stack(wrong), total.argmax(1) != labels, np.stack(without), note)


def write(
    out: Output, config: EvaluateConfig, answers: dict[str, tuple[np.ndarray, np.ndarray]], members: list[np.ndarray],
    averaged: list[str], runs: Sequence[TrainedRun], rows: np.ndarray,
) -> None:  # fmt: skip
    """Table 2 (the paper's rows, then ours), its chart, the answers, the metrics."""
    run = runs[0]
    labels = run.labels_of(run.data.val)[rows]
    both = {
        name: (*top_errors(method, labels), *top_errors(centre, labels)) for name, (method, centre) in answers.items()
    }
    results = {name: dict(zip(ERRORS, errors)) for name, errors in both.items()}
    columns = ["model", *ERRORS[:2], "test_top5_error", *ERRORS[2:]]
    reference = papers.reported("table2_imagenet")
    table = [[row.get(column) for column in columns] for row in reference]
    table += [[f"ours: {name}", *(result.get(column) for column in columns[1:])] for name, result in results.items()]
    out.table(columns, table, notes(config, runs, len(rows)))
    top = [most_probable(found) for found, _ in answers.values()]
    probability = [found[np.arange(len(labels)), labels] for found, _ in answers.values()]
    arrays = {"labels": labels, "top": np.stack(top), "probability": np.stack(probability)}
    out.arrays("arrays.npz", names=np.array(list(answers)), **arrays)
    theirs = {str(row["model"]): (row["val_top1_error"], row["val_top5_error"]) for row in reference}
    ours = {name: errors[:2] for name, errors in both.items()}
    out.figure("errors.png", draw_errors(ours, theirs, f"Table 2: {METHODS[config.method]}"))
    task = verdict(results[averaged[0]]["val_top1_error"], len(labels), chance(labels))
    metrics = {"runs": results, "averaged": averaged, "method": config.method, "test_scales": list(config.test_scales)}
    metrics |= config.departures()
    out.done(metrics, {"gain_of_averaging": gain_of_averaging(members, labels)}, task)
    for name, (top1, top5) in ours.items():
        also = f", {top5:.1f} % top-5" if has_top5(len(run.class_names)) else ""
        print(f"{name}: {top1:.1f} % top-1{also} error ({METHODS[config.method]})")


def notes(config: EvaluateConfig, runs: Sequence[TrainedRun], images: int) -> str:
    """What ours were measured on, and for how long each was trained: nets of Table 3 for shorter than the run, say."""
    run = runs[0]
    data, scales = run.config.data, ", ".join(map(str, config.test_scales))
    epochs = ", ".join(f"{one.config.run} {one.epoch}" for one in runs)
    copies = run.data.manifest.get("copies", 0)
    sizes = told(config) + (f", test images at {scales} px" if scales else "")
    there, known = len(np.unique(run.matching.numbers[run.matching.numbers >= 0])), len(run.class_names)
    classes = f"{there} classes" + (f" (of the network's {known})" if there < known else "")
    more = f" {copies} of the validation images are copies of training images, whose errors say nothing of new ones."
    return (
        f"Errors in percent; ours by {METHODS[config.method]}{sizes}, the last columns of the centre crop. Rows of the paper: "
        f"ImageNet 2012, ten crops. Ours: {run.config.model.name}, {images} validation images, {classes} of "
        f"{data.name} at {data.size} px."
        + (more if copies else "")
        + (" Of an image's several labels the first alone counts as right." if run.data.val.multi is not None else "")
        + (f" Epochs of training behind each: {epochs}." if len(runs) > 1 else "")
        + statistics.remark_on_top5(known)
    )
