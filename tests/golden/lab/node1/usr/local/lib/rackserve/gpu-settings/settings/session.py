"""One pass over the GPUs of a host: judge all, and only then set what differs, one GPU after the other."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from .judge import Difference, differences, pending_notes, present
from .nvml import NvmlError
from .reading import Gpu, Library, read_gpu, uuid_of
from .record import Records
from .wanted import LOCKS, Value, resolve

_SETTLE_S, _POLL_S = 2.0, 0.1
_MW = 1000
_CALLS = {
    "persistence_mode": "PersistenceMode",
    "ecc": "EccMode",
    "power_limit_w": "PowerManagementLimit",
    "application_clocks": "ApplicationsClocks",
    "locked_graphics_clocks": "GpuLockedClocks",
    "locked_memory_clocks": "MemoryLockedClocks",
}


class SettingError(Exception):
    """A GPU did not take a value; one line. What was set before it stays, and is recorded."""


@dataclass
class Outcome:
    """Of one pass; ``waiting`` are differences of GPUs whose units run, with those units."""

    gpus: list[Gpu] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    changed: list[Difference] = field(default_factory=list)
    waiting: list[tuple[Difference, list[str]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """``settings`` as the plan has them; ``units`` of each allocated GPU by index; ``noun`` for lines."""

    settings: Mapping[str, Any]
    units: Mapping[int, list[str]]
    noun: str = "GPU"

    def of(self, index: int) -> Mapping[str, Any]:
        """What is wanted of one GPU: nothing where the plan does not allocate it."""
        return self.settings if index in self.units else {}


def read_wanted(data: Any) -> Wanted:
    """From its JSON, {settings, gpus: [{index, units}], simulated}. Raises ValueError, KeyError or TypeError."""
    settings, gpus = data["settings"], data["gpus"]
    if not isinstance(settings, dict) or not isinstance(gpus, list):
        raise ValueError("settings must be an object, gpus a list of {index, units}")
    units = {int(gpu["index"]): [str(unit) for unit in gpu["units"]] for gpu in gpus}
    return Wanted(settings, units, "simulated GPU" if data.get("simulated") else "GPU")


def settle(
    wanted: Wanted,
    nvml: Library,
    root: Path,
    running: Callable[[list[str]], Collection[str]],
    *,
    check: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Bring every GPU to what is wanted of it; with ``check`` only say what that would be.

    ``running`` tells which of some units run: GPUs of theirs are left alone. A refusal stops everything before anything
    is set. Raises NvmlError, SettingError, RecordError.
    """
    records = Records(root)
    judged = _Judged(wanted, nvml, records, running)
    for index in sorted({*range(nvml.count()), *wanted.units}):
        judged.look(index)
    outcome = judged.outcome
    outcome.refusals = [_line(wanted.noun, name, text, which) for (name, text), which in judged.refused.items()]
    if outcome.refusals:
        return outcome
    if check:
        outcome.changed = judged.todo
        return outcome
    for gpu, name, value in judged.present:
        records.remember(gpu.uuid, name, value)
    for difference in judged.todo:
        _set(nvml, difference, records, wanted.noun, sleep)
        outcome.changed.append(difference)
        if difference.setting == "ecc":
            notes = pending_notes(read_gpu(nvml, difference.gpu.index))
            outcome.notes += [f"{wanted.noun} {difference.gpu.index}: {note}" for note in notes]
    _forget(wanted, outcome, records)
    return outcome


@dataclass
class _Judged:
    """What one look at all GPUs finds: refusals by GPU's name and text, and what is there now of wanted settings."""

    wanted: Wanted
    nvml: Library
    records: Records
    running: Callable[[list[str]], Collection[str]]
    outcome: Outcome = field(default_factory=Outcome)
    refused: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    todo: list[Difference] = field(default_factory=list)
    present: list[tuple[Gpu, str, Value]] = field(default_factory=list)

    def look(self, index: int) -> None:
        """Judge one GPU."""
        count, settings = self.nvml.count(), self.wanted.of(index)
        if index >= count:
            if settings:
                self._refuse("", f"NVML shows {count} from 0 on: nvidia-smi -L names those that are there", index)
        elif settings or uuid_of(self.nvml, index) in self.records.prior:
            try:
                gpu = read_gpu(self.nvml, index)
            except NvmlError as error:
                raise NvmlError(error.code, f"{self.wanted.noun} {index}: {error}") from None
            self._judge(gpu, settings)

    def _judge(self, gpu: Gpu, settings: Mapping[str, Any]) -> None:
        outcome, locks = self.outcome, self.records.locks.get(gpu.uuid, {})
        outcome.gpus.append(gpu)
        values, refusals = resolve(settings, gpu)
        for refusal in refusals:
            self._refuse(gpu.name, refusal, gpu.index)
        self.present += [(gpu, name, present(gpu, name, locks)) for name in values]
        found = differences(gpu, values, self.records.prior.get(gpu.uuid, {}), locks)
        if "ecc" in values and all(difference.setting != "ecc" for difference in found):
            outcome.notes += [f"{self.wanted.noun} {gpu.index}: {note}" for note in pending_notes(gpu)]
        busy = sorted(self.running(self.wanted.units.get(gpu.index, []))) if found else []
        if busy:
            outcome.waiting += [(difference, busy) for difference in found]
        elif found and self.nvml.users(self.nvml.device(gpu.index)):
            text = "processes outside of our units compute on it, so nothing is set: stop them yourself (nvidia-smi)"
            self._refuse(gpu.name, text, gpu.index)
        else:
            self.todo += found

    def _refuse(self, name: str, text: str, index: int) -> None:
        """The same text of several GPUs becomes one line."""
        self.refused.setdefault((name, text), []).append(index)


def _line(noun: str, name: str, text: str, which: list[int]) -> str:
    called = f" ({name})" if name else ""
    return f"{noun} {','.join(map(str, which))}{called}: {text}"


def _forget(wanted: Wanted, outcome: Outcome, records: Records) -> None:
    """Drop from the record what was given back, also where it had come back by itself."""
    waiting = {(difference.gpu.uuid, difference.setting) for difference, _units in outcome.waiting}
    for gpu in outcome.gpus:
        for setting in list(records.prior.get(gpu.uuid, {})):
            if setting not in wanted.of(gpu.index) and (gpu.uuid, setting) not in waiting:
                records.forget(gpu.uuid, setting)


def _set(nvml: Library, difference: Difference, records: Records, noun: str, sleep: Callable[[float], None]) -> None:
    gpu, setting, after = difference.gpu, difference.setting, difference.after
    device = nvml.device(gpu.index)
    try:
        name, arguments = call(gpu, setting, after)
        nvml.set(name, device, *arguments)
        if setting in LOCKS:
            _note_lock(nvml, difference, records, sleep)
        seen = present(read_gpu(nvml, gpu.index), setting, records.locks.get(gpu.uuid, {}))
    except NvmlError as error:
        raise SettingError(f"{noun} {gpu.index} ({gpu.name}): {difference} was refused: {error}") from None
    if seen != after:
        shown = Difference(gpu, setting, seen, after, difference.given_back)
        raise SettingError(f"{noun} {gpu.index} ({gpu.name}): set and read back, yet {shown}; nvidia-smi -q shows why")


def call(gpu: Gpu, setting: str, value: Any) -> tuple[str, tuple[int, ...]]:
    """NVML's call, with its arguments, that gives a GPU a value."""
    arguments = tuple(value) if isinstance(value, tuple) else (int(value),) if isinstance(value, bool) else ()
    if setting == "power_limit_w":
        arguments = (round(value * _MW),)
    if value is None or (setting == "application_clocks" and value == gpu.application_default):
        return f"nvmlDeviceReset{_CALLS[setting]}", ()
    return f"nvmlDeviceSet{_CALLS[setting]}", arguments


def _note_lock(nvml: Library, difference: Difference, records: Records, sleep: Callable[[float], None]) -> None:
    """Record a lock, and whether the clock followed it within two seconds: an idle GPU need not."""
    gpu, setting, after = difference.gpu, difference.setting, difference.after
    if not isinstance(after, tuple):
        records.unlock(gpu.uuid, setting)
        return
    left_s, held = _SETTLE_S, False
    while not held and left_s > 0:
        seen = read_gpu(nvml, gpu.index)
        clock = seen.memory_mhz if setting == "locked_memory_clocks" else seen.graphics_mhz
        held = clock is not None and after[0] <= clock <= after[1]
        if not held:
            sleep(_POLL_S)
            left_s -= _POLL_S
    records.lock(gpu.uuid, setting, after, held)
