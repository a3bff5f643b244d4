"""Counters between runs: how much each grew within the last hour. Kept in a small JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

WINDOW_S = 3600.0
_FIELDS = 4


class Growth(NamedTuple):
    """Growth of a counter over ``seconds``, None at a first look; ``total`` is since its driver was loaded."""

    grown: int | None
    seconds: float
    total: int

    @property
    def per_hour(self) -> float:
        """Growth an hour, never over less than a minute."""
        return (self.grown or 0) * 3600 / max(self.seconds, 60.0)


class Counters:
    """What was counted before, and what is counted now. A file that cannot be read counts as none."""

    def __init__(self, kept: Mapping[str, Any] | None, boot_id: str, now_s: float) -> None:
        fits = (
            isinstance(kept, Mapping) and kept.get("boot_id") == boot_id and isinstance(kept.get("counters"), Mapping)
        )
        self.before: dict[str, list[float]] = {}
        for key, marks in (kept or {}).get("counters", {}).items() if fits else ():
            if isinstance(marks, list) and len(marks) == _FIELDS:
                self.before[key] = [float(mark) for mark in marks]
        self.after: dict[str, list[float]] = {}
        self.boot_id, self.now_s = boot_id, now_s

    def grew(self, key: str, value: int) -> Growth:
        """Count a counter: its growth since a mark that is half an hour to an hour old, or since the first look."""
        marks = self.before.get(key)
        # Two marks: the older one is compared with, the younger one takes its place when it is half the window old.
        if marks is None or value < marks[1] or value < marks[3]:
            self.after[key] = [self.now_s, value, self.now_s, value]
            restarted = marks is not None
            return Growth(value if restarted else None, self.now_s - marks[2] if marks else 0.0, value)
        old_s, old, young_s, young = marks
        if self.now_s - young_s > WINDOW_S / 2:
            old_s, old, young_s, young = young_s, young, self.now_s, value
        self.after[key] = [old_s, old, young_s, young]
        return Growth(int(value - old), self.now_s - old_s, value)

    def kept(self) -> dict[str, Any]:
        """What the next run is given."""
        return {"boot_id": self.boot_id, "at_s": self.now_s, "counters": {**self.before, **self.after}}


def read(path: Path | None) -> dict[str, Any] | None:
    """What an earlier run left; None where there is nothing that can be read."""
    try:
        found = json.loads(path.read_text("utf-8")) if path else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file at once. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, "utf-8")
    part.chmod(mode)
    part.replace(path)
