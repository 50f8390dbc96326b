"""The commands. `zfrepro <command> [overrides]`: each has one config, one dataclass and one function."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import io
import itertools
import os
import re
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zfrepro import __version__
from zfrepro.errors import UserError, line_of, nearest
from zfrepro.options.arguments import for_hydra
from zfrepro.options.commands import READ_BY
from zfrepro.options.compose import CONFIGS, choices, conf_folder, to_dataclass
from zfrepro.options.identity import flatten
from zfrepro.options.shared import Common, ModelConfig
from zfrepro.options.tables import OwnTables

# A command, whose options are `compose.CONFIGS`: its line in the help, and where its function is.
COMMANDS = {
    "train": ("train a network (section 3)", "zfrepro.trainer:train"),
    "evaluate": ("top-1 and top-5 errors (Table 2)", "zfrepro.evaluator.errors:evaluate"),
    "visualize": ("features projected to pixels (Fig. 2)", "zfrepro.visualizer.features:visualize"),
    "evolve": ("features through training (Fig. 4)", "zfrepro.visualizer.evolution:evolve"),
    "filters": ("first- and second-layer filters (Fig. 6)", "zfrepro.visualizer.filters:filters"),
    "invariance": ("translation, scale, rotation (Fig. 5)", "zfrepro.evaluator.invariance:invariance"),
    "occlude": ("sensitivity to occlusion (Fig. 7)", "zfrepro.evaluator.occlusion:occlude"),
    "correspond": ("correspondence of parts (Fig. 8, Table 1)", "zfrepro.evaluator.correspondence:correspond"),
    "ablate": ("remove or resize layers and train (Table 3)", "zfrepro.evaluator.ablation:ablate"),
    "depth": ("networks A to E, trained and tested (VGG, Tables 3-6)", "zfrepro.evaluator.depth:depth"),
    "transfer": ("frozen features on another data set (Tables 4-6, Fig. 9)", "zfrepro.evaluator.transfer:transfer"),
    "localize": (
        "train networks to say where the object is (VGG, Tables 8-10)",
        "zfrepro.evaluator.localisation:localize",
    ),
    "probe": ("how good each layer's features are (Table 7)", "zfrepro.evaluator.probe:probe"),
    "report": ("all of a run on one page, with the paper's claims", "zfrepro.report.report:report"),
    "import": ("make a run of a network that was trained elsewhere", "zfrepro.trainer.imported:import_weights"),
    "prepare": ("decode and pack a data set, once", "zfrepro.tools:prepare"),
    "summary": ("print the layer table (Fig. 3)", "zfrepro.tools:summary"),
    "doctor": ("print versions, devices and data sets, and what is wrong", "zfrepro.tools:doctor"),
}


def main() -> NoReturn:
    """The `zfrepro` program: status 0, 2 after a user's mistake (one line on stderr), 128 + n after signal n."""
    words = sys.argv[1:]
    debug = "debug=true" in [word.lower() for word in words]
    _patient_streams()
    try:
        status = _run(words)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would end what is left to do in a traceback
        status = _report(error, debug)
    sys.exit(status)


def _run(words: list[str]) -> int:
    """The exit status of a command line."""
    _statuses.pop(os.getpid(), None)  # of an earlier command line in this process
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    if command == "--version":
        print(f"zfrepro {__version__}")
    elif command in ("--help", "-h", "help"):
        print(_help())
    elif command in ("-sc", "--shell-completion"):
        _complete(words)
    elif command not in COMMANDS:
        raise UserError(f"{command.strip()}: no such command{nearest(command, COMMANDS)}; `zfrepro --help` lists them")
    elif {"--help", "-h"} & set(rest):
        words = [word for word in rest if not word.startswith("-")]
        print(_command_help(command, _words(command, words)))
    else:
        _hydra(command, _words(command, rest))
    return max(_statuses.get(os.getpid(), []), default=0)


def _report(error: BaseException, debug: bool) -> int:
    """Print a user's mistake in one line and return the exit status; raise again what is not one."""
    line = _one_line(error)
    if line is None or debug:
        raise error
    print(f"zfrepro: {line}", file=sys.stderr)
    return int(getattr(error, "status", 130 if isinstance(error, KeyboardInterrupt) else 2))


def _derived(path: Path, layers: int | None) -> ModelConfig:
    """The layer table of an ONNX file."""
    from zfrepro.models.onnx_chain import read_chain

    return read_chain(path, layers)[0]


TABLES = OwnTables(_derived)


def _words(command: str, given: list[str]) -> list[str]:
    """The words after a command, for Hydra."""
    return for_hydra(command, CONFIGS[command], TABLES.placed(command, given))


def _hydra(command: str, words: list[str]) -> None:
    """Hand over to Hydra, which reads sys.argv, with its errors as exceptions."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    before, sys.argv = sys.argv, ["zfrepro", "--config-name", command, *words]
    _statuses[os.getpid()] = []
    try:
        _task()
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
        own = [word for word in words if word.startswith("hydra")]
        if own and not _statuses[os.getpid()]:  # before any job: of options of Hydra's own
            raise UserError(f"{' '.join(own)}: Hydra says: {error}") from error
        raise
    finally:
        sys.argv = before


_statuses: dict[int, list[int]] = {}  # of the jobs so far, in the process that began them


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="base")
def _task(cfg: DictConfig) -> None:
    name = HydraConfig.get().job.config_name
    assert name is not None
    statuses = _statuses.get(os.getpid(), [])
    statuses.append(0)
    try:
        config: Any = to_dataclass(cfg, CONFIGS[name])
        if name in ("train", "import"):
            _refuse_inside_runs(config)
        from zfrepro import provenance  # it loads torch: `--help` is not to wait for it, nor for what a command imports

        overrides = [word.removeprefix("++") for word in HydraConfig.get().overrides.task]
        provenance.invocation = [name, *TABLES.as_given(overrides)]
        module, function = COMMANDS[name][1].split(":")
        getattr(importlib.import_module(module), function)(config)
    except Exception as error:
        statuses[-1] = _report(error, cfg.debug is True)
        if HydraConfig.get().mode != RunMode.MULTIRUN or statuses[-1] >= 128:
            sys.exit(statuses[-1])  # past Hydra, which would print more than one line
        if os.getpid() not in _statuses:
            raise  # a launcher's process, whose parent is to hear of it


def _refuse_inside_runs(config: Common) -> None:
    """A run may share a folder with others, as torchvision/vgg16, but not lie in another's."""
    for above in Path(config.run).parents[:-1]:
        if (config.runs_folder / above / "train" / "config.yaml").exists():
            raise UserError(f"run={config.run}: lies within the run {above.as_posix()}; give another name")


# --------------------------------------------------------------------------------------------------------------- streams


class _Pipe(io.FileIO):
    """Output whose reader may leave, as `head` does, or a terminal that is closed: the rest is dropped, and the work goes on.
    Of a full disk it complains once."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self.gone, self.left = False, [errno.EPIPE, errno.EINVAL]  # the latter: Windows' word for a reader who has left
        self.left += [errno.EIO] * self.isatty()

    def write(self, data: Any) -> int:
        try:
            return len(data) if self.gone else super().write(data) or 0
        except OSError as error:
            self.gone = True
            if error.errno not in self.left:
                raise
            return len(data)


def _patient_streams() -> None:
    """Standard output and error that a closed pipe, a closed descriptor or a narrow character set do not end. Every line is
    handed on at once: what is killed keeps its log."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        buffer = getattr(stream, "buffer", None)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif (
            type(getattr(buffer, "raw", buffer)).__name__ == "_WindowsConsoleIO"
        ):  # takes text; unbuffered it has no raw
            stream.reconfigure(errors="backslashreplace")
        elif stream is getattr(sys, f"__{name}__"):
            pipe = io.BufferedWriter(_Pipe(number))
            setattr(sys, name, io.TextIOWrapper(pipe, stream.encoding, "backslashreplace", line_buffering=True))


# ------------------------------------------------------------------------------------------------------------------ help


def _help() -> str:
    lines = [f"  {name:<11} {line}" for name, (line, _) in COMMANDS.items()]
    return "\n".join(
        [
            "zfrepro: every figure and table of Zeiler & Fergus (2014, ZFNet) and Simonyan & Zisserman (2015, VGG), reproduced",
            "",
            "usage: zfrepro <command> [key=value ...] [Hydra's flags]",
            "",
            *lines,
            "",
            "Begin with `zfrepro train`: it draws its own data set, needs no download and takes minutes; the other commands",
            "read the run that it leaves in outputs/. `zfrepro <command> --help` shows a command's options.",
            "After the command, everything is Hydra's: --cfg job prints the config, -m sweeps. Completion for bash:",
            '  eval "$(zfrepro -sc install=bash)"',
        ]
    )


def _command_help(command: str, overrides: list[str]) -> str:
    """The comment that opens the command's config, then its options with their defaults and what they mean."""
    text = (conf_folder() / f"{command}.yaml").read_text(encoding="utf-8")
    head = [line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        cfg = compose(command, overrides)
    to_dataclass(cfg, CONFIGS[command])
    meanings = _meanings(CONFIGS[command])
    lines = []
    values = flatten(OmegaConf.to_container(cfg, resolve=True))
    for key, value in sorted(values.items(), key=lambda option: option[0] in READ_BY):  # a paper's open readings: last
        if key.startswith("model.") and key not in ("model.name", "model.input_size", "model.remove", "model.scale"):
            continue
        text = f"  {key}={'null' if value is None else str(value).lower() if isinstance(value, bool) else value}"
        lines += _columns(text, meanings.get(key, ""))
    files = {"data" if key == "scenes" else key: found for key, found in choices(command).items()}
    groups = [
        textwrap.fill(f"  {key}= {', '.join(found)}", 118, subsequent_indent=" " * (len(key) + 4))
        for key, found in files.items()
    ]
    parts = [
        "\n".join(head),
        f"usage: zfrepro {command} [key=value ...]",
        "options and their defaults:\n" + "\n".join(lines),
    ]
    if groups:
        parts.append("files to choose from:\n" + "\n".join(groups))
    return "\n\n".join(parts)


def _columns(option: str, meaning: str) -> list[str]:
    """An option and what it means, side by side if there is room."""
    indent = " " * 44
    words = textwrap.wrap(meaning, 76, initial_indent=indent, subsequent_indent=indent)
    if not words or len(option) > 42:
        return [option, *words]
    return [option.ljust(44) + words[0].strip(), *words[1:]]


def _meanings(cls: type, prefix: str = "") -> dict[str, str]:
    """What each option means, those of its groups included."""
    found: dict[str, str] = {}
    for field in dataclasses.fields(cls):
        found[prefix + field.name] = field.metadata["meaning"]
        if dataclasses.is_dataclass(field.default_factory):
            found |= _meanings(field.default_factory, f"{prefix}{field.name}.")
    return found


def _complete(args: list[str]) -> None:
    """Shell completion: Hydra's, after the command's own name is completed here."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if any(arg.startswith("query") for arg in args) and len(words) + line.endswith(" ") <= 2:
        start = words[1] if len(words) > 1 else ""
        print("\n".join(name for name in COMMANDS if name.startswith(start)))
        return
    command = words[1] if len(words) > 1 and words[1] in COMMANDS else "train"
    if len(words) > 1 and words[1] in COMMANDS:
        shorter = line.replace(f" {command}", "", 1)
        os.environ["COMP_POINT"] = str(int(os.environ.get("COMP_POINT", len(line))) - len(line) + len(shorter))
        os.environ["COMP_LINE"] = shorter
    _hydra(command, ["--shell-completion", *args[1:]])


# ---------------------------------------------------------------------------------------------------------------- errors


def _one_line(error: BaseException) -> str | None:
    """A user's mistake in one line; None for an error that is ours."""
    text = re.sub(r"\s+", " ", str(error).strip())
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, UserError) or hasattr(error, "status"):
        return text
    if isinstance(error, MissingConfigException):
        match = re.search(r"Could not (?:find|load) '([^']+)'", text)
        group, _, name = (match.group(1) if match else "").rpartition("/")
        extra = (
            "; `pip install '.[sweeps]'` in zfrepro's folder brings joblib and submitit" if "launcher" in group else ""
        )
        return f"{group}={name}: no such file in conf/{group}, nor in the folders given{extra}"
    if isinstance(error, OverrideParseException):
        given = error.override.removeprefix("++")
        return f"{given}: {text.split(' See https')[0]}; options are given as key=value, text with signs in it as \"key='text'\""
    if isinstance(error, HydraException | OmegaConfBaseException):
        text = re.sub(r"^Error merging override \+*(.*)", r"\1: a value of another kind is needed", text)
        return re.sub(r"^Could not override '(.*?)'.*", r"\1: no such option", text)
    return line_of(error)
