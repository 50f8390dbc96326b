"""Zip archives from elsewhere, unpacked once into the cache and never outside of it."""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from zfrepro.errors import UserError

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


def extract(path: Path, target: Path) -> Path:
    """Unpack the zip into `target`, once: whole or not at all. Returns `target`, whose lock the caller holds."""
    if target.is_dir():
        return target
    members = check_members(path)
    total = sum(member.file_size for member in members)
    free = shutil.disk_usage(target.parent).free
    if total > free:
        raise UserError(
            f"{target.parent}: unpacking {path.name} needs {total / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        )
    for leftover in target.parent.glob(f"{glob.escape(target.name)}.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)  # of a process that was killed: the lock is ours
    fresh = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    try:
        with zipfile.ZipFile(path) as archive:
            for member in members:  # zipfile reads no more than the declared size and checks the CRC
                archive.extract(member, fresh)
        fresh.rename(target)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, ValueError) as error:
        raise UserError(f"data.root={path}: cannot be unpacked into {target.parent} ({error})") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target
