"""Which options decide the numbers: what a result's identity and a training's resumption rest on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from zfrepro.files import write_text
from zfrepro.options.shared import Common


def flatten(options: Any, prefix: str = "") -> dict[str, Any]:
    """Nested options, a dataclass or a mapping, as {'data.size': 64, ...}; lists stay whole."""
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        options = dataclasses.asdict(options)
    if not isinstance(options, dict):
        return {prefix: options}
    flat: dict[str, Any] = {}
    for key, item in options.items():
        flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def decisive(config: Any) -> dict[str, Any]:
    """The flattened options that determine the numbers: all that are not declared neutral, or without use beside others."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        if field.name in getattr(config, "unused", ()):
            continue
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat |= {f"{field.name}.{key}": item for key, item in decisive(value).items()}
        elif not field.metadata["neutral"]:
            as_ever = (
                field.metadata["later"] and value == field.metadata["default"]
            )  # what was done before there was this option
            flat |= {} if as_ever else flatten(dataclasses.asdict(config)[field.name], field.name)
    return flat


def differing(config: Common, saved: object) -> list[str]:
    """The options that a training with `config` could not take over from one with `saved`: the device may change, and what
    precision 'auto' stood for."""
    new, old = decisive(config), decisive(saved)
    neutral = {"device", "preset"} | ({"precision"} if config.precision == "auto" else set())
    return [key for key in sorted(new.keys() | old.keys()) if new.get(key) != old.get(key) and key not in neutral]


def config_hash(config: object) -> str:
    """A short hash of the options that determine the numbers."""
    return hashlib.sha256(json.dumps(decisive(config), sort_keys=True, default=str).encode()).hexdigest()[:16]


def write_config(path: Path, config: object) -> None:
    """Write a resolved config as YAML."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.structured(config)))
