"""Differences between what a GPU is set to and what is wanted of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .reading import Gpu
from .wanted import SETTINGS, Value, value_text, watts

# Of NVML's mask, what makes a clock lower than its lock: power, thermal and hardware slowdowns, sync boost.
_SLOWED = 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80


class Difference(NamedTuple):
    """One setting of one GPU that is not as wanted; ``given_back``: what was there before us is wanted again."""

    gpu: Gpu
    setting: str
    before: Value
    after: Value
    given_back: bool = False

    def __str__(self) -> str:
        before, after = (value_text(self.setting, value) for value in (self.before, self.after))
        wanted = "as before us " if self.given_back else "wanted "
        return f"{self.setting} {before}, {wanted}{after}"


def present(gpu: Gpu, setting: str, locks: Mapping[str, Any]) -> Value:
    """What a setting is now; ``locks`` are the GPU's records of what is locked since boot."""
    if setting == "persistence_mode":
        return gpu.persistence_mode
    if setting == "ecc":
        return gpu.ecc[1] if gpu.ecc else None
    if setting == "power_limit_w":
        return None if gpu.power_limit_mw is None else watts(gpu.power_limit_mw)
    if setting == "application_clocks":
        return gpu.application_clocks
    return _locked(gpu, setting, locks.get(setting))


def _locked(gpu: Gpu, setting: str, lock: Any) -> Value:
    """The recorded range, None where there is none or the clock shows that it does not hold any more.

    NVML has no call for it. A clock above the range contradicts the record; one below does where the clock was seen to
    follow the lock before and nothing slows it down now.
    """
    if not lock:
        return None
    low, high = (int(clock) for clock in lock["range"])
    clock = gpu.memory_mhz if setting == "locked_memory_clocks" else gpu.graphics_mhz
    if clock is not None and (clock > high or (clock < low and lock.get("held") and not gpu.reasons & _SLOWED)):
        return None
    return low, high


def differences(
    gpu: Gpu, values: Mapping[str, Value], prior: Mapping[str, Any], locks: Mapping[str, Any]
) -> list[Difference]:
    """What has to change: wanted ``values`` first, then what ``prior`` records and nobody wants any more."""
    found: list[Difference] = []
    for setting in SETTINGS:
        if setting in values:
            after, given_back = values[setting], False
        elif setting in prior:
            after, given_back = _as_value(prior[setting]), True
        else:
            continue
        before = present(gpu, setting, locks)
        if before != after:
            found.append(Difference(gpu, setting, before, after, given_back))
    return found


def _as_value(recorded: Any) -> Value:
    """A value as it was before JSON."""
    if isinstance(recorded, list):
        return int(recorded[0]), int(recorded[1])
    value: Value = recorded
    return value


def pending_notes(gpu: Gpu) -> list[str]:
    """What is set and waits for a reset or a reboot, which is the operator's decision."""
    if gpu.ecc is None or gpu.ecc[0] == gpu.ecc[1]:
        return []
    now, then = (value_text("ecc", mode) for mode in gpu.ecc)
    return [f"ECC is {now} and will be {then} after a reboot (or nvidia-smi --gpu-reset on the drained host)"]
