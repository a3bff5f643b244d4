"""Every fact of a GPU by NVML. What a GPU does not have is null, and stands in a list with the reason: never a 0."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any, Callable, TypeVar

from ..settings.nvml import INVALID_ARGUMENT, NvmlError
from .nvml import ABSENT, ARGUMENT_VERSION_MISMATCH, NOT_FOUND, NOT_READY, Fabric, Histogram, Margin, Memory, Nvml
from .nvml import SramErrors as Sram

MIB = 2**20
MAX_LINKS = 36
CLOCKS = {"graphics_mhz": 0, "sm_mhz": 1, "memory_mhz": 2, "video_mhz": 3}
APPLICATION_CLOCKS = {"graphics_mhz": 0, "memory_mhz": 2}
REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clocks_setting",
}
REMOTE_TYPES = {0: "gpu", 1: "ibm_npu", 2: "switch"}
FABRIC_STATES = {1: "Not Started", 2: "In Progress", 3: "Completed"}
FABRIC_SUMMARIES = {1: "Healthy", 2: "Unhealthy", 3: "Limited Capacity"}
RECOVERY = {0: "none", 1: "reset", 2: "reboot", 3: "drain_p2p", 4: "drain_and_reset"}
THRESHOLDS = {"shutdown_c": 0, "slowdown_c": 1, "memory_max_c": 2, "gpu_max_c": 3}
TLIMIT_THRESHOLDS = {"shutdown_c": 193, "slowdown_c": 194, "memory_max_c": 195, "gpu_max_c": 196}
PROCESS_LISTS = {"C": "Compute", "G": "Graphics", "M": "MPSCompute"}
_MEMORY_TEMPERATURE, _RECOVERY_ACTION = 82, 230
_CORRECTED, _UNCORRECTED, _VOLATILE, _AGGREGATE = 0, 1, 0, 1
_DRAM, _SRAM = 2, 7
_COMPLETED = 3
# What a driver says of something that a GPU or its driver does not have; another error is a finding, too.
_ABSENT = (*ABSENT, NOT_FOUND, ARGUMENT_VERSION_MISMATCH, NOT_READY)
_Read = TypeVar("_Read")


class Reader:
    """Asks one GPU. ``unread`` are fields that are null, with the reason; ``failed`` those that it should have had."""

    def __init__(self, nvml: Nvml, device: Any) -> None:
        self.nvml, self.device = nvml, device
        self.unread: list[dict[str, str]] = []
        self.failed: list[str] = []

    def absent(self, field: str, reason: str) -> None:
        """Note why a field is null."""
        self.unread.append({"field": field, "reason": reason})

    def ask(self, field: str, read: Callable[[], _Read], also_absent: tuple[int, ...] = ()) -> _Read | None:
        """What ``read`` gives, or None with its reason."""
        try:
            return read()
        except NvmlError as error:
            self.absent(field, str(error))
            if error.code not in (*_ABSENT, *also_absent):
                self.failed.append(f"{field}: {error}")
            return None

    def number(self, field: str, name: str, *arguments: int) -> int | None:
        return self.ask(field, lambda: self.nvml.number(f"nvmlDeviceGet{name}", self.device, *arguments))

    def text(self, field: str, name: str) -> str | None:
        return self.ask(field, lambda: self.nvml.text(f"nvmlDeviceGet{name}", self.device))

    def pair(self, field: str, name: str) -> tuple[int, int] | None:
        return self.ask(field, lambda: self.nvml.pair(f"nvmlDeviceGet{name}", self.device))

    def flag(self, field: str, name: str) -> bool | None:
        value = self.number(field, name)
        return None if value is None else bool(value)

    def watts(self, field: str, name: str) -> float | None:
        value = self.number(field, name)
        return None if value is None else value / 1000

    def field(self, field: str, number: int) -> int | None:
        """A field value; a driver calls one that it does not know an invalid argument."""
        return self.ask(field, lambda: self.nvml.field(number, self.device), (INVALID_ARGUMENT,))


def read_gpu(nvml: Nvml, index: int) -> tuple[dict[str, Any], list[str]]:
    """(every fact of a GPU, what failed that it should have). Raises NvmlError where it cannot be asked at all."""
    reader = Reader(nvml, nvml.device(index))
    capability = reader.pair("compute_capability", "CudaComputeCapability")
    memory = _memory(reader)
    action = reader.field("recovery_action", _RECOVERY_ACTION)
    state = reader.number("performance_state", "PerformanceState")
    mig = reader.pair("mig_mode", "MigMode")
    gpu: dict[str, Any] = {
        "index": index,
        "uuid": nvml.text("nvmlDeviceGetUUID", reader.device),
        "name": reader.text("name", "Name"),
        "serial": reader.text("serial", "Serial"),
        "vbios_version": reader.text("vbios_version", "VbiosVersion"),
        "bus_id": reader.ask("bus_id", partial(nvml.bus_id, reader.device)),
        "compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
        "memory_mib": None if memory is None else memory["total_mib"],
        "memory": memory,
        "persistence_mode": reader.flag("persistence_mode", "PersistenceMode"),
        "mig_mode": None if mig is None else bool(mig[0]),
        "performance_state": None if state is None else f"P{state}",
        "recovery_action": None if action is None else RECOVERY.get(action, str(action)),
        "pcie": _pcie(reader),
        "power": _power(reader),
        "clocks": _clocks(reader),
        "supported_clocks": _supported(reader),
        "ecc": _ecc(reader),
        "remapped_rows": _remapped(reader),
        "nvlinks": _nvlinks(reader),
        "fabric": _fabric(reader),
        "throttle_reasons": _reasons(reader),
        "processes": _processes(reader),
        "temperatures": _temperatures(reader),
    }
    gpu["unread"] = reader.unread
    return gpu, reader.failed


def _memory(reader: Reader) -> dict[str, int] | None:
    found = reader.ask("memory", lambda: reader.nvml.fill("nvmlDeviceGetMemoryInfo_v2", reader.device, Memory()))
    if found is None:
        reader.absent("memory_mib", reader.unread[-1]["reason"])
        return None
    return {f"{name}_mib": getattr(found, name) // MIB for name in ("total", "reserved", "used", "free")}


def _pcie(reader: Reader) -> dict[str, int | None]:
    names = {
        "generation": "CurrPcieLinkGeneration",
        "generation_max": "MaxPcieLinkGeneration",
        "width": "CurrPcieLinkWidth",
        "width_max": "MaxPcieLinkWidth",
    }
    return {key: reader.number(f"pcie.{key}", name) for key, name in names.items()}


def _power(reader: Reader) -> dict[str, float | None]:
    limits = reader.pair("power.min_w", "PowerManagementLimitConstraints")
    if limits is None:
        reader.absent("power.max_w", reader.unread[-1]["reason"])
    return {
        "limit_w": reader.watts("power.limit_w", "PowerManagementLimit"),
        "enforced_w": reader.watts("power.enforced_w", "EnforcedPowerLimit"),
        "default_w": reader.watts("power.default_w", "PowerManagementDefaultLimit"),
        "min_w": None if limits is None else limits[0] / 1000,
        "max_w": None if limits is None else limits[1] / 1000,
        "draw_w": reader.watts("power.draw_w", "PowerUsage"),
    }


def _clocks(reader: Reader) -> dict[str, dict[str, int | None]]:
    groups = {
        "current": ("ClockInfo", CLOCKS),
        "max": ("MaxClockInfo", CLOCKS),
        "applications": ("ApplicationsClock", APPLICATION_CLOCKS),
        "default_applications": ("DefaultApplicationsClock", APPLICATION_CLOCKS),
    }
    return {
        group: {key: reader.number(f"clocks.{group}.{key}", name, number) for key, number in clocks.items()}
        for group, (name, clocks) in groups.items()
    }


def _supported(reader: Reader) -> dict[str, list[int] | None] | None:
    """Graphics clocks by memory clock, MHz; keys are text, as JSON has them."""
    nvml, device = reader.nvml, reader.device
    memory = reader.ask("supported_clocks", partial(nvml.numbers, "nvmlDeviceGetSupportedMemoryClocks", device))
    if memory is None:
        return None
    call = partial(nvml.numbers, "nvmlDeviceGetSupportedGraphicsClocks", device)
    return {str(clock): reader.ask(f"supported_clocks.{clock}", partial(call, clock)) for clock in memory}


def _ecc(reader: Reader) -> dict[str, Any]:
    mode = reader.pair("ecc.current", "EccMode")
    if mode is None:
        reader.absent("ecc.pending", reader.unread[-1]["reason"])
    sram = _sram_status(reader)
    return {
        "current": None if mode is None else bool(mode[0]),
        "pending": None if mode is None else bool(mode[1]),
        "volatile": _errors(reader, "volatile", _VOLATILE, sram),
        "aggregate": _errors(reader, "aggregate", _AGGREGATE, sram),
        "sram_threshold_exceeded": None if sram is None else bool(sram.threshold_exceeded),
    }


def _sram_status(reader: Reader) -> Sram | None:
    name = "nvmlDeviceGetSramEccErrorStatus"
    return reader.ask("ecc.sram_threshold_exceeded", lambda: reader.nvml.fill(name, reader.device, Sram()))


def _errors(reader: Reader, group: str, counter: int, sram: Sram | None) -> dict[str, int | None]:
    """Counts since the driver was loaded (volatile) or ever (aggregate)."""

    def count(kind: str, error: int, place: int) -> int | None:
        name = "nvmlDeviceGetMemoryErrorCounter"
        return reader.ask(f"ecc.{group}.{kind}", partial(reader.nvml.wide, name, reader.device, error, counter, place))

    dram = {
        "dram_correctable": count("dram_correctable", _CORRECTED, _DRAM),
        "dram_uncorrectable": count("dram_uncorrectable", _UNCORRECTED, _DRAM),
    }
    if sram is None:
        for name in ("sram_uncorrectable_parity", "sram_uncorrectable_secded"):
            reader.absent(f"ecc.{group}.{name}", "this GPU or its driver does not tell the two apart")
        return {
            "sram_correctable": count("sram_correctable", _CORRECTED, _SRAM),
            "sram_uncorrectable": count("sram_uncorrectable", _UNCORRECTED, _SRAM),
            "sram_uncorrectable_parity": None,
            "sram_uncorrectable_secded": None,
            **dram,
        }
    parity, secded = getattr(sram, f"{group}_parity"), getattr(sram, f"{group}_secded")
    return {
        "sram_correctable": getattr(sram, f"{group}_correctable"),
        "sram_uncorrectable": parity + secded,
        "sram_uncorrectable_parity": parity,
        "sram_uncorrectable_secded": secded,
        **dram,
    }


def _remapped(reader: Reader) -> dict[str, Any] | None:
    rows = reader.ask("remapped_rows", lambda: reader.nvml.four("nvmlDeviceGetRemappedRows", reader.device))
    if rows is None:
        return None
    name, field = "nvmlDeviceGetRowRemapperHistogram", "remapped_rows.histogram"
    banks = reader.ask(field, lambda: reader.nvml.fill(name, reader.device, Histogram()))
    return {
        "correctable": rows[0],
        "uncorrectable": rows[1],
        "pending": bool(rows[2]),
        "failure": bool(rows[3]),
        "histogram": None if banks is None else {key: getattr(banks, key) for key, _ in Histogram._fields_},
    }


def _nvlinks(reader: Reader) -> list[dict[str, Any]] | None:
    """Each link, also those that are down; null for a GPU without any."""
    links: list[dict[str, Any]] = []
    refusal = "the GPU has no NVLink"
    for link in range(MAX_LINKS):
        try:
            active = bool(reader.nvml.number("nvmlDeviceGetNvLinkState", reader.device, link))
        except NvmlError as error:
            refusal = str(error) if not links else refusal
            if error.code == INVALID_ARGUMENT:
                break
            if error.code not in _ABSENT:
                links.append(
                    {"link": link, "active": None, "version": None, "remote_bus_id": None, "remote_type": None}
                )
                reader.absent(f"nvlinks.{link}", str(error))
                reader.failed.append(f"nvlinks.{link}: {error}")
            continue
        links.append(_nvlink(reader, link, active))
    if not links:
        reader.absent("nvlinks", refusal)
    return links or None


def _nvlink(reader: Reader, link: int, active: bool) -> dict[str, Any]:
    where = f"nvlinks.{link}"
    remote = reader.ask(f"{where}.remote_bus_id", partial(reader.nvml.link_remote, reader.device, link))
    kind = reader.number(f"{where}.remote_type", "NvLinkRemoteDeviceType", link)
    if kind is not None and kind not in REMOTE_TYPES:
        reader.absent(f"{where}.remote_type", f"the driver does not know it ({kind})")
    return {
        "link": link,
        "active": active,
        "version": reader.number(f"{where}.version", "NvLinkVersion", link),
        "remote_bus_id": remote,
        "remote_type": None if kind is None else REMOTE_TYPES.get(kind),
    }


def _fabric(reader: Reader) -> dict[str, Any] | None:
    info = reader.ask("fabric", lambda: reader.nvml.fabric(reader.device))
    if info is None:
        return None
    if info.state not in FABRIC_STATES:
        reader.absent("fabric", "the GPU is part of no fabric")
        return None
    return _fabric_shown(reader, info)


def _fabric_shown(reader: Reader, info: Fabric) -> dict[str, Any]:
    done = info.state == _COMPLETED
    if not done:
        for name in ("status", "clique_id", "cluster_uuid", "health"):
            reader.absent(f"fabric.{name}", f"the fabric's state is {FABRIC_STATES[info.state]}")
    elif info.health_summary not in FABRIC_SUMMARIES:
        reader.absent("fabric.health", "the driver does not say it for this GPU")
    return {
        "state": FABRIC_STATES[info.state],
        "status": (reader.nvml.words(info.status) if info.status else "Success") if done else None,
        "clique_id": info.clique if done else None,
        "cluster_uuid": str(uuid.UUID(bytes=bytes(info.cluster))) if done else None,
        "health": FABRIC_SUMMARIES.get(info.health_summary) if done else None,
        "health_mask": info.health_mask,
    }


def _reasons(reader: Reader) -> list[str] | None:
    """What holds the clocks down now."""
    mask = reader.ask("throttle_reasons", partial(reader.nvml.clock_reasons, reader.device))
    if mask is None:
        return None
    return [REASONS.get(1 << bit, f"bit_{1 << bit:#x}") for bit in range(64) if mask >> bit & 1]


def _processes(reader: Reader) -> list[dict[str, Any]] | None:
    """Who uses the GPU: `C` computes, `G` draws, `M` computes by MPS; one that does two has both letters."""
    found: dict[int, dict[str, Any]] = {}
    asked = False
    for kind, name in PROCESS_LISTS.items():
        call = f"nvmlDeviceGet{name}RunningProcesses_v3"
        uses = reader.ask(f"processes.{name}", partial(reader.nvml.processes, call, reader.device))
        asked = asked or uses is not None
        for use in uses or []:
            entry = found.setdefault(use.pid, {"pid": use.pid, "type": "", "name": None, "used_mib": None})
            entry["type"] += f"+{kind}" if entry["type"] else kind
            entry["used_mib"] = entry["used_mib"] if use.used_bytes is None else use.used_bytes // MIB
    for pid, entry in found.items():
        entry["name"] = reader.ask(f"processes.{pid}.name", partial(reader.nvml.process_name, pid))
        if entry["used_mib"] is None:
            reader.absent(f"processes.{pid}.used_mib", "the driver does not say it")
    return sorted(found.values(), key=lambda entry: int(entry["pid"])) if asked else None


def _temperatures(reader: Reader) -> dict[str, Any]:
    name = "nvmlDeviceGetMarginTemperature"
    margin = reader.ask("temperatures.tlimit_c", lambda: reader.nvml.fill(name, reader.device, Margin()))
    return {
        "gpu_c": reader.number("temperatures.gpu_c", "Temperature", 0),
        "memory_c": reader.field("temperatures.memory_c", _MEMORY_TEMPERATURE),
        "tlimit_c": None if margin is None else int(margin.degrees),
        "thresholds": {
            key: reader.number(f"temperatures.thresholds.{key}", "TemperatureThreshold", number)
            for key, number in THRESHOLDS.items()
        },
        "tlimit_thresholds": {
            key: reader.field(f"temperatures.tlimit_thresholds.{key}", number)
            for key, number in TLIMIT_THRESHOLDS.items()
        },
    }
