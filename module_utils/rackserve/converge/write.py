"""The few ways converge touches a disk: each one atomic or harmless when cut short, none through a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

PRIVATE = 0o600


def write_file(path: Path, data: bytes, mode: int, uid: int, gid: int) -> None:
    """Put `data` at `path` by rename, complete with mode and owner, on disk before it is visible.

    The temporary file has one fixed name beside the target, so a run killed here leaves nothing the next one keeps.
    """
    fresh = path.with_name(f".{path.name}.rackserve-new")
    fresh.unlink(missing_ok=True)
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
            _own(handle, uid, gid)
            os.fchmod(handle, mode)
            os.fsync(handle)
        finally:
            os.close(handle)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _own(handle: int, uid: int, gid: int) -> None:
    found = os.fstat(handle)
    if (found.st_uid, found.st_gid) != (uid, gid):
        os.fchown(handle, uid, gid)


def set_metadata(path: Path, mode: int, uid: int, gid: int) -> None:
    """Owner, group and mode of an existing file or directory; OSError where a link stands there instead."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        _own(handle, uid, gid)
        os.fchmod(handle, mode)
    finally:
        os.close(handle)


def make_directory(path: Path, mode: int, uid: int, gid: int) -> None:
    """One directory level; closed to others until its owner and mode are set."""
    path.mkdir(mode=0o700)
    set_metadata(path, mode, uid, gid)


def replace_link(path: Path, target: str) -> None:
    """A symbolic link at `path`, swapped in by rename."""
    fresh = path.with_name(f".{path.name}.rackserve-new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(path)
    sync_directory(path.parent)


def remove(path: Path) -> None:
    """A file, a link, or a directory that is empty; OSError for one that is not."""
    if stat.S_ISDIR(path.lstat().st_mode):
        path.rmdir()
    else:
        path.unlink()


def write_knob(path: Path, value: str) -> None:
    """Write a kernel value in one write to an existing file."""
    handle = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(handle, f"{value}\n".encode())
    finally:
        os.close(handle)


def sync_directory(path: Path) -> None:
    """Make a rename in `path` last through a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
