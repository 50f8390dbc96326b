"""The commands. `zfrepro <command> [overrides]`: each has one config, one dataclass and one function."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zfrepro import __version__
from zfrepro.errors import UserError, explain_os_error, nearest
from zfrepro.options.commands import (
    AblateConfig,
    CorrespondConfig,
    DepthConfig,
    DoctorConfig,
    EvaluateConfig,
    EvolveConfig,
    FiltersConfig,
    ImportConfig,
    InvarianceConfig,
    OccludeConfig,
    ProbeConfig,
    ReportConfig,
    SummaryConfig,
    TrainConfig,
    TransferConfig,
    VisualizeConfig,
)
from zfrepro.options.compose import conf_folder, to_dataclass, unknown_key
from zfrepro.options.identity import flatten
from zfrepro.options.shared import ModelConfig
from zfrepro.options.tables import OwnTables


class Command(NamedTuple):
    """A command: its dataclass, its line in the help, and where its function is."""

    config: type
    line: str
    target: str


COMMANDS = {
    "train": Command(TrainConfig, "train a network (section 3)", "zfrepro.trainer:train"),
    "evaluate": Command(EvaluateConfig, "top-1 and top-5 errors (Table 2)", "zfrepro.evaluator.errors:evaluate"),
    "visualize": Command(
        VisualizeConfig, "features projected to pixels (Fig. 2)", "zfrepro.visualizer.features:visualize"
    ),
    "evolve": Command(EvolveConfig, "features through training (Fig. 4)", "zfrepro.visualizer.evolution:evolve"),
    "filters": Command(
        FiltersConfig,
        "first- and second-layer filters (Fig. 6)",
        "zfrepro.visualizer.filters:filters",
    ),
    "invariance": Command(
        InvarianceConfig, "translation, scale, rotation (Fig. 5)", "zfrepro.evaluator.invariance:invariance"
    ),
    "occlude": Command(OccludeConfig, "sensitivity to occlusion (Fig. 7)", "zfrepro.evaluator.occlusion:occlude"),
    "correspond": Command(
        CorrespondConfig,
        "correspondence of parts (Fig. 8, Table 1)",
        "zfrepro.evaluator.correspondence:correspond",
    ),
    "ablate": Command(
        AblateConfig,
        "remove or resize layers and train (Table 3)",
        "zfrepro.evaluator.ablation:ablate",
    ),
    "depth": Command(
        DepthConfig, "networks A to E, trained and tested (VGG, Tables 3-6)", "zfrepro.evaluator.depth:depth"
    ),
    "transfer": Command(
        TransferConfig,
        "frozen features on another data set (Tables 4-6, Fig. 9)",
        "zfrepro.evaluator.transfer:transfer",
    ),
    "probe": Command(ProbeConfig, "how good each layer's features are (Table 7)", "zfrepro.evaluator.probe:probe"),
    "report": Command(
        ReportConfig, "all of a run on one page, with the paper's claims", "zfrepro.report.report:report"
    ),
    "import": Command(
        ImportConfig, "make a run of a network that was trained elsewhere", "zfrepro.trainer.imported:import_weights"
    ),
    "prepare": Command(TrainConfig, "decode and pack a data set, once", "zfrepro.tools:prepare"),
    "summary": Command(SummaryConfig, "print the layer table (Fig. 3)", "zfrepro.tools:summary"),
    "doctor": Command(DoctorConfig, "print versions, devices and data sets, and what is wrong", "zfrepro.tools:doctor"),
}


def main() -> NoReturn:
    """The `zfrepro` program: status 0, 2 after a user's mistake (one line on stderr), 128 + n after signal n."""
    args = sys.argv[1:]
    debug = "debug=true" in [arg.lower() for arg in args]
    try:
        status = _run(args)
    except (Exception, KeyboardInterrupt) as error:
        status = _report(error, args[0] if args else "", debug)
    sys.stdout.flush()
    sys.exit(status)


def _report(error: BaseException, command: str, debug: bool) -> int:
    """Print a user's mistake in one line and return the exit status; raise again what is not one."""
    line = _one_line(error, command)
    if line is None or debug:
        raise error
    print(f"zfrepro: {line}", file=sys.stderr)
    return int(getattr(error, "status", 130 if isinstance(error, KeyboardInterrupt) else 2))


def _run(args: list[str]) -> int:
    if args[:1] == ["--version"]:
        print(f"zfrepro {__version__}")
    elif not args or args[0] in ("--help", "-h", "help"):
        print(_help())
    elif args[0] in ("-sc", "--shell-completion"):
        _complete(args)
    elif args[0] not in COMMANDS:
        raise UserError(f"{args[0]}: no such command{nearest(args[0], COMMANDS)}; `zfrepro --help` lists them")
    elif {"--help", "-h"} & set(args):
        print(_command_help(args[0], [arg for arg in args[1:] if not arg.startswith("-")]))
    else:
        _hydra(args[0], args[1:])
    return 0


def _hydra(command: str, args: list[str]) -> None:
    """Hand over to Hydra, with its errors as exceptions."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    if command not in ("train", "prepare"):
        # A preset is a recipe for training; everywhere else it names the run that was trained with it.
        args = [re.sub(r"^preset=", "run=", arg) for arg in args]
    sys.argv = ["zfrepro", "--config-name", command, *map(_quoted, TABLES.placed(command, args))]
    _task()


def _derived(path: Path, layers: int | None) -> ModelConfig:
    """The layer table of an ONNX file."""
    from zfrepro.models.onnx_chain import read_chain

    return read_chain(path, layers).table


TABLES = OwnTables(_derived)


def _quoted(arg: str) -> str:
    """A path, or a run's name that looks like a number, as Hydra's grammar wants it: in quotes where it has signs of its
    own. Lists (of a sweep: a,b) and what is quoted already stay as they are."""
    key, sign, value = arg.partition("=")
    plain = value[:1] not in ("'", '"', "[", "$") and "," not in value and value != "null"
    if key.lstrip("+") in PATHS and plain and re.search(r"[^\w./:+%@$-]", value):
        value = str(Path(value).expanduser())
    elif not (key == "run" and re.fullmatch(r"[\d_.eE+-]+", value)):
        return arg
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return f"{key}{sign}'{escaped}'"


PATHS = ("data.root", "outputs", "parts", "weights", "classes")


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="base")
def _task(cfg: DictConfig) -> None:
    name = HydraConfig.get().job.config_name
    assert name is not None
    sys.argv = ["zfrepro", name, *TABLES.as_given(HydraConfig.get().overrides.task)]  # what provenance records
    command = COMMANDS[name]
    try:
        _function(command)(to_dataclass(cfg, command.config))
    except Exception as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise  # the launcher collects it
        sys.exit(_report(error, name, bool(cfg.debug)))  # past Hydra, which would print more than one line


def _function(command: Command) -> Callable[[Any], None]:
    """The command's function, imported now (torch and matplotlib are slow to load; --help is not to wait for them)."""
    module, name = command.target.split(":")
    return getattr(importlib.import_module(module), name)


# ------------------------------------------------------------------------------------------------------------------ help


def _help() -> str:
    lines = [f"  {name:<11} {command.line}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "zfrepro: Visualizing and Understanding Convolutional Networks (Zeiler & Fergus, 2014), reproduced",
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
    head = []
    for line in (conf_folder() / f"{command}.yaml").read_text().splitlines():
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# "))
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        cfg = compose(command, TABLES.placed(command, overrides))
    meanings = _meanings(COMMANDS[command].config)
    lines = []
    for key, value in flatten(OmegaConf.to_container(cfg, resolve=True)).items():
        if key.startswith("model.") and key not in ("model.name", "model.input_size", "model.remove", "model.scale"):
            continue
        text = f"  {key}={'null' if value is None else str(value).lower() if isinstance(value, bool) else value}"
        lines += _columns(text, meanings.get(key, ""))
    groups = [
        textwrap.fill(f"  {name}= {', '.join(files)}", 118, subsequent_indent=" " * (len(name) + 4))
        for name, files in _groups(command).items()
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


def _groups(command: str) -> dict[str, list[str]]:
    """The config groups that a command's config chooses from, with the names of their files."""
    command = "train" if command == "prepare" else command  # prepare.yaml builds on train.yaml
    text = (conf_folder() / f"{command}.yaml").read_text()
    names = [name for name in re.findall(r"^  - (\w+): ", text, re.MULTILINE) if (conf_folder() / name).is_dir()]
    shared = {"common"}  # pieces of other files, not choices
    return {name: sorted({path.stem for path in (conf_folder() / name).glob("*.yaml")} - shared) for name in names}


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
    _hydra(command, args)


# ---------------------------------------------------------------------------------------------------------------- errors


def _one_line(error: BaseException, command: str) -> str | None:
    """A user's mistake in one line; None for an error that is ours."""
    text = re.sub(r"\s+", " ", str(error).strip())
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, UserError) or hasattr(error, "status"):
        return text
    if isinstance(error, MissingConfigException):
        match = re.search(r"Could not (?:find|load) '([^']+)'", text)
        group, _, name = (match.group(1) if match else "").rpartition("/")
        if group == "hydra/launcher":
            return f"{group}={name}: not installed; `pip install '.[sweeps]'` in zfrepro's folder brings joblib and submitit"
        files = _groups(command).get(group, [])
        return f"{group}={name}: no such file in conf/{group}{nearest(name, files)}; there are {', '.join(files)}"
    if isinstance(error, OverrideParseException):
        return f"{text.split(' See https')[0]}; options are given as key=value, text with signs in it as \"key='text'\""
    if isinstance(error, ConfigCompositionException | HydraException | OmegaConfBaseException):
        match = re.search(r"Could not override '([^']+)'", text)
        if match:
            return unknown_key(match.group(1), OmegaConf.create(), COMMANDS[command].config)
        return text
    if isinstance(error, OSError) and error.errno is not None:
        return explain_os_error(error)
    return None
