"""Send files with rsync as a background job that says how far it is."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ..progress.report import Report
from .host import ReleaseError

_BYTES = re.compile(rb"^\s*([0-9]+)\s+[0-9]+%")


def size_of(source: str, files: list[str]) -> int:
    """Bytes of the file ``source``, or of the ``files`` below the folder ``source``; links count as what they name.

    Raises ReleaseError for one that is missing.
    """
    paths = [Path(source) / name for name in files] if files else [Path(source)]
    try:
        return sum(path.stat().st_size for path in paths)
    except OSError as missing:
        raise ReleaseError(f"{missing.filename} cannot be read on the controller ({missing.strerror})") from missing


def command(payload: dict[str, Any]) -> list[str]:
    """The command line; ``--info=progress2`` counts bytes over all files, what was there already included."""
    argv = ["rsync", *payload["options"], "--info=progress2", "--no-human-readable"]
    argv += ["--files-from=-"] if payload["files"] else []
    argv += [f"--rsync-path={payload['rsync_path']}", f"--rsh={payload['rsh']}"]
    return [*argv, payload["source"], payload["target"]]


def bytes_of(text: bytes) -> int | None:
    """The bytes that one piece of rsync's progress names, "  65536  12%  1.20MB/s  0:00:10"; None for other output."""
    found = _BYTES.match(text)
    return int(found.group(1)) if found else None


def send_work(payload: dict[str, Any], report: Report) -> dict[str, Any]:
    """Send what {source, target, files, options, rsync_path, rsh} says; returns {bytes}. Raises ReleaseError."""
    total = size_of(payload["source"], payload["files"])
    report.phase("sending", total, "B")
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as names:
        names.write("\n".join(payload["files"]).encode())
        names.seek(0)
        try:
            process = subprocess.Popen(command(payload), stdin=names, stdout=subprocess.PIPE, stderr=said)
        except FileNotFoundError as missing:
            raise ReleaseError("rsync is not installed on the controller: install it") from missing
        rest = b""
        assert process.stdout is not None  # noqa: S101 - asked for above
        while piece := process.stdout.read1(4096):  # type: ignore[attr-defined]
            *lines, rest = re.split(rb"[\r\n]", rest + piece)
            for line in lines:
                done = bytes_of(line)
                if done is not None:
                    report.reach(done)
        status = process.wait()
        said.seek(0)
        words = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    if status != 0:
        raise ReleaseError(
            f"rsync of {payload['source']} to {payload['target']} failed (exit {status}): "
            f"{' | '.join(words[-3:]) or 'no output'}: run again, it goes on where it stopped"
        )
    return {"bytes": total}
