"""`zfrepro ablate`: the networks of Table 3, each trained from scratch, and the table.

A row is an edit of a base table (layers removed, units or maps by a factor: VARIANTS), applied to the run's own architecture
or to its sibling, so the same experiment runs at any size. Every network is an ordinary run below
outputs/<run>/table3_ablation/: `zfrepro visualize run=<run>/table3_ablation/<variant>` works.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from zfrepro import papers, statistics
from zfrepro.checkpoints import checkpoint_of
from zfrepro.data import Split
from zfrepro.errors import UserError, require_choice
from zfrepro.evaluator.errors import top_errors
from zfrepro.evaluator.testing import posteriors
from zfrepro.figures.ablation import draw_ablation
from zfrepro.files import file_hash
from zfrepro.forward import logits
from zfrepro.knowledge import chance
from zfrepro.options.commands import AblateConfig, TrainConfig
from zfrepro.options.compose import load_model
from zfrepro.options.shared import ModelConfig
from zfrepro.results import writing
from zfrepro.run import TrainedRun, open_run, open_source, require_recipe
from zfrepro.statistics import Measure, Missing, below_chance, mean_std
from zfrepro.trainer.folder import Folder
from zfrepro.trainer.recipe import FROM_SCRATCH, derive, finished, overridden
from zfrepro.trainer.several import raise_failures, train_all
from zfrepro.workers import in_parallel

MAPS = {3: 1.3333333, 4: 2.6666667, 5: 2.0}  # 384, 384, 256 maps become 512, 1024, 512
# The rows, in the table's order, which is that of table3_ablation.csv: layers of the base that are left out, and factors on the
# maps or units of others.
VARIANTS: dict[str, dict[str, Any]] = {
    "alexnet": {},
    "alexnet_no_3_4": {"remove": [3, 4]},
    "alexnet_no_7": {"remove": [7]},
    "alexnet_no_6_7": {"remove": [6, 7]},
    "alexnet_no_3_4_6_7": {"remove": [3, 4, 6, 7]},
    "alexnet_fc_2048": {"scale": {6: 0.5, 7: 0.5}},
    "alexnet_fc_8192": {"scale": {6: 2.0, 7: 2.0}},
    "zfnet": {},
    "zfnet_fc_2048": {"scale": {6: 0.5, 7: 0.5}},
    "zfnet_fc_8192": {"scale": {6: 2.0, 7: 2.0}},
    "zfnet_maps_512": {"scale": MAPS},
    "zfnet_maps_512_fc_8192": {"scale": {**MAPS, 6: 2.0, 7: 2.0}},
}
ERRORS = ("train_top1_error", "val_top1_error", "val_top5_error")
FOLDER = "table3_ablation"
TRAIN_IMAGES = 1000  # training images on which the training error is measured, or as many as there are to validate


@dataclass(frozen=True)
class Net:
    """One network of a row, trained: errors in percent, parameters, seconds of training."""

    errors: tuple[float, float, float]  # in the order of ERRORS
    parameters: int
    seconds: float
    run: str


def ablate(config: AblateConfig) -> None:
    """Train the rows that are not trained yet; with variant=all, write `table3_ablation/` as well.

    A row that fails is reported and leaves the others alone; the exit status is then 1.
    """
    require_choice("variant", config.variant, ["all", *VARIANTS])
    for key in ("average", "once"):
        for name in getattr(config, key):
            require_choice(key, name, VARIANTS)
    run = open_source(config)
    source = require_recipe(run)
    wanted = VARIANTS if config.variant == "all" else (config.variant,)
    jobs = {name: [job(config, source, name, seed) for seed in seeds_of(config, name)] for name in wanted}
    # Table 3's last rows first, which are the widest: begun last, they would keep the other processors waiting.
    every = [run for runs in reversed(jobs.values()) for run in runs]
    failures = train_all(every, config.workers, config.device, config.debug)
    if config.variant == "all":
        there = {name: [run for run in runs if finished(run)] for name, runs in jobs.items()}
        if any(there.values()):
            write(config, run, there)
    else:
        print(f"{config.variant} is trained; `zfrepro ablate` with variant=all makes the table")
    raise_failures(failures, len(every))


def seeds_of(config: AblateConfig, variant: str) -> list[int]:
    seeds = list(config.seeds) or [config.seed]
    return seeds[:1] if variant in config.once else seeds


# ------------------------------------------------------------------------------------------------------------- training


def job(config: AblateConfig, source: TrainConfig, variant: str, seed: int) -> TrainConfig:
    """The training of one row with one seed: the run's own but for the table, the seed and what `config` overrides."""
    return derive(
        source,
        config,
        f"{FOLDER}/{variant}" + (f"_s{seed}" if seed else ""),
        model=edited(source.model, variant, config.dropout),
        seed=seed,
        **FROM_SCRATCH,
        **overridden(source, config),
    )


def edited(own: ModelConfig, variant: str, dropout: float | None = None) -> ModelConfig:
    """The run's architecture `own`, or its sibling if that is the row's base, with the row's layers removed and resized.

    dropout: its share in the layers that have it, if not as in the table.
    """
    base = own
    if architecture(own.name) != architecture(variant):
        if own.sibling is None:
            raise UserError(
                f"model.sibling=null: {own.name} names no {architecture(variant)}, of which Table 3 has rows"
            )
        base = load_model(own.sibling)
    if dropout is not None:
        layers = [dataclasses.replace(one, dropout=dropout) if one.dropout else one for one in base.layers]
        base = dataclasses.replace(base, layers=layers)
    return dataclasses.replace(base, name=variant, **{"remove": [], "scale": {}, **VARIANTS[variant]})


def architecture(name: str) -> str:
    """'alexnet' or 'zfnet', from the name of a model."""
    for base in ("alexnet", "zfnet"):
        if name.startswith(base):
            return base
    raise UserError(f"model.name={name}: Table 3 is about alexnet and zfnet; train a run of one of them")


# ------------------------------------------------------------------------------------------------------------ measuring


def measure(config: AblateConfig, run: TrainConfig) -> Net:
    """The errors of a trained network after its last epoch: centre crops, no dropout, float32."""
    net = open_run(dataclasses.replace(config, run=run.run), "last")
    train, val = net.data.train, net.data.val
    rows = train.per_class(run.data.per_class)
    most = max(TRAIN_IMAGES, len(val))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    return Net(
        errors=(crop_errors(net, train, rows)[0], *crop_errors(net, val, np.arange(len(val)))),
        parameters=sum(p.numel() for p in net.network.parameters()),
        seconds=Folder(run).noted("seconds"),
        run=run.run,
    )


def crop_errors(run: TrainedRun, split: Split, rows: np.ndarray) -> tuple[float, float]:
    """Top-1 and top-5 errors of the centre crops of some rows, in percent."""
    return top_errors(logits(run, split.images, rows), split.labels[rows])


def averaged(config: AblateConfig, runs: Sequence[TrainConfig]) -> tuple[float, float]:
    """Top-1 and top-5 validation errors of the mean of several nets' softmax outputs, ten crops each (Table 2)."""
    total = np.zeros(())
    for run in runs:
        net = open_run(dataclasses.replace(config, run=run.run), "last")
        total = total + posteriors(net, net.data.val, "ten_crop")
    return top_errors(total, net.data.val.labels)


# -------------------------------------------------------------------------------------------------------------- writing


def write(config: AblateConfig, source: TrainedRun, jobs: dict[str, list[TrainConfig]]) -> None:
    """Table, chart, arrays and metrics of the networks that are trained."""
    labels = source.data.val.labels
    runs = [run for found in jobs.values() for run in found]
    hashes = [file_hash(checkpoint_of(run.folder, "last")) for run in runs]
    together = "-".join(digest[:12] for digest in hashes)
    with writing(config.folder / FOLDER, config, together, inputs=source.data.key) as out:
        if out is None:
            return
        logs = [run.folder / "train.log" for run in runs]
        tasks = [partial(measure, config, run) for run in runs]
        measured = {net.run: net for net in in_parallel(tasks, logs, config.workers, config.device, "measuring")}
        nets = {name: [measured[run.run] for run in found] for name, found in jobs.items()}
        averages = {name: averaged(config, jobs[name]) for name in config.average if len(jobs[name]) > 1}
        # (rows, nets, errors), NaN where there is no such net
        errors = np.full((len(nets), max(1, *map(len, nets.values())), len(ERRORS)), np.nan)
        for row, found in enumerate(nets.values()):
            for index, net in enumerate(found):
                errors[row, index] = net.errors
        reference = papers.reported(FOLDER)
        summaries = {name: summary(found) for name, found in nets.items()}
        said = notes(source.config, jobs) + statistics.remark_on_top5(source.data.num_classes)
        out.table(*table(summaries, averages, reference), said)
        known = np.array([[row[key] for key in ERRORS] for row in reference], dtype=float)
        out.arrays("arrays.npz", variants=np.array(list(nets)), errors=errors, paper=known)
        names = [str(row["variant"]) for row in reference]
        spreads = [[(own.get(key), own.get(f"{key}_std") or 0) for key in ERRORS] for own in summaries.values()]
        figure = draw_ablation(names, np.array(spreads, dtype=float), known, f"Table 3: {config.run}")
        out.figure("ablation.png", figure)
        metrics = {
            "variants": summaries,
            "averages": {name: dict(zip(ERRORS[1:], found)) for name, found in averages.items()},
        }
        out.done(metrics, estimates(nets, (chance(labels), len(labels))))
        say(nets)


TRAINING, VALIDATION = 0, 1  # places in ERRORS


def estimates(nets: dict[str, list[Net]], guess: tuple[float, int] | None) -> dict[str, Measure]:
    """The numbers on which the claims about Table 3 rest. guess: the validation error in percent of guessing, and on how
    many images; None: not known."""
    scores = {name: np.array([net.errors for net in found]).reshape(-1, len(ERRORS)) for name, found in nets.items()}

    lost = {  # rows at chance, where nets hardly differ
        name for name, found in scores.items()
        if guess and len(found) and not below_chance(float(found[:, VALIDATION].mean()), guess[1], guess[0])
    }  # fmt: skip

    def gap(worse: str, better: str, kind: int = VALIDATION, less: int | None = None) -> Measure:
        """Error of one row minus another's; less: another kind of error to be taken off, net by net."""
        for name in (worse, better):
            if not len(scores.get(name, ())):
                return Missing(f"{name} is not trained")
        if better in lost:
            return Missing(f"{better} is at chance: {scores[better][:, VALIDATION].mean():.1f} % error")
        own = {name: found[:, kind] - (0 if less is None else found[:, less]) for name, found in scores.items()}
        a, b = own[worse], own[better]
        borrowed = ", with the spread of the rows of several" if 1 in (len(a), len(b)) else ""
        counts = f"{len(a)} and {len(b)} nets{borrowed}"
        note = f"{a.mean():.1f} and {b.mean():.1f} %, {counts}" if less is None else counts
        spread = statistics.pooled([values for name, values in own.items() if name not in lost])
        return statistics.welch(a, b, "nets", "points", note, spread)

    removed = "alexnet_no_3_4_6_7"
    others = {name: found for name, found in scores.items() if name.startswith("alexnet") and name != removed}
    # A row that is not trained might be the worst: `gap` then says which one is missing.
    errors = {name: found[:, VALIDATION].mean() if len(found) else np.inf for name, found in others.items()}
    worst = max(errors, key=lambda name: errors[name], default="alexnet")
    top = "zfnet", "zfnet_fc_8192"
    return {
        "alexnet_minus_zfnet": gap("alexnet", "zfnet"),
        "no_3_4_6_7_minus_next": gap(removed, worst),
        "gain_of_wide_middle": gap("zfnet", "zfnet_maps_512"),
        "training_gain": gap(*top, TRAINING),
        "training_minus_validation_gain": gap(*top, TRAINING, less=VALIDATION),
        "validation_gain": gap(*top),
    }


def summary(nets: Sequence[Net]) -> dict[str, Any]:
    """A row's scalars: means, standard deviations (of the sample), and what each net scored."""
    if not nets:
        return {"nets": 0}
    errors = np.array([net.errors for net in nets])
    means = dict(zip(ERRORS, errors.mean(0)))
    stds = {f"{key}_std": mean_std(errors[:, i].tolist())[1] for i, key in enumerate(ERRORS)}
    costs = {"parameters": nets[0].parameters, "seconds": float(np.mean([net.seconds for net in nets]))}
    return {"nets": len(nets), **means, **stds, **costs, "runs": {net.run: net.errors for net in nets}}


def table(
    nets: dict[str, dict[str, Any]],
    averages: dict[str, tuple[float, float]],
    reference: list[dict[str, str | float | None]],
) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of Table 3: ours, then the paper's; then the averages of several nets beside Table 2's."""
    pairs = [name for key in ERRORS for name in (key, f"{key}_std")]
    costs = ["parameters", "seconds", "nets"]
    columns = ["base", "variant", *pairs, *(f"paper_{key}" for key in ERRORS), *costs]
    rows: list[list[object]] = []
    for given, own in zip(reference, nets.values()):
        theirs = [given[key] for key in ERRORS]
        rows.append([given["base"], given["variant"], *map(own.get, pairs), *theirs, *map(own.get, costs)])
    five = next(row for row in papers.reported("table2_imagenet") if "5 convnets) (a)" in str(row["model"]))
    for name, (top1, top5) in averages.items():
        theirs = [five["val_top1_error"], five["val_top5_error"]] if name == "zfnet" else [None, None]
        count = nets[name]["nets"]
        label = f"average of {count} nets: {name}" + " (the paper's: of 5, Table 2)" * (name == "zfnet")
        errors = [None, None, top1, None, top5, None, None, *theirs]
        rows.append([name.split("_")[0], label, *errors, None, None, count])
    return columns, rows


def notes(source: TrainConfig, jobs: dict[str, list[TrainConfig]]) -> str:
    """What ours were trained and measured on."""
    first = next(run for runs in jobs.values() for run in runs)
    count = "all" if first.data.per_class is None else f"the first {first.data.per_class} training"
    return (
        "Errors in percent: means and standard deviations over networks of different seeds, after the last epoch; centre crops "
        "(averages of nets: ten crops). The paper's: ImageNet 2012. "
        f"Ours: edits of {source.model.name} and {source.model.sibling} on {source.data.name} "
        f"at {source.data.size} px, {count} images of a class, {first.epochs} epochs, batches of "
        f"{first.batch_size}, learning rate {first.lr:g}, {first.schedule}, {dropout_of(first.model)} dropout "
        f"(the run itself: {source.epochs} epochs, {source.batch_size}, {source.lr:g}, {dropout_of(source.model)}). "
        "Units and maps are resized by the paper's factors; row names are the paper's. "
        "Seconds: training, mean over the nets."
    )


def dropout_of(model: ModelConfig) -> str:
    """'0.3', or 'no'."""
    shares = {f"{layer.dropout:g}" for layer in model.layers if layer.dropout}
    return " and ".join(sorted(shares)) or "no"


def say(nets: dict[str, list[Net]]) -> None:
    """The validation errors, a line a row, the worst marked."""
    scores = {name: float(np.mean([net.errors[1] for net in found])) for name, found in nets.items() if found}
    worst = max(scores, key=lambda name: scores[name], default=None)
    for name, score in scores.items():
        print(f"{name:<24} {score:5.1f} % val top-1 error" + ("  (the worst)" if name == worst else ""))
