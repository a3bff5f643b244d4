"""What the checks read of GPUs, through gpu_info's binding of NVML: fewer facts, so that a look takes milliseconds."""

from __future__ import annotations

from typing import Any, Callable

from ..gpu.info.nvml import ABSENT, Histogram, Margin, Memory, Nvml, Repair, SramErrors
from ..gpu.settings.nvml import INVALID_ARGUMENT, NvmlError
from .check import Unreadable

_RECOVERY_ACTION, _MEMORY_TEMPERATURE = 230, 82
_SM, _MEMORY, _GRAPHICS = 1, 2, 0
_CORRECTED, _UNCORRECTED, _VOLATILE, _AGGREGATE, _DRAM, _SRAM = 0, 1, 0, 1, 2, 7
# Fields that take a link as their scope, of driver 525 and newer.
_LINK_STATE, _LINK_ERRORS = 165, {"replay": 161, "recovery": 162, "crc": 163}
_LINKS = 18


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


def read_gpus(nvml: Nvml) -> list[Gpu]:
    """Every GPU of the host. Raises NvmlError where they cannot even be counted."""
    return [_read(nvml, index) for index in range(nvml.count())]


def _read(nvml: Nvml, index: int) -> Gpu:
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    try:
        device = nvml.device(index)
        values["uuid"] = nvml.text("nvmlDeviceGetUUID", device)
        values["bus_id"] = nvml.bus_id(device)
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


def _readers(nvml: Nvml, device: Any) -> dict[str, Callable[[], Any]]:
    def number(name: str, *arguments: int) -> Callable[[], int]:
        return lambda: nvml.number(f"nvmlDeviceGet{name}", device, *arguments)

    def text(name: str) -> Callable[[], str]:
        return lambda: nvml.text(f"nvmlDeviceGet{name}", device)

    def errors(kind: int, since: int, where: int) -> Callable[[], int]:
        return lambda: nvml.wide("nvmlDeviceGetMemoryErrorCounter", device, kind, since, where)

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
        "sram_exceeded": lambda: nvml.fill("nvmlDeviceGetSramEccErrorStatus", device, SramErrors()).threshold_exceeded,
        "remapped": lambda: list(nvml.four("nvmlDeviceGetRemappedRows", device)),
        "banks": lambda: _banks(nvml, device),
        "repair": lambda: _repair(nvml, device),
        "recovery_action": lambda: nvml.field(_RECOVERY_ACTION, device),
        "temperature": number("Temperature", 0),
        "margin": lambda: nvml.fill("nvmlDeviceGetMarginTemperature", device, Margin()).degrees,
        "memory_temperature": lambda: nvml.field(_MEMORY_TEMPERATURE, device),
        "power_limit_mw": number("PowerManagementLimit"),
        "power_default_mw": number("PowerManagementDefaultLimit"),
        "sm_mhz": number("ClockInfo", _SM),
        "sm_max_mhz": number("MaxClockInfo", _SM),
        "application_mhz": number("ApplicationsClock", _GRAPHICS),
        "application_default_mhz": number("DefaultApplicationsClock", _GRAPHICS),
        "reasons": lambda: nvml.clock_reasons(device),
        "pcie_width": number("CurrPcieLinkWidth"),
        "pcie_max_width": number("MaxPcieLinkWidth"),
        "pcie_replay": number("PcieReplayCounter"),
        "fabric": lambda: _fabric(nvml, device),
        "links": lambda: _links(nvml, device),
        "processes": lambda: [list(use) for use in nvml.processes("nvmlDeviceGetComputeRunningProcesses_v3", device)],
    }


def _memory(nvml: Nvml, device: Any) -> dict[str, int]:
    found = nvml.fill("nvmlDeviceGetMemoryInfo_v2", device, Memory())
    return {"total": int(found.total), "used": int(found.used)}


def _banks(nvml: Nvml, device: Any) -> list[int]:
    found = nvml.fill("nvmlDeviceGetRowRemapperHistogram", device, Histogram())
    return [found.max, found.high, found.partial, found.low, found.none]


def _repair(nvml: Nvml, device: Any) -> list[int]:
    found = nvml.fill("nvmlDeviceGetRepairStatus", device, Repair())
    return [found.channel, found.tpc]


def _fabric(nvml: Nvml, device: Any) -> dict[str, int]:
    found = nvml.fabric(device)
    return {"state": found.state, "status": found.status, "health": found.health_mask}


def _links(nvml: Nvml, device: Any) -> dict[str, Any]:
    """States of all NVLinks (1 is active) and their errors by kind, in one call; no states without NVLinks."""
    wanted = [(number, link) for number in (_LINK_STATE, *_LINK_ERRORS.values()) for link in range(_LINKS)]
    seen = dict(zip(wanted, nvml.fields(wanted, device)))
    states = [seen[_LINK_STATE, link] for link in range(_LINKS)]
    failed = [code for code, _ in states if code not in (0, INVALID_ARGUMENT, *ABSENT)]
    if failed:
        raise NvmlError(failed[0], f"the state of an NVLink: {nvml.words(failed[0])}")
    sums = {
        kind: sum(seen[number, link][1] for link in range(_LINKS) if seen[number, link][0] == 0)
        for kind, number in _LINK_ERRORS.items()
    }
    return {"states": [value for code, value in states if code == 0], "errors": sums}
