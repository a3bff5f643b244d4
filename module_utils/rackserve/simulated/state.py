"""The state of a simulated machine's GPUs: three files of `key=value` lines, one over the other.

| layer | folder below the root | life |
|---|---|---|
| volatile | run/rackserve-simulated | until the next boot |
| persistent | var/lib/rackserve-simulated | over boots |
| hardware | usr/local/lib/rackserve-lab/hardware | fixed |

The driver reads the same files, so format and order are an interface.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT_VARIABLE = "RACKSERVE_SIMULATED_ROOT"
VOLATILE = "run/rackserve-simulated"
PERSISTENT = "var/lib/rackserve-simulated"
HARDWARE = "usr/local/lib/rackserve-lab/hardware"
FILE = "state"

_KEY = re.compile(r"[A-Za-z0-9_.:-]+")
_Stamp = tuple[int, int, int]


class StateError(Exception):
    """A state file or a value for it is wrong; the text is one line."""


def default_root() -> Path:
    """The root that the environment names, or `/`."""
    return Path(os.environ.get(ROOT_VARIABLE) or "/")


def check(key: str, value: str) -> None:
    """Raise StateError unless ``key=value`` can stand in a state file."""
    if not _KEY.fullmatch(key):
        raise StateError(f"state key {key!r}: only letters, digits and _.:- are allowed; rename it")
    if not value.isascii() or not (value.isprintable() and value == value.strip()):
        raise StateError(f"state {key}: {value!r} is not plain ASCII on one line without outer spaces; change it")


def format_state(values: Mapping[str, str]) -> str:
    """The text of a state file."""
    for key, value in values.items():
        check(key, value)
    return "".join(f"{key}={values[key]}\n" for key in sorted(values))


def parse_state(text: str, where: str = FILE) -> dict[str, str]:
    """The values in the text of a state file."""
    values = {}
    for number, line in enumerate(text.splitlines(), 1):
        key, equals, value = line.partition("=")
        if not equals:
            raise StateError(f"{where} line {number}: {line!r} is not key=value; remove it")
        check(key, value)
        values[key] = value
    return values


class State:
    """Reads and writes the state of the machine below ``root``."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() if root is None else root
        self.volatile = self.root / VOLATILE
        self.persistent = self.root / PERSISTENT
        self.hardware = self.root / HARDWARE
        self._read: dict[Path, tuple[_Stamp | None, dict[str, str]]] = {}

    def get(self, key: str, default: str | None = None) -> str | None:
        """The value of the first layer that has the key: volatile, persistent, hardware."""
        for folder in (self.volatile, self.persistent, self.hardware):
            values = self.layer(folder)
            if key in values:
                return values[key]
        return default

    def layer(self, folder: Path) -> Mapping[str, str]:
        """The values of one layer; none when it has no file. Read again when the file changed."""
        path = folder / FILE
        try:
            seen = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        stamp = (seen.st_mtime_ns, seen.st_ino, seen.st_size)
        known = self._read.get(path)
        if known is None or known[0] != stamp:
            known = (stamp, parse_state(path.read_text("ascii"), str(path)))
            self._read[path] = known
        return known[1]

    def all(self) -> dict[str, str]:
        """What every key holds, over all layers."""
        return {**self.layer(self.hardware), **self.layer(self.persistent), **self.layer(self.volatile)}

    def set_volatile(self, values: Mapping[str, str | None]) -> bool:
        """Set values until the next boot; None takes the key out of this layer. Says whether anything changed."""
        return _update(self.volatile, values)

    def set_persistent(self, values: Mapping[str, str | None]) -> bool:
        """Set values that survive a boot; None takes the key out of this layer. Says whether anything changed."""
        return _update(self.persistent, values)


def _update(folder: Path, changes: Mapping[str, str | None]) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    with _locked(folder):
        old = parse_state(path.read_text("ascii"), str(path)) if path.exists() else {}
        new = {**old, **changes}
        kept = {key: value for key, value in new.items() if value is not None}
        if kept != old:
            _replace(path, format_state(kept))
        return kept != old


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder / f"{FILE}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.chmod(0o644)
    part.replace(path)
