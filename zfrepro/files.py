"""Files that are whole or not there: atomic writes, locks, folders that gather until they are complete.

What is not whole yet has a name that tells whose it is: `.<name>.<machine>.<process>.<signs>.tmp`. A process that is killed
leaves it behind; the next one on that machine that works in the folder takes it away.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
import time
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from glob import escape
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from tqdm import tqdm

from zfrepro.errors import WINDOWS, UserError, named, words_of

# what file systems answer to what they lack; the last two are one number, but on a Mac
UNKNOWN = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
LOCKLESS = (*UNKNOWN, errno.ENOLCK)  # those without locks
UNSYNCED = (*UNKNOWN, errno.EINVAL, errno.EBADF)  # those without `fsync`
DAY = 86_400  # seconds
STARTED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # how many of it there are
PATIENCE = 5.0  # seconds for which a file may be open elsewhere on Windows

# ---------------------------------------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that replaces it, whole and on disk, when the block ends without an error. What killed
    processes have left beside it goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    temporary = _pending_path(path.parent, path.name)
    try:
        with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        move(temporary, path)
        sync_path(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # errors of writing name no file
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Give a file or folder its name, over a file that has it now. A file is on the disk first: if the power is cut it would keep
    its name alone.

    Windows refuses that while somebody has the file open, who reads it or looks for viruses in it: it is tried again for a while.
    """
    if source.is_file():
        sync_path(source)
    last = time.monotonic() + PATIENCE * WINDOWS
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if time.monotonic() >= last:
                raise
            time.sleep(0.05)


def sync_path(path: Path) -> None:
    """Wait until a file that is closed, or what a folder's files are called, is on the disk."""
    if WINDOWS and path.is_dir():  # it opens no folders
        return
    # Windows wants the right to write; rclone opens for one alone.
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        sync(handle)
    finally:
        os.close(handle)


def sync(handle: int) -> None:
    """Wait until an open file or folder is on the disk; where the file system knows no such thing (CIFS, FUSE), do not."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
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
    if hasattr(value, "tolist"):  # arrays, tensors, and their numbers
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises UserError where the file is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise named(error, path) from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); delete it and run the command again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no JSON object; delete it and run the command again")
    return value


def read_lines(path: Path) -> list[dict[str, Any] | None]:
    """The JSON objects of a .jsonl, one a line; None for a line that is damaged. Nothing where there is no such file."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return [_object(line) for line in text.splitlines()]


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def read_array(path: Path, shape: Sequence[int | None]) -> np.ndarray | None:
    """A .npy of this shape (None: any length) that an earlier command left, memory-mapped; None where there is none, and where
    it is damaged, which is said."""
    if not path.exists():
        return None
    try:
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        if len(found.shape) == len(shape) and all(n in (None, m) for n, m in zip(shape, found.shape)):
            return found
        why = f"it has the shape {found.shape}"
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        why = words_of(error)
    print(f"{shown(path)}: damaged ({why}); it is computed again")
    return None


def true_name(path: Path) -> str:
    """The name of what is there as its folder has it: on disks that take capital and small letters for one, as those of macOS
    and Windows usually do, it may be spelled otherwise than here."""
    with contextlib.suppress(OSError):
        names = os.listdir(path.parent)  # noqa: PTH208 - the fewest calls
        if path.name not in names:
            return next((name for name in names if name.casefold() == path.name.casefold()), path.name)
    return path.name


def as_named(folder: Path, name: str) -> str:
    """The name of a file in the folder, whether its accented letters are one sign or two there: a Mac and a table made elsewhere
    may differ, which nobody sees. Unchanged where there is none."""
    forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return next((form for form in forms if (folder / form).exists()), name)


# ------------------------------------------------------------------------------------------------------------------ locks


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; it is let go when the process ends, however it ends.

    Raises UserError if another process holds it. A folder that did not exist before goes again if nothing came into it.
    """
    existed, guard = folder.exists(), _acquire(folder / ".lock", blocking=False)
    if guard is None:
        several = any(os.environ.get(name, "1") not in ("", "1") for name in STARTED)
        strangers = "; processes of srun or mpirun know nothing of one another: those of torchrun train together"
        raise UserError(
            f"{shown(folder)}: another process is working on this run; wait for it or give run=<another name>"
            + strangers * several
        )
    try:
        yield
    finally:
        guard.release()
        if not existed and {path.name for path in folder.iterdir()} <= {".lock"}:
            with contextlib.suppress(OSError):  # another process may have begun in it meanwhile
                (folder / ".lock").unlink(missing_ok=True)
                folder.rmdir()


@contextlib.contextmanager
def waiting_lock(path: Path, notice: str = "") -> Iterator[None]:
    """Hold the lock file `path` for this process, after whoever holds it now, and say so if that takes time."""
    guard = _acquire(path, blocking=False)
    if guard is None:
        if notice:
            print(notice, file=sys.stderr)
        guard = _acquire(path, blocking=True)
        assert guard is not None
    try:
        yield
    finally:
        guard.release()


def _acquire(path: Path, blocking: bool) -> BaseFileLock | None:
    """The lock file, taken; None if another process has it. Where the file system knows no locks, its existence is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    guard: BaseFileLock = FileLock(path, mode=0o666)  # who shares the folder shares its locks, whatever the umask
    try:
        guard.acquire(blocking=blocking)
    except Timeout:
        return None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in LOCKLESS:
            raise
        guard = SoftFileLock(path.with_name(f"{path.name}.held"))
        try:
            guard.acquire(blocking=blocking)
        except Timeout:
            return None
    return guard


# ---------------------------------------------------------------------------------------------------------------- pending


@contextlib.contextmanager
def pending(folder: Path, name: str) -> Iterator[Path]:
    """A hidden folder in `folder` for files that are not whole yet; what is still in it at the end of the block goes."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    path = _pending_path(folder, name)
    path.mkdir()
    try:
        yield path
    except OSError as error:
        error.filename = error.filename or str(folder / name)  # errors of writing name no file
        raise
    finally:
        shutil.rmtree(path, ignore_errors=True)


@cache
def machine() -> str:
    """This machine, and on Linux the namespace in which its processes have their numbers: containers may share its name."""
    numbers = Path("/proc/self/ns/pid")
    return f"{platform.node()}-{numbers.stat().st_ino if numbers.exists() else 0}"


def _pending_path(folder: Path, name: str) -> Path:
    """What is not whole yet, by a name that no other process or thread takes."""
    return folder / f".{name}.{machine()}.{_process(os.getpid())}.{secrets.token_hex(4)}.tmp"


def _process(pid: int) -> str:
    """A living process in words that no later one shares; '' where there is none."""
    try:
        return f"{pid}-{psutil.Process(pid).create_time():.0f}"
    except psutil.Error:
        return ""


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this machine have left in `folder`: what is not whole and nobody works on."""
    for leftover in folder.glob(f".*.{escape(platform.node())}-*.tmp"):
        if _in_work(leftover):
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # another has removed it, or it is another's
                leftover.unlink()


def _in_work(leftover: Path) -> bool:
    """Whether somebody may be at it: a living process, or where it cannot be seen, as another user's on many servers, one that
    has touched it within a day."""
    owner, process = leftover.name.rsplit(".", 3)[:2]
    number = process.partition("-")[0]
    with contextlib.suppress(OSError):
        ours = WINDOWS or leftover.stat().st_uid == os.getuid()
        if ours and number.isdecimal() and owner.endswith(f".{machine()}"):
            return _process(int(number)) == process
        inside = leftover.iterdir() if leftover.is_dir() else ()
        return time.time() - max(path.stat().st_mtime for path in (leftover, *inside)) < DAY
    return True


def nearest_existing(path: Path) -> Path | None:
    """The path, or the nearest above it that exists; None on a drive that does not."""
    return next((place for place in (path, *path.parents) if place.exists()), None)


def require_space(folder: Path, size: float, what: str, cure: str) -> None:
    """Refuse what does not fit on the disk, before it is begun. size: in bytes."""
    disk = shutil.disk_usage(folder)
    if disk.total and size > disk.free:  # some of FUSE do not know, and say 0 of 0
        needed, there = (tqdm.format_sizeof(bytes_, "B") for bytes_ in (size, disk.free))
        raise UserError(f"{shown(folder)}: {what} need {needed}, {there} are free; {cure}")


# ----------------------------------------------------------------------------------------------------------------- hashes


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


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
