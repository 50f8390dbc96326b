"""`make all-figures`: every figure and table of a paper, then the page that holds them; `make fig7` and the like: one.

Each stage is a `zfrepro` command in a process of its own. A command does nothing where its result is up to date, so an
interrupted call goes on where it stopped when it is given again. A stage that fails is reported at the end and does not
stop the others; the status is then 1. What the commands print goes to outputs/<run>/logs/<stage>.log.
"""

from __future__ import annotations

import argparse
import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zfrepro.errors import WINDOWS, UserError
from zfrepro.files import lock, read_json, shown
from zfrepro.papers import PAPERS, Item
from zfrepro.provenance import peak_memory

LATE = ("evaluate", "transfer", "probe")  # after the trainings: Table 2 averages nets of Table 3
TAIL = 6  # lines of a failed stage's log that are shown


@dataclass(frozen=True)
class Plan:
    """What is done for a preset: its paper's experiments, and what each is given.

    Minutes are as measured with one thread of a laptop; what is missing is not known here.
    """

    paper: str
    beside: tuple[str, ...] = ()  # experiments of the other paper that cost little here
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    minutes: Mapping[str, float] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)  # of the nets that Table 2 averages
    own_truth: bool = False  # the data set knows its parts, and has its own target classes

    @property
    def experiments(self) -> list[str]:
        """The commands that make the paper's figures and tables, in their order."""
        made = dict.fromkeys(
            item.command for paper in PAPERS if paper.id == self.paper for item in paper.items if item.folder
        )
        return sorted(made, key=lambda command: command in LATE)


# Nets of Table 3: three of the rows on which most claims rest, one of each of the others, which borrow the spread of those. In
# the demo three of ZFNet alone, whose average Table 2 has.
ONE_NET = (
    "alexnet_no_3_4,alexnet_no_7,alexnet_no_6_7,alexnet_fc_2048,alexnet_fc_8192,zfnet_fc_2048,zfnet_fc_8192,zfnet_maps_512,"
    "zfnet_maps_512_fc_8192"
)
THREE_NETS = ("seeds=[0,1,2]", f"once=[{ONE_NET}]")
THREE_ZFNETS = ("seeds=[0,1,2]", f"once=[alexnet,alexnet_no_3_4_6_7,{ONE_NET}]")

OWN_RECIPE = ("epochs=null", "batch_size=null", "lr=null", "warmup_steps=null", "dropout=null")  # Table 3's is short

PLANS = {
    "demo": Plan(
        "zfnet",
        # The demo is to be finished while one waits, in twenty minutes on two cores: fewer folds, sizes and nets than elsewhere,
        # Table 5's nets from scratch those of Table 4, and five epochs of Table 3's short recipe.
        options={
            "transfer": [
                "folds=3", "per_class.table5=[15,30]", "per_class.fig9=[1,2,6,15,30,60]", "scratch_doublings=0",
            ],
            "probe": ["folds=3"],
            "ablate": (*THREE_ZFNETS, "epochs=5"),
        },
        minutes={
            "train": 4.2, "visualize": 0.2, "evolve": 0.7, "invariance": 1.1, "filters": 7, "occlude": 1.0, "correspond": 0.2,
            "ablate": 13, "evaluate": 0.2, "transfer": 6, "probe": 0.5, "report": 0.1,
        },
        own_truth=True,
    ),
    # Fewer images where a large network looks at each of them hundreds of times: the intervals are narrow enough. Maps of 7x7
    # instead of up to 56x56: as they are, a VGG-16's of Caltech-101 take 13 GB.
    "pretrained": Plan(
        "zfnet",
        options={
            "invariance": ["claims_images=100"],
            "occlude": ["claims_images=40"],
            "probe": ["pool=7", "folds=3"],
        },
        minutes={  # of a VGG-16 on Caltech-101 at 112 px
            "import": 0.1, "visualize": 3, "invariance": 7, "filters": 0.1, "occlude": 12, "correspond": 0.6, "transfer": 16,
            "probe": 21, "report": 0.2,
        },
    ),
    # A night on two cores: by the rate of the first training (82 minutes for 30 epochs with one thread), Table 3's eighteen nets
    # of 8 epochs take 6.5 hours of one core, Figure 6's two of 30 epochs 2.7.
    "tiny_imagenet": Plan(
        "zfnet", options={"ablate": THREE_NETS, "transfer": ["scratch_steps=1200"]}, minutes={"train": 82}
    ),
    "paper": Plan("zfnet", options={"ablate": ["seeds=[0,1,2,3,4]", *OWN_RECIPE]}, seeds=(0, 1, 2, 3, 4)),
    # One net of each kind. At A's own rate the deepest forget what they start from; those that start from themselves at another
    # scale train for a quarter as long.
    "vgg_demo": Plan(
        "vgg",
        beside=("visualize", "invariance", "occlude"),
        options={
            "depth": ["start_lr=0.01", "start_warmup_steps=900", "tuning_epochs=6"],
            "invariance": ["claims_images=100"],
            "occlude": ["claims_images=60"],
            # Enough for 30 training and 50 test images a class; SVMs on thousands of scenes would take the longest of all.
            "transfer": ["data.train_per_class=40", "scenes.train_per_class=10", "scenes.val_per_class=10"],
        },
        minutes={
            "train": 6.2, "depth": 84, "localize": 5, "transfer": 8, "visualize": 0.8, "invariance": 2.6, "occlude": 2.0,
            "report": 0.3,
        },
        own_truth=True,
    ),
    "vgg": Plan(
        "vgg",
        options={
            "depth": ["scales=[256,384,512]"],
            "localize": ["epochs=null", "batch_size=null", "lr=0.001", "warmup_steps=null"],
        },
    ),
}  # fmt: skip
FIRST = {plan.paper: preset for preset, plan in reversed(PLANS.items())}  # the first of a paper, unless told otherwise
OWN_DATA = {"pretrained": "imagenette"}  # a preset's data set, where it has no config of its own


@dataclass(frozen=True)
class Stage:
    """One `zfrepro` command of the plan; `skip` says why it is not run, if it is not."""

    command: str
    what: str
    options: list[str]
    minutes: float | None
    skip: str = ""


# ----------------------------------------------------------------------------------------------------------------- plan


def plan(args: argparse.Namespace) -> list[Stage]:
    """The stages for what was asked, in order: the network first, the page last."""
    wanted = [item for item in items(args.preset) if not args.only or item.id in args.only]
    own = PLANS[args.preset]
    stages = []
    for command in (*own.experiments, *own.beside):
        found = [item for item in wanted if item.command == command]
        if found:
            given, what = options(args, command, found), ", ".join(item.title for item in found)
            stages.append(stage(args, command, what, given, missing(args, found)))
    return [*network(args), *stages, stage(args, "report", "the page", [f"run={args.run}"])]


def items(preset: str) -> list[Item]:
    """The figures and tables that a preset's plan makes: all of its paper's, and of the others what costs little."""
    own = PLANS[preset]
    return [
        item
        for paper in PAPERS
        for item in paper.items
        if item.folder and item.command in (own.experiments if paper.id == own.paper else own.beside)
    ]


def stage(args: argparse.Namespace, command: str, what: str, given: list[str], skip: str = "") -> Stage:
    """A stage with its cost: none where its results are there (its command looks whether they are up to date)."""
    minutes = 0.0 if there(Path(args.outputs) / args.run, command, what) else PLANS[args.preset].minutes.get(command)
    return Stage(command, what, [*given, f"outputs={args.outputs}", *args.also], minutes, skip)


def there(folder: Path, command: str, what: str) -> bool:
    """Whether a command's results are in the run's folder."""
    if command in ("train", "import"):  # with whatever options; drawn at its end
        return (folder / "train" / "filters.png").exists()
    own = [item for paper in PAPERS for item in paper.items if item.command == command and item.title in what]
    return bool(own) and all((folder / item.folder / "metrics.json").exists() for item in own)


def network(args: argparse.Namespace) -> list[Stage]:
    """The stages that make the run's network; none where it is there."""
    if there(Path(args.outputs) / args.run, "train", ""):
        return []
    root = [f"data.root={args.data}"] if args.data else []
    if args.preset != "pretrained":
        return [stage(args, "train", "the network", [f"preset={args.preset}", f"run={args.run}", *root, *args.train])]
    data = [f"data={args.data_set or OWN_DATA['pretrained']}", *(root or ["data.download=true"])]
    given = [f"model={args.model}", f"weights={args.weights or 'DEFAULT'}", *data, *args.train]
    return [stage(args, "import", "the network", [f"run={args.run}", *given])]


def options(args: argparse.Namespace, command: str, found: Sequence[Item]) -> list[str]:
    """Options of an experiment."""
    own = PLANS[args.preset]
    given = [f"run={args.run}", *own.options.get(command, [])]
    given += sorted({option for item in found for option in item.options.split()} - set(given))
    several = command == "evaluate" and "ablate" in own.experiments and args.preset != "pretrained"
    if several and (not args.only or all((Path(args.outputs) / net).exists() for net in nets(args))):
        given.append(f"runs=[{','.join(nets(args))}]")
    if command == "transfer" and args.only and own.paper == "zfnet":
        given.append(f"tables=[{','.join(item.id for item in found)}]")
    described = described_nets(args) if command == "transfer" and own.paper == "vgg" else []
    if described and (not args.only or all((Path(args.outputs) / net).exists() for net in described)):
        given.append(f"runs=[{','.join(described)}]")
    if command in ("transfer", "probe") and args.target:
        given += [f"data={args.target}", *([f"data.root={args.target_data}"] if args.target_data else [])]
    if command == "correspond" and args.parts:
        given.append(f"parts={args.parts}")
    return given


def nets(args: argparse.Namespace) -> list[str]:
    """Table 3's nets of ZFNet, whose average Table 2 has beside the run itself."""
    return [f"{args.run}/table3_ablation/zfnet" + (f"_s{seed}" if seed else "") for seed in PLANS[args.preset].seeds]


def described_nets(args: argparse.Namespace) -> list[str]:
    """The nets of VGG's Table 11: D and E, trained with scale jitter; the demo's ZFNet to compare with, where it is there."""
    scales = "64-128" if args.preset == "vgg_demo" else "256-512"
    zfnet = ["demo"] if args.preset == "vgg_demo" and there(Path(args.outputs) / "demo", "train", "") else []
    return [f"{args.run}/depth/{name}_{scales}" for name in "de"] + zfnet


def missing(args: argparse.Namespace, found: Sequence[Item]) -> str:
    """Why an experiment is not made: what it lacks that only the user can give, or a training that an imported network has not
    had; '' where it lacks nothing."""
    command = found[0].command
    if args.preset == "pretrained" and all(item.trains for item in found):
        return found[0].trains
    if PLANS[args.preset].own_truth:
        return ""
    if command in ("transfer", "probe") and not args.target:
        return "give TARGET=caltech101|caltech256|voc2012 TARGET_DATA=<its folder>"
    if command == "correspond" and not args.parts:
        return "give PARTS=<a .csv of the parts' places> (see `zfrepro correspond --help`)"
    return ""


def unfit(one: Stage, args: argparse.Namespace) -> str:
    """Why an imported network cannot be given to a stage, as is known once it is there; '' where it can."""
    note = Path(args.outputs) / args.run / "train" / "import.json"
    if one.command != "evaluate" or not note.exists() or read_json(note).get("classes"):
        return ""
    return f"the weights have no classifier; zfrepro train run=<name> init_from={args.run} freeze=<n> trains one"


def announce(stages: Sequence[Stage], args: argparse.Namespace) -> None:
    """The plan with its costs."""
    print(f"{len(stages)} stages for the run {args.run} (preset {args.preset}); what is up to date is not done again:")
    for number, one in enumerate(stages, 1):
        print(f"  {number:2d}. {one.command:<11} {one.what:<36} {estimate(one)}")
    known = [one.minutes for one in stages if one.minutes is not None and not one.skip]
    rest = "" if len(known) == len([one for one in stages if not one.skip]) else ", and what nobody has measured"
    print(f"In all about {sum(known):.0f} min with one thread{rest}; trainings share the CPUs.\n", flush=True)


def estimate(one: Stage) -> str:
    """A stage's cost in words."""
    if one.skip:
        return f"skipped: {one.skip}"
    if one.minutes is None:
        return "cost unknown"
    return f"about {one.minutes:.1f} min" if one.minutes else "there already"


# ------------------------------------------------------------------------------------------------------------------ run


def run(stages: Sequence[Stage], args: argparse.Namespace) -> int:
    """Run the stages, a line each; status 1 if one failed, with the ends of their logs."""
    started, failed = time.monotonic(), []
    logs = Path(args.outputs) / args.run / "logs"
    for number, one in enumerate(stages, 1):
        print(f"[{number:2d}/{len(stages)}] {one.command:<11} {one.what:<40} ", end="", flush=True)
        if reason := one.skip or unfit(one, args):
            print(f"skipped: {reason}")
            continue
        log, before = logs / f"{one.command}.log", time.monotonic()
        status = call(one, log)
        took = time.monotonic() - before
        if status:
            failed.append((one, log))
            print(f"FAILED after {took:.0f} s", flush=True)
            if one.command in ("train", "import"):
                break  # nothing else has anything to work on
        else:
            said = log.read_text(encoding="utf-8")
            fresh = "nothing to do" in said and "wrote " not in said
            print("up to date" if fresh else f"done in {took:.0f} s", flush=True)
    minutes = (time.monotonic() - started) / 60
    conclude(failed, Path(args.outputs) / args.run / "report" / "index.html", minutes, peak_memory() / 1e9)
    return 1 if failed else 0


def call(one: Stage, log: Path) -> int:
    """One `zfrepro` command, its output into `log`. A request to stop is passed on and raised as KeyboardInterrupt."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-X", "utf8", "-m", "zfrepro", one.command, *one.options]
    # On Linux the child is told to stop when its parent ends, however that ends, so that none works on unseen.
    last_will = {"preexec_fn": end_with_parent} if sys.platform == "linux" else {}
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **last_will
        )
        try:
            return process.wait()
        except KeyboardInterrupt:
            if not WINDOWS:  # there the command has heard Ctrl-C too, and this would kill it
                process.terminate()  # the command saves what it has
            process.wait()
            raise


def end_with_parent() -> None:
    """In the child: ask the kernel for a SIGTERM when the parent ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def conclude(failed: Sequence[tuple[Stage, Path]], page: Path, minutes: float, memory: float) -> None:
    """What failed and why; where the page is."""
    for one, log in failed:
        print(f"\nfailed: zfrepro {one.command} {' '.join(one.options)}\n  the end of {shown(log.resolve())}:")
        lines = [line.rpartition("\r")[2] for line in log.read_text(encoding="utf-8").split("\n") if line.strip()]
        print("\n".join(f"    {line}" for line in lines[-TAIL:]))
    print(f"\n{len(failed)} of the stages failed; " if failed else "\n", end="")
    print(f"{minutes:.1f} minutes, the largest process took {memory:.1f} GB of memory")
    if page.exists():
        print(f"The page: {page.resolve()}")


def interrupted(signum: int, frame: object) -> None:
    """SIGTERM as Ctrl-C."""
    raise KeyboardInterrupt


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; the Makefile's variables come in here."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--paper", default="zfnet", choices=list(FIRST))
    parser.add_argument("--preset", default="", choices=["", *PLANS], help="default: the paper's demo")
    parser.add_argument("--run", default="", help="the run's name; default: the preset's")
    parser.add_argument("--data", default="", help="folder of the preset's data set")
    parser.add_argument("--data-set", default="", help="pretrained: which data set to look at (conf/data)")
    parser.add_argument("--model", default="torchvision/alexnet", help="pretrained: the network (conf/model)")
    parser.add_argument("--weights", default="", help="pretrained: a file of weights, or the name of torchvision's")
    parser.add_argument("--target", default="", help="data set that Tables 4-7 and Figure 9 are about (conf/data)")
    parser.add_argument("--target-data", default="", help="its folder")
    parser.add_argument("--parts", default="", help="a .csv of the parts that Table 1 covers, for photographs")
    parser.add_argument("--outputs", default="outputs")
    parser.add_argument("--only", nargs="+", metavar="ID", default=[], help="figures and tables by id: fig7 table3")
    parser.add_argument("--train", nargs="+", metavar="KEY=VALUE", default=[], help="further options of the training")
    parser.add_argument("--also", nargs="+", metavar="KEY=VALUE", default=[], help="further options of every command")
    args = parser.parse_args(given)
    args.only = ["table1" if name == "fig8" else name for name in args.only]
    args.preset = args.preset or FIRST[paper_of(args.only) or args.paper]
    args.run = args.run or args.preset
    known = [item.id for item in items(args.preset)]
    for name in args.only:
        if name not in known:
            parser.error(f"--only {name}: the ids are {', '.join(known)}")
    return args


def paper_of(ids: Sequence[str]) -> str:
    """The paper, of those with a plan, that has the first of these figures and tables; '' where none has."""
    planned = [paper for paper in PAPERS if paper.id in FIRST and ids]
    return next((paper.id for paper in planned if ids[0] in {item.id for item in paper.items}), "")


def main() -> int:
    """Plan, then run."""
    args = arguments()
    sys.stdout.reconfigure(errors="backslashreplace")  # logs hold signs that a narrow character set lacks
    signal.signal(signal.SIGTERM, interrupted)
    try:
        with lock(Path(args.outputs) / args.run / "logs"):
            stages = plan(args)
            announce(stages, args)
            return run(stages, args)
    except UserError as error:
        print(f"all_figures: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here")
        return 130


if __name__ == "__main__":
    sys.exit(main())
