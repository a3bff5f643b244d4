"""What is remembered of faults: one file in each layer, with the faults that have effects there and what was before."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .catalogue import LAYERS, FaultError
from .state import PERSISTENT, VOLATILE

FILE = "faults.json"
FOLDERS = {"volatile": VOLATILE, "persistent": PERSISTENT}


@dataclass
class Entry:
    """A fault that is on; ``made`` holds what putting it on brought: pid, units, files, whether it was logged."""

    fault: str
    parameters: dict[str, Any]
    made: dict[str, str] = field(default_factory=dict)

    def same(self, fault: str, parameters: Mapping[str, Any]) -> bool:
        """Whether this is that fault, with these among its parameters."""
        return self.fault == fault and all(self.parameters.get(key) == value for key, value in parameters.items())

    @property
    def title(self) -> str:
        return " ".join([self.fault, *(f"{key}={value}" for key, value in self.parameters.items())])


@dataclass
class Record:
    """One layer. ``state``, ``files`` (base64) and ``units`` hold what was there before the first fault came."""

    faults: list[Entry] = field(default_factory=list)
    state: dict[str, str | None] = field(default_factory=dict)
    files: dict[str, str | None] = field(default_factory=dict)
    units: dict[str, dict[str, str]] = field(default_factory=dict)

    def has(self, entry: Entry) -> bool:
        return any(other.fault == entry.fault and other.parameters == entry.parameters for other in self.faults)

    def content(self, path: str) -> bytes | None:
        """What the file held before."""
        kept = self.files[path]
        return None if kept is None else base64.b64decode(kept)

    def keep(self, path: str, content: bytes | None) -> None:
        self.files[path] = None if content is None else base64.b64encode(content).decode("ascii")


Records = dict[str, Record]


def load(root: Path) -> Records:
    """The records of both layers."""
    return {layer: _load(root / FOLDERS[layer] / FILE) for layer in LAYERS}


def _load(path: Path) -> Record:
    try:
        data = json.loads(path.read_text("utf-8"))
        faults = [Entry(**entry) for entry in data.pop("faults")]
        return Record(faults, **data)
    except FileNotFoundError:
        return Record()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FaultError(f"{path} is no record of faults ({error}); remove it and reboot the host") from error


def save(root: Path, records: Records) -> None:
    """Write both; a layer without faults has no file."""
    for layer, record in records.items():
        path = root / FOLDERS[layer] / FILE
        if record == Record():
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{FILE}.part")
        part.write_text(json.dumps(asdict(record), indent=1, sort_keys=True) + "\n", "utf-8")
        part.replace(path)


def entries(records: Records) -> list[Entry]:
    """Every fault that is on, each once."""
    found: list[Entry] = []
    for layer in LAYERS:
        found += [entry for entry in records[layer].faults if not Record(found).has(entry)]
    return found
