"""What the release code needs from the machine it runs on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

Run = Callable[[Sequence[str]], tuple[int, str, str]]
"""Runs a command; returns (exit status, stdout, stderr)."""


class ReleaseError(Exception):
    """A release cannot be built or installed; the text is one line: what, where, how to fix."""


def run_command(command: Sequence[str], env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run ``command`` without a shell; ``env`` adds to the environment. A missing program is exit status 127."""
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, **(env or {})},
        )
    except FileNotFoundError as missing:
        return 127, "", str(missing)
    return done.returncode, done.stdout, done.stderr


def must(run: Run, command: Sequence[str], what: str) -> str:
    """Run ``command`` and return its stdout; raise ReleaseError naming ``what`` and the last lines it printed."""
    status, out, err = run(command)
    if status != 0:
        tail = " | ".join(line.strip() for line in (err or out).strip().splitlines()[-4:])
        raise ReleaseError(f"{what} failed (exit {status}): {tail or 'no output'}")
    return out


def write_atomic(path: Path, text: str, mode: int = 0o644) -> None:
    """Write ``text`` to ``path`` so that a reader, or a crash, sees the old file or the new one and nothing between."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    part.chmod(mode)
    part.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Flush the directory entry changes of ``path`` to disk."""
    descriptor = os.open(str(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
