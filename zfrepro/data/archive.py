"""Zip archives from elsewhere, unpacked once into the cache and never outside of it."""

from __future__ import annotations

import re
import stat
import sys
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from zfrepro.data.cache import short_hash
from zfrepro.errors import UserError
from zfrepro.files import pending, require_space, waiting_lock

MAX_FILES = 5_000_000  # ImageNet has 1.4 million
MAX_RATIO = 100  # unpacked to packed; photographs come near 1, a zip bomb goes into the thousands
SLACK = 100 << 20  # bytes below which the ratio is nobody's danger


def check_members(path: Path) -> list[zipfile.ZipInfo]:
    """The archive's members. Raises UserError for what is no zip, leads outside the target, or would fill the disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise UserError(f"data.root={path}: cannot be read as a zip archive ({error}); fetch it again") from error
    for member in members:
        if why := _danger(member):
            raise UserError(f"data.root={path}: refused, since its member {member.filename!r} {why}")
    total = sum(member.file_size for member in members)
    if len(members) > MAX_FILES or total > max(SLACK, MAX_RATIO * path.stat().st_size):
        raise UserError(
            f"data.root={path}: refused, since it would unpack to {len(members)} files, {total / 1e9:.1f} GB"
        )
    return members


def _danger(member: zipfile.ZipInfo) -> str:
    """Why this member must not be extracted, or ''."""
    name = member.filename.replace("\\", "/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in PurePosixPath(name).parts:
        return "leads out of the archive ('..')"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    return "is encrypted" if member.flag_bits & 1 else ""


def archive_mark(path: Path) -> str:
    """A hash of the members' names, sizes and check sums."""
    members = ((member.filename, member.file_size, member.CRC) for member in check_members(path))
    return short_hash(sorted(members))


def extract(path: Path, folder: Path, progress: bool) -> Path:
    """The zip's content, unpacked once into a folder of its own in `folder`: whole or not at all."""
    target = folder / f"{path.stem}-{archive_mark(path)[:12]}"

    def tell() -> None:
        if progress:
            print(f"another process is unpacking {path.name}; waiting for it", file=sys.stderr)

    with waiting_lock(folder / f"{target.name}.lock", tell):
        if not target.is_dir():
            _extract(path, target)
    return target


def _extract(path: Path, target: Path) -> None:
    members = check_members(path)
    size = sum(member.file_size for member in members)
    require_space(target.parent, size, f"the files in {path.name}", "make room, or set ZFREPRO_CACHE=<folder>")
    try:
        with pending(target.parent, target.name) as fresh, zipfile.ZipFile(path) as archive:
            for member in members:  # zipfile reads no more than the declared size and checks the CRC
                archive.extract(member, fresh)
            fresh.rename(target)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, ValueError) as error:
        raise UserError(f"data.root={path}: cannot be unpacked into {target.parent} ({error})") from error
