"""`zfrepro depth`: networks A to E trained at three scales, tested as in Tables 3 to 6 (VGG, sections 3 and 4).

Trainings, as runs below outputs/<run>/depth/, in waves that start from one another (VGG, section 3.1):

1. A (the run itself, where it is A at the small scale), and A with local response normalisation, from drawn weights;
2. B, C, D, E, and B with 5x5 filters, at the small scale S; each starts from A of its seed: A's first four convolutions, by
   shape, and the fully connected layers;
3. C, D, E at the larger S, from themselves at the small one, at a tenth of the learning rate;
4. C, D, E with S drawn for every image, from themselves at the larger S, at a tenth of the learning rate.

Every network is an ordinary run: `zfrepro visualize run=<run>/depth/d_64` works. A network's answers for the validation images
lie beside it and are not computed again while its weights are the same.

`arrays.npz` of each table, for R rows: rows (R,) names; errors (R, k, 2) top-1 and top-5 in percent of each net, NaN where
there is none; paper (R, 2), NaN where the paper has no such row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zfrepro import papers, statistics
from zfrepro.checkpoints import checkpoint_of
from zfrepro.errors import UserError, require
from zfrepro.evaluator.errors import top_errors
from zfrepro.evaluator.testing import METHODS, around, own_scale, posteriors, together, told
from zfrepro.figures.depth import draw_rows
from zfrepro.files import atomic_write, file_hash, read_array
from zfrepro.knowledge import chance, verdict
from zfrepro.options.commands import DepthConfig, TrainConfig
from zfrepro.options.compose import load_model
from zfrepro.options.shared import ModelConfig
from zfrepro.papers import find_item
from zfrepro.results import writing
from zfrepro.run import open_run, open_source, require_recipe
from zfrepro.statistics import Measure, Missing, below_chance, mean_std
from zfrepro.trainer.recipe import FROM_SCRATCH, derive, finished
from zfrepro.trainer.several import raise_failures, train_all
from zfrepro.workers import in_parallel

NAMES = {"a": "A", "a_lrn": "A-LRN", "b": "B", "b_5x5": "B with 5x5 filters", "c": "C", "d": "D", "e": "E"}
LONGEST_FIRST = ("e", "a_lrn", "d", "c", "b", "b_5x5", "a")  # by the time that an epoch takes on a CPU
FROM_NOTHING = ("a", "a_lrn")  # what the others start from, and what is compared with it
WAVES: tuple[str | tuple[str, ...], ...] = (("a",), ("a_lrn", "b", "b_5x5", "c", "d", "e"), "large", "jitter")
EVERY_SCALE = ("c", "d", "e")  # A, A-LRN and B exist at the small scale only
KINDS = ("small", "large", "jitter")
PAPER_SCALES = {"small": "256", "large": "384", "jitter": "[256;512]"}
TENTH = 0.1  # of the learning rate, where a network starts from itself at another scale


@dataclass(frozen=True)
class Net:
    """One network of a row: a configuration at a training scale with a seed, and its training."""

    configuration: str  # of NAMES
    kind: str  # of KINDS: the training scale
    seed: int
    training: TrainConfig

    def scales(self, several: bool) -> list[int]:
        """The sizes Q at which it is tested."""
        return around(self.training) if several else [own_scale(self.training)]

    @property
    def row(self) -> tuple[str, str]:
        return self.configuration, self.kind


def depth(config: DepthConfig) -> None:
    """Train what is not trained yet, test it, and write Tables 3, 4, 5 and 6, each into its folder.

    A network that fails is reported and leaves out those that start from it; the exit status is then 1.
    """
    source = require_recipe(open_source(config))
    crop = table(source, "a").input_size
    least = crop + round(crop / 7)  # Table 4 tests at smaller sizes as well, see `around`
    fits = config.scales[0] >= least
    require("scales", list(config.scales), fits, f"{least} pixels or more, a seventh above the network's input")
    failures: list[str] = []
    nets: list[Net] = []
    for wave in WAVES:
        chosen = [net for net in planned(config, source, wave, nets) if net.training.run != config.run]
        chosen.sort(key=lambda net: LONGEST_FIRST.index(net.configuration))  # none is left to run alone at the end
        failures += train_all([net.training for net in chosen], config.workers, config.device, config.debug)
        nets += [net for net in planned(config, source, wave, nets) if finished(net.training)]
    if nets:
        answers = Answers(config, nets)
        for make in (single_scale, multi_scale, evaluation, fusion):
            make(config, answers)
    raise_failures(failures, len(nets) + len(failures))


# ------------------------------------------------------------------------------------------------------------- trainings


def planned(config: DepthConfig, source: TrainConfig, wave: str | tuple[str, ...], done: Sequence[Net]) -> list[Net]:
    """The networks of a wave, those whose start is not `done` left out."""
    trained = {(*net.row, net.seed): net for net in done}
    found = []
    seeds = config.seeds or [config.seed]
    for configuration in config.configurations:
        for seed in seeds if isinstance(wave, tuple) else config.tuning_seeds or seeds:
            if isinstance(wave, tuple):
                if configuration in wave:
                    kind, start = "small", None if configuration in FROM_NOTHING else ("a", "small", seed)
                    found.append((configuration, kind, seed, start))
            elif configuration in EVERY_SCALE:
                before = KINDS[KINDS.index(wave) - 1]
                found.append((configuration, wave, seed, (configuration, before, seed)))
    return [
        Net(configuration, kind, seed, training(config, source, configuration, kind, seed, start and trained[start]))
        for configuration, kind, seed, start in found
        if start is None or start in trained
    ]


def training(
    config: DepthConfig, source: TrainConfig, configuration: str, kind: str, seed: int, start: Net | None
) -> TrainConfig:
    """The training of one network: the run's own recipe with its layer table, its scale and what it starts from."""
    small, large, largest = config.scales
    scale = {"small": [small], "large": [large], "jitter": [small, largest]}[kind]
    model, epochs = table(source, configuration), config.epochs or source.epochs
    own = (source.model, source.seed, list(source.train_scale), source.epochs, source.init_from)
    if start is None and (model, seed, scale, epochs, None) == own:
        return dataclasses.replace(source, run=config.run, outputs=config.outputs)
    changes: dict[str, Any] = {"model": model, "seed": seed, "train_scale": scale, "epochs": epochs, **FROM_SCRATCH}
    if start is not None and start.configuration == configuration:
        changes |= {"init_from": start.training.run, "lr": tuning_rate(config, source), "warmup_steps": 0}
        changes["epochs"] = config.tuning_epochs or epochs
    elif start is not None:
        changes |= {
            "init_from": start.training.run,
            "lr": config.start_lr or source.lr,
            "warmup_steps": source.warmup_steps if config.start_warmup_steps is None else config.start_warmup_steps,
            "init_match": config.start_match,
            "init_convolutions": config.start_convolutions,
        }
    if start is not None and checkpoint(start).exists():
        changes["init_hash"] = file_hash(checkpoint(start))
    name = f"depth/{configuration}_" + "-".join(map(str, scale)) + (f"_s{seed}" if seed else "")
    return derive(source, config, name, **changes)


def tuning_rate(config: DepthConfig, source: TrainConfig) -> float:
    """The learning rate where a network starts from itself at another scale."""
    return config.tuning_lr or TENTH * source.lr


def table(source: TrainConfig, configuration: str) -> ModelConfig:
    """The layer table of a configuration at the size of the run's own. Raises UserError for a run that is none of VGG's."""
    name = source.model.name
    if not name.startswith("vgg_"):
        raise UserError(
            f"run={source.run}: its network is {name}; train one of VGG's first: zfrepro train preset=vgg_demo"
        )
    return load_model(f"vgg_{configuration}" + ("_demo" if name.endswith("_demo") else ""))


# --------------------------------------------------------------------------------------------------------------- answers


class Answers:
    """What the trained networks say of the validation images."""

    def __init__(self, config: DepthConfig, nets: Sequence[Net]) -> None:
        self.config = config
        self.nets = list(nets)
        first = open_run(dataclasses.replace(config, run=nets[0].training.run))
        self.data, self.precision = first.data, first.precision
        self.labels = first.data.val.labels
        self.hashes = {net.training.run: file_hash(checkpoint(net)) for net in nets}

    def of(self, configuration: str, kind: str) -> list[Net]:
        return [net for net in self.nets if net.row == (configuration, kind)]

    def prepare(self, wanted: Sequence[tuple[Net, str, bool]], what: str) -> None:
        """Compute what is not there yet of (net, method, several sizes), side by side."""
        shape = (len(self.data.val), self.data.num_classes)
        missing = [one for one in wanted if read_array(self._path(*one), shape) is None]
        tasks = [partial(answer, self.config, net, method, several, self._path(net, method, several))
                 for net, method, several in missing]  # fmt: skip
        logs = [net.training.folder / "train.log" for net, _, _ in missing]
        in_parallel(tasks, logs, self.config.workers, self.config.device, what)

    def __call__(self, net: Net, method: str = "dense", several: bool = False) -> np.ndarray:
        """(N, C) posteriors, memory-mapped; of both methods their mean."""
        if method == "dense_and_multi_crop":
            return together(self(net, "dense", several), self(net, "multi_crop", several), self.config.weights)
        found: np.ndarray = np.load(self._path(net, method, several), mmap_mode="r")
        return found

    def wrong(self, posteriors: np.ndarray) -> np.ndarray:
        """(N,) where the most probable class is not the true one."""
        found: np.ndarray = posteriors.argmax(1) != self.labels
        return found

    def _path(self, net: Net, method: str, several: bool) -> Path:
        """The file of a net's answers; its name changes with readings, sizes, precision, weights and data."""
        how = "-".join([method, *self.config.departures(method).values()])
        sizes = "_".join(map(str, net.scales(several)))
        weights, data = self.hashes[net.training.run][:12], self.data.key[:12]
        name = f"{how}-{sizes}px-{self.precision}-{weights}-{data}.npy"
        return net.training.folder / "answers" / name


def checkpoint(net: Net) -> Path:
    return checkpoint_of(net.training.folder)


def answer(config: DepthConfig, net: Net, method: str, several: bool, path: Path) -> None:
    """Compute and keep a net's posteriors for the validation images."""
    run = open_run(dataclasses.replace(config, run=net.training.run))
    found = posteriors(run, run.data.val, method, net.scales(several), reading=config)
    with atomic_write(path) as file:
        np.save(file, found)


# ---------------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Row:
    """A row of one of the tables: what it is called, where it is tested, our nets' posteriors, and the paper's errors."""

    name: str
    trained: str  # S
    tested: str  # Q
    posteriors: list[np.ndarray]  # a net each, (N, C)
    paper: tuple[float | None, float | None]


def single_scale(config: DepthConfig, answers: Answers) -> None:
    """Table 3: dense evaluation at one size, and the claims about depth, filters, normalisation and jitter."""
    answers.prepare([(net, "dense", False) for net in answers.nets], "testing at one size")
    crops = [net for row in ("b", "b_5x5") for net in answers.of(row, "small")]
    answers.prepare([(net, "centre", False) for net in crops], "testing on the centre crop")
    reference = papers.reported("vgg_table3_single_scale")
    rows = [row_of(answers, row, False, reference) for row in rows_of(answers)]
    write(config, answers, "vgg_table3", rows, estimates_of_table3(answers))


def multi_scale(config: DepthConfig, answers: Answers) -> None:
    """Table 4: dense evaluation at three sizes."""
    nets = [net for net in answers.nets if net.configuration in ("b", *EVERY_SCALE)]
    answers.prepare([(net, "dense", True) for net in nets], "testing at three sizes")
    reference = papers.reported("vgg_table4_multi_scale")
    rows = [row_of(answers, row, True, reference) for row in rows_of(answers) if row[0] in ("b", *EVERY_SCALE)]
    jittered = [net for net in nets if net.kind == "jitter" and net.configuration in ("d", "e")]
    gain = compared(
        answers, [answers(net) for net in jittered], [answers(net, "dense", True) for net in jittered],
        "no net of D or E was trained with scale jitter", kinds=[net.configuration for net in jittered],
    )  # fmt: skip
    write(config, answers, "vgg_table4", rows, {"gain_of_scales": gain})


def evaluation(config: DepthConfig, answers: Answers) -> None:
    """Table 5: dense evaluation, crops, and both, at three sizes, of the jittered D and E."""
    nets = [net for row in ("d", "e") for net in answers.of(row, "jitter")]
    methods = ("dense", "multi_crop", "dense_and_multi_crop")
    answers.prepare([(net, method, True) for net in nets for method in methods[:2]], "testing on 150 crops")
    reference = papers.reported("vgg_table5_evaluation")
    there = [(name, "jitter") for name in ("d", "e") if answers.of(name, "jitter")]
    rows = [row_of(answers, row, True, reference, method) for row in there for method in methods]
    by = {method: [answers(net, method, True) for net in nets] for method in methods}
    without = "no net of D or E was trained with scale jitter"
    kinds = [net.configuration for net in nets]
    gains = {
        f"{method}_minus_both": compared(answers, by[method], by[methods[2]], without, kinds=kinds)
        for method in methods[:2]
    }
    write(config, answers, "vgg_table5", rows, gains)


def fusion(config: DepthConfig, answers: Answers) -> None:
    """Table 6: several networks together: D and E with jitter, and the seven of the paper's submission."""
    seven = [*(("d", kind) for kind in KINDS), ("c", "small"), ("c", "large"), ("e", "small"), ("e", "large")]
    members = {"D and E": [("d", "jitter"), ("e", "jitter")], "D, C and E at all scales": seven}
    reference = papers.reported("vgg_table6_fusion")
    rows: list[Row] = []
    gain: Measure = Missing("D and E trained with scale jitter are needed")
    for name, wanted in members.items():
        pairs = sets_of(answers, wanted)
        for method in ("dense", "multi_crop", "dense_and_multi_crop")[: 3 if name == "D and E" else 1]:
            theirs = reported_errors(reference, nets=str(len(wanted)), method=PAPER_METHODS[method])
            together = [np.mean([answers(net, method, True) for net in nets], axis=0) for nets in pairs]
            if together:
                trained = ", ".join(dict.fromkeys(scale_of(config, kind) for _, kind in wanted))
                tested = sizes_of(pairs[0], True)
                rows.append(Row(f"{name}, {METHODS[method]}", trained, tested, together, theirs))
            if together and (name, method) == ("D and E", "dense"):
                each = [[answers(nets[i], method, True) for nets in pairs] for i in range(2)]
                better = min(each, key=lambda row: np.mean([answers.wrong(found).mean() for found in row]))
                gain = compared(answers, better, together, "")
    write(config, answers, "vgg_table6", rows, {"best_minus_fusion": gain})


PAPER_METHODS = {"dense": "dense", "multi_crop": "multi-crop", "dense_and_multi_crop": "multi-crop and dense"}


def sets_of(answers: Answers, rows: Sequence[tuple[str, str]]) -> list[tuple[Net, ...]]:
    """The networks of some rows, one of each, for every seed that all of them have."""
    first, *others = ({net.seed: net for net in answers.of(*row)} for row in rows)
    return [(net, *(row[seed] for row in others)) for seed, net in first.items() if all(seed in row for row in others)]


def rows_of(answers: Answers) -> list[tuple[str, str]]:
    """Configuration and training scale of every row that has a net, in the paper's order."""
    return [(name, kind) for name in NAMES for kind in KINDS if answers.of(name, kind)]


def row_of(answers: Answers, row: tuple[str, str], several: bool, reference: Reference, method: str = "") -> Row:
    """A row of Tables 3 and 4, or, by a method, of Table 5."""
    configuration, kind = row
    nets, name = answers.of(*row), NAMES[configuration] + (f", {METHODS[method]}" if method else "")
    column = {"method": PAPER_METHODS[method]} if method else {"train_s": PAPER_SCALES[kind]}
    theirs = reported_errors(reference, config=configuration.upper().replace("_", "-"), **column)
    found = [answers(net, method or "dense", several) for net in nets]
    return Row(name, scale_of(answers.config, kind), sizes_of(nets, several), found, theirs)


def scale_of(config: DepthConfig, kind: str) -> str:
    """A training scale in words: 64, or [64;128]."""
    small, large, largest = config.scales
    return {"small": str(small), "large": str(large), "jitter": f"[{small};{largest}]"}[kind]


def sizes_of(nets: Sequence[Net], several: bool) -> str:
    """The test sizes of a row in words: '64', '56 64 72', and of nets of several training scales '56 64 72, 64 96 128'."""
    return ", ".join(dict.fromkeys(" ".join(map(str, net.scales(several))) for net in nets))


Reference = list[dict[str, str | float | None]]


def reported_errors(reference: Reference, **wanted: str) -> tuple[float | None, float | None]:
    """The paper's errors in the row whose columns have these values; None where there is none."""
    fits = (row for row in reference if all(as_text(row[key]) == value for key, value in wanted.items()))
    row: dict[str, Any] = next(fits, {})
    return row.get("val_top1_error"), row.get("val_top5_error")


def as_text(value: str | float | None) -> str:
    """A cell of a table of numbers as it was written."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def write(config: DepthConfig, answers: Answers, item: str, rows: Sequence[Row], measures: dict[str, Measure]) -> None:
    """One table: the file, the chart, the arrays, the metrics."""
    about = find_item(item)
    together = "-".join(digest[:12] for digest in answers.hashes.values())
    with writing(config.folder / about.folder, config, together, inputs=answers.data.key) as out:
        if out is None or not rows:
            return
        errors = np.full((len(rows), max(len(row.posteriors) for row in rows), 2), np.nan)
        for i, row in enumerate(rows):
            for j, found in enumerate(row.posteriors):
                errors[i, j] = top_errors(found, answers.labels)
        paper = np.array([row.paper for row in rows], dtype=float)
        out.table(*cells(rows, errors), notes(answers, about.title))
        names = [f"{row.name}, {row.trained}".rstrip(", ") for row in rows]
        out.arrays("arrays.npz", rows=np.array(names), errors=errors, paper=paper)
        out.figure(f"{about.folder}.png", draw_rows(names, errors, paper, f"{about.title}: {about.caption}"))
        metrics = [
            {"network": row.name, "train_s": row.trained, "test_q": row.tested, "top1": own[:, 0], "top5": own[:, 1]}
            for row, own in zip(rows, errors)
        ]
        best = float(np.nanmin(errors[..., 0]))
        out.done({"rows": metrics}, measures, verdict(best, len(answers.labels), chance(answers.labels)))
        for row, own in zip(rows, errors):
            top1, count = np.nanmean(own[:, 0]), len(row.posteriors)
            print(f"{row.name:<34} S {row.trained:<9} Q {row.tested:<12} {top1:5.1f} % top-1 ({count} nets)")


def cells(rows: Sequence[Row], errors: np.ndarray) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: ours, and the paper's beside them."""
    kinds = ("val_top1_error", "val_top5_error")
    columns = ["network", "train_s", "test_q", *(f"{kind}{end}" for kind in kinds for end in ("", "_std")), "nets"]
    columns += [f"paper_{kind}" for kind in kinds]
    found = []
    for row, own in zip(rows, errors):
        spreads = [mean_std(own[~np.isnan(own[:, i]), i].tolist()) for i in range(2)]
        numbers = [value for pair in spreads for value in pair]
        found.append([row.name, row.trained, row.tested, *numbers, len(row.posteriors), *row.paper])
    return columns, found


def notes(answers: Answers, title: str) -> str:
    """What ours were trained and measured on."""
    source, readings = answers.nets[0].training, told(answers.config)
    each = ", ".join(f"{net.training.run.rpartition('/')[2]}: {net.training.epochs}" for net in answers.nets)
    lr, steps, tuned = answers.config.start_lr, answers.config.start_warmup_steps, tuning_rate(answers.config, source)
    apart = ([f"{lr:g}"] if lr else []) + ([f"{steps} steps of warm-up"] if steps is not None else [])
    started = f", from A on {' with '.join(apart)}" if apart else ""
    rates = f"learning rate {source.lr:g} ({source.schedule}, {source.warmup_steps} steps of warm-up){started}"
    return (
        f"{title}. Errors in percent, means and standard deviations over nets of different seeds. The paper's: ImageNet 2012 "
        f"validation. Ours: {source.data.name}, {len(answers.labels)} validation images of {answers.data.num_classes} classes, "
        f"crops of {source.model.input_size} px{readings}; batches of {source.batch_size}, {rates}, "
        f"{tuned:g} where a net starts from itself at another scale. Epochs: {each}."
        + statistics.remark_on_top5(answers.data.num_classes)
    )


# ------------------------------------------------------------------------------------------------------------- estimates


def compared(
    answers: Answers,
    worse: Sequence[np.ndarray],
    better: Sequence[np.ndarray],
    why: str,
    paired: bool = True,
    kinds: Sequence[str] | None = None,
) -> Measure:
    """Error of some posteriors minus that of others; paired: of the same nets, used in two ways, or started from each other.

    why: what is missing, where there are none. kinds: the configurations of nets that are used in two ways.
    """
    if not worse or not better:
        return Missing(why)
    first, second = (np.stack([answers.wrong(one) for one in given]) for given in (worse, better))
    lower = 100 * float(min(first.mean(), second.mean()))
    guess = chance(answers.labels)
    if not below_chance(lower, len(answers.labels), guess):
        return Missing(f"the networks are at chance: {lower:.1f} % error, guessing gives {guess:.1f} %")
    note = f"{100 * first.mean():.1f} % and {100 * second.mean():.1f} %, {len(first)} and {len(second)} nets"
    if paired:
        return statistics.same_nets(first, second, note=note, kinds=kinds)
    return statistics.nets(first, second, note=note)


def estimates_of_table3(answers: Answers) -> dict[str, Measure]:
    """The numbers on which the claims about Table 3 rest: differences between rows at the small scale, over nets; and between
    training scales, of the same configurations."""

    def gap(worse: str, better: str, method: str = "dense") -> Measure:
        rows = [answers.of(name, "small") for name in (worse, better)]
        missing = ", ".join(NAMES[name] for name, nets in zip((worse, better), rows) if not nets)
        a, b = ([answers(net, method) for net in nets] for nets in rows)
        return compared(answers, a, b, f"{missing} is not trained", paired=False)

    return {
        "gain_of_lrn": gap("a", "a_lrn"),
        "a_minus_d": gap("a", "d"),
        "d_minus_e": gap("d", "e"),
        "b_minus_c": gap("b", "c"),
        "c_minus_d": gap("c", "d"),
        "b_5x5_minus_b": gap("b_5x5", "b", "centre"),
        "gain_of_jitter": gain_of_jitter(answers),
    }


def gain_of_jitter(answers: Answers) -> Measure:
    """The better of the two fixed scales against jitter, of the same configurations and seeds; C, D and E together."""
    fixed: list[np.ndarray] = []
    jittered: list[np.ndarray] = []
    for configuration in EVERY_SCALE:
        rows = [answers.of(configuration, kind) for kind in KINDS]
        if all(rows):
            errors = [np.mean([answers.wrong(answers(net)).mean() for net in row]) for row in rows[:2]]
            seeds = {net.seed: net for net in rows[int(np.argmin(errors))]}
            pairs = [(seeds[net.seed], net) for net in rows[2] if net.seed in seeds]
            fixed += [answers(net) for net, _ in pairs]
            jittered += [answers(net) for _, net in pairs]
    return compared(answers, fixed, jittered, "no configuration is trained at all three scales")
