"""Put faults on a simulated host by name, and take them off again."""

from __future__ import annotations

import copy
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import records
from .catalogue import LAYERS, Fault, FaultError, find
from .kernel_log import KernelLogError
from .records import Entry, Records
from .running import Run
from .settle import Change, Settling
from .state import VOLATILE, StateError
from .values import Machine, Values, resolve

ALL = "all"
_LOCK = "faults.lock"
Catalogue = Mapping[str, Fault]


def inject(
    root: Path, run: Run, catalogue: Catalogue, name: str, parameters: Mapping[str, Any], *, check: bool = False
) -> dict[str, Any]:
    """Put a fault on. Putting it on again changes nothing, but makes good what was lost of it.

    After a reboot, what a fault had lost comes back. Raises FaultError.
    """
    fault = find(catalogue, name)
    with _session(root, run, catalogue, check) as (settling, before):
        entry = Entry(name, resolve(settling.machine, fault, parameters))
        after = copy.deepcopy(before)
        for layer in fault.layers():
            if not after[layer].has(entry):
                made = {"pid": "0", "module.version": _loaded_version(settling.machine, before)}
                after[layer].faults.append(Entry(name, entry.parameters, made))
                settling.changes.append(Change(f"fault {entry.title} ({layer})", None, "on"))
        settling.settle(before, after)
        on = next(other for other in after[fault.layers()[0]].faults if other.same(name, entry.parameters))
        return {**_result(settling, after, catalogue), "seen": seen(settling.machine, fault, on)}


def clear(
    root: Path, run: Run, catalogue: Catalogue, name: str, parameters: Mapping[str, Any], *, check: bool = False
) -> dict[str, Any]:
    """Take off every fault of that name that has the given parameters; ``all`` takes off everything.

    Raises FaultError.
    """
    if name == ALL and parameters:
        raise FaultError(f"fault all takes no parameters ({', '.join(sorted(parameters))} given); name one fault")
    wanted = {} if name == ALL else find(catalogue, name).given(parameters)
    with _session(root, run, catalogue, check) as (settling, before):
        after = copy.deepcopy(before)
        for layer in LAYERS:
            goes = [entry for entry in after[layer].faults if name == ALL or entry.same(name, wanted)]
            for entry in goes:
                after[layer].faults.remove(entry)
                settling.changes.append(Change(f"fault {entry.title} ({layer})", "on", None))
        if before != after:
            settling.settle(before, after)
        return {**_result(settling, after, catalogue), "seen": []}


def active(root: Path, catalogue: Catalogue) -> list[dict[str, Any]]:
    """The faults that are on."""
    _refuse_real(root)
    return _active(records.load(root), catalogue)


def seen(machine: Machine, fault: Fault, entry: Entry) -> list[dict[str, Any]]:
    """Where this fault is seen on this machine, texts filled in."""
    values = Values(machine, fault, entry.parameters, entry.made)
    return [
        {
            "source": reading.source,
            "where": values.text(reading.where),
            "reading": values.text(reading.reading),
            "state": values.text(reading.state),
            "state_reading": values.text(reading.state_reading),
            "bytes": reading.bytes,
            "reboot": "survives" if reading.survives else "vanishes",
        }
        for reading in fault.seen
        if values.holds(reading.when)
    ]


def _active(on: Records, catalogue: Catalogue) -> list[dict[str, Any]]:
    found = []
    for entry in records.entries(on):
        fault = catalogue.get(entry.fault)
        layers = [layer for layer in LAYERS if on[layer].has(entry)]
        found.append(
            {
                "fault": entry.fault,
                "parameters": entry.parameters,
                "reboot": ("survives" if fault.survives else "vanishes") if fault else "unknown",
                "complete": bool(fault) and layers == list(fault.layers() if fault else ()),
            }
        )
    return found


def _result(settling: Settling, after: Records, catalogue: Catalogue) -> dict[str, Any]:
    changes = settling.changes
    return {
        "changed": bool(changes),
        "active": _active(after, catalogue),
        "diff": {
            "before": "".join(f"{change.where}: {change.before}\n" for change in changes if change.before is not None),
            "after": "".join(f"{change.where}: {change.after}\n" for change in changes if change.after is not None),
        },
    }


def _loaded_version(machine: Machine, before: Records) -> str:
    key = "module.version"
    kept = before["volatile"].state
    return (kept[key] if key in kept else machine.state.get(key)) or ""


def _refuse_real(root: Path) -> None:
    if not Machine(root).simulated:
        raise FaultError("this host's hardware is real: faults are injected only into simulated hosts")


@contextmanager
def _session(root: Path, run: Run, catalogue: Catalogue, check: bool) -> Iterator[tuple[Settling, Records]]:
    _refuse_real(root)
    lock = -1
    try:
        if not check:
            (root / VOLATILE).mkdir(parents=True, exist_ok=True)
            lock = os.open(root / VOLATILE / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield Settling(root, run, catalogue, check), records.load(root)
    except (StateError, KernelLogError) as error:
        raise FaultError(str(error)) from error
    except OSError as error:
        raise FaultError(f"{error.filename}: {error.strerror}; run this on a booted lab host, as root") from error
    finally:
        if lock >= 0:
            os.close(lock)
