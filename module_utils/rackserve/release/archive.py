"""Pack a release tree into one reproducible tar.zst and unpack it again."""

from __future__ import annotations

import os
from pathlib import Path

from .host import ReleaseError, Run, must

_TAR = (
    *("tar", "--sort=name", "--format=posix", "--pax-option=delete=atime,delete=ctime", "--mtime=@0"),
    *("--owner=0", "--group=0", "--numeric-owner", "--mode=u+rwX,go+rX,go-w", "--hard-dereference"),
)


def pack(tree: Path, archive: Path, run: Run, level: int = 3, threads: int = 2) -> None:
    """Pack the content of ``tree`` into ``archive``; the same tree always gives the same bytes."""
    compressor = f"zstd -q -{level} -T{threads}"
    must(run, [*_TAR, "-I", compressor, "-cf", str(archive), "-C", str(tree), "."], f"packing {tree} into {archive}")


def unpack(archive: Path, folder: Path, run: Run) -> None:
    """Unpack ``archive`` into the existing, empty ``folder``; every file belongs to the one who runs this."""
    command = ["tar", "-I", "zstd -q", "--no-same-owner", "--same-permissions", "-xf", str(archive), "-C", str(folder)]
    must(run, command, f"unpacking {archive} into {folder}")


def require_free(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise ReleaseError with both numbers when the file system of ``folder`` has less than ``needed_bytes`` free."""
    there = folder
    while not there.exists():
        there = there.parent
    state = os.statvfs(str(there))
    free = state.f_bavail * state.f_frsize
    if free < needed_bytes:
        raise ReleaseError(
            f"{what} needs {needed_bytes >> 20} MiB on the file system of {there}, {free >> 20} MiB are free: "
            f"{(needed_bytes - free + (1 << 20) - 1) >> 20} MiB must be freed first"
        )
