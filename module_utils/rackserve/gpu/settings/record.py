"""What was there before us, kept for as long as we manage it; and what is locked, kept until the next boot."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

PRIOR_FILE = "/var/lib/rackserve/gpu/settings.json"
LOCKS_FILE = "/run/rackserve-gpu/locks.json"


class RecordError(Exception):
    """A record cannot be read or written; one line."""


class Records:
    """Both records below ``root``.

    ``prior``: {uuid: {setting: value before us}}. ``locks``: {uuid: {setting: {range: [low, high], held: whether the
    clock was seen to follow}}}; NVML cannot be asked what is locked.
    """

    def __init__(self, root: Path) -> None:
        self._prior_path = root / PRIOR_FILE.lstrip("/")
        self._locks_path = root / LOCKS_FILE.lstrip("/")
        self.prior: dict[str, dict[str, Any]] = _read(self._prior_path)
        self.locks: dict[str, dict[str, Any]] = _read(self._locks_path)

    def remember(self, uuid: str, setting: str, value: Any) -> None:
        """Write down what was there, unless that is known already."""
        known = self.prior.setdefault(uuid, {})
        if setting not in known:
            known[setting] = value
            _write(self._prior_path, self.prior)

    def forget(self, uuid: str, setting: str) -> None:
        """What was there is there again."""
        if self.prior.get(uuid, {}).pop(setting, _NOTHING) is not _NOTHING:
            self.prior = {one: known for one, known in self.prior.items() if known}
            _write(self._prior_path, self.prior)

    def lock(self, uuid: str, setting: str, clocks: tuple[int, int], held: bool) -> None:
        """Clocks are locked, until the next boot."""
        self.locks.setdefault(uuid, {})[setting] = {"range": list(clocks), "held": held}
        _write(self._locks_path, self.locks)

    def unlock(self, uuid: str, setting: str) -> None:
        """Clocks are not locked any more."""
        if self.locks.get(uuid, {}).pop(setting, None) is not None:
            _write(self._locks_path, self.locks)


_NOTHING = object()


def has_prior(root: Path) -> bool:
    """Whether anything is recorded at all; cheap."""
    return (root / PRIOR_FILE.lstrip("/")).is_file()


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise RecordError(f"{path} cannot be read ({problem}); look at it, then move it away") from None
    if not isinstance(data, dict) or not all(isinstance(part, dict) for part in data.values()):
        raise RecordError(f"{path} is no record of GPU settings; look at it, then move it away")
    return data


def _write(path: Path, data: dict[str, Any]) -> None:
    """Atomically; removed where nothing is left to say."""
    try:
        if not data:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        with new.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps(data, indent=1, sort_keys=True) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        new.rename(path)
    except OSError as problem:
        raise RecordError(f"{path} cannot be written ({problem.strerror}); nothing is set without it") from None
