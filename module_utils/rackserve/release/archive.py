"""Pack a release tree into one reproducible tar.zst and unpack it again."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from .host import ReleaseError, Run, must

_CHUNK_BYTES = 1 << 20

_TAR = (
    *("tar", "--sort=name", "--format=posix", "--pax-option=delete=atime,delete=ctime", "--mtime=@0"),
    *("--owner=0", "--group=0", "--numeric-owner", "--mode=u+rwX,go+rX,go-w", "--hard-dereference"),
)


def pack(tree: Path, archive: Path, run: Run, level: int = 3, threads: int = 2) -> None:
    """Pack the content of ``tree`` into ``archive``; the same tree always gives the same bytes."""
    compressor = f"zstd -q -{level} -T{threads}"
    must(run, [*_TAR, "-I", compressor, "-cf", str(archive), "-C", str(tree), "."], f"packing {tree} into {archive}")


def unpack(archive: Path, folder: Path, on_bytes: Callable[[int], None] | None = None) -> None:
    """Unpack ``archive`` into the existing, empty ``folder``; every file belongs to the one who runs this.

    ``on_bytes`` is called with the size of each piece of the archive that was read.
    """
    command = ["tar", "-I", "zstd -q", "--no-same-owner", "--same-permissions", "-xf", "-", "-C", str(folder)]

    def fed(argv: Sequence[str]) -> tuple[int, str, str]:
        return feed(argv, archive, on_bytes)

    must(fed, command, f"unpacking {archive} into {folder}")


def feed(command: Sequence[str], source: Path, on_bytes: Callable[[int], None] | None) -> tuple[int, str, str]:
    """Run ``command`` with ``source`` as its standard input; (exit status, "", stderr)."""
    with source.open("rb", buffering=0) as handle, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said)
        assert process.stdin is not None  # noqa: S101 - asked for above
        try:
            while True:
                chunk = handle.read(_CHUNK_BYTES)
                if not chunk:
                    break
                process.stdin.write(chunk)
                if on_bytes:
                    on_bytes(len(chunk))
            process.stdin.close()
        except BrokenPipeError:
            # The command ended early; its exit status and its words say why.
            pass
        status = process.wait()
        said.seek(0)
        return status, "", said.read().decode(errors="replace")


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
