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

# Options that say where, how fast or how talkative, never what: they change no number beyond rounding, and so no hash.
NEUTRAL = {
    "run",
    "outputs",
    "debug",
    "resume",
    "workers",
    "checkpoint_every",
    "data.root",
    "data.cache",
    "data.workers",
    "data.download",
}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config as {'data.size': 64, ...}; lists stay whole."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def decisive(config: object) -> dict[str, Any]:
    """The flattened options that determine the numbers."""
    return {key: value for key, value in flatten(config).items() if key not in NEUTRAL}


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
