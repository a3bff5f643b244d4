"""Ways to read one element of nvidia-smi's output from a GPU, each by one NVML call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pynvml

from .device import MIB, NOT_AVAILABLE, Gpu

Read = Callable[[Gpu], str]

OFF_ON = ("Disabled", "Enabled")
NO_YES = ("No", "Yes")
BRANDS = {
    1: "Quadro", 2: "Tesla", 3: "NVS", 4: "GRID", 5: "GeForce", 6: "Titan", 12: "Quadro RTX", 13: "NVIDIA RTX",
    14: "NVIDIA", 15: "GeForce RTX", 16: "Titan RTX",
}  # fmt: skip
ARCHITECTURES = {
    2: "Kepler", 3: "Maxwell", 4: "Pascal", 5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada Lovelace", 9: "Hopper",
    10: "Blackwell",
}  # fmt: skip
COMPUTE_MODES = {0: "Default", 1: "Exclusive_Thread", 2: "Prohibited", 3: "Exclusive_Process"}
VIRTUALIZATION = {0: "None", 1: "Pass-Through", 2: "VGPU", 3: "Host VGPU", 4: "Host VSGA"}
ADDRESSING = {0: "None", 1: "HMM", 2: "ATS"}
RECOVERY = {0: "None", 1: "Reset", 2: "Reboot", 3: "Drain P2P", 4: "Drain and Reset"}
FABRIC_NOT_SUPPORTED, FABRIC_COMPLETED = 0, 3
FABRIC_STATES = {FABRIC_NOT_SUPPORTED: NOT_AVAILABLE, 1: "Not Started", 2: "In Progress", FABRIC_COMPLETED: "Completed"}
FABRIC_SUMMARIES = {1: "Healthy", 2: "Unhealthy", 3: "Limited Capacity"}
# Event reason (element without its prefix): bit of the mask.
REASONS = {
    "gpu_idle": 0x1,
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "display_clocks_setting": 0x100,
}
REASON_COUNTERS = {
    "sw_power_cap": 74,
    "sync_boost": 76,
    "sw_therm_slowdown": 269,
    "hw_therm_slowdown": 270,
    "hw_power_brake": 271,
}
SCOPE_GPU, SCOPE_MODULE, SCOPE_MEMORY = 0, 1, 2
POWER_AVERAGE, POWER_INSTANT, POWER_MIN, POWER_MAX, POWER_DEFAULT, POWER_CURRENT, POWER_REQUESTED = (
    185, 186, 187, 188, 189, 190, 192,
)  # fmt: skip
TLIMIT_SHUTDOWN, TLIMIT_SLOWDOWN, TLIMIT_MEM_MAX, TLIMIT_GPU_MAX = 193, 194, 195, 196
MEMORY_TEMPERATURE, REPLAY_ROLLOVER, RECOVERY_ACTION = 82, 95, 230
ATOMICS_OUTBOUND, ATOMICS_INBOUND = 228, 229
REMAPPED_CORRECTABLE_INACTIVE, REMAPPED_UNCORRECTABLE_INACTIVE = 301, 302
CONFIGURATIONS = {
    1: "None", 2: "Incorrect SysGuid", 3: "Incorrect Chassis SN", 4: "No Partition", 5: "Insufficient Nvlinks",
    6: "Incompatible GPU Firmware", 7: "Invalid Location",
}  # fmt: skip


def nothing(_gpu: Gpu) -> str:
    return NOT_AVAILABLE


def plain(name: str, *arguments: Any) -> Read:
    return lambda gpu: str(gpu.ask(name, *arguments))


def named(name: str, names: dict[int, str] | tuple[str, ...], *arguments: Any) -> Read:
    known = names if isinstance(names, dict) else dict(enumerate(names))
    return lambda gpu: known.get(int(gpu.ask(name, *arguments)), "Unknown")


def pair(name: str, place: int, names: tuple[str, ...] = OFF_ON) -> Read:
    """One of the two values of a call that gives current and pending."""
    return lambda gpu: names[int(gpu.ask(name)[place])]


def member(name: str, structure: str, attribute: str) -> Read:
    return lambda gpu: str(getattr(gpu.fill(name, structure), attribute))


def answer(name: str, structure: str, attribute: str) -> Read:
    return lambda gpu: NO_YES[bool(getattr(gpu.fill(name, structure), attribute))]


def field(number: int, unit: str = "", scope: int = 0) -> Read:
    return lambda gpu: f"{gpu.field(number, scope)}{unit}"


def watts(number: int, scope: int = SCOPE_GPU) -> Read:
    return lambda gpu: f"{gpu.field(number, scope) / 1000:.2f} W"


def mib(name: str, attribute: str, *arguments: Any) -> Read:
    return lambda gpu: f"{getattr(gpu.ask(name, *arguments), attribute) // MIB} MiB"


def mhz(name: str, clock: int) -> Read:
    return lambda gpu: f"{gpu.ask(name, clock)} MHz"


def degrees(name: str, *arguments: Any) -> Read:
    return lambda gpu: f"{gpu.ask(name, *arguments)} C"


def percent(name: str) -> Read:
    return lambda gpu: f"{gpu.ask(name)[0]} %"


def dram_errors(kind: int, counter: int) -> Read:
    return plain("MemoryErrorCounter", kind, counter, pynvml.NVML_MEMORY_LOCATION_DRAM)


def pci(attribute: str, form: str) -> Read:
    return lambda gpu: format(getattr(gpu.ask("PciInfo_v3"), attribute), form)


def pci_class(attribute: str) -> Read:
    def read(gpu: Gpu) -> str:
        filled = pynvml.nvmlPciInfoExt_v1_t()
        filled.version = pynvml.nvmlPciInfoExt_v1
        gpu.ask("PciInfoExt", pynvml.byref(filled))
        return f"{getattr(filled, attribute):X}"

    return read


def atomics(number: int) -> Read:
    """A mask of operations; none is shown as not available."""
    return lambda gpu: f"0x{gpu.field(number):x}" if gpu.field(number) else NOT_AVAILABLE


def bar1_free(gpu: Gpu) -> str:
    """What is left of the whole MiB, as nvidia-smi counts it."""
    info = gpu.ask("BAR1MemoryInfo")
    return f"{info.bar1Total // MIB - info.bar1Used // MIB} MiB"


def board_id(gpu: Gpu) -> str:
    return f"0x{gpu.ask('BoardId'):x}"


def pdi(gpu: Gpu) -> str:
    return f"0x{gpu.ask('Pdi'):x}"


def gsp_firmware(gpu: Gpu) -> str:
    version = gpu.ask("GspFirmwareVersion")
    return version.decode() if isinstance(version, bytes) else str(version)


def reason(bit: int) -> Read:
    return lambda gpu: "Active" if gpu.ask("CurrentClocksEventReasons") & bit else "Not Active"


def reason_time(number: int) -> Read:
    return lambda gpu: f"{gpu.field(number) // 1000} us"


def remapped(place: int) -> Read:
    return lambda gpu: str(gpu.ask("RemappedRows")[place])


def remapped_answer(place: int) -> Read:
    return lambda gpu: NO_YES[bool(gpu.ask("RemappedRows")[place])]


def banks(attribute: str) -> Read:
    return lambda gpu: f"{getattr(gpu.ask('RowRemapperHistogram'), attribute)} bank(s)"


def performance_state(gpu: Gpu) -> str:
    return f"P{gpu.ask('PerformanceState')}"


def fabric_of(gpu: Gpu) -> Any:
    return gpu.fill("GpuFabricInfoV", "GpuFabricInfo_v3")


def fabric(read: Callable[[Any], str]) -> Read:
    """Something of a GPU that is in its fabric; before that there is nothing."""

    def value(gpu: Gpu) -> str:
        info = fabric_of(gpu)
        return read(info) if info.state == FABRIC_COMPLETED else NOT_AVAILABLE

    return value


def fabric_uuid(info: Any) -> str:
    digits = bytes(info.clusterUuid).hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def fabric_bits(shift: int, width: int, names: dict[int, str]) -> Read:
    return fabric(lambda info: names.get((info.healthMask >> shift) & width, NOT_AVAILABLE))


def fabric_truth(shift: int) -> Read:
    return fabric_bits(shift, 0x3, {1: "True", 2: "False"})


def sram_source(name: str) -> Read:
    return member("SramEccErrorStatus", "EccSramErrorStatus_v1", f"aggregateUncBucket{name}")


def retired_pending(gpu: Gpu) -> str:
    return NO_YES[gpu.ask("RetiredPagesPendingStatus")]


def platform(attribute: str) -> Read:
    """Of a rack: without the chassis' serial number the other values mean nothing."""

    def read(gpu: Gpu) -> str:
        info = gpu.fill("PlatformInfo", "PlatformInfo_v2")
        value = getattr(info, attribute)
        if not info.chassisSerialNumber:
            return NOT_AVAILABLE
        return str(value) if attribute in ("chassisSerialNumber", "ibGuid") else str(ord(value))

    return read


def egm(gpu: Gpu) -> str:
    return ("disabled", "enabled")[gpu.fill("Capabilities", "DeviceCapabilities_v1").capMask & 1]
