"""How a result was made: enough to make it again."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from zfrepro.errors import WINDOWS
from zfrepro.options.identity import config_hash
from zfrepro.options.shared import Common

invocation: list[str] = []  # the command line, without the program's name; set by whoever runs a command


def provenance(config: Common, checkpoint_hash: str | None, seconds: float) -> dict[str, Any]:
    return {
        "command": " ".join(["zfrepro", *invocation]),
        "run": config.run,
        "seed": config.seed,
        "config_hash": config_hash(config),
        "checkpoint_hash": checkpoint_hash,
        "git_commit": git_commit(),
        "versions": versions("zfrepro", "torch", "torchvision", "numpy", "hydra-core", "matplotlib", "scikit-learn"),
        "python": platform.python_version(),
        "device": device_name(config.device),
        "seconds": round(seconds, 2),
        "peak_memory_bytes": peak_memory(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def versions(*packages: str) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def peak_memory() -> int:
    """The most memory, in bytes, that this process or the largest one that it started has held; on Windows, this process."""
    if WINDOWS:
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak * (1 if sys.platform == "darwin" else 1024)


def device_name(device: str) -> str:
    """The GPU's or the processor's name."""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name(None if device == "auto" else device)
    return f"cpu ({platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads)"


@functools.cache  # one process may train hundreds of networks
def code_hash() -> str:
    """Of this package's source."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def git_commit() -> str | None:
    """The checkout's commit, with '+' where tracked files were changed; None outside a checkout, as of a package that is
    installed below somebody's own."""
    here = Path(__file__).resolve()

    def git(*words: str) -> str:
        call = ["git", "-C", str(here.parent), *words]
        return subprocess.run(call, capture_output=True, encoding="utf-8", check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*") or None
    except (OSError, subprocess.CalledProcessError):
        return None
