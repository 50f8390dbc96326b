"""From YAML and overrides to a checked dataclass."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

from zfrepro.errors import UserError, nearest, require_choice
from zfrepro.options import commands
from zfrepro.options.declare import check_options
from zfrepro.options.shared import LayerConfig, ModelConfig

# Pixels of packed pictures, an eighth more than a network's input: room for crops, as 256 for the paper's 224.
OmegaConf.register_new_resolver("room_for", lambda crop: round(crop * 8 / 7), replace=True)

T = TypeVar("T")


def _offer_defaults() -> None:
    """The options of each command with their defaults, to Hydra as `options/<command>`: where a config's file begins."""
    for name, cls in vars(commands).items():
        if dataclasses.is_dataclass(cls) and name.endswith("Config"):
            defaults = OmegaConf.to_container(OmegaConf.structured(cls), throw_on_missing=False)
            command = name.removesuffix("Config").lower()
            ConfigStore.instance().store(command, defaults, group="options", package="_global_")


_offer_defaults()


def conf_folder() -> Path:
    """The folder of Hydra configs: inside the package where it was installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def load_model(name: str) -> ModelConfig:
    """The layer table conf/model/<name>.yaml, composed by Hydra. Raises UserError where there is none of that name."""
    root = conf_folder() / "model"
    names = sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))
    require_choice("model", name, names)
    inside = GlobalHydra.instance().is_initialized()  # in a command Hydra stands ready; it refuses to be set up twice
    with contextlib.nullcontext() if inside else initialize_config_dir(str(conf_folder()), version_base="1.3"):
        cfg = compose(overrides=[f"+model={name}"]).model
    return to_dataclass(cfg, ModelConfig)


def to_dataclass(cfg: DictConfig, cls: type[T]) -> T:
    """The DictConfig as a `cls`, checked. Raises UserError on unknown keys, wrong types and impossible values."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(cls), cfg)
        typed = OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        raise UserError(unknown_key(str(error.full_key), cfg, cls)) from error
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: a value is needed; give {error.full_key}=<value>") from error
    except InterpolationResolutionError as error:
        raise UserError(f"{error.full_key}: {_first_line(error)}") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'config'}: {_first_line(error)}") from error
    check_options(typed)
    return typed  # type: ignore[return-value]


def unknown_key(key: str, cfg: DictConfig, cls: type) -> str:
    """The sentence for a key that `cls` does not have, with the nearest one that it does."""
    parent, _, _ = key.rpartition(".")
    node: Any = cls
    for part in filter(None, parent.split(".")):
        names = {f.name: f for f in dataclasses.fields(node)}
        part = part.split("[")[0]
        factory = names[part].default_factory if part in names else None
        node = factory if dataclasses.is_dataclass(factory) else (LayerConfig if part == "layers" else cls)
    valid = [f"{parent}.{f.name}" if parent else f.name for f in dataclasses.fields(node)]
    close = nearest(key, valid)
    return f"{key}: unknown key{close or '; known are ' + ', '.join(valid)}"


def _first_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error).splitlines()[0])
