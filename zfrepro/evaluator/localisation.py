"""`zfrepro localize`: where the object is (VGG paper, Appendix A: Tables 8 to 10).

Three networks are started from the run's classification network, their last layer replaced by boxes, and trained: one box for
all classes or one for each, the fully connected layers alone or all. Table 8: the true class given, one crop at the centre.
Table 9: the best of them at every place of the whole image, at several sizes, with other networks, five classes guessed. The
trained networks are runs below outputs/<run>/localize/. `predictions.npz` of either table, for N validation images with boxes:
rows (N,); wrong_<name> (nets, N); boxes_<name> (N, K, 4) of the first net for the classes (N, K), in pixels as packed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from zfrepro import papers, statistics
from zfrepro.boxes import found, iou
from zfrepro.data import Split
from zfrepro.errors import UserError, require
from zfrepro.evaluator.constants import constant_boxes
from zfrepro.evaluator.depth import as_text
from zfrepro.evaluator.errors import most_probable
from zfrepro.evaluator.explanation import density, evidence, painted
from zfrepro.evaluator.localisers import (
    Localiser,
    boxes_at,
    centre_boxes,
    clip,
    dense_boxes,
    places,
    propose,
    stride,
)
from zfrepro.evaluator.occlusion import slide_of
from zfrepro.evaluator.testing import own_scale, posteriors
from zfrepro.figures.localisation import Example, draw_examples
from zfrepro.figures.transfer import Bar, draw_bars
from zfrepro.knowledge import knows_its_task
from zfrepro.models.table import layers_of
from zfrepro.options.commands import LocalizeConfig, OccludeConfig, TrainConfig
from zfrepro.results import Output, writing
from zfrepro.run import TrainedRun, open_run, open_source, require_apart, require_softmax, training_of_a_head
from zfrepro.statistics import Measure, Missing, mean_std, to_data
from zfrepro.trainer.localisation import has_boxes, without_boxes
from zfrepro.trainer.recipe import derive, finished, overridden
from zfrepro.trainer.several import raise_failures, train_all

TABLE8, TABLE9 = "vgg_table8_localisation", "vgg_table9_localisation"


@dataclass(frozen=True)
class Row:
    """A row of Table 8: what is regressed, and which layers are fine-tuned."""

    name: str
    regression: str
    fine_tune: str  # fc | all


ROWS = (Row("scr_fc", "scr", "fc"), Row("pcr_fc", "pcr", "fc"), Row("pcr_all", "pcr", "all"))  # in the paper's order
BEST = ROWS[2]


def localize(config: LocalizeConfig) -> None:
    """Train what is not trained yet, then write both tables. Raises UserError for a run that does not classify."""
    classifiers = [open_source(config, name) for name in [None, *config.runs]]
    guessing = [open_source(config, name, "classes_from") for name in config.classes_from]
    for run in [*classifiers, *guessing]:
        require_like(config, run, classifiers[0])
    require_apart(classifiers)
    require_boxes(classifiers[0])
    sources, seeds = [run.config for run in classifiers], config.seeds or [config.seed]
    jobs = {(0, row.name): [job(config, sources[0], row, seed) for seed in seeds] for row in ROWS}
    for number, source in enumerate(sources[1:], start=1):
        jobs[number, BEST.name] = [job(config, source, BEST, seed) for seed in seeds]
    every = [run for runs in jobs.values() for run in runs]
    ordered = sorted(every, key=lambda run: run.freeze)  # the longest first
    raise_failures(train_all(ordered, config.workers, config.device, config.debug), len(every))
    bench = Bench(config, sources, jobs, guessing)
    write_table8(bench)
    write_table9(bench)


# ------------------------------------------------------------------------------------------------------------- training


def require_like(config: LocalizeConfig, run: TrainedRun, first: TrainedRun) -> None:
    """Refuse a run that does not tell the first one's classes apart on the same images, or cannot be tested at the sizes."""
    name = run.config.run
    if run.data.key != first.data.key or run.class_names != first.class_names:
        key = "runs" if name in config.runs else "classes_from"
        raise UserError(f"{key}={name}: knows other data or classes than run={config.run}; give runs of one data set")
    require_softmax(run)
    if not np.array_equal(run.matching.numbers, np.arange(len(run.class_names))):
        raise UserError(
            f"run={name}: its network tells other classes apart than its data set has; train a classifier on top: "
            f"{training_of_a_head(run.config, run.network.feature_layers[-1])}"
        )
    least = run.network.input_size
    for key in ("scales", "class_scales"):
        given = list(getattr(config, key))
        require(key, given, all(q >= least for q in given), f"{least} pixels or more, the input's")
    alike = (least, stride(run)) == (first.network.input_size, stride(first))
    placed = config.rated_by == "own" or alike
    require("rated_by", config.rated_by, placed, f"own: run={name} has other places than the first")
    fits = config.centre_scale is None or config.centre_scale >= least
    require("centre_scale", config.centre_scale, fits, f"{least} pixels or more, the input's, or null for S")


def require_boxes(run: TrainedRun) -> None:
    """Refuse data that do not say of every class where its objects are."""
    missing = without_boxes(run.data)
    if missing or not has_boxes(run.data.val).any():
        lacks = f"training boxes of {', '.join(missing[:3])}" if 0 < len(missing) < run.data.num_classes else "boxes"
        raise UserError(
            f"run={run.config.run}: its data set, {run.config.data.name}, has no {lacks}; give a run on data that say where the "
            "objects are: a folder with a boxes.csv, say (image,left,top,right,bottom)"
        )


def job(config: LocalizeConfig, source: TrainConfig, row: Row, seed: int) -> TrainConfig:
    """The training of one row from a source's weights: the source's recipe but for what `config` overrides; S is fixed."""
    scales = list(source.train_scale)
    convolutions = [layer.number for layer in layers_of(source.model) if layer.kind == "conv"]
    return derive(
        source,
        dataclasses.replace(config, run=source.run),
        f"localize/{row.name}" + (f"_s{seed}" if seed else ""),
        regression=row.regression,
        boxes=config.boxes,
        init_from=source.run,
        init_hash=None,
        init_match="number",
        inputs="auto",
        freeze=convolutions[-1] if row.fine_tune == "fc" else 0,
        train_scale=[round((scales[0] + scales[1]) / 2)] if len(scales) == 2 else scales,
        seed=seed,
        **overridden(source, config),
    )


# ------------------------------------------------------------------------------------------------------------ measuring


@dataclass
class Bench:
    """What both tables share."""

    config: LocalizeConfig
    sources: list[TrainConfig]
    jobs: dict[tuple[int, str], list[TrainConfig]]  # (source, row) -> the trainings of its seeds
    guessing: list[TrainedRun] = field(default_factory=list)  # which name the five classes; []: the classifiers

    @cached_property
    def runs(self) -> dict[tuple[int, str], list[TrainedRun]]:
        """The trained localisers, opened."""
        return {
            key: [self._open(training.run, "last") for training in trainings if finished(training)]
            for key, trainings in self.jobs.items()
        }

    @cached_property
    def classifiers(self) -> list[TrainedRun]:
        """The classification networks that the localisers were started from."""
        return [self._open(source.run, "best") for source in self.sources]

    def _open(self, name: str, which: str) -> TrainedRun:
        return open_run(dataclasses.replace(self.config, run=name), which, boxes=which == "last")

    @property
    def hashes(self) -> str:
        """What identifies all networks."""
        every = [run for runs in self.runs.values() for run in runs] + self.classifiers + self.guessing
        return "-".join(run.checkpoint_hash[:12] for run in every)

    @cached_property
    def val(self) -> Split:
        return self.classifiers[0].data.val

    @cached_property
    def known(self) -> np.ndarray:
        """(N,) which of them have a box of their class."""
        return has_boxes(self.val)

    def wrong(self, classes: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """(n,) for the images with boxes: whether none of the classes (N, K) with boxes (N, K, 4) is right."""
        truth = self.val.boxes
        assert truth is not None
        given = (truth.corners, truth.labels, truth.images)
        corners, labels, owners = (torch.from_numpy(np.ascontiguousarray(values)) for values in given)
        right = found(torch.from_numpy(classes), torch.from_numpy(boxes), corners.double(), labels, owners)
        return ~right.numpy()[self.known]

    def constants(self, classes: np.ndarray) -> dict[str, np.ndarray]:
        """The boxes that need no network, by name."""
        run = self.classifiers[0]
        return constant_boxes(run.data.train, self.val, classes, self.centre_scale, run.network.input_size)

    @property
    def centre_scale(self) -> int:
        """Q of the crop at the centre, for the first source's networks."""
        return self.config.centre_scale or own_scale(self.sources[0])


Wrong = Mapping[str, np.ndarray]  # row -> (nets, n), True where a net is wrong on an image


def error(wrong: np.ndarray) -> tuple[float, float | None]:
    """Mean over the nets (k, n) and standard deviation, in percent."""
    return mean_std((100 * wrong.mean(1)).tolist())


# -------------------------------------------------------------------------------------------------------------- Table 8


def write_table8(bench: Bench) -> None:
    """The true class given, one crop at the centre, beside the constants."""
    config = bench.config
    with writing(config.folder / TABLE8, config, bench.hashes, inputs=bench.classifiers[0].data.key) as out:
        if out is None:
            return
        classes = bench.val.labels[:, None]
        constants = {name: bench.wrong(classes, boxes)[None] for name, boxes in bench.constants(classes).items()}
        boxes = {
            row.name: [centre_boxes(run, bench.val, classes, bench.centre_scale) for run in bench.runs[0, row.name]]
            for row in ROWS
        }
        wrong = {name: np.stack([bench.wrong(classes, one) for one in nets]) for name, nets in boxes.items()}
        metrics: dict[str, Any] = {
            "images": int(bench.known.sum()),
            "scale": bench.centre_scale,
            "constants": {name: error(one)[0] for name, one in constants.items()},
            "errors": {name: dict(zip(("mean", "std"), error(one)), nets=len(one)) for name, one in wrong.items()},
        }
        if (explained := explain(bench)) is not None:
            metrics["explained"] = explained
        _files8(bench, out, constants, wrong, {name: nets[0] for name, nets in boxes.items()})
        out.done(metrics, estimates8(wrong, least_wrong(constants)), knows_its_task(bench.classifiers[0]))
        for name, one in {**constants, **wrong}.items():
            print(f"{name:<20} {error(one)[0]:5.1f} % localisation error, the true class given")


def estimates8(wrong: Wrong, least: float) -> dict[str, Measure]:
    """What the claims about Table 8 rest on. least: share of images on which the best of the constants is wrong."""
    return {
        "scr_minus_pcr": compared(statistics.nets, wrong["scr_fc"], wrong["pcr_fc"], least),
        "fc_minus_all": compared(statistics.nets, wrong["pcr_fc"], wrong["pcr_all"], least),
    }


def compared(by: Callable[..., Measure], a: np.ndarray, b: np.ndarray, least: float) -> Measure:
    """Error of the nets a (k, n) minus that of b; of two that know no more than a constant, nothing is said."""
    if min(a.mean(), b.mean()) >= least:
        return Missing(f"the best box that needs no network is as good: {100 * least:.1f} % error")
    return by(a, b)


def least_wrong(constants: Wrong) -> float:
    """Share of images on which the best of them is wrong."""
    return min(float(one.mean()) for one in constants.values())


def _files8(bench: Bench, out: Output, constants: Wrong, wrong: Wrong, boxes: dict[str, np.ndarray]) -> None:
    columns = ["fine_tuned_layers", "regression", "error", "std", "nets", "paper_error"]
    rows: list[list[Any]] = [[name, None, error(one)[0], None, None, None] for name, one in constants.items()]
    bars = [Bar(name, error(one)[0], None, True) for name, one in constants.items()]
    for row, given in zip(ROWS, papers.reported("vgg_table8_localisation_settings"), strict=True):
        one = wrong[row.name]
        theirs = given["gt_class_localisation_error"]
        rows.append([given["fine_tuned_layers"], given["regression"], *error(one), len(one), theirs])
        bars.append(Bar(f"{row.regression.upper()}, {row.fine_tune} layers", *error(one), False))
    out.table(
        columns, rows, notes(bench, "the true class given, one crop at the centre; the first rows need no network")
    )
    out.figure(
        "errors.png", draw_bars(bars, f"Table 8: {bench.config.run}", "localisation error (%), true class given")
    )
    arrays = {f"wrong_{name}": one for name, one in wrong.items()} | {
        f"boxes_{name}": one for name, one in boxes.items()
    }
    out.arrays("predictions.npz", rows=np.flatnonzero(bench.known), classes=bench.val.labels[:, None], **arrays)


def explain(bench: Bench) -> dict[str, Any] | None:
    """How dense the evidence is in the given boxes, in those of other images, in the true boxes and on the objects; None where
    no masks or boxes are known, or where it is not asked for."""
    source, config = bench.classifiers[0], bench.config
    split = source.squares.val
    if not config.explain_images or split.truth is None or split.boxes is None:
        return None
    rows = np.random.default_rng(config.seed).permutation(np.flatnonzero(has_boxes(split)))[: config.explain_images]
    if not len(rows):
        return None
    images, labels = np.stack([split.images[row] for row in rows]), split.labels[rows]
    slide = slide_of(source, OccludeConfig(run=config.run, outputs=config.outputs))
    size, run = source.network.input_size, bench.runs[0, BEST.name][0]
    at = places(run, images, source.side, centre=True)
    crop = at.crops[0].numpy()
    given = boxes_at(at, torch.from_numpy(labels[:, None]))[:, 0, 0].numpy() - np.tile(crop[:2], 2)
    true = np.stack([split.boxes[row][0][0] for row in rows]) - np.tile(crop[:2], 2)
    masks = source.crops(np.stack([split.truth.masks[row] for row in rows])).numpy() / 255
    regions = {
        "given_box": painted(given, size),
        "another_images_box": painted(np.roll(given, -1, 0), size),
        "true_box": painted(true, size),
        "true_mask": masks,
    }
    kinds = evidence(source, images, labels, slide).items()
    densities = {kind: {name: _density(each, region) for name, region in regions.items()} for kind, each in kinds}
    return {"images": len(rows), **densities}


def _density(values: np.ndarray, region: np.ndarray) -> dict[str, Any]:
    each = density(values, region)
    return to_data(statistics.mean(each[np.isfinite(each)], of="images", note="density of the evidence, 1 by chance"))


# -------------------------------------------------------------------------------------------------------------- Table 9


@dataclass(frozen=True)
class Setting:
    """A row of Table 9: which sources' nets, each at which sizes."""

    name: str
    nets: tuple[tuple[int, tuple[int, ...]], ...]  # (source, its sizes Q)


def settings(config: LocalizeConfig, classifiers: Sequence[TrainedRun]) -> list[Setting]:
    """One size, several sizes, and where there are several nets, all of them."""
    one, several = [], []
    for number, run in enumerate(classifiers):
        scale = own_scale(run.config)
        step = round(run.network.input_size / 7)  # 32 of 224 px
        least = run.network.input_size
        sizes = tuple(sorted(config.scales or {max(least, scale - step), scale}))
        one.append(Setting(f"{run.config.run}, one size", ((number, (scale,)),)))
        several.append(Setting(f"{run.config.run}, several sizes", ((number, sizes),)))
    both = [Setting("all nets, several sizes", tuple(setting.nets[0] for setting in several))] if len(one) > 1 else []
    return [*one, *several, *both]


def guesses(bench: Bench) -> tuple[np.ndarray, list[str]]:
    """The five most probable classes (N, 5) by the average of the classification networks, and their runs."""
    runs = bench.guessing or bench.classifiers
    names = [run.config.run for run in runs]
    mean = np.mean([posteriors(run, bench.val, "dense", bench.config.class_scales) for run in runs], axis=0)
    return most_probable(mean), names


def write_table9(bench: Bench) -> None:
    """Dense, the classes guessed, beside the constants and the paper's comparison (Table 10)."""
    config = bench.config
    with writing(config.folder / TABLE9, config, bench.hashes, inputs=bench.classifiers[0].data.key) as out:
        if out is None:
            return
        guessed, names = guesses(bench)
        true = bench.val.labels[:, None]
        classes = np.concatenate([guessed, true], axis=1)  # the true one last, for comparison
        constants = {name: bench.wrong(guessed, boxes)[None] for name, boxes in bench.constants(guessed).items()}
        rows = settings(config, bench.classifiers)
        seeds = range(len(bench.jobs[0, BEST.name]))
        boxes = {
            row.name: [dense_boxes(nets_of(bench, row, seed), bench.val, classes, config) for seed in seeds]
            for row in rows
        }
        wrong = {name: np.stack([bench.wrong(guessed, one[:, :-1]) for one in nets]) for name, nets in boxes.items()}
        given = {name: np.stack([bench.wrong(true, one[:, -1:]) for one in nets]) for name, nets in boxes.items()}
        centre = np.stack(
            [
                bench.wrong(true, centre_boxes(run, bench.val, true, bench.centre_scale))
                for run in bench.runs[0, BEST.name]
            ]
        )
        unnamed = (guessed != true).all(1)[bench.known]
        metrics = {
            "images": int(bench.known.sum()),
            "classes_from": names,
            "classification_top5_error": 100 * float(unnamed.mean()),
            "constants": {name: error(one)[0] for name, one in constants.items()},
            "errors": {
                name: dict(zip(("mean", "std"), error(one)), true_class=error(given[name])[0])
                for name, one in wrong.items()
            },
        }
        _files9(bench, out, rows, constants, wrong, given, classes, {name: nets[0] for name, nets in boxes.items()})
        out.figure("boxes.png", picture(bench, rows[-1], guessed))
        out.done(metrics, estimates9(rows, wrong, centre, least_wrong(constants)), knows_its_task(bench.classifiers[0]))
        for name, one in {**constants, **wrong}.items():
            print(f"{name:<40} {error(one)[0]:5.1f} % localisation error, five classes guessed")


def nets_of(bench: Bench, setting: Setting, seed: int) -> list[tuple[Localiser, tuple[int, ...]]]:
    """The localisers of a row, of one seed, with their sizes."""
    every = (bench.guessing or bench.classifiers) if bench.config.rated_by == "all" else []
    return [
        (Localiser(bench.runs[number, BEST.name][seed], every or [bench.classifiers[number]]), sizes)
        for number, sizes in setting.nets
    ]


def estimates9(rows: Sequence[Setting], wrong: Wrong, centre: np.ndarray, least: float) -> dict[str, Measure]:
    """What the claims about Table 9 rest on. centre: (nets, n), the first source's nets with the true class given; least: share
    of images on which the best of the constants is wrong."""
    nets = max(number for row in rows for number, _ in row.nets) + 1
    several = [rows[nets + number].name for number in range(nets)]
    best = min(several, key=lambda name: float(wrong[name].mean()))
    more = Missing("needs runs=[<a classification run at another size S>]")
    one, together, same = wrong[rows[0].name], wrong[rows[-1].name], statistics.same_nets
    return {
        "centre_minus_dense": compared(same, centre, one, least),
        "one_minus_scales": compared(same, one, wrong[several[0]], least),
        "one_minus_nets": compared(same, wrong[best], together, least) if nets > 1 else more,
    }


def _files9(
    bench: Bench, out: Output, settings: Sequence[Setting], constants: Wrong, wrong: Wrong, given: Wrong, classes: np.ndarray,
    boxes: dict[str, np.ndarray],
) -> None:  # fmt: skip
    columns = ["method", "train_s", "test_q", "val_top5_error", "std", "true_class_error", "test_top5_error"]
    rows: list[list[Any]] = [
        [f"the paper's: {as_text(row['train_s'])}", as_text(row["train_s"]), as_text(row["test_q"]),
         row["val_top5_localisation_error"], None, None, row["test_top5_localisation_error"]]
        for row in papers.reported("vgg_table9_localisation")
    ]  # fmt: skip
    rows += [
        [f"Table 10: {row['method']}", None, None, row["val_top5_error"], None, None, row["test_top5_error"]]
        for row in papers.reported("vgg_table10_localisation_comparison")
    ]
    rows += [[f"ours: {name}", None, None, *error(one), None, None] for name, one in constants.items()]
    for setting in settings:
        scales = " ".join(str(own_scale(bench.sources[number])) for number, _ in setting.nets)
        sizes = ", ".join(" ".join(map(str, sizes)) for _, sizes in setting.nets)
        one = wrong[setting.name]
        rows.append([f"ours: {setting.name}", scales, sizes, *error(one), error(given[setting.name])[0], None])
    bars = [Bar(name, error(one)[0], None, True) for name, one in constants.items()]
    bars += [Bar(name, *error(one), False) for name, one in wrong.items()]
    named = ", ".join(map(str, bench.config.class_scales))
    at = f" at {named} px" if named else ""
    said = f"dense over the whole image, five classes guessed{at}; the constants need no network"
    out.table(columns, rows, notes(bench, said) + statistics.remark_on_top5(bench.classifiers[0].data.num_classes))
    out.figure(
        "errors.png", draw_bars(bars, f"Table 9: {bench.config.run}", "localisation error (%), five classes guessed")
    )
    arrays = {f"wrong_{index}": one for index, one in enumerate(wrong.values())}
    arrays |= {f"boxes_{index}": one for index, one in enumerate(boxes.values())}
    out.arrays(
        "predictions.npz", rows=np.flatnonzero(bench.known), classes=classes, methods=np.array(list(wrong)), **arrays
    )


def picture(bench: Bench, setting: Setting, guessed: np.ndarray) -> Any:
    """Images with their true boxes, the boxes of all places for the class named first, and what is left by merging."""
    drawn = np.random.default_rng(bench.config.seed).permutation(np.flatnonzero(bench.known))[: bench.config.num_images]
    names = bench.classifiers[0].class_names
    examples = []
    for row in drawn:
        image = bench.val.images[row]
        proposals = propose(
            nets_of(bench, setting, 0), image[None], torch.from_numpy(guessed[row : row + 1, :1]), bench.config
        )
        assert bench.val.boxes is not None
        corners, labels = bench.val.boxes[row]
        true = corners[labels == bench.val.labels[row]].astype(np.float64)
        best = clip(proposals.best, image[None])[0, 0]
        overlap = float(iou(best, torch.from_numpy(true)).max())
        there = proposals.members[0, 0] > 0
        title = names[guessed[row, 0]] + ("" if guessed[row, 0] == bench.val.labels[row] else " (wrong)")
        examples.append(
            Example(
                title, np.asarray(image), true, proposals.boxes[0, 0].numpy(), proposals.confidence[0, 0].numpy(),
                proposals.merged[0, 0, there].numpy(), proposals.merged_confidence[0, 0, there].numpy(), best.numpy(), overlap,
            )
        )  # fmt: skip
    return draw_examples(examples, f"{bench.config.run}: {setting.name}, boxes of the most probable class")


def notes(bench: Bench, how: str) -> str:
    """What ours were measured on."""
    source, config = bench.sources[0], bench.config
    first = bench.jobs[0, BEST.name][0]
    rules = "".join(f", boxes.{name}={given}".lower() for name, given in config.boxes.departures().items())
    merged = ", rated_by=all" * (config.rated_by == "all") + ", test_flips=true" * config.test_flips
    return (
        f"Localisation errors in percent: no given box of a right class has an IoU of 0.5 or more with a true box of that class; "
        f"{how}. The paper's: ImageNet 2012, S and Q in its pixels. Ours: {source.origin}, "
        f"{int(bench.known.sum())} validation images with boxes, {first.epochs} epochs of fine-tuning at a learning rate of "
        f"{first.lr:g}{rules}, seeds {config.seeds or [config.seed]}; boxes within a class are merged up to a match score of "
        f"{config.threshold:g} ({config.match}, {config.mean}{merged})."
    )
