"""Archives from elsewhere, zip or tar, unpacked once into the cache and never outside of it."""

from __future__ import annotations

import contextlib
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from zfrepro.data.cache import short_hash
from zfrepro.errors import UserError
from zfrepro.files import file_hash, move, pending, require_space, waiting_lock

MAX_FILES = 5_000_000  # ImageNet has 1.4 million
MAX_RATIO = 100  # unpacked to packed; photographs come near 1, a bomb goes into the thousands
SAYS_UTF8 = 0x800  # a zip's flag of a name
MADE_ON_WINDOWS = 0  # a zip's mark of where it was made; PowerShell's and .NET's have backslashes between folders
BY_HAND = "; if you trust it, unpack it yourself and give data.root=<the folder>"
SLACK = 100 << 20  # bytes below which the ratio is nobody's danger
BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, OSError, EOFError, NotImplementedError, ValueError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    name: str
    size: int
    plain: bool  # a file or a folder, for everybody to read
    check_sum: int = 0

    @property
    def danger(self) -> str:
        """Why it must not be unpacked, or ''."""
        name = self.name.replace("\\", "/")
        if name.startswith("/") or re.match(r"[A-Za-z]:", name):
            return "has an absolute path"
        if ".." in PurePosixPath(name).parts:
            return "leads out of the archive ('..')"
        return "" if self.plain else "is a link, a device or encrypted"


def is_tar(path: Path) -> bool:
    """Tar, compressed or not; by content."""
    return not zipfile.is_zipfile(path) and tarfile.is_tarfile(path)


def check_members(path: Path) -> list[Member]:
    """The archive's members. Raises UserError for what is no archive, leads outside the target, or would fill the disk."""
    try:
        members = list(_members(path))
    except BROKEN as error:
        raise UserError(
            f"data.root={path}: cannot be read as a zip or tar archive ({error}); give a folder, or fetch it again"
        ) from error
    for member in members:
        if member.danger:
            raise UserError(f"data.root={path}: refused, since its member {member.name!r} {member.danger}{BY_HAND}")
    total = sum(member.size for member in members)
    if len(members) > MAX_FILES or total > max(SLACK, MAX_RATIO * path.stat().st_size):
        raise UserError(
            f"data.root={path}: refused, since it would unpack to {len(members)} files, {total / 1e9:.1f} GB{BY_HAND}"
        )
    return members


def _members(path: Path) -> Iterator[Member]:
    """Every header is read, which of a compressed tar means all of it."""
    if is_tar(path):
        with tarfile.open(path) as tar:
            yield from (Member(one.name, one.size, one.isfile() or one.isdir()) for one in tar)
            if not _ends(tar):
                raise tarfile.ReadError("cut off, or several in one file")
        return
    with zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            plain = stat.S_IFMT(one.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR) and not one.flag_bits & 1
            yield Member(_name(one), one.file_size, plain, one.CRC)


def _ends(tar: tarfile.TarFile) -> bool:
    """Whether a tar whose members were all read has the zeros behind them that end one, and nothing behind these."""
    file: Any = tar.fileobj
    return file.tell() > tar.offset and not any(block.strip(b"\0") for block in iter(partial(file.read, 1 << 20), b""))


def _name(member: zipfile.ZipInfo) -> str:
    """With slashes between folders; in UTF-8 where it is that, which a Mac's archives do not say of themselves."""
    name = member.filename
    if not member.flag_bits & SAYS_UTF8:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/") if member.create_system == MADE_ON_WINDOWS else name


def archive_mark(path: Path) -> str:
    """A hash of the content: of a zip's names, sizes and check sums, of a tar all of it, as it has no check sums."""
    members = sorted((member.name, member.size, member.check_sum) for member in check_members(path))
    return file_hash(path) if is_tar(path) else short_hash(members)


def extract(path: Path, folder: Path, mark: str, progress: bool) -> Path:
    """The archive's content, unpacked once into a folder of its own in `folder`: whole or not at all."""
    target = folder / f"{path.name.partition('.')[0]}-{mark[:12]}"
    notice = f"another process is unpacking {path.name}; waiting for it" * progress
    with waiting_lock(folder / f"{target.name}.lock", notice):
        if not target.is_dir():
            _extract(path, target)
    return target


def _require_distinct(path: Path, members: list[Member], folder: Path) -> None:
    """Refuse files and folders that are one here, as A and a are on Windows and on a Mac: two classes would become one."""
    names = {member.name.rstrip("/") for member in members}
    spelt: dict[str, str] = {}
    for name in sorted(names | {name.rpartition("/")[0] for name in names}):
        other = spelt.setdefault(name.casefold(), name)
        if other != name and (folder / other).samefile(folder / name):
            raise UserError(
                f"data.root={path}: {other} and {name} in it are one to this file system; call one of them otherwise"
            )


def _extract(path: Path, target: Path) -> None:
    members = check_members(path)
    size = sum(member.size for member in members)
    require_space(target.parent, size, f"the files in {path.name}", "make room, or set ZFREPRO_CACHE=<folder>")
    try:
        with pending(target.parent, target.name) as fresh:
            # Both read no more than the declared sizes; zip checks the sums.
            if is_tar(path):
                # Early versions of Python 3.10 and 3.11 know no filters; the members are checked in any case.
                safe: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                with tarfile.open(path) as tar:
                    tar.extractall(fresh, **safe)
            else:
                with zipfile.ZipFile(path) as archive:
                    for member in archive.infolist():
                        member.filename = _name(member)
                        archive.extract(member, fresh)
            _require_distinct(path, members, fresh)
            move(fresh, target)
    except BROKEN as error:
        raise UserError(f"data.root={path}: cannot be unpacked into {target.parent} ({error}){BY_HAND}") from error
