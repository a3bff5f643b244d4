"""What the site asks for against what a GPU supports: values to set, or the reason why not, in one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Union

from .reading import Gpu, clocks_text, supported_text

# A value of a setting: persistence_mode and ecc: true or false. power_limit_w: W. application_clocks: MHz of (memory,
# graphics). locked_*_clocks: (low, high) in MHz, None where not locked.
Value = Union[bool, int, float, "tuple[int, int]", None]
SETTINGS = (
    "persistence_mode",
    "ecc",
    "power_limit_w",
    "locked_memory_clocks",
    "locked_graphics_clocks",
    "application_clocks",
)
LOCKS = ("locked_graphics_clocks", "locked_memory_clocks")
WHERE = "cluster.gpu_settings"
_W = 1000


class Refused(Exception):
    """A GPU does not support what is asked for; the text says what, what it supports, and how to mend it."""


def resolve(settings: Mapping[str, Any], gpu: Gpu) -> tuple[dict[str, Value], list[str]]:
    """(value of each setting, refusals) for one GPU; ``settings`` as the plan has them, with its words."""
    values: dict[str, Value] = {}
    refusals: list[str] = []
    for name in SETTINGS:
        if name in settings:
            try:
                values[name] = _RESOLVE[name](name, settings[name], gpu)
            except Refused as refusal:
                refusals.append(str(refusal))
    return values, refusals


def _missing(name: str) -> Refused:
    return Refused(f"{name} is nothing that this GPU or its driver has: remove {WHERE}.{name}")


def _persistence(name: str, asked: Any, gpu: Gpu) -> Value:
    if gpu.persistence_mode is None:
        raise _missing(name)
    return bool(asked)


def _ecc(name: str, asked: Any, gpu: Gpu) -> Value:
    if gpu.ecc is None:
        raise _missing(name)
    return bool(asked)


def watts(milliwatts: int) -> int | float:
    """W of mW, whole where it is whole."""
    return milliwatts // _W if milliwatts % _W == 0 else milliwatts / _W


def _power(name: str, asked: Any, gpu: Gpu) -> Value:
    if gpu.power_range_mw is None or gpu.power_limit_mw is None:
        raise _missing(name)
    low, high = gpu.power_range_mw
    if asked == "max":
        return watts(high)
    if asked == "default":
        return watts(gpu.power_default_mw or high)
    if not low <= asked * _W <= high:
        raise Refused(
            f"{name} {asked} W is outside of what it supports, {watts(low)} to {watts(high)} W "
            f"(default {watts(gpu.power_default_mw or high)}): correct {WHERE}.{name}"
        )
    return watts(int(asked * _W))


def _one_of(name: str, part: str, asked: Any, clocks: list[int], gpu: Gpu) -> int:
    """A clock of ``clocks`` (highest first), by its value or by a word."""
    if not clocks:
        raise _missing(name)
    if asked in ("max", "min"):
        return max(clocks) if asked == "max" else min(clocks)
    if asked not in clocks:
        kind = part if part in ("memory", "graphics") else name.split("_")[1]
        raise Refused(
            f"{name} {part} {asked} MHz is not a {kind} clock it supports ({clocks_text(clocks)}); "
            f"supported: {supported_text(gpu)}: correct {WHERE}.{name}"
        )
    return int(asked)


def _application(name: str, asked: Any, gpu: Gpu) -> Value:
    if gpu.application_clocks is None:
        raise Refused(f"{name} is nothing that this GPU or its driver has: use {WHERE}.locked_graphics_clocks")
    memory = _one_of(name, "memory", asked["memory_mhz"], list(gpu.supported), gpu)
    return memory, _one_of(name, "graphics", asked["graphics_mhz"], gpu.supported[memory], gpu)


def _locked(name: str, asked: Any, gpu: Gpu) -> Value:
    memory = list(gpu.supported)
    clocks = memory if name == "locked_memory_clocks" else gpu.supported[max(memory)] if memory else []
    low, high = (_one_of(name, part, asked[f"{part}_mhz"], clocks, gpu) for part in ("low", "high"))
    if low > high:
        raise Refused(f"{name}: low {low} MHz is above high {high} MHz: correct {WHERE}.{name}")
    return low, high


_RESOLVE: dict[str, Callable[[str, Any, Gpu], Value]] = {
    "persistence_mode": _persistence,
    "ecc": _ecc,
    "power_limit_w": _power,
    "application_clocks": _application,
    "locked_graphics_clocks": _locked,
    "locked_memory_clocks": _locked,
}


def value_text(name: str, value: Value) -> str:
    """A value for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (tuple, list)):
        first, second = value
        return f"memory {first}, graphics {second} MHz" if name == "application_clocks" else f"{first} to {second} MHz"
    if value is None:
        return "not locked" if name in LOCKS else "unknown"
    return f"{value} W"
