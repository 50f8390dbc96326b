"""`zfrepro probe`: how well each layer's features tell another data set's classes apart (paper, section 5.3, Table 7)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from zfrepro import papers, statistics
from zfrepro.errors import UserError, require, require_layer
from zfrepro.evaluator.overlap import elsewhere
from zfrepro.evaluator.splits import smallest_class, usual_size
from zfrepro.evaluator.svm import svm_accuracy
from zfrepro.evaluator.target import Target, open_target, softmax_accuracy, spread
from zfrepro.features import extract, width
from zfrepro.figures.transfer import Curve, draw_curves
from zfrepro.knowledge import knows_its_task
from zfrepro.options.commands import ProbeConfig
from zfrepro.results import Output, parts_of, writing
from zfrepro.run import TrainedRun, open_run
from zfrepro.statistics import Measure, Missing, mean_std, rank_correlation


def probe(config: ProbeConfig) -> None:
    """Write `table7_layers/`; results on several targets stand beside each other, as in the paper."""
    run = open_run(config)
    config = with_layers(config, run)
    for key in ("layers", "softmax_layers"):
        for layer in getattr(config, key):
            require_layer(key, layer, run.network.feature_layers)
    part = f"embedded_{config.data.part}" if config.data.name == "embedded" else config.data.name
    target = open_target(config.data, run)
    folder = config.folder / "table7_layers"
    with writing(folder, config, run.checkpoint_hash, part=part, inputs=target.data.key) as out:
        if out is None:
            return
        if target.data.train.multi is not None:
            raise UserError(f"data={part}: its images have several labels; Table 7 needs one")
        size = config.per_class or usual_size(target.config.name)
        least = smallest_class(target.labels)
        require("per_class", size, size < least, f"at most {least - 1}, the smallest class has {least} images")
        results = measure(config, run, target, size)
        write(config, out, run, target, size, part, results)


def with_layers(config: ProbeConfig, run: TrainedRun) -> ProbeConfig:
    """The options with the layers that stand for null: the paper's, where the network is built like the paper's."""
    there = run.network.feature_layers
    svm, softmax = ([n for n in own if n in there] for own in ([1, 2, 3, 4, 5, 7], [5, 7]))
    if not papers.zfnet.PAPER.is_about(run.config.model.name):
        ends = {layer.number for layer in run.network.layers if any(op.kind == "pool" for op in layer.ops)}
        svm = sorted(ends | {there[-1]})
        softmax = svm[-2:]
    svm, softmax = (
        wanted if given is None else list(given)
        for wanted, given in ((svm, config.layers), (softmax, config.softmax_layers))
    )
    return dataclasses.replace(config, layers=svm, softmax_layers=softmax)


def measure(config: ProbeConfig, run: TrainedRun, target: Target, size: int) -> dict[str, dict[int, list[Any]]]:
    """For 'svm' and 'softmax', by layer, each fold's result."""
    wanted = {"svm": list(config.layers or ()), "softmax": list(config.softmax_layers or ())}
    layers = sorted({*wanted["svm"], *wanted["softmax"]})
    features = extract(run, target.data, layers, config.dtype, config.pool)
    folds = [target.fold(config, size, number) for number in range(config.folds)]
    results: dict[str, dict[int, list[Any]]] = {kind: {layer: [] for layer in own} for kind, own in wanted.items()}
    total = len(folds) * sum(map(len, wanted.values()))
    with tqdm(total=total, desc="classifiers", unit="fold", disable=None) as bar:
        for layer in layers:
            given, labels = features.pop(layer), target.labels  # one layer's file is open at a time
            for number, fold in enumerate(folds):
                if layer in wanted["svm"]:
                    options = (config.scalings, config.costs, config.parts, number, run.device)
                    results["svm"][layer].append(svm_accuracy(given, labels, fold, *options))
                    bar.update()
                if layer in wanted["softmax"]:
                    results["softmax"][layer].append(softmax_accuracy(config, given, labels, fold, number, run.device))
                    bar.update()
    return results


def write(
    config: ProbeConfig, out: Output, run: TrainedRun, target: Target, size: int, part: str,
    results: dict[str, dict[int, list[Any]]],
) -> None:  # fmt: skip
    """Table, plot, arrays, metrics. The table also shows what stands there for other targets and the same checkpoint."""
    summary = {kind: {str(layer): summarise(found) for layer, found in by.items()} for kind, by in results.items()}
    layers = sorted({*(config.layers or ()), *(config.softmax_layers or ())})
    metrics: dict[str, Any] = {
        **summary,
        "per_class": size,
        "folds": config.folds,
        "classes": target.data.num_classes,
        "target_key": target.data.key,
        "widths": {str(layer): width(run.network, layer, config.pool) for layer in layers},
        "dtype": config.dtype,
        "pool": config.pool,
    }
    standing = parts_of(config.folder / "table7_layers", run.checkpoint_hash)
    parts = {name: found for name, found in standing.items() if _is_whole(found)} | {part: metrics}
    ours = papers.zfnet.PAPER.is_about(run.config.model.name)
    seen = elsewhere(run, target.data)
    out.table(*table(parts, ours), notes(config, run, parts) + (f" {part}: {seen}." if seen else ""))
    accuracies = {
        f"{kind}_{layer}": np.array([result.accuracy for result in found])
        for kind, by in results.items()
        for layer, found in by.items()
    }
    out.arrays(f"{part}.npz", **accuracies)
    drawn = curves(parts, ours)
    ticks = sorted({layer for one in drawn for layer in one.x})
    figure = draw_curves(drawn, f"Table 7: {run.config.model.name}", "layer", (8.5, 4), xticks=ticks)
    out.figure("table7_layers.png", figure)
    fold = target.fold(config, size, 0)
    out.done(metrics, depth_counts(summary["svm"], len(fold.train), len(fold.test)), knows_its_task(run))
    for kind, by in summary.items():
        for layer, own in by.items():
            print(f"layer {layer}, {kind}: {spread(own['folds'])} %")


def depth_counts(by_layer: dict[str, dict[str, Any]], train: int, test: int) -> dict[str, Measure]:
    """Table 7's claim. by_layer: the SVM's results, see `summarise`; train, test: images of a fold."""
    layers = sorted(by_layer, key=int)
    if len(layers) < 3:
        missing = Missing("a linear SVM on three layers or more is needed")
        return {"rank_with_depth": missing, "top_minus_first": missing}
    folds = np.array([by_layer[layer]["folds"] for layer in layers])  # (L, folds)
    ranks = [rank_correlation([int(layer) for layer in layers], list(fold)) for fold in folds.T]
    means = ", ".join(f"{mean:.1f}" for mean in folds.mean(1))
    note, ends = f"layers {', '.join(layers)}: {means} %", f"layer {layers[-1]} minus layer {layers[0]}"
    return {
        "rank_with_depth": statistics.resplits(np.nan_to_num(ranks), train, test, note=note),
        "top_minus_first": statistics.resplits(folds[-1] - folds[0], train, test, "points", ends),
    }


def notes(config: ProbeConfig, run: TrainedRun, parts: dict[str, Any]) -> str:
    """What ours were measured on."""
    source = run.config
    pooled = "as they are" if config.pool is None else f"averaged down to {config.pool} x {config.pool} first"
    each = [f"{name} at {found['per_class']} per class, {found['folds']} folds" for name, found in parts.items()]
    return (
        "Mean of the per-class accuracies in percent, mean and standard deviation over random folds. The paper's: ImageNet "
        "features at 224 px; Caltech-101 at 30 and Caltech-256 at 60 training images per class. "
        f"Ours: {source.origin}, images at {source.data.size} px, centre crops; "
        f"{'; '.join(each)}. Features in {config.dtype}, maps {pooled}. Linear SVM (libsvm): scaling of the features and C "
        "chosen on a held-out part of the training images; softmax: regularisation chosen by cross-validation within them."
    )


def summarise(found: Sequence[Any]) -> dict[str, Any]:
    """A layer's scalars: mean and standard deviation, each fold's accuracy, and what was chosen on each."""
    mean, std = mean_std([result.accuracy for result in found])
    chosen = [{key: value for key, value in vars(result).items() if key != "accuracy"} for result in found]
    return {"mean": mean, "std": std, "folds": [result.accuracy for result in found], "chosen": chosen}


def _is_whole(part: Any) -> bool:
    """Whether a stored part has what the table and the curves take from it."""
    try:
        return all(value["mean"] + (value["std"] or 0) >= 0 and int(n) for kind in ("svm", "softmax") for n, value in
                   part[kind].items()) and "per_class" in part  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def table(parts: dict[str, Any], same_layers: bool = True) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of Table 7: the paper's two targets, then ours; a row for every classifier and layer of either.

    same_layers: the network's layers are the paper's; else the paper's numbers have rows of their own.
    """
    mark = "" if same_layers else ", the paper's network"
    reference = {
        (f"{row['classifier']}{mark}", int(row["layer"] or 0)): row for row in papers.reported("table7_layer_analysis")
    }
    keys = ("caltech101_30", "caltech101_std", "caltech256_60", "caltech256_std")
    columns = ["classifier", "layer", *(f"paper_{key}" for key in keys)]
    wanted = set(reference)
    for name, found in parts.items():
        columns += [f"ours_{name}_{found['per_class']}", f"ours_{name}_std"]
        wanted |= {(kind, int(layer)) for kind in ("svm", "softmax") for layer in found[kind]}
    rows = []
    for kind, layer in sorted(wanted, key=lambda row: ("," in row[0], row[0].startswith("softmax"), row[1])):
        given = reference.get((kind, layer), {})
        row: list[Any] = [kind, layer, *(given.get(key) for key in keys)]
        for found in parts.values():
            own = found.get(kind, {}).get(str(layer), {})
            row += [own.get("mean"), own.get("std")]
        rows.append(row)
    return columns, rows


def curves(parts: dict[str, Any], same_layers: bool = True) -> list[Curve]:
    """Ours, and where the layers are the paper's, its own."""
    found, markers = [], {"svm": "o", "softmax": "s"}
    for name, own in parts.items():
        for kind, marker in markers.items():
            by = sorted((int(layer), value) for layer, value in own[kind].items())
            if by:
                means, stds = ([value[key] for _, value in by] for key in ("mean", "std"))
                found.append(Curve(f"ours: {name}, {kind}", [n for n, _ in by], means, stds, marker=marker))
    reference = papers.reported("table7_layer_analysis") if same_layers else []
    for kind, marker in markers.items():
        rows = [row for row in reference if row["classifier"] == kind]
        for key, label in (("caltech101_30", "Caltech-101"), ("caltech256_60", "Caltech-256")) if rows else ():
            layers, means = [int(row["layer"] or 0) for row in rows], [float(row[key] or 0) for row in rows]
            found.append(Curve(f"the paper's: {label}, {kind}", layers, means, [None] * len(rows), True, marker))
    return found
