"""From YAML and overrides to a checked dataclass, and what there is to choose from."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from zfrepro.errors import UserError, nearest, require_choice
from zfrepro.files import shown
from zfrepro.options import commands
from zfrepro.options.declare import check_options
from zfrepro.options.shared import ModelConfig

# Pixels of packed pictures, an eighth more than a network's input: room for crops, as 256 for the paper's 224.
OmegaConf.register_new_resolver("room_for", lambda crop: round(crop * 8 / 7), replace=True)


T = TypeVar("T")


CONFIGS: dict[str, type] = {  # the options of each command
    name.removesuffix("Config").lower(): cls for name, cls in vars(commands).items() if name.endswith("Config")
} | {"prepare": commands.TrainConfig}
for (
    _command,
    _cls,
) in CONFIGS.items():  # with their defaults, to Hydra as `options/<command>`: where a config's file begins
    _defaults = OmegaConf.to_container(OmegaConf.structured(_cls), throw_on_missing=False)
    ConfigStore.instance().store(_command, _defaults, group="options", package="_global_")


def conf_folder() -> Path:
    """The folder of Hydra configs: inside the package where it was installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def names(group: str) -> list[str]:
    """The files of conf/<group>, those in its folders as folder/name."""
    root = conf_folder() / group
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def choices(command: str) -> dict[str, list[str]]:
    """The options of a command that name a file of conf/, with the files to choose from."""
    command = "train" if command == "prepare" else command  # prepare.yaml builds on train.yaml
    text = (conf_folder() / f"{command}.yaml").read_text(encoding="utf-8")
    found = re.findall(r"^  - (\w+)(?:@(\w+))?: ", text, re.MULTILINE)
    return {package or group: names(group) for group, package in found}


def preset_pieces(preset: str) -> dict[str, str]:
    """The model and the data set of a preset, as {'model': 'zfnet', ...}. Raises UserError where there is none of that name."""
    require_choice("preset", preset, names("preset"))
    text = (conf_folder() / "preset" / f"{preset}.yaml").read_text(encoding="utf-8")
    return dict(re.findall(r"^  - override /(\w+): (\S+)", text, re.MULTILINE))


def load_model(name: str, key: str = "model") -> ModelConfig:
    """The layer table conf/model/<name>.yaml, composed by Hydra. Raises UserError, about the option `key`, where there is
    none of that name."""
    require_choice(key, name, names("model"))
    return copy.deepcopy(_model(name, str(conf_folder())))


@functools.cache  # Hydra takes a tenth of a second
def _model(name: str, folder: str) -> ModelConfig:
    inside = GlobalHydra.instance().is_initialized()  # in a command Hydra stands ready; it refuses to be set up twice
    with contextlib.nullcontext() if inside else initialize_config_dir(folder, version_base="1.3"):
        cfg = compose(overrides=[f"+model={name}"]).model
    return to_dataclass(cfg, ModelConfig)


def to_dataclass(cfg: DictConfig, cls: type[T]) -> T:
    """The DictConfig as a `cls`, checked. Raises UserError on unknown keys, wrong types and impossible values."""
    try:
        if missing := sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{missing[0]}: a value is needed; give {missing[0]}=<value>")
        merged = OmegaConf.merge(OmegaConf.structured(cls), cfg)
        typed = OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        type_of(cls, str(error.full_key))
        raise UserError(f"{error.full_key}: {_first_line(error)}") from error
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: a value is needed; give {error.full_key}=<value>") from error
    except InterpolationResolutionError as error:
        raise UserError(f"{error.full_key}: {_first_line(error)}") from error
    except OmegaConfBaseException as error:
        raise UserError(_wrong_type(cfg, cls, error)) from error
    check_options(typed)
    return typed  # type: ignore[return-value]


def parse_yaml(text: str, aliases: int) -> Any:
    """YAML as a config, with so many aliases of anchors at most: with more, a few lines can mean more than fits into memory.

    To be called within `reading_yaml`. Raises UserError for more of them.
    """
    starred = yaml.parse(text, yaml.SafeLoader) if "*" in text else ()  # no alias without a star
    if sum(isinstance(event, yaml.AliasEvent) for event in starred) > aliases:
        raise UserError(
            "holds YAML anchors, which zfrepro does not write" if not aliases else "holds too many YAML anchors"
        )
    return OmegaConf.create(text)


def load_saved(path: Path, cls: type[T], here: dict[str, Any]) -> T:
    """A config that `write_config` wrote, now or in an earlier version, with some options replaced by those of `here`.

    Raises UserError, with the file's name, for whatever is wrong with it.
    """
    with reading_yaml(shown(path)):
        saved = _saved(path.read_text(encoding="utf-8"), cls, json.dumps(here))  # type: ignore[arg-type]
    return copy.deepcopy(saved)


@contextlib.contextmanager
def reading_yaml(place: str) -> Iterator[None]:
    """What is wrong with a YAML file, as a UserError that begins with its `place`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({error.strerror or error})") from error
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError, ValueError) as error:
        raise UserError(f"{place}: not readable as YAML ({yaml_fault(error)})") from error


@functools.lru_cache(64)  # an experiment looks at the same runs again and again, and OmegaConf takes its time
def _saved(text: str, cls: type[T], here: str) -> T:
    loaded = parse_yaml(text, aliases=0)
    if not isinstance(loaded, DictConfig):
        raise UserError("holds no options")
    return to_dataclass(OmegaConf.merge(loaded, json.loads(here)), cls)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------------ keys


def type_of(cls: type, key: str) -> Any:
    """The type of an option, by its dotted name, Optional aside. Raises UserError, with the nearest name, where there is
    none."""
    kind: Any = cls
    done = ""
    for part in re.split(r"\.|(?=\[)", key):
        if dataclasses.is_dataclass(kind):
            hints = typing.get_type_hints(kind)
            if part not in hints:
                known = [done + name for name in hints]
                close = (
                    nearest(done + part, known) or f"; known are {', '.join(known[:12])}{', ...' * (len(known) > 12)}"
                )
                raise UserError(f"{key}: unknown key{close}")
            kind = _without_none(hints[part])
        elif typing.get_origin(kind) in (list, dict):
            kind = typing.get_args(kind)[-1]
        else:
            raise UserError(f"{key}: unknown key; {done.rstrip('.')} has no parts")
        done += f"{part}."
    return kind


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list[str]: "a list, as [a,b]",
    list: "a list, as [1,2]",
    dict: "a mapping, as {6: 0.5}",
}


def _wrong_type(cfg: DictConfig, cls: type, error: OmegaConfBaseException) -> str:
    key = error.full_key
    if not key:
        return _first_line(error)
    if key not in cfg and "." not in key and "[" not in key:  # OmegaConf names the last part alone of a key in a list
        return f"{key}: {_first_line(error)}"
    kind = type_of(cls, key)
    words = KINDS.get(kind) or KINDS.get(typing.get_origin(kind), "a group of options")
    given = OmegaConf.select(cfg, re.sub(r"\[(\d+)\]", r".\1", key))
    return f"{key}={'null' if given is None else given}: must be {words}"


def yaml_fault(error: Exception) -> str:
    """What is wrong with YAML and in which line, where it says so."""
    if isinstance(error, RecursionError):
        return "nested without end"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", (str(error) or type(error).__name__).splitlines()[0])
