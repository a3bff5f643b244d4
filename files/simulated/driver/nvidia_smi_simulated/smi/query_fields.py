"""The fields of `--query-gpu` and its like, and where each comes from: a path of the XML, or an own way to read it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Union

import pynvml

from .device import Gpu
from .fields import GPU, Tree
from .readers import OFF_ON, Read

Source = Union[str, Read]


def read_path(gpu: Gpu, path: str) -> str:
    """The element of the XML at a path, as text; errors are raised."""
    tree: Tree | Read = GPU
    for tag in path.split("/"):
        tree = dict(tree)[tag]  # type: ignore[arg-type]
    return tree(gpu)  # type: ignore[operator]


def timestamp(_gpu: Gpu) -> str:
    now = time.time()
    return time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03d}"


def hexadecimal(path: str) -> Read:
    return lambda gpu: "0x" + read_path(gpu, path)


def without(suffix: str, path: str) -> Read:
    return lambda gpu: read_path(gpu, path).replace(suffix, "")


def mask(name: str) -> Read:
    return lambda gpu: f"0x{gpu.ask(name):016X}"


def errors(kind: int, counter: int, location: int) -> Read:
    return lambda gpu: str(gpu.ask("MemoryErrorCounter", kind, counter, location))


def total_errors(kind: int, counter: int) -> Read:
    return lambda gpu: str(gpu.ask("TotalEccErrors", kind, counter))


def power_management(gpu: Gpu) -> str:
    return OFF_ON[gpu.ask("PowerManagementMode")]


def compute_capability(gpu: Gpu) -> str:
    return ".".join(str(part) for part in gpu.ask("CudaComputeCapability"))


def gsp_mode(place: int) -> Read:
    return lambda gpu: OFF_ON[gpu.ask("GspFirmwareMode")[place]]


COMMON: dict[str, Source] = {
    "timestamp": timestamp,
    "name": "product_name",
    "serial": "serial",
    "uuid": "uuid",
    "pci.bus_id": "pci/pci_bus_id",
}
REMAPPED: dict[str, Source] = {
    "remapped_rows.correctable": "remapped_rows/remapped_row_corr",
    "remapped_rows.correctable_inactive": "remapped_rows/remapped_row_corr_inactive",
    "remapped_rows.uncorrectable": "remapped_rows/remapped_row_unc",
    "remapped_rows.uncorrectable_inactive": "remapped_rows/remapped_row_unc_inactive",
    "remapped_rows.pending": "remapped_rows/remapped_row_pending",
    "remapped_rows.failure": "remapped_rows/remapped_row_failure",
    **{
        f"remapped_rows.histogram.{level}": without(
            " bank(s)", f"remapped_rows/row_remapper_histogram/row_remapper_histogram_{level}"
        )
        for level in ("max", "high", "partial", "low", "none")
    },
}
ECC_LOCATIONS = {"dram": pynvml.NVML_MEMORY_LOCATION_DRAM, "sram": pynvml.NVML_MEMORY_LOCATION_SRAM,
                 "device_memory": pynvml.NVML_MEMORY_LOCATION_DRAM}  # fmt: skip
ECC_KINDS = {
    "corrected": pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
    "uncorrected": pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
}
ECC_COUNTERS = {"volatile": pynvml.NVML_VOLATILE_ECC, "aggregate": pynvml.NVML_AGGREGATE_ECC}
REASONS = (
    "gpu_idle", "applications_clocks_setting", "sw_power_cap", "hw_slowdown", "hw_thermal_slowdown",
    "hw_power_brake_slowdown", "sw_thermal_slowdown", "sync_boost",
)  # fmt: skip
REASON_COUNTERS = {
    "sw_power_cap": "sw_power_cap",
    "sync_boost": "sync_boost",
    "sw_thermal_slowdown": "sw_therm_slowdown",
    "hw_thermal_slowdown": "hw_therm_slowdown",
    "hw_power_brake_slowdown": "hw_power_brake",
}


def ecc_queries() -> Iterator[tuple[str, Source]]:
    for kind, kind_number in ECC_KINDS.items():
        for counter, counter_number in ECC_COUNTERS.items():
            stem = f"ecc.errors.{kind}.{counter}"
            for location, number in ECC_LOCATIONS.items():
                yield f"{stem}.{location}", errors(kind_number, counter_number, number)
            yield f"{stem}.total", total_errors(kind_number, counter_number)
            if kind == "uncorrected":
                yield f"{stem}.sram.parity", f"ecc_errors/{counter}/sram_uncorrectable_parity"
                yield f"{stem}.sram.secded", f"ecc_errors/{counter}/sram_uncorrectable_secded"
    stem = "ecc.errors.uncorrected.aggregate.sram"
    yield f"{stem}.thresholdExceeded", "ecc_errors/aggregate/sram_threshold_exceeded"
    for short, source in {"l2": "l2", "sm": "sm", "mcu": "microcontroller", "pcie": "pcie", "other": "other"}.items():
        yield f"{stem}.{short}", f"ecc_errors/aggregate_uncorrectable_sram_sources/sram_{source}"


GPU_QUERIES: dict[str, Source] = {
    **COMMON,
    "index": lambda gpu: str(gpu.index),
    "count": lambda _gpu: str(pynvml.nvmlDeviceGetCount()),
    "driver_version": lambda _gpu: str(pynvml.nvmlSystemGetDriverVersion()),
    "vbios_version": "vbios_version",
    "compute_cap": compute_capability,
    "compute_mode": "compute_mode",
    "pci.domain": hexadecimal("pci/pci_domain"),
    "pci.bus": hexadecimal("pci/pci_bus"),
    "pci.device": hexadecimal("pci/pci_device"),
    "pci.baseClass": hexadecimal("pci/pci_base_class"),
    "pci.subClass": hexadecimal("pci/pci_sub_class"),
    "pci.device_id": hexadecimal("pci/pci_device_id"),
    "pci.sub_device_id": hexadecimal("pci/pci_sub_system_id"),
    "pcie.link.gen.current": "pci/pci_gpu_link_info/pcie_gen/current_link_gen",
    "pcie.link.gen.gpucurrent": "pci/pci_gpu_link_info/pcie_gen/device_current_link_gen",
    "pcie.link.gen.max": "pci/pci_gpu_link_info/pcie_gen/max_link_gen",
    "pcie.link.gen.gpumax": "pci/pci_gpu_link_info/pcie_gen/max_device_link_gen",
    "pcie.link.gen.hostmax": "pci/pci_gpu_link_info/pcie_gen/max_host_link_gen",
    "pcie.link.width.current": without("x", "pci/pci_gpu_link_info/link_widths/current_link_width"),
    "pcie.link.width.max": without("x", "pci/pci_gpu_link_info/link_widths/max_link_width"),
    "display_mode": "display_mode",
    "display_attached": "display_attached",
    "display_active": "display_active",
    "persistence_mode": "persistence_mode",
    "addressing_mode": "addressing_mode",
    "accounting.mode": "accounting_mode",
    "accounting.buffer_size": "accounting_mode_buffer_size",
    "inforom.img": "inforom_version/img_version",
    "inforom.oem": "inforom_version/oem_object",
    "inforom.ecc": "inforom_version/ecc_object",
    "inforom.pwr": "inforom_version/pwr_object",
    "gpu_recovery_action": "gpu_recovery_action",
    "gsp.mode.current": gsp_mode(0),
    "gsp.mode.default": gsp_mode(1),
    "c2c.mode": "c2c_mode",
    "fan.speed": "fan_speed",
    "pstate": "performance_state",
    "clocks_event_reasons.supported": mask("SupportedClocksEventReasons"),
    "clocks_event_reasons.active": mask("CurrentClocksEventReasons"),
    **{f"clocks_event_reasons.{name}": f"clocks_event_reasons/clocks_event_reason_{name}" for name in REASONS},
    **{
        f"clocks_event_reasons_counters.{name}": f"clocks_event_reasons_counters/clocks_event_reasons_counters_{source}"
        for name, source in REASON_COUNTERS.items()
    },
    **{f"memory.{part}": f"fb_memory_usage/{part}" for part in ("total", "reserved", "used", "free")},
    **{f"protected_memory.{part}": f"cc_protected_memory_usage/{part}" for part in ("total", "used", "free")},
    **{
        f"utilization.{part}": f"utilization/{part}_util"
        for part in ("gpu", "memory", "encoder", "decoder", "jpeg", "ofa")
    },
    "encoder.stats.sessionCount": "encoder_stats/session_count",
    "encoder.stats.averageFps": "encoder_stats/average_fps",
    "encoder.stats.averageLatency": "encoder_stats/average_latency",
    "ecc.mode.current": "ecc_mode/current_ecc",
    "ecc.mode.pending": "ecc_mode/pending_ecc",
    **dict(ecc_queries()),
    **REMAPPED,
    "retired_pages.single_bit_ecc.count": "retired_pages/multiple_single_bit_retirement/retired_count",
    "retired_pages.double_bit.count": "retired_pages/double_bit_retirement/retired_count",
    "retired_pages.pending": "retired_pages/pending_retirement",
    "temperature.gpu": without(" C", "temperature/gpu_temp"),
    "temperature.gpu.tlimit": without(" C", "temperature/gpu_temp_tlimit"),
    "temperature.memory": without(" C", "temperature/memory_temp"),
    "power.management": power_management,
    "power.draw": "gpu_power_readings/average_power_draw",
    "power.draw.average": "gpu_power_readings/average_power_draw",
    "power.draw.instant": "gpu_power_readings/instant_power_draw",
    "power.limit": "gpu_power_readings/requested_power_limit",
    "enforced.power.limit": "gpu_power_readings/current_power_limit",
    **{f"power.{part}_limit": f"gpu_power_readings/{part}_power_limit" for part in ("default", "min", "max")},
    **{
        f"clocks.current.{part}": f"clocks/{source}_clock"
        for part, source in {"graphics": "graphics", "sm": "sm", "memory": "mem", "video": "video"}.items()
    },
    "clocks.applications.graphics": "applications_clocks/graphics_clock",
    "clocks.applications.memory": "applications_clocks/mem_clock",
    "clocks.default_applications.graphics": "default_applications_clocks/graphics_clock",
    "clocks.default_applications.memory": "default_applications_clocks/mem_clock",
    "clocks.max.graphics": "max_clocks/graphics_clock",
    "clocks.max.sm": "max_clocks/sm_clock",
    "clocks.max.memory": "max_clocks/mem_clock",
    "mig.mode.current": "mig_mode/current_mig",
    "mig.mode.pending": "mig_mode/pending_mig",
    "fabric.state": "fabric/state",
    "fabric.status": "fabric/status",
    "fabric.cliqueId": "fabric/cliqueId",
    "fabric.clusterUuid": "fabric/clusterUuid",
    "fabric.health.summary": "fabric/health/summary",
    "fabric.health.bandwidth": "fabric/health/bandwidth",
    "platform.module_id": "platformInfo/module_id",
}
UNITS = {
    "memory.": "MiB", "protected_memory.": "MiB", "used_gpu_memory": "MiB", "power.draw": "W", "power.limit": "W",
    "power.default_limit": "W", "power.min_limit": "W", "power.max_limit": "W", "enforced.power.limit": "W",
    "clocks.": "MHz", "utilization.": "%", "fan.speed": "%", "clocks_event_reasons_counters.": "us",
}  # fmt: skip
# Other names of fields: beginning or whole.
ALIASES = {
    "gpu_name": "name", "gpu_serial": "serial", "gpu_uuid": "uuid", "gpu_bus_id": "pci.bus_id",
    "inforom.image": "inforom.img", "inforom.power": "inforom.pwr",
    "retired_pages.sbe": "retired_pages.single_bit_ecc.count",
    "retired_pages.dbe": "retired_pages.double_bit.count", "remapped_rows.sbe": "remapped_rows.correctable",
    "remapped_rows.dbe": "remapped_rows.uncorrectable", "gpu.power.draw.average": "power.draw.average",
    "gpu.power.draw.instant": "power.draw.instant", "gpu.power.requested_limit": "power.limit",
    "gpu.power.current_limit": "enforced.power.limit", "gpu.power.default_limit": "power.default_limit",
    "gpu.power.min_limit": "power.min_limit", "gpu.power.max_limit": "power.max_limit",
    "clocks.gr": "clocks.current.graphics", "clocks.sm": "clocks.current.sm", "clocks.mem": "clocks.current.memory",
    "clocks.video": "clocks.current.video", "clocks.applications.gr": "clocks.applications.graphics",
    "clocks.applications.mem": "clocks.applications.memory", "clocks.max.gr": "clocks.max.graphics",
    "clocks.max.mem": "clocks.max.memory", "clocks.default_applications.gr": "clocks.default_applications.graphics",
    "clocks.default_applications.mem": "clocks.default_applications.memory",
    "used_memory": "used_gpu_memory",
}  # fmt: skip
