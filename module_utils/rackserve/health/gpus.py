"""What the checks read of GPUs, through NVML. The one place to change when gpu_info gives the same."""

from __future__ import annotations

import ctypes
from typing import Any, Callable

from ..gpu.settings.nvml import DEPRECATED, FUNCTION_NOT_FOUND, INSUFFICIENT_SIZE, NOT_SUPPORTED, Nvml, NvmlError
from .check import Unreadable

ABSENT = (NOT_SUPPORTED, FUNCTION_NOT_FOUND, DEPRECATED)
_VERSION_BYTES = 96
_UNKNOWN_BYTES = (1 << 64) - 1
_RECOVERY_ACTION, _MEMORY_TEMPERATURE = 230, 82
_SM, _MEMORY, _GRAPHICS = 1, 2, 0
_CORRECTED, _UNCORRECTED, _VOLATILE, _AGGREGATE, _DRAM, _SRAM = 0, 1, 0, 1, 2, 7
# Fields that take a link as their scope, of driver 525 and newer.
_LINK_STATE, _LINK_ERRORS = 165, {"replay": 161, "recovery": 162, "crc": 163}
_LINKS = 18
_INVALID_ARGUMENT = 2
_TYPE_UINT = 1
_UINT, _ULL = ctypes.c_uint, ctypes.c_ulonglong


def _structure(*fields: tuple[str, Any]) -> type[ctypes.Structure]:
    return type("Layout", (ctypes.Structure,), {"_fields_": list(fields)})


_Pci = _structure(
    ("legacy", ctypes.c_char * 16), ("domain", _UINT), ("bus", _UINT), ("device", _UINT), ("id", _UINT),
    ("subsystem", _UINT), ("bus_id", ctypes.c_char * 32),
)  # fmt: skip
_MemoryInfo = _structure(("version", _UINT), ("total", _ULL), ("reserved", _ULL), ("free", _ULL), ("used", _ULL))
_Process = _structure(("pid", _UINT), ("used", _ULL), ("instance", _UINT), ("compute", _UINT))
_Fabric = _structure(
    ("version", _UINT), ("cluster", ctypes.c_ubyte * 16), ("status", _UINT), ("clique", _UINT), ("state", _UINT),
    ("health", _UINT),
)  # fmt: skip
_Sram = _structure(
    ("version", _UINT), ("aggregate_parity", _ULL), ("aggregate_secded", _ULL), ("aggregate_correctable", _ULL),
    ("volatile_parity", _ULL), ("volatile_secded", _ULL), ("volatile_correctable", _ULL), ("l2", _ULL), ("sm", _ULL),
    ("pcie", _ULL), ("mcu", _ULL), ("other", _ULL), ("exceeded", _UINT),
)  # fmt: skip
_Repair = _structure(("version", _UINT), ("channel", _UINT), ("tpc", _UINT))
_Histogram = _structure(("most", _UINT), ("high", _UINT), ("partial", _UINT), ("low", _UINT), ("none", _UINT))
_Margin = _structure(("version", _UINT), ("degrees", ctypes.c_int))
_Field = _structure(
    ("id", _UINT), ("scope", _UINT), ("at", ctypes.c_longlong), ("latency", ctypes.c_longlong), ("type", _UINT),
    ("code", _UINT), ("value", _ULL),
)  # fmt: skip


class Gpu:
    """One GPU. ``values`` has None where the GPU or its driver does not have the thing, ``errors`` what failed."""

    def __init__(self, index: int, values: dict[str, Any], errors: dict[str, str], lost: str = "") -> None:
        self.index, self.values, self.errors, self.lost = index, values, errors, lost

    @property
    def subject(self) -> str:
        return f"GPU {self.index}"

    def get(self, name: str) -> Any:
        """A value; None where there is no such thing. Raises Unreadable where it could not be asked."""
        if self.lost or name in self.errors:
            raise Unreadable(f"{self.subject}: {self.lost or self.errors[name]}")
        return self.values.get(name)

    def plain(self) -> dict[str, Any]:
        """As JSON carries it."""
        return {"index": self.index, "values": self.values, "errors": self.errors, "lost": self.lost}


class Asker(Nvml):
    """NVML with the structures that health needs. Every method raises NvmlError."""

    def driver_version(self) -> str:
        """Version of the driver that answers."""
        buffer = ctypes.create_string_buffer(_VERSION_BYTES)
        self._ask("nvmlSystemGetDriverVersion", buffer, _UINT(_VERSION_BYTES))
        return buffer.value.decode("utf-8", "replace")

    def filled(self, name: str, device: Any, layout: type[ctypes.Structure], version: int = 0) -> Any:
        """A structure that a call fills; ``version`` goes into its first number."""
        found: Any = layout()
        if version:
            found.version = ctypes.sizeof(layout) | version << 24
        self._ask(name, device, ctypes.byref(found))
        return found

    def several(self, name: str, device: Any, count: int) -> list[int]:
        """Some numbers, each by a pointer of its own."""
        found = [_UINT() for _ in range(count)]
        self._ask(name, device, *map(ctypes.byref, found))
        return [one.value for one in found]

    def counter(self, name: str, device: Any, *arguments: int) -> int:
        """A number of 64 bits."""
        value = _ULL()
        self._ask(name, device, *map(_UINT, arguments), ctypes.byref(value))
        return value.value

    def fields(self, device: Any, wanted: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """(return code, value) of fields, each given as (number, scope), in one call."""
        found: Any = (_Field * len(wanted))()
        for place, (number, scope) in zip(found, wanted):
            place.id, place.scope = number, scope
        self._ask("nvmlDeviceGetFieldValues", device, ctypes.c_int(len(wanted)), found)
        return [(int(one.code), int(one.value & 0xFFFFFFFF if one.type == _TYPE_UINT else one.value)) for one in found]

    def field(self, device: Any, number: int) -> int:
        """One field."""
        [(code, value)] = self.fields(device, [(number, 0)])
        if code:
            raise NvmlError(code, f"field {number}: {self._words(code)}")
        return value

    def words(self, code: int) -> str:
        """NVML's own words for a return code."""
        return self._words(code)

    def processes(self, device: Any) -> list[list[int | None]]:
        """[pid, bytes or None] of what computes on it."""
        length, room = _UINT(64), (_Process * 64)()
        try:
            self._ask("nvmlDeviceGetComputeRunningProcesses_v3", device, ctypes.byref(length), room)
        except NvmlError as error:
            if error.code != INSUFFICIENT_SIZE:
                raise
            room = (_Process * (length.value + 16))()
            length = _UINT(len(room))
            self._ask("nvmlDeviceGetComputeRunningProcesses_v3", device, ctypes.byref(length), room)
        found: list[Any] = list(room[: length.value])
        return [[int(one.pid), None if one.used == _UNKNOWN_BYTES else int(one.used)] for one in found]


def read_gpus(nvml: Asker) -> list[Gpu]:
    """Every GPU of the host. Raises NvmlError where they cannot even be counted."""
    return [_read(nvml, index) for index in range(nvml.count())]


def _read(nvml: Asker, index: int) -> Gpu:
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    try:
        device = nvml.device(index)
        values["uuid"] = nvml.text("nvmlDeviceGetUUID", device)
        values["bus_id"] = nvml.filled("nvmlDeviceGetPciInfo_v3", device, _Pci).bus_id.decode()
        nvml.number("nvmlDeviceGetTemperature", device, 0)
    except NvmlError as error:
        if error.code not in ABSENT:
            return Gpu(index, values, errors, str(error))
    for name, read in _readers(nvml, device).items():
        try:
            values[name] = read()
        except NvmlError as error:
            values[name] = None
            if error.code not in ABSENT:
                errors[name] = str(error)
    return Gpu(index, values, errors)


def _readers(nvml: Asker, device: Any) -> dict[str, Callable[[], Any]]:
    def number(name: str, *arguments: int) -> Callable[[], int]:
        return lambda: nvml.number(f"nvmlDeviceGet{name}", device, *arguments)

    def text(name: str) -> Callable[[], str]:
        return lambda: nvml.text(f"nvmlDeviceGet{name}", device)

    def errors(kind: int, since: int, where: int) -> Callable[[], int]:
        return lambda: nvml.counter("nvmlDeviceGetMemoryErrorCounter", device, kind, since, where)

    def pair(name: str) -> Callable[[], list[int]]:
        return lambda: list(nvml.pair(f"nvmlDeviceGet{name}", device))

    return {
        "name": text("Name"),
        "vbios": text("VbiosVersion"),
        "inforom": text("InforomImageVersion"),
        "memory": lambda: _memory(nvml, device),
        "persistence_mode": number("PersistenceMode"),
        "compute_mode": number("ComputeMode"),
        "mig": pair("MigMode"),
        "ecc": pair("EccMode"),
        "dram_corrected": errors(_CORRECTED, _VOLATILE, _DRAM),
        "dram_uncorrected": errors(_UNCORRECTED, _VOLATILE, _DRAM),
        "sram_corrected": errors(_CORRECTED, _VOLATILE, _SRAM),
        "sram_uncorrected": errors(_UNCORRECTED, _VOLATILE, _SRAM),
        "sram_exceeded": lambda: nvml.filled("nvmlDeviceGetSramEccErrorStatus", device, _Sram, 1).exceeded,
        "remapped": lambda: nvml.several("nvmlDeviceGetRemappedRows", device, 4),
        "banks": lambda: _banks(nvml, device),
        "repair": lambda: _repair(nvml, device),
        "recovery_action": lambda: nvml.field(device, _RECOVERY_ACTION),
        "temperature": number("Temperature", 0),
        "margin": lambda: nvml.filled("nvmlDeviceGetMarginTemperature", device, _Margin, 1).degrees,
        "memory_temperature": lambda: nvml.field(device, _MEMORY_TEMPERATURE),
        "power_limit_mw": number("PowerManagementLimit"),
        "power_default_mw": number("PowerManagementDefaultLimit"),
        "sm_mhz": number("ClockInfo", _SM),
        "sm_max_mhz": number("MaxClockInfo", _SM),
        "application_mhz": number("ApplicationsClock", _GRAPHICS),
        "application_default_mhz": number("DefaultApplicationsClock", _GRAPHICS),
        "reasons": lambda: _reasons(nvml, device),
        "pcie_width": number("CurrPcieLinkWidth"),
        "pcie_max_width": number("MaxPcieLinkWidth"),
        "pcie_replay": number("PcieReplayCounter"),
        "fabric": lambda: _fabric(nvml, device),
        "links": lambda: _links(nvml, device),
        "processes": lambda: nvml.processes(device),
    }


def _memory(nvml: Asker, device: Any) -> dict[str, int]:
    found = nvml.filled("nvmlDeviceGetMemoryInfo_v2", device, _MemoryInfo, 2)
    return {"total": int(found.total), "used": int(found.used)}


def _banks(nvml: Asker, device: Any) -> list[int]:
    found = nvml.filled("nvmlDeviceGetRowRemapperHistogram", device, _Histogram)
    return [found.most, found.high, found.partial, found.low, found.none]


def _repair(nvml: Asker, device: Any) -> list[int]:
    found = nvml.filled("nvmlDeviceGetRepairStatus", device, _Repair, 1)
    return [found.channel, found.tpc]


def _fabric(nvml: Asker, device: Any) -> dict[str, int]:
    found = nvml.filled("nvmlDeviceGetGpuFabricInfoV", device, _Fabric, 2)
    return {"state": found.state, "status": found.status, "health": found.health}


def _reasons(nvml: Asker, device: Any) -> int:
    """By its name of driver 535 and newer, else by the older one."""
    try:
        return nvml.wide("nvmlDeviceGetCurrentClocksEventReasons", device)
    except NvmlError as error:
        if error.code not in ABSENT:
            raise
    return nvml.wide("nvmlDeviceGetCurrentClocksThrottleReasons", device)


def _links(nvml: Asker, device: Any) -> dict[str, Any]:
    """States of all NVLinks (1 is active) and their errors by kind, in one call; no states without NVLinks."""
    wanted = [(number, link) for number in (_LINK_STATE, *_LINK_ERRORS.values()) for link in range(_LINKS)]
    seen = dict(zip(wanted, nvml.fields(device, wanted)))
    states = [seen[_LINK_STATE, link] for link in range(_LINKS)]
    failed = [code for code, _ in states if code not in (0, _INVALID_ARGUMENT, *ABSENT)]
    if failed:
        raise NvmlError(failed[0], f"the state of an NVLink: {nvml.words(failed[0])}")
    sums = {
        kind: sum(seen[number, link][1] for link in range(_LINKS) if seen[number, link][0] == 0)
        for kind, number in _LINK_ERRORS.items()
    }
    return {"states": [value for code, value in states if code == 0], "errors": sums}
