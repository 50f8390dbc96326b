"""The run folder: atomic writes, checkpoints, locks, and an experiment's output with its provenance."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import pickle
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import torch
from omegaconf import OmegaConf

from zfrepro.config import Common, UserError

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


# ----------------------------------------------------------------------------------------------------------- safe writes


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that replaces it, whole and on disk, when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open(mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path, "w") as file:
        file.write(text)


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically; NumPy numbers and arrays become plain ones, NaN becomes null."""
    write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | torch.Tensor):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises UserError where the file is not one."""
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); delete it and run the command again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no JSON object; delete it and run the command again")
    return value


def explain_os_error(error: OSError) -> str:
    """One line for a failed file operation, with what to do."""
    place = error.filename or "the file system"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{place}: no space left on the disk; free some, then give the same command again: finished work is kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{place}: cannot be written ({error.strerror}); make it writable or give outputs=<another folder>"
    return f"{place}: {error.strerror or error}"


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the kernel lets go when the process ends, however it ends.

    Raises UserError if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(
                f"{folder}: another process (pid {holder}) is working on this run; wait for it or give run=<another name>"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


# ----------------------------------------------------------------------------------------------------------- checkpoints


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    with atomic_write(path) as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, tensors and plain values only. Raises UserError where it is damaged or hostile."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError) as error:
        why = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path}: not a readable checkpoint ({why}); move it away, or train again with resume=false"
        ) from error
    if not isinstance(state, dict) or "model" not in state:
        raise UserError(f"{path}: not a checkpoint of zfrepro; move it away, or train again with resume=false")
    return state


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------- configuration


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


# ------------------------------------------------------------------------------------------------------------ provenance


def provenance(config: Common, checkpoint_hash: str | None, seconds: float) -> dict[str, Any]:
    """How a result was made: enough to make it again."""
    packages = ("zfrepro", "torch", "torchvision", "numpy", "hydra-core", "matplotlib", "scikit-learn")
    versions = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "command": " ".join(["zfrepro", *sys.argv[1:]]),
        "run": config.run,
        "seed": config.seed,
        "config_hash": config_hash(config),
        "checkpoint_hash": checkpoint_hash,
        "git_commit": git_commit(),
        "versions": versions,
        "python": platform.python_version(),
        "device": device_name(config.device),
        "seconds": round(seconds, 2),
        "peak_memory_bytes": peak * (1 if sys.platform == "darwin" else 1024),  # of the largest process
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def device_name(device: str) -> str:
    """The GPU's or the processor's name."""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu ({platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads)"


def git_commit() -> str | None:
    """The checkout's commit, with '+' where tracked files were changed; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        call = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


# ---------------------------------------------------------------------------------------------------------------- output


class Figure(Protocol):
    """What is needed of a matplotlib figure here."""

    def savefig(self, fname: Any, **kwargs: Any) -> None: ...


class Output:
    """The files of one experiment. They gather in a hidden folder and move into place together, `metrics.json` last, so
    that an interrupted experiment leaves the last whole result as it was."""

    def __init__(
        self, folder: Path, config: Common, checkpoint_hash: str | None, part: str | None, inputs: str = ""
    ) -> None:
        self.folder = folder
        self.config = config
        self.identity = _identity(config, inputs)
        self.checkpoint_hash = checkpoint_hash
        self.part = part
        self.started = time.monotonic()
        self.names: list[str] = []
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder.parent)
        self.pending, self.held = _pending_folder(folder.parent, f".{folder.name}.{part or 'all'}.")

    def path(self, name: str) -> Path:
        """Where to write the file `name` now; it will stand in the experiment's folder after `done`."""
        self.names.append(name)
        return self.pending / name

    def arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write a compressed .npz."""
        with self.path(name).open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    def figure(self, name: str, figure: Figure, dpi: int = 150) -> None:
        """Write a PNG."""
        figure.savefig(self.path(name), dpi=dpi)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], notes: str, name: str = "table") -> None:
        """Write <name>.csv (plain numbers) and <name>.md (with `notes`: what ours were measured on). None: an empty cell."""
        with self.path(f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([columns, *[["" if cell is None else cell for cell in row] for row in rows]])
        lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
        self.path(f"{name}.md").write_text("\n".join(lines) + f"\n\n{notes}\n")

    def done(self, metrics: dict[str, Any]) -> None:
        """Move the files into place, write `metrics.json` with the provenance block, and say what was written.

        With a `part` (one layer of Fig. 2, say) the metrics go below that key, beside the other parts' that belong to
        the same checkpoint. Files of an earlier result that this one does not have are removed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with _held(self.folder):  # another process may be at another part
            origin = self._place(metrics)
        shutil.rmtree(self.pending, ignore_errors=True)
        os.close(self.held)
        print(
            f"wrote {shown(self.folder)}{os.sep}: {', '.join([*self.names, 'metrics.json'])} ({origin['seconds']:.0f} s)"
        )

    def _place(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Files and metrics into place; returns the provenance."""
        target = self.folder / "metrics.json"
        origin = provenance(self.config, self.checkpoint_hash, time.monotonic() - self.started)
        origin["config_hash"] = self.identity
        old = read_json(target) if target.exists() else {}
        before = old.get("provenance", {})
        files = {name for names in before.get("files", {}).values() for name in names}
        if not self.part or before.get("checkpoint_hash") != self.checkpoint_hash:
            old = before = {}
            target.unlink(missing_ok=True)  # never old metrics beside new arrays
        origin["files"] = {**before.get("files", {}), self.part or "all": self.names}
        if self.part:
            origin["parts"] = {**before.get("parts", {}), self.part: self.identity}
            origin["part_seconds"] = {**before.get("part_seconds", {}), self.part: origin["seconds"]}
            metrics = {**old, self.part: metrics}
        for name in files.difference(*origin["files"].values()):
            if (self.folder / name).resolve().is_relative_to(self.folder.resolve()):  # the list is read from a file
                (self.folder / name).unlink(missing_ok=True)
        for name in self.names:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.pending / name).replace(self.folder / name)
        write_json(target, {**metrics, "provenance": origin})
        return origin


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """One process at a time."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def pending(folder: Path, name: str) -> Iterator[Path]:
    """A hidden folder in `folder` for files that are not whole yet. It goes at the end of the block; if this process is
    killed, when the next one is made."""
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    path, handle = _pending_folder(folder, f".{name}.")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def _pending_folder(folder: Path, prefix: str) -> tuple[Path, int]:
    """A hidden folder in a run's folder, and the handle by which this process holds it: the kernel lets go at its end."""
    while True:
        path = Path(tempfile.mkdtemp(".tmp", f"{prefix}{platform.node()}.", folder))
        with contextlib.suppress(FileNotFoundError):  # taken for a leftover by another process before it was held
            handle = os.open(path, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return path, handle


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed experiments have left in a run's folder: pending files of this machine that no process holds."""
    for leftover in folder.glob(f".*.{platform.node()}.*.tmp"):  # locks of folders do not reach other machines
        with contextlib.suppress(OSError):  # gone meanwhile, or held
            handle = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(handle)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def open_output(
    folder: Path, config: Common, checkpoint_hash: str | None = None, part: str | None = None, inputs: str = ""
) -> Output | None:
    """An `Output` to fill, or None (and a line that says so) where the same result stands there already.

    The same: made from the same checkpoint with the same options, and from the same `inputs`, a digest of what else was
    read: a target data set, a user's pictures. `resume=false` makes it again.
    """
    metrics = folder / "metrics.json"
    if getattr(config, "resume", True) and metrics.exists():
        origin = read_json(metrics).get("provenance", {})
        made = origin.get("parts", {}).get(part) if part else origin.get("config_hash")
        there = all((folder / name).exists() for name in origin.get("files", {}).get(part or "all", []))
        if made == _identity(config, inputs) and origin.get("checkpoint_hash") == checkpoint_hash and there:
            what = f"{shown(folder)}{os.sep}{part or ''}"
            print(f"{what}: up to date, nothing to do (resume=false makes it again)")
            return None
    return Output(folder, config, checkpoint_hash, part, inputs)


def _identity(config: Common, inputs: str) -> str:
    return config_hash(config) + (f"-{inputs[:16]}" if inputs else "")


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 of arrays' values, in hexadecimal."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(array.tobytes())
    return found.hexdigest()


def shown(path: Path) -> str:
    """A path as a user would write it: relative to the working directory where it lies below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
