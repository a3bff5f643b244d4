"""`nvidia-smi -q -x` as readings of GPUs, to compare NVML's with field by field. It stays on the controller."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from .reading import Gpu

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)(?: (?:MHz|W))?\Z")
_MASK = {
    "gpu_idle": 0x1,
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "display_clocks_setting": 0x100,
}
# They follow the load between two looks, so a difference says nothing.
MOVING = ("graphics_mhz", "memory_mhz", "reasons")


def parse_smi(text: str) -> list[Gpu]:
    """GPUs of the output, in its order. Raises ValueError where it is no such output."""
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - nvidia-smi's own output, no entity is declared in it
    except ElementTree.ParseError as problem:
        raise ValueError(f"no output of nvidia-smi -q -x: {problem}") from None
    if root.tag != "nvidia_smi_log":
        raise ValueError(f"no output of nvidia-smi -q -x: it begins with {root.tag}")
    return [_gpu(index, node) for index, node in enumerate(root.findall("gpu"))]


def _gpu(index: int, node: ElementTree.Element) -> Gpu:
    power = "gpu_power_readings"
    persistence = _switch(node, "persistence_mode")
    ecc = (_switch(node, "ecc_mode/current_ecc"), _switch(node, "ecc_mode/pending_ecc"))
    low, high = _milli(node, f"{power}/min_power_limit"), _milli(node, f"{power}/max_power_limit")
    return Gpu(
        index=index,
        uuid=node.findtext("uuid", ""),
        name=node.findtext("product_name", ""),
        persistence_mode=persistence,
        power_limit_mw=_milli(node, f"{power}/requested_power_limit"),
        power_default_mw=_milli(node, f"{power}/default_power_limit"),
        power_range_mw=None if low is None or high is None else (low, high),
        application_clocks=_pair(node, "applications_clocks"),
        application_default=_pair(node, "default_applications_clocks"),
        graphics_mhz=_whole(node, "clocks/graphics_clock"),
        memory_mhz=_whole(node, "clocks/mem_clock"),
        ecc=None if ecc[0] is None or ecc[1] is None else (ecc[0], ecc[1]),
        reasons=sum(bit for name, bit in _MASK.items() if _active(node, name)),
        supported=_supported(node),
    )


def _number(text: str | None) -> float | None:
    found = _NUMBER.match((text or "").strip())
    return float(found.group(1)) if found else None


def _whole(node: ElementTree.Element, path: str) -> int | None:
    value = _number(node.findtext(path))
    return None if value is None else round(value)


def _milli(node: ElementTree.Element, path: str) -> int | None:
    value = _number(node.findtext(path))
    return None if value is None else round(value * 1000)


def _switch(node: ElementTree.Element, path: str) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get((node.findtext(path) or "").strip())


def _pair(node: ElementTree.Element, path: str) -> tuple[int, int] | None:
    memory, graphics = _whole(node, f"{path}/mem_clock"), _whole(node, f"{path}/graphics_clock")
    return None if memory is None or graphics is None else (memory, graphics)


def _active(node: ElementTree.Element, name: str) -> bool:
    """By its name of driver 535 and newer, or the older one."""
    paths = [f"clocks_{word}_reasons/clocks_{word}_reason_{name}" for word in ("event", "throttle")]
    return any((node.findtext(path) or "").strip() == "Active" for path in paths)


def _supported(node: ElementTree.Element) -> dict[int, list[int]]:
    clocks: dict[int, list[int]] = {}
    for memory in node.findall("supported_clocks/supported_mem_clock"):
        value = _whole(memory, "value")
        if value is not None:
            graphics = [_number(clock.text) for clock in memory.findall("supported_graphics_clock")]
            clocks[value] = [round(clock) for clock in graphics if clock is not None]
    return clocks


def compare_readings(ours: list[Gpu], theirs: list[Gpu]) -> list[tuple[int, str, Any, Any, str]]:
    """(GPU, field, NVML's, nvidia-smi's, verdict) of every field; the verdict is `equal`, `differs` or `moves`."""
    rows: list[tuple[int, str, Any, Any, str]] = []
    for index in range(max(len(ours), len(theirs))):
        if index >= min(len(ours), len(theirs)):
            where = ("missing", "there") if index >= len(ours) else ("there", "missing")
            rows.append((index, "gpu", *where, "differs"))
            continue
        for name in Gpu.__dataclass_fields__:
            one, other = getattr(ours[index], name), getattr(theirs[index], name)
            verdict = "equal" if one == other else "moves" if name in MOVING else "differs"
            rows.append((index, name, one, other, verdict))
    return rows
