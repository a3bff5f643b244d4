"""Topologies kept on a host: written whole or not at all, and compared with what was there before."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from ..preflight.findings import Finding, finding
from .document import TopologyError, read
from .drift import drift
from .parser import Refused

NAMES = ("observed", "inject")
_MODE = 0o644


def compare(folder: Path, texts: dict[str, Any]) -> dict[str, Any]:
    """{differing: [file name], before: {file name: text}, drift: findings} of texts against what is in `folder`."""
    before = {f"{name}.xml": _text(folder / f"{name}.xml") for name in NAMES}
    differing = [f"{name}.xml" for name in NAMES if before[f"{name}.xml"] != texts[name]]
    return {"differing": differing, "before": before, "drift": _drift(before["observed.xml"], texts["observed"])}


def _drift(before: str, now: str) -> list[Finding]:
    if not before:
        return []
    try:
        return drift(read(before), read(now))
    except (Refused, TopologyError) as problem:
        why = f"the last record cannot be read: {problem}"
        return [finding("warning", "record-unreadable", "observed.xml", why, "it is written anew")]


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except FileNotFoundError:
        return ""


def keep(folder: Path, texts: dict[str, Any], names: list[str]) -> None:
    """Write `names` (observed.xml, inject.xml) into `folder`, each atomically. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        replace(folder / name, str(texts[name.partition(".")[0]]))


def replace(path: Path, text: str) -> None:
    """Replace a file in one step; a reader sees the old text or the new one. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="ascii", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), _MODE)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def settle(path: Path, text: str) -> None:
    """Replace a file in one step, or remove it where `text` is empty. Raises OSError."""
    if text:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, text)
    else:
        path.unlink()
