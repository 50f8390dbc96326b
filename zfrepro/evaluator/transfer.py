"""`zfrepro transfer`: frozen layers, a new softmax on another data set (paper, section 5.2: Tables 4-6 and Fig. 9).

The features of the target's images are computed once; on every fold a softmax is trained on them to its optimum, and beside it
(Tables 4 and 5) the same network from scratch on the same images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from zfrepro import papers, statistics
from zfrepro.errors import UserError, require_layer
from zfrepro.evaluator.average_precision import average_precisions, mean_precision
from zfrepro.evaluator.overlap import compare_with_source, remark
from zfrepro.evaluator.softmax import choose_strength, fit
from zfrepro.evaluator.splits import Fold, mean_class_accuracy, possible_sizes, smallest_class
from zfrepro.evaluator.target import (
    Scored,
    Target,
    common_scale,
    fold_data,
    fold_key,
    has_several,
    load_rows,
    open_target,
    packed_target,
    softmax_accuracy,
    spread,
)
from zfrepro.evaluator.vgg_transfer import vgg_transfer
from zfrepro.features import extract
from zfrepro.figures.transfer import Curve, draw_classes, draw_curves
from zfrepro.forward import logits
from zfrepro.knowledge import knows_its_task
from zfrepro.options.commands import IMPORTED, TrainConfig, TransferConfig
from zfrepro.options.shared import DataConfig
from zfrepro.results import Output, writing
from zfrepro.run import TrainedRun, open_run
from zfrepro.statistics import Measure, Missing, mean_std
from zfrepro.trainer import train
from zfrepro.trainer.folder import Folder
from zfrepro.trainer.recipe import FROM_SCRATCH, derive
from zfrepro.workers import in_parallel

FITTING = {"caltech101": ["table4"], "caltech256": ["table5", "fig9"], "voc2012": ["table6"], "voc2007": ["table6"]}
LEVELS = {"voc2007": 11}  # of recall, over which precision is averaged; later years take the area under its envelope
BY_LEVELS, BY_AREA = "at eleven levels of recall, VOC 2007", "area under the precision envelope, VOC 2010-2012"
STEM = {"table4": "table4_caltech101", "table5": "table5_caltech256", "fig9": "table5_caltech256"}  # in reference/
# Epochs of the trainer, each of several passes: it saves and validates after every one, and small sets have short ones.
SCRATCH_EPOCHS = 10
LEARNED = 5.0  # percent of its training images on which a network may be wrong that has no more to learn from them


@dataclass
class Bench:
    """What all tables of one call share."""

    config: TransferConfig
    run: TrainedRun
    layer: int
    opened: dict[str, Target] = dataclasses.field(default_factory=dict)
    # the same and what it has in common with the source
    compared: dict[str, tuple[Target, dict[str, Any]]] = dataclasses.field(default_factory=dict)
    # target, size and fold -> how its network scored
    scratch: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    def open(self, data: DataConfig) -> Target:
        """A target, opened once."""
        key = f"{data.name} {data.part}"
        if key not in self.opened:
            self.opened[key] = open_target(data, self.run)
        return self.opened[key]

    def compare(self, data: DataConfig) -> tuple[Target, dict[str, Any]]:
        """A target without what is to be left out of it, and what it has in common with the source; compared once."""
        key = f"{data.name} {data.part}"
        if key not in self.compared:
            self.compared[key] = compare_with_source(self.config, self.run, self.open(data))
        return self.compared[key]


def transfer(config: TransferConfig) -> None:
    """Write the tables that fit the target, or those of `config.tables`, each into its folder."""
    if config.protocol == "vgg":
        vgg_transfer(config)
        return
    run = open_run(config)
    config = with_scratch(config, run)
    layer = config.layer or run.network.feature_layers[-1]
    require_layer("layer", layer, run.network.feature_layers)
    bench, before = Bench(config, run, layer), network_hash(run)
    tables = config.tables or fitting(config.data)
    require_sizes(bench, [name for name in tables if name != "table6"])
    for name in tables:
        item = papers.find_item(name)
        own = dataclasses.replace(config, tables=[name])  # the same table whether made alone or with the others
        key = bench.open(target_of(config, name)).data.key
        with writing(config.folder / item.folder, own, run.checkpoint_hash, inputs=key) as out:
            if out is not None:
                (pascal if name == "table6" else caltech)(bench, item, out)
    if network_hash(run) != before:
        raise RuntimeError("the frozen layers have changed")


def with_scratch(config: TransferConfig, run: TrainedRun) -> TransferConfig:
    """The options with what `scratch=null` stands for; of an imported network no recipe is known, and it may be a large one."""
    if config.scratch is not None:
        return config
    imported = run.config.preset == IMPORTED
    if imported and {"table4", "table5"} & {*(config.tables or fitting(config.data))}:
        print(
            f"run={config.run}: was imported; networks from scratch are left out (scratch=true trains them all the same)"
        )
    return dataclasses.replace(config, scratch=not imported)


def fitting(data: DataConfig) -> list[str]:
    """The tables that a target data set fits: all of them for the embedded one, which stands in for every data set."""
    if data.name == "embedded":
        return ["table6"] if data.part == "scenes" else ["table4", "table5", "table6", "fig9"]
    return FITTING.get(data.name, ["table4", "fig9"])


def require_sizes(bench: Bench, tables: Sequence[str]) -> None:
    """Refuse, before anything is computed, a table whose sizes all leave no image to test on."""
    config = bench.config
    if not tables or has_several(config.data):
        return
    smallest = config.data.train_per_class + config.data.val_per_class
    if config.data.name != "embedded":  # a drawn one need not be drawn for it
        smallest = smallest_class(bench.open(config.data).labels)
    for name in tables:
        if min(config.per_class[name]) >= smallest:
            raise UserError(
                f"per_class.{name}={config.per_class[name]}: the smallest class has {smallest} images, and one at least is to "
                f"test on; give numbers below {smallest}"
            )


def target_of(config: TransferConfig, table: str) -> DataConfig:
    """A table's target: `config.data`, or for Table 6, whose images hold several objects, `config.scenes` if those of
    `config.data` hold one each."""
    return config.scenes if table == "table6" and not has_several(config.data) else config.data


def network_hash(run: TrainedRun) -> str:
    """SHA-256 over the bits of all weights."""
    digest = hashlib.sha256()
    for name, tensor in run.network.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------- Tables 4 and 5, Figure 9


def caltech(bench: Bench, item: papers.Item, out: Output) -> None:
    """Accuracy against the number of training images per class, over random folds."""
    config, run = bench.config, bench.run
    target, _ = bench.compare(config.data)
    if target.data.train.multi is not None:
        raise UserError(f"data={target.config.name}: its images have several labels; give tables=[table6]")
    labels = target.labels[target.rows]
    sizes = possible_sizes(labels, config.per_class[item.id])
    if not sizes:
        raise UserError(
            f"per_class.{item.id}={config.per_class[item.id]}: the smallest class has too few images that are not the "
            "source's; give smaller numbers, or drop_overlap=false"
        )
    features = extract(run, target.data, [bench.layer], config.dtype, config.pool)[bench.layer]
    folds = {(size, number): target.fold(config, size, number) for size in sizes for number in range(config.folds)}
    splits = {
        f"{part}_{size}_{n}": getattr(fold, part) for (size, n), fold in folds.items() for part in ("train", "test")
    }
    frozen: dict[int, list[Scored]] = {size: [] for size in sizes}
    for (size, number), fold in tqdm(folds.items(), desc=f"{item.id}: frozen layers", unit="fold", disable=None):
        frozen[size].append(softmax_accuracy(config, features, target.labels, fold, number, run.device))
    scratch: dict[int, list[dict[str, float]]] = {}
    if config.scratch and item.id != "fig9":
        found = from_scratch(bench, target, folds)
        scratch = {size: [found[size, number] for number in range(config.folds)] for size in sizes}
    write_caltech(bench, item, out, target, frozen, scratch, splits)


Folds = dict[tuple[int, int], Fold]  # (images per class, number) -> fold


def from_scratch(bench: Bench, target: Target, folds: Folds) -> dict[tuple[int, int], dict[str, float]]:
    """Train the source's architecture on each fold's images alone; how each scores on its test images.

    A network that is still wrong on more than 5 % of its training images is trained again, for twice as many updates. They are
    the runs <run>/scratch/<target>_<size>_fold<number>: where two tables have one target, they share them.
    """
    config, first = bench.config, {key: f"{target.slug}_{key[0]}_fold{key[1]}" for key in folds}
    waiting = [key for key in folds if first[key] not in bench.scratch]
    for steps in (config.scratch_steps * 2**n for n in range(config.scratch_doublings + 1)):
        recipes = {key: scratch_recipe(config, bench.run.config, target, *key, folds[key], steps) for key in waiting}
        tasks = [partial(train_fold, recipe, folds[key]) for key, recipe in recipes.items()]
        logs = [recipe.folder / "train.log" for recipe in recipes.values()]
        in_parallel(tasks, logs, config.workers, config.device, f"training from scratch, {steps} updates")
        for key, recipe in recipes.items():
            bench.scratch[first[key]] = scored(config, recipe, target, folds[key]) | {"steps": steps}
        waiting = [key for key in waiting if bench.scratch[first[key]]["train_error"] > LEARNED]
    return {key: bench.scratch[name] for key, name in first.items()}


def scored(config: TransferConfig, recipe: TrainConfig, target: Target, fold: Fold) -> dict[str, float]:
    """What a network from scratch makes of its fold, after its last update, on centre crops and without dropout."""
    net = open_run(dataclasses.replace(config, run=recipe.run), "last")
    train, test = (logits(net, target.images, rows).argmax(1) for rows in (fold.train, fold.test))
    return {
        "accuracy": mean_class_accuracy(test, target.labels[fold.test]),
        "train_error": 100 * float(np.mean(train != target.labels[fold.train])),
        "passes": recipe.epochs * recipe.passes,
        "seconds": Folder(recipe).noted("seconds"),
    }


def scratch_recipe(
    config: TransferConfig, source: TrainConfig, target: Target, size: int, number: int, fold: Fold, steps: int
) -> TrainConfig:
    """The training of one fold: the source's recipe for `steps` updates."""
    return derive(
        source,
        config,
        f"scratch/{target.slug}_{size}_fold{number}",
        data=target.config,
        rows=fold_key(target, fold)[:16],
        epochs=SCRATCH_EPOCHS,
        passes=math.ceil(math.ceil(steps / SCRATCH_EPOCHS) * source.batch_size / len(fold.train)),
        schedule="cosine",  # nothing to be chosen on held-out images
        warmup_steps=min(source.warmup_steps, steps // 10),
        seed=config.seed + number,
        **FROM_SCRATCH,
    )


def train_fold(recipe: TrainConfig, fold: Fold) -> None:
    """Train on a fold's images alone; the data set is opened here, in whatever process."""
    train(recipe, fold_data(packed_target(recipe.data), fold))


# 'pretrained' and 'scratch' -> images per class -> each fold's, in percent
Accuracies = dict[str, dict[int, list[float]]]


def write_caltech(
    bench: Bench, item: papers.Item, out: Output, target: Target, frozen: dict[int, list[Scored]],
    scratch: dict[int, list[dict[str, float]]], splits: dict[str, np.ndarray],
) -> None:  # fmt: skip
    ours: Accuracies = {"pretrained": {n: [s.accuracy for s in found] for n, found in frozen.items()}}
    if any(scratch.values()):
        ours["scratch"] = {n: [s["accuracy"] for s in found] for n, found in scratch.items()}
    source = bench.run.config
    labels = {
        "pretrained": f"ours: {source.origin}, layer {bench.layer} frozen",
        "scratch": f"ours: {source.model.name} from scratch",
    }
    out.table(*caltech_table(item, ours, labels), caltech_notes(bench, target, scratch))
    folds = {f"{key}_{n}": np.array(values) for key, found in ours.items() for n, values in found.items()}
    out.arrays("arrays.npz", sizes=np.array(list(frozen)), **folds)
    out.arrays("splits.npz", **splits)
    curves = []
    for key, found in ours.items():
        mean, std = zip(*(mean_std(values) for values in found.values()))
        curves.append(Curve(labels[key], list(found), mean, std))
    curves += [paper_curve(row) for row in papers.reported(STEM[item.id])]
    title, widest = f"{item.title}: {target.name}", max(size for one in curves for size in one.x)
    figure = draw_curves(curves, title, "training images per class", (9.5, 4.2), xlim=(0, widest * 1.04))
    out.figure(f"{item.folder}.png", figure)
    measures = gaps(ours, splits, scratch) if item.id == "table4" else None
    metrics: dict[str, Any] = {
        kind: {str(n): dict(zip(("mean", "std"), mean_std(values)), folds=values) for n, values in by.items()}
        for kind, by in ours.items()
    }
    for n, means in averages(scratch).items():
        metrics["scratch"][str(n)] |= means
    metrics |= {
        **origin(bench, target),
        "classes": target.data.num_classes,
        "strengths": {str(n): [s.strength for s in by] for n, by in frozen.items()},
        "largest_gradient": max(s.gradient for by in frozen.values() for s in by),
    }
    out.done(metrics, measures, knows_its_task(bench.run))
    for key, found in ours.items():
        print(f"{labels[key]}: " + ", ".join(f"{spread(values)} % at {n} per class" for n, values in found.items()))


def gaps(
    ours: Accuracies, splits: dict[str, np.ndarray], nets: dict[int, list[dict[str, float]]]
) -> dict[str, Measure]:
    """Table 4's claim: pre-trained minus from scratch, fold by fold; an upper bound where those from scratch (`nets`) have not
    learned their own training images. splits: 'train_15_0', 'test_15_0' ... of the folds."""
    found = {}
    for size in (15, 30):
        pretrained, scratch = (ours.get(kind, {}).get(size) for kind in ("pretrained", "scratch"))
        if pretrained and scratch:
            found[size] = np.subtract(pretrained, scratch)
    if len(found) < 2:
        missing = Missing("pre-trained and from scratch (scratch=true) at 15 and at 30 images per class are needed")
        return {"gap_at_15": missing, "gap_at_15_minus_30": missing}
    train, test = (len(splits[f"{part}_15_0"]) for part in ("train", "test"))
    note = f"{found[15].mean():.1f} at 15, {found[30].mean():.1f} at 30"
    wrong = float(np.mean([net["train_error"] for net in nets[15]]))
    bound = f"an upper bound: those from scratch are wrong on {wrong:.0f} % of what they were trained on"
    return {
        "gap_at_15": statistics.resplits(found[15], train, test, "points", bound if wrong > LEARNED else ""),
        "gap_at_15_minus_30": statistics.resplits(found[15] - found[30], train, test, "points", note),
    }


def caltech_table(item: papers.Item, ours: Accuracies, labels: dict[str, str]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: the paper's, then ours."""
    reference = papers.reported(STEM[item.id])
    sizes = sorted({*ours["pretrained"], *(int(key[4:]) for key in reference[0] if key.startswith("acc_"))})
    columns = ["method", *(f"{kind}_{n}" for n in sizes for kind in ("acc", "std"))]
    rows: list[list[Any]] = [[row.get(column) for column in columns] for row in reference]
    for key, found in ours.items():
        cells = [mean_std(found[n]) if n in found else (None, None) for n in sizes]
        rows.append([labels[key], *(value for pair in cells for value in pair)])
    return columns, rows


def averages(scratch: dict[int, list[dict[str, float]]]) -> dict[int, dict[str, float]]:
    """By size, the means over folds of how the networks from scratch came about; accuracy, which has its own table, left out."""
    return {
        n: {key: float(np.mean([net[key] for net in nets])) for key in nets[0] if key != "accuracy"}
        for n, nets in scratch.items()
    }


def origin(bench: Bench, target: Target) -> dict[str, Any]:
    """What was read by which layer, and that the layer did not change."""
    return {
        "target": target.config.name,
        "target_part": target.config.part if target.config.name == "embedded" else None,
        "target_key": target.data.key,
        "layer": bench.layer,
        "network_hash": network_hash(bench.run),
        "overlap": bench.compare(target.config)[1],
    }


def paper_curve(row: dict[str, str | float | None]) -> Curve:
    """A row of the paper's table as a curve: the sizes for which it reports an accuracy."""
    sizes = [int(key[4:]) for key, value in row.items() if key.startswith("acc_") and value is not None]
    mean = [float(row[f"acc_{n}"] or 0) for n in sizes]
    std = [None if row[f"std_{n}"] is None else float(row[f"std_{n}"] or 0) for n in sizes]
    return Curve(f"the paper's: {row['method']}", sizes, mean, std, paper=True, marker="s")


def caltech_notes(bench: Bench, target: Target, scratch: dict[int, list[dict[str, float]]]) -> str:
    """What ours were measured on."""
    config, source = bench.config, bench.run.config
    text = (
        f"Mean of the per-class accuracies in percent, mean and standard deviation over {config.folds} random folds; training "
        "images per class in the columns' names. The paper's: pre-trained on ImageNet, 224 px. "
        f"Ours: {target.name}, {target.data.num_classes} classes, at {source.data.size} px, at most {config.test_per_class} test "
        f"images of each; {source.origin}; a softmax on the features of layer {bench.layer} "
        f"(centre crops), its regularisation chosen by {config.parts}-fold cross-validation within the training images. "
        f"{remark(bench.compare(target.config)[1])}"
    )
    if any(scratch.values()):
        found = averages(scratch)
        updates = ", ".join(f"{one['steps']:.0f} ({one['passes']:.0f} passes) at {n}" for n, one in found.items())
        error = ", ".join(f"{one['train_error']:.0f} % at {n}" for n, one in found.items())
        more = (
            f", and for twice as many, {config.scratch_doublings} times at most, while more than {LEARNED:.0f} % of the training "
            "images are wrong"
        )
        text += (
            " From scratch: the source's recipe with a learning rate that falls to 0, for "
            f"{config.scratch_steps} updates{more if config.scratch_doublings else ''}: on average {updates} images per class; "
            f"wrong in the end {error}; the weights after the last."
        )
    return text


# -------------------------------------------------------------------------------------------------------------- Table 6


def pascal(bench: Bench, item: papers.Item, out: Output) -> None:
    """Average precision of every class on images that hold several objects, from one softmax over the classes."""
    config, run = bench.config, bench.run
    target, _ = bench.compare(target_of(config, "table6"))
    data = target.data
    if data.train.multi is None or data.val.multi is None:
        raise UserError(f"scenes={target.config.name}: its images have one label each; Table 6 needs several")
    features = extract(run, data, [bench.layer], config.dtype, config.pool)[bench.layer]
    present = data.train.multi == 1
    usable = np.intersect1d(np.flatnonzero(present.any(1)), target.rows)
    test = target.rows[target.rows >= len(data.train)]
    levels, marks = LEVELS.get(target.config.name), np.asarray(data.train.multi)
    probabilities, strength = multi_label(config, features, present, marks, usable, test, run, levels)
    truth = np.asarray(data.val.multi)[test - len(data.train)]
    precisions = 100 * average_precisions(probabilities, truth, levels)
    write_pascal(bench, out, target, precisions, probabilities, truth, strength, len(usable))


def multi_label(
    config: TransferConfig, features: np.ndarray, present: np.ndarray, marks: np.ndarray, usable: np.ndarray,
    test: np.ndarray, run: TrainedRun, levels: int | None = None,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Probabilities (len(test), C), and the strength chosen on a held-out part of the training images.

    The target of an image with k classes is 1/k for each of them. usable, test: rows of `features`. levels: see
    `average_precisions`.
    """
    train = load_rows(features, usable, run.device)
    shift, factor = common_scale(train)
    train = (train - shift) * factor
    targets = torch.from_numpy(present[usable] / present[usable].sum(1, keepdims=True)).to(run.device)
    order = np.random.default_rng(config.seed).permutation(len(usable))
    part = len(usable) // config.parts
    held = [Fold(np.sort(order[part:]), np.sort(order[:part]))] if part else []

    def score(probabilities: np.ndarray, positions: np.ndarray) -> float:
        return mean_precision(probabilities, marks[usable[positions]], levels)

    strength = choose_strength(train, targets, config.strengths, held, score)
    model = fit(train, targets, strength)
    return model.probabilities((load_rows(features, test, run.device) - shift) * factor), strength


def write_pascal(
    bench: Bench, out: Output, target: Target, precisions: np.ndarray, probabilities: np.ndarray, truth: np.ndarray,
    strength: float, count: int,
) -> None:  # fmt: skip
    reference, names = papers.reported("table6_pascal2012"), list(target.data.class_names)
    mean = float(np.nanmean(precisions))
    ours: list[float | None] = [None if np.isnan(value) else float(value) for value in precisions]
    theirs = ["sande_2012", "yan_2012", "zfnet"]
    if target.config.name == "voc2012":  # the paper's rows are in the devkit's order
        rows = [[row["class"], *(row[key] for key in theirs), value] for row, value in zip(reference, [*ours, mean])]
    else:
        rows = [[row["class"], *(row[key] for key in theirs), None] for row in reference[:-1]]
        rows += [[name, None, None, None, value] for name, value in zip(names, ours)]
        rows.append(["mean", *(reference[-1][key] for key in theirs), mean])
    source = bench.run.config
    notes = (
        f"Average precision in percent ({BY_LEVELS if target.config.name in LEVELS else BY_AREA}; classes only 'difficult' in "
        f"an image are ignored there). The paper's: PASCAL VOC 2012 test. Ours: {target.name}, {count} training and "
        f"{len(truth)} validation images at {source.data.size} px; {source.origin}, "
        f"softmax on layer {bench.layer}. {remark(bench.compare(target.config)[1])}"
    )
    out.table(["class", *(f"paper_{key}" for key in theirs), "ours"], rows, notes)
    out.arrays("arrays.npz", average_precisions=precisions, probabilities=probabilities, truth=truth)
    paper_values = [float(row["zfnet"] or 0) for row in reference[:-1]] if target.config.name == "voc2012" else None
    out.figure("table6_pascal2012.png", draw_classes(names, precisions, mean, paper_values, f"Table 6: {target.name}"))
    scores = {"mean_average_precision": mean, "average_precision": dict(zip(names, ours)), "strength": strength}
    out.done(scores | origin(bench, target), task=knows_its_task(bench.run))
    print(f"mean average precision {mean:.1f} % over {len(names)} classes of {target.name}")
