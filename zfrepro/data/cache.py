"""The data cache: packed data sets, unpacked archives, and what was found out about files that have not changed since."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zfrepro.errors import UserError, is_full
from zfrepro.files import read_json, write_json

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@contextlib.contextmanager
def writable(cache: Path) -> Iterator[None]:
    """Make the cache folder, and say plainly if it cannot be written or is full."""
    made = False
    try:
        cache.mkdir(parents=True, exist_ok=True)
        made = True
        yield
    except OSError as error:
        if made and error.errno not in NOT_WRITABLE and not is_full(error):
            raise
        why = f"{error.strerror or error}: {error.filename}" if error.filename else error.strerror or error
        cure = "make room there" if is_full(error) else "make it writable"
        raise UserError(
            f"data.cache={cache}: cannot be written ({why}); {cure}, or set ZFREPRO_CACHE=<folder>"
        ) from error


def short_hash(value: object) -> str:
    """SHA-256 of plain values, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def remembered(cache: Path, about: object, stamp: str | None, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """`make()`, or its result of an earlier time when the stamp of `about` was the same. None: do not rely on the stamp."""
    path = cache / "keys" / f"{short_hash(about)[:24]}.json"
    if stamp is not None:
        with contextlib.suppress(UserError, OSError):
            known = read_json(path)
            if known.get("stamp") == stamp and isinstance(known.get("value"), dict):
                return dict(known["value"])
    value = make()
    if stamp is not None:
        with contextlib.suppress(OSError):  # whoever needs the cache will say that it cannot be written
            write_json(path, {"stamp": stamp, "value": value})
    return value
