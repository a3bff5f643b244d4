"""`nvidia-smi -q -x` beside what NVML said, field by field. It stays on the controller."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple
from xml.etree import ElementTree

from .read import REASONS

Convert = Callable[[str], Any]
_LEADING = re.compile(r"-?\d+(?:\.\d+)?")
# They follow the load, or the time, between two looks: a difference says nothing.
MOVING = re.compile(
    r"clocks\.current\..*|power\.draw_w|temperatures\.(gpu|memory|tlimit)_c|memory\.(used|free)_mib|throttle_reasons"
    r"|performance_state|pcie\.(generation|width)|processes"
)
# nvidia-smi -q -x does not have them.
NOT_SHOWN = re.compile(r"index|compute_capability|nvlinks|ecc\.\w+\.sram_uncorrectable|fabric\.health_mask|unread")


def number(text: str) -> float | None:
    """The number that a text begins with, units left away."""
    found = _LEADING.match(text)
    return float(found.group()) if found else None


def word(text: str) -> str | None:
    """The text; None where nvidia-smi has nothing to say."""
    return None if text in ("N/A", "") or "deprecated" in text else text


def truth(text: str) -> bool | None:
    """Enabled, disabled, yes, no."""
    return {"Enabled": True, "Disabled": False, "Yes": True, "No": False}.get(text)


def action(text: str) -> str | None:
    """What would mend the GPU, in our words."""
    known = word(text)
    return known.lower().replace(" ", "_") if known else None


_POWER = {
    "limit_w": "requested_power_limit",
    "enforced_w": "current_power_limit",
    "default_w": "default_power_limit",
    "min_w": "min_power_limit",
    "max_w": "max_power_limit",
    "draw_w": "average_power_draw",
}
_CLOCKS = {
    "graphics_mhz": "graphics_clock",
    "sm_mhz": "sm_clock",
    "memory_mhz": "mem_clock",
    "video_mhz": "video_clock",
}
_GROUPS = {
    "current": "clocks",
    "max": "max_clocks",
    "applications": "applications_clocks",
    "default_applications": "default_applications_clocks",
}
_ECC = ("sram_correctable", "sram_uncorrectable_parity", "sram_uncorrectable_secded", "dram_correctable",
        "dram_uncorrectable")  # fmt: skip
_TLIMITS = {"shutdown_c": "max_tlimit", "slowdown_c": "slow_tlimit", "memory_max_c": "max_mem_tlimit",
            "gpu_max_c": "max_gpu_tlimit"}  # fmt: skip
_THRESHOLDS = {"shutdown_c": "max", "slowdown_c": "slow", "memory_max_c": "max_mem", "gpu_max_c": "max_gpu"}
_HISTOGRAM = "remapped_rows/row_remapper_histogram/row_remapper_histogram"
# Field of ours to (element of nvidia-smi, how it is read).
PATHS: dict[str, tuple[str, Convert]] = {
    "uuid": ("uuid", word),
    "name": ("product_name", word),
    "serial": ("serial", word),
    "vbios_version": ("vbios_version", word),
    "bus_id": ("pci/pci_bus_id", word),
    "memory_mib": ("fb_memory_usage/total", number),
    **{f"memory.{name}_mib": (f"fb_memory_usage/{name}", number) for name in ("total", "reserved", "used", "free")},
    "persistence_mode": ("persistence_mode", truth),
    "mig_mode": ("mig_mode/current_mig", truth),
    "performance_state": ("performance_state", word),
    "recovery_action": ("gpu_recovery_action", action),
    "pcie.generation": ("pci/pci_gpu_link_info/pcie_gen/current_link_gen", number),
    "pcie.generation_max": ("pci/pci_gpu_link_info/pcie_gen/max_link_gen", number),
    "pcie.width": ("pci/pci_gpu_link_info/link_widths/current_link_width", number),
    "pcie.width_max": ("pci/pci_gpu_link_info/link_widths/max_link_width", number),
    **{f"power.{key}": (f"gpu_power_readings/{name}", number) for key, name in _POWER.items()},
    **{
        f"clocks.{group}.{key}": (f"{element}/{name}", number)
        for group, element in _GROUPS.items()
        for key, name in _CLOCKS.items()
        if "applications" not in group or key in ("graphics_mhz", "memory_mhz")
    },
    "ecc.current": ("ecc_mode/current_ecc", truth),
    "ecc.pending": ("ecc_mode/pending_ecc", truth),
    "ecc.sram_threshold_exceeded": ("ecc_errors/aggregate/sram_threshold_exceeded", truth),
    **{
        f"ecc.{group}.{name}": (f"ecc_errors/{group}/{name}", number)
        for group in ("volatile", "aggregate")
        for name in _ECC
    },
    "remapped_rows.correctable": ("remapped_rows/remapped_row_corr", number),
    "remapped_rows.uncorrectable": ("remapped_rows/remapped_row_unc", number),
    "remapped_rows.pending": ("remapped_rows/remapped_row_pending", truth),
    "remapped_rows.failure": ("remapped_rows/remapped_row_failure", truth),
    **{
        f"remapped_rows.histogram.{name}": (f"{_HISTOGRAM}_{name}", number)
        for name in ("max", "high", "partial", "low", "none")
    },
    "fabric.state": ("fabric/state", word),
    "fabric.status": ("fabric/status", word),
    "fabric.clique_id": ("fabric/cliqueId", number),
    "fabric.cluster_uuid": ("fabric/clusterUuid", word),
    "fabric.health": ("fabric/health/summary", word),
    "temperatures.gpu_c": ("temperature/gpu_temp", number),
    "temperatures.memory_c": ("temperature/memory_temp", number),
    "temperatures.tlimit_c": ("temperature/gpu_temp_tlimit", number),
    **{
        f"temperatures.thresholds.{key}": (f"temperature/gpu_temp_{name}_threshold", number)
        for key, name in _THRESHOLDS.items()
    },
    **{
        f"temperatures.tlimit_thresholds.{key}": (f"temperature/gpu_temp_{name}_threshold", number)
        for key, name in _TLIMITS.items()
    },
}  # fmt: skip


class Row(NamedTuple):
    """A field of a GPU, both values and the verdict: `equal`, `differs`, `moves` or `not shown` by nvidia-smi."""

    gpu: int
    field: str
    ours: Any
    theirs: Any
    verdict: str


def parse(text: str) -> list[ElementTree.Element]:
    """The GPUs of the output. Raises ValueError where it is no such output."""
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - nvidia-smi's own output, no entity is declared in it
    except ElementTree.ParseError as problem:
        raise ValueError(f"no output of nvidia-smi -q -x: {problem}") from None
    if root.tag != "nvidia_smi_log":
        raise ValueError(f"no output of nvidia-smi -q -x: it begins with {root.tag}")
    return root.findall("gpu")


def compare(gpus: list[dict[str, Any]], text: str) -> list[Row]:
    """Every field of every GPU beside nvidia-smi's."""
    nodes = {node.findtext("uuid", "").strip(): node for node in parse(text)}
    rows = []
    for gpu in gpus:
        node = nodes.pop(gpu["uuid"], None)
        if node is None:
            rows.append(Row(gpu["index"], "gpu", gpu["uuid"], "missing", "differs"))
            continue
        rows += [_row(gpu["index"], field, ours, node) for field, ours in fields(gpu)]
    return rows + [Row(-1, "gpu", "missing", name, "differs") for name in nodes]


def fields(gpu: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of every field that can be compared; supported clocks and lists as a whole."""
    for key, value in gpu.items():
        if isinstance(value, dict) and key != "supported_clocks":
            yield from fields(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _row(index: int, field: str, ours: Any, node: ElementTree.Element) -> Row:
    if field in _WHOLE:
        theirs: Any = _WHOLE[field](node)
    elif field in PATHS:
        path, convert = PATHS[field]
        element = node.find(path)
        if element is None:
            return Row(index, field, ours, None, "not shown")
        theirs = convert((element.text or "").strip())
    else:
        # A group that is null as a whole, or something that is not in the output.
        return Row(index, field, ours, None, "not shown" if NOT_SHOWN.fullmatch(field) else _group(field, ours, node))
    same = ours == theirs or (isinstance(theirs, float) and isinstance(ours, float) and round(ours, 2) == theirs)
    return Row(index, field, ours, theirs, "equal" if same else "moves" if MOVING.fullmatch(field) else "differs")


def _group(field: str, ours: Any, node: ElementTree.Element) -> str:
    """A null group agrees when nvidia-smi has nothing in it either."""
    below = [(path, convert) for name, (path, convert) in PATHS.items() if name.startswith(f"{field}.")]
    seen = [convert((node.findtext(path) or "").strip()) for path, convert in below]
    return "equal" if ours is None and below and not any(value is not None for value in seen) else "differs"


def _clocks(node: ElementTree.Element) -> dict[str, list[int]] | None:
    found = {}
    for memory in node.findall("supported_clocks/supported_mem_clock"):
        clocks = [number(clock.text or "") for clock in memory.findall("supported_graphics_clock")]
        found[f"{number(memory.findtext('value', '')):g}"] = [int(clock) for clock in clocks if clock is not None]
    return found or None


def _reasons(node: ElementTree.Element) -> list[str]:
    paths = [f"clocks_{word}_reasons/clocks_{word}_reason_" for word in ("event", "throttle")]
    return [name for name in REASONS.values() if any(node.findtext(f"{path}{name}") == "Active" for path in paths)]


def _processes(node: ElementTree.Element) -> list[dict[str, Any]]:
    found = []
    for one in node.findall("processes/process_info"):
        used = number(one.findtext("used_memory", "").strip())
        texts = {
            key: one.findtext(element, "").strip() for key, element in (("type", "type"), ("name", "process_name"))
        }
        found.append({"pid": int(one.findtext("pid", "0")), **texts, "used_mib": None if used is None else int(used)})
    return sorted(found, key=lambda entry: int(entry["pid"]))


_WHOLE: dict[str, Callable[[ElementTree.Element], Any]] = {
    "supported_clocks": _clocks,
    "throttle_reasons": _reasons,
    "processes": _processes,
}


def active_links(text: str) -> dict[int, int]:
    """GPU to its NVLinks with a speed, of `nvidia-smi nvlink -s`."""
    found: dict[int, int] = {}
    gpu = -1
    for line in text.splitlines():
        start = re.match(r"GPU (\d+):", line)
        if start:
            gpu = int(start.group(1))
            found[gpu] = 0
        elif re.match(r"\s+Link \d+: \d", line) and gpu >= 0:
            found[gpu] += 1
    return found
