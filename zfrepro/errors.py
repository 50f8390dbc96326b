"""What a user can mend: one line that says what is wrong and what to do."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Collection, Sequence
from numbers import Integral
from pathlib import Path

WINDOWS = os.name == "nt"
MOST = 16  # names that a message lists
# what a disk or the network to it answers when it fails or has gone away
AWAY = (
    errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ESHUTDOWN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENETUNREACH, errno.ECONNABORTED, errno.ECONNRESET,
)  # fmt: skip
MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, *AWAY)  # no fault of the file that was to be read
NO_MEMORY = r"out of memory|can't allocate memory|could not create a primitive|bad_alloc"  # torch's and oneDNN's words


class UserError(Exception):
    """A mistake that the user can mend; its text is one line that says what is wrong and what to do."""


def nearest(given: str, valid: Collection[str]) -> str:
    """' (did you mean X?)' for the valid name closest to `given`, or '' where none is close."""
    close = difflib.get_close_matches(given, [str(name) for name in valid], n=1, cutoff=0.65)
    return f" (did you mean {close[0]}?)" if close else ""


def listed(names: Sequence[str], most: int) -> str:
    """The first `most` of the names in a line, and a sign where there are more."""
    return ", ".join(names[:most]) + "..." * (len(names) > most)


def require(key: str, given: object, ok: bool, possible: str) -> None:
    """Refuse `key=given` with what is possible, unless `ok`."""
    if not ok:
        raise UserError(f"{key}={given}: must be {possible}")


def require_choice(key: str, given: str, choices: Collection[str]) -> None:
    """Refuse a name that is none of `choices`, suggesting the nearest."""
    if given not in choices:
        raise UserError(f"{key}={given}: must be one of {listed([*choices], MOST)}{nearest(given, choices)}")


def require_layer(key: str, given: int, present: Sequence[int]) -> None:
    if not isinstance(given, Integral) or given not in present:
        raise UserError(f"{key}={given}: the layers to choose from are {', '.join(map(str, present))}")


def words_of(error: BaseException) -> str:
    """What an error says, in a line of 200 signs at most; its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def line_of(error: BaseException) -> str | None:
    """What a user can mend, in one line; None for an error that is ours."""
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # `Path.resolve`'s, until Python 3.13
        return f"{str(error).removeprefix('Symlink loop from ')}: a link to itself; take it away, or give another path"
    if isinstance(error, OSError) and (error.errno is not None or is_full(error)):
        return explain_os_error(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and re.search(NO_MEMORY, str(error))):
        return "not enough memory; free some (`ulimit -v` may hold it down), or give a smaller batch_size"
    return " ".join(str(error).split()) if isinstance(error, UserError) else None


def is_of_machine(error: Exception) -> bool:
    """Whether the machine failed, not what was to be read: what is there may be whole."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in MACHINE)


def named(error: Exception, path: str | Path) -> Exception:
    """The same error, with the name of the file, which one that comes in the middle of it lacks."""
    if isinstance(error, OSError):
        error.filename = error.filename or str(path)
    return error


def is_full(error: OSError) -> bool:
    """Whether there was no room for what was to be written. NumPy says so in words alone."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or bool(re.search(r"requested and \d+ written", str(error)))


def explain_os_error(error: OSError) -> str:
    """One line for a failed file operation, with what to do."""
    if error.errno == errno.ENOENT and not error.filename and not _has_working_folder():
        return "the working folder is not there any more; change into one that is (`cd`), then give the command again"
    if "temporary directory" in str(error.strerror):
        return f"{error.strerror}; make one of them writable, or set TMPDIR=<folder>"
    place = error.filename or "the file system"
    if is_full(error):
        return f"{place}: no space left on the disk; free some, then give the same command again: finished work is kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        umask = os.umask(0o022)  # it can be read only by setting it
        os.umask(umask)
        if umask & 0o700:
            return f"{place}: cannot be written ({error.strerror}); `umask` takes your own rights away; give `umask 022` first"
        if _closed(Path(str(place))):
            return (
                f"{place}: not for you to read ({error.strerror}); ask its owner for `chmod -R a+rX`, or use your own"
            )
        held = "close what has it open, " if WINDOWS else ""  # which refuses to replace an open file
        return f"{place}: cannot be written ({error.strerror}); {held}make it writable or give outputs=<another folder>"
    if error.errno == errno.EFBIG:
        return f"{place}: larger than files may be here (see `ulimit -f`); raise that limit, then give the same command again"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{place}: too many open files (see `ulimit -n`); raise that limit, then give the same command again"
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT):
        return f"{place}: {error.strerror}; give a path at which there can be such a file, such as outputs=<another folder>"
    if error.errno in AWAY:
        return f"{place}: its disk or the network to it fails ({error.strerror}); mend that, then give the same command again"
    if error.errno in (errno.ENODEV, errno.ESPIPE):  # it maps no files into memory, or knows no place in a file
        return f"{place}: its file system can do too little ({error.strerror}); give data.cache= and outputs= on another disk"
    return f"{place}: {error.strerror or error}"


def _closed(path: Path) -> bool:
    """Whether it is another user's, or lies in a folder of his, and is not to be read."""
    folders = [folder for folder in path.absolute().parents if os.path.lexists(folder)]
    return not all(os.access(folder, os.X_OK) for folder in folders) or (path.exists() and not os.access(path, os.R_OK))


def _has_working_folder() -> bool:
    try:
        return Path.cwd().is_dir()
    except OSError:
        return False
