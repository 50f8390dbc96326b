"""`make all-figures`: every figure and table of the paper, then the page that holds them; `make fig7` and the like: one.

Each stage is a `zfrepro` command in a process of its own. A command does nothing where its result is up to date, so an
interrupted call goes on where it stopped when it is given again. A stage that fails is reported at the end and does not
stop the others; the status is then 1. What the commands print goes to outputs/<run>/logs/<stage>.log.
"""

from __future__ import annotations

import argparse
import ctypes
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zfrepro.errors import UserError
from zfrepro.files import lock, shown
from zfrepro.papers import zfnet

# Minutes on two cores, as measured from a fresh clone; what the larger presets take is not known here.
MINUTES = {
    "demo": {
        "train": 2.6, "visualize": 0.2, "evolve": 0.6, "invariance": 0.3, "filters": 2.9, "occlude": 0.6, "correspond": 0.2,
        "ablate": 8.2, "evaluate": 0.2, "transfer": 3.1, "probe": 0.4, "report": 0.3,
    },
    "tiny_imagenet": {},
    "paper": {},
}  # fmt: skip

# The demo is to be finished while one waits: fewer seeds, folds and sizes than elsewhere, never shorter trainings.
OPTIONS: dict[str, dict[str, list[str]]] = {
    "demo": {"transfer": ["folds=2", "per_class.table5=[30,60]"], "probe": ["folds=2"]},
}
SEEDS = {"demo": (0, 1), "tiny_imagenet": (0, 1, 2), "paper": (0, 1, 2, 3, 4)}  # of Table 3's nets
ORDER = (
    "visualize", "evolve", "invariance", "filters", "occlude", "correspond", "ablate", "evaluate", "transfer", "probe",
)  # fmt: skip
TAIL = 6  # lines of a failed stage's log that are shown


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
    """The stages for what was asked, in order: the training first, the page last."""
    wanted = [item for item in zfnet.ITEMS if not args.only or item.id in args.only]
    commands = [name for name in ORDER if any(item.command == name for item in wanted)]
    trained = there(Path(args.outputs) / args.run, "train", "")
    stages = [] if trained else [stage(args, "train", "the network", training(args))]
    for command in commands:
        items = [item for item in wanted if item.command == command]
        what = ", ".join(item.title for item in items)
        stages.append(
            stage(args, command, what, options(args, command, [item.id for item in items]), missing(args, command))
        )
    return [*stages, stage(args, "report", "the page", [f"run={args.run}"])]


def stage(args: argparse.Namespace, command: str, what: str, given: list[str], skip: str = "") -> Stage:
    """A stage with its cost: none where its results are there (its command looks whether they are up to date)."""
    minutes = 0.0 if there(Path(args.outputs) / args.run, command, what) else MINUTES.get(args.preset, {}).get(command)
    return Stage(command, what, [*given, f"outputs={args.outputs}", *args.also], minutes, skip)


def there(folder: Path, command: str, what: str) -> bool:
    """Whether a command's results are in the run's folder."""
    if command == "train":  # with whatever options; drawn at its end, and by `zfrepro import`
        return (folder / "train" / "filters.png").exists()
    items = [item for item in zfnet.ITEMS if item.command == command and item.title in what]
    return bool(items) and all((folder / item.folder / "metrics.json").exists() for item in items)


def training(args: argparse.Namespace) -> list[str]:
    """Options of the training."""
    root = [f"data.root={args.data}"] if args.data else []
    return [f"preset={args.preset}", f"run={args.run}", *root, *args.train]


def options(args: argparse.Namespace, command: str, items: Sequence[str]) -> list[str]:
    """Options of an experiment."""
    given = [f"run={args.run}", *OPTIONS.get(args.preset, {}).get(command, [])]
    if command == "ablate":
        given.append(f"seeds=[{','.join(map(str, SEEDS[args.preset]))}]")
    if command == "evaluate" and (not args.only or all((Path(args.outputs) / net).exists() for net in nets(args))):
        given.append(f"runs=[{','.join(nets(args))}]")
    if command == "transfer" and args.only:
        given.append(f"tables=[{','.join(items)}]")
    if command in ("transfer", "probe") and args.target:
        given += [f"data={args.target}", *([f"data.root={args.target_data}"] if args.target_data else [])]
    if command == "correspond" and args.parts:
        given.append(f"parts={args.parts}")
    return given


def nets(args: argparse.Namespace) -> list[str]:
    """Table 3's nets of ZFNet, whose average Table 2 has beside the run itself."""
    return [f"{args.run}/table3_ablation/zfnet" + (f"_s{seed}" if seed else "") for seed in SEEDS[args.preset]]


def missing(args: argparse.Namespace, command: str) -> str:
    """What an experiment lacks that only the user can give; '' where it lacks nothing."""
    if args.preset == "demo":
        return ""
    if command in ("transfer", "probe") and not args.target:
        return "give TARGET=caltech101|caltech256|voc2012 TARGET_DATA=<its folder>"
    if command == "correspond" and not args.parts:
        return "give PARTS=<a .csv of the parts' places> (see `zfrepro correspond --help`)"
    return ""


def announce(stages: Sequence[Stage], args: argparse.Namespace) -> None:
    """The plan with its costs."""
    print(f"{len(stages)} stages for the run {args.run} (preset {args.preset}); what is up to date is not done again:")
    for number, one in enumerate(stages, 1):
        print(f"  {number:2d}. {one.command:<11} {one.what:<36} {estimate(one)}")
    known = [one.minutes for one in stages if one.minutes is not None and not one.skip]
    rest = "" if len(known) == len([one for one in stages if not one.skip]) else ", and what nobody has measured"
    print(f"In all about {sum(known):.0f} min on two cores{rest}.\n", flush=True)


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
        if one.skip:
            print("skipped")
            continue
        log, before = logs / f"{one.command}.log", time.monotonic()
        status = call(one, log)
        took = time.monotonic() - before
        if status:
            failed.append((one, log))
            print(f"FAILED after {took:.0f} s", flush=True)
            if one.command == "train":
                break  # nothing else has anything to work on
        else:
            fresh = "nothing to do" in log.read_text() and "wrote " not in log.read_text()
            print("up to date" if fresh else f"done in {took:.0f} s", flush=True)
    minutes = (time.monotonic() - started) / 60
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    conclude(failed, Path(args.outputs) / args.run / "report" / "index.html", minutes, memory)
    return 1 if failed else 0


def call(one: Stage, log: Path) -> int:
    """One `zfrepro` command, its output into `log`. A request to stop is passed on and raised as KeyboardInterrupt."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        command = [sys.executable, "-m", "zfrepro", one.command, *one.options]
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent
        )
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()  # the command saves what it has
            process.wait()
            raise


def end_with_parent() -> None:
    """In the child, on Linux: be told to stop when the parent ends, however it ends, so that none works on unseen."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def conclude(failed: Sequence[tuple[Stage, Path]], page: Path, minutes: float, memory: float) -> None:
    """What failed and why; where the page is."""
    for one, log in failed:
        print(f"\nfailed: zfrepro {one.command} {' '.join(one.options)}\n  the end of {shown(log.resolve())}:")
        lines = [line.rpartition("\r")[2] for line in log.read_text().split("\n") if line.strip()]
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
    parser.add_argument("--preset", default="demo", choices=list(MINUTES))
    parser.add_argument("--run", help="the run's name; default: the preset's")
    parser.add_argument("--data", default="", help="folder of the preset's data set")
    parser.add_argument("--target", default="", help="data set that Tables 4-7 and Figure 9 are about (conf/data)")
    parser.add_argument("--target-data", default="", help="its folder")
    parser.add_argument("--parts", default="", help="a .csv of the parts that Table 1 covers, for photographs")
    parser.add_argument("--outputs", default="outputs")
    parser.add_argument("--only", nargs="+", metavar="ID", default=[], help="figures and tables by id: fig7 table3")
    parser.add_argument("--train", nargs="+", metavar="KEY=VALUE", default=[], help="further options of the training")
    parser.add_argument("--also", nargs="+", metavar="KEY=VALUE", default=[], help="further options of every command")
    args = parser.parse_args(given)
    args.run = args.run or args.preset
    args.only = ["table1" if name == "fig8" else name for name in args.only]
    for name in args.only:
        if name not in {item.id for item in zfnet.ITEMS}:
            parser.error(f"--only {name}: the ids are {', '.join(item.id for item in zfnet.ITEMS)}")
    return args


def main() -> int:
    """Plan, then run."""
    args = arguments()
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
