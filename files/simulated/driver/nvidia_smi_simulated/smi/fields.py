"""Every element of `nvidia-smi -q -x`, in its order, and the NVML call behind it.

``GPU`` is a tree: (element, how to read it) or (element, [elements below]). An element that NVML does not give has
``nothing`` and stands in ``NOT_IN_NVML`` with the reason.
"""

from __future__ import annotations

from typing import Union

import pynvml

from .readers import (
    ADDRESSING,
    ARCHITECTURES,
    ATOMICS_INBOUND,
    ATOMICS_OUTBOUND,
    BRANDS,
    COMPUTE_MODES,
    CONFIGURATIONS,
    FABRIC_STATES,
    FABRIC_SUMMARIES,
    MEMORY_TEMPERATURE,
    NO_YES,
    NOT_AVAILABLE,
    OFF_ON,
    POWER_AVERAGE,
    POWER_CURRENT,
    POWER_DEFAULT,
    POWER_INSTANT,
    POWER_MAX,
    POWER_MIN,
    POWER_REQUESTED,
    REASON_COUNTERS,
    REASONS,
    RECOVERY,
    RECOVERY_ACTION,
    REMAPPED_CORRECTABLE_INACTIVE,
    REMAPPED_UNCORRECTABLE_INACTIVE,
    REPLAY_ROLLOVER,
    SCOPE_GPU,
    SCOPE_MEMORY,
    SCOPE_MODULE,
    TLIMIT_GPU_MAX,
    TLIMIT_MEM_MAX,
    TLIMIT_SHUTDOWN,
    TLIMIT_SLOWDOWN,
    VIRTUALIZATION,
    Read,
    answer,
    atomics,
    banks,
    bar1_free,
    board_id,
    degrees,
    dram_errors,
    fabric,
    fabric_bits,
    fabric_of,
    fabric_truth,
    fabric_uuid,
    field,
    gsp_firmware,
    member,
    mhz,
    mib,
    named,
    nothing,
    pair,
    pci,
    pci_class,
    pdi,
    percent,
    performance_state,
    plain,
    platform,
    reason,
    reason_time,
    remapped,
    remapped_answer,
    retired_pending,
    sram_source,
    watts,
)

Tree = list[tuple[str, Union[Read, "Tree"]]]

# Elements for which NVML has no public call; the simulated nvidia-smi prints N/A.
NOT_IN_NVML = {
    "gpu_part_number": "nvidia-smi asks its own interface",
    "gpu_fru_part_number": "nvidia-smi asks its own interface",
    "driver_model/current_dm": "Windows only",
    "driver_model/pending_dm": "Windows only",
    "display_mode": "a fixed text since 580: the element is deprecated",
    "gpu_virtualization_mode/vgpu_heterogeneous_mode": "vGPU hosts only",
    "ibmnpu/relaxed_ordering_mode": "POWER9 only",
    "pci/pci_gpu_link_info/pcie_gen/max_host_link_gen": "nvidia-smi asks its own interface",
    "sparse_operation_mode": "nvidia-smi asks its own interface",
    "deferred_clocks/mem_clock": "nvidia-smi asks its own interface",
    "power_smoothing": "GPUs after Hopper only",
    "power_profiles/power_profile_requested_profiles": "GPUs after Hopper only",
    "power_profiles/power_profile_enforced_profiles": "GPUs after Hopper only",
}
PCIE: Tree = [
    ("max_link_gen", plain("MaxPcieLinkGeneration")),
    ("current_link_gen", plain("CurrPcieLinkGeneration")),
    ("device_current_link_gen", plain("CurrPcieLinkGeneration")),
    ("max_device_link_gen", plain("GpuMaxPcieLinkGeneration")),
    ("max_host_link_gen", nothing),
]
PCI: Tree = [
    ("pci_bus", pci("bus", "02X")),
    ("pci_device", pci("device", "02X")),
    ("pci_domain", pci("domain", "04X")),
    ("pci_base_class", pci_class("baseClass")),
    ("pci_sub_class", pci_class("subClass")),
    ("pci_device_id", pci("pciDeviceId", "08X")),
    ("pci_bus_id", pci("busId", "")),
    ("pci_sub_system_id", pci("pciSubSystemId", "08X")),
    (
        "pci_gpu_link_info",
        [
            ("pcie_gen", PCIE),
            (
                "link_widths",
                [
                    ("max_link_width", lambda gpu: f"{gpu.ask('MaxPcieLinkWidth')}x"),
                    ("current_link_width", lambda gpu: f"{gpu.ask('CurrPcieLinkWidth')}x"),
                ],
            ),
        ],
    ),
    (
        "pci_bridge_chip",
        [
            ("bridge_chip_type", lambda gpu: ("PLX", "BRO4")[gpu.ask("BridgeChipInfo").bridgeChipInfo[0].type]),
            ("bridge_chip_fw", lambda gpu: str(gpu.ask("BridgeChipInfo").bridgeChipInfo[0].fwVersion)),
        ],
    ),
    ("replay_counter", plain("PcieReplayCounter")),
    ("replay_rollover_counter", field(REPLAY_ROLLOVER)),
    ("tx_util", lambda gpu: f"{gpu.ask('PcieThroughput', pynvml.NVML_PCIE_UTIL_TX_BYTES)} KB/s"),
    ("rx_util", lambda gpu: f"{gpu.ask('PcieThroughput', pynvml.NVML_PCIE_UTIL_RX_BYTES)} KB/s"),
    ("atomic_caps_outbound", atomics(ATOMICS_OUTBOUND)),
    ("atomic_caps_inbound", atomics(ATOMICS_INBOUND)),
]


def ecc_errors(which: str, counter: int) -> Tree:
    status = ("SramEccErrorStatus", "EccSramErrorStatus_v1")
    return [
        ("sram_correctable", member(*status, f"{which}Cor")),
        ("sram_uncorrectable_parity", member(*status, f"{which}UncParity")),
        ("sram_uncorrectable_secded", member(*status, f"{which}UncSecDed")),
        ("dram_correctable", dram_errors(pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, counter)),
        ("dram_uncorrectable", dram_errors(pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, counter)),
    ]


def retired(cause: int) -> Tree:
    return [
        ("retired_count", lambda gpu: str(len(gpu.ask("RetiredPages", cause)))),
        ("retired_pagelist", lambda gpu: " ".join(f"0x{page:016x}" for page in gpu.ask("RetiredPages", cause))),
    ]


def power(scope: int) -> Tree:
    """`power_state` is of the GPU for the module as well."""
    return [
        ("power_state", performance_state),
        ("average_power_draw", watts(POWER_AVERAGE, scope)),
        ("instant_power_draw", watts(POWER_INSTANT, scope)),
        ("current_power_limit", watts(POWER_CURRENT, scope)),
        ("requested_power_limit", watts(POWER_REQUESTED, scope)),
        ("default_power_limit", watts(POWER_DEFAULT, scope)),
        ("min_power_limit", watts(POWER_MIN, scope)),
        ("max_power_limit", watts(POWER_MAX, scope)),
    ]


IDENTITY: Tree = [
    ("product_name", plain("Name")),
    ("product_brand", named("Brand", BRANDS)),
    ("product_architecture", named("Architecture", ARCHITECTURES)),
    ("display_mode", lambda _gpu: "Requested functionality has been deprecated"),
    ("display_attached", named("DisplayMode", NO_YES)),
    ("display_active", named("DisplayActive", OFF_ON)),
    ("persistence_mode", named("PersistenceMode", OFF_ON)),
    ("addressing_mode", named("AddressingMode", ADDRESSING)),
    ("mig_mode", [("current_mig", pair("MigMode", 0)), ("pending_mig", pair("MigMode", 1))]),
    ("mig_devices", lambda _gpu: "None"),
    ("accounting_mode", named("AccountingMode", OFF_ON)),
    ("accounting_mode_buffer_size", plain("AccountingBufferSize")),
    ("driver_model", [("current_dm", nothing), ("pending_dm", nothing)]),
    ("serial", plain("Serial")),
    ("uuid", plain("UUID")),
    ("pdi", pdi),
    ("minor_number", plain("MinorNumber")),
    ("vbios_version", plain("VbiosVersion")),
    ("multigpu_board", named("MultiGpuBoard", NO_YES)),
    ("board_id", board_id),
    ("board_part_number", plain("BoardPartNumber")),
    ("gpu_part_number", nothing),
    ("gpu_fru_part_number", nothing),
    (
        "platformInfo",
        [
            ("chassis_serial_number", platform("chassisSerialNumber")),
            ("slot_number", platform("slotNumber")),
            ("tray_index", platform("trayIndex")),
            ("host_id", platform("hostId")),
            ("peer_type", platform("peerType")),
            ("module_id", lambda gpu: str(gpu.ask("ModuleId"))),
            ("gpu_fabric_guid", platform("ibGuid")),
        ],
    ),
    (
        "inforom_version",
        [
            ("img_version", plain("InforomImageVersion")),
            ("oem_object", plain("InforomVersion", pynvml.NVML_INFOROM_OEM)),
            ("ecc_object", plain("InforomVersion", pynvml.NVML_INFOROM_ECC)),
            ("pwr_object", plain("InforomVersion", pynvml.NVML_INFOROM_POWER)),
        ],
    ),
    (
        "inforom_bbx_flush",
        [
            ("latest_timestamp", lambda gpu: str(gpu.ask("LastBBXFlushTime")[0])),
            ("latest_duration", lambda gpu: f"{gpu.ask('LastBBXFlushTime')[1]} us"),
        ],
    ),
    (
        "gpu_operation_mode",
        [
            ("current_gom", pair("GpuOperationMode", 0, ("All On", "Compute", "Low DP"))),
            ("pending_gom", pair("GpuOperationMode", 1, ("All On", "Compute", "Low DP"))),
        ],
    ),
    ("c2c_mode", lambda gpu: OFF_ON[gpu.ask("C2cModeInfoV").isC2cEnabled]),
    (
        "gpu_virtualization_mode",
        [
            ("virtualization_mode", named("VirtualizationMode", VIRTUALIZATION)),
            ("host_vgpu_mode", named("HostVgpuMode", ("Non SR-IOV", "SR-IOV"))),
            ("vgpu_heterogeneous_mode", nothing),
        ],
    ),
    ("gpu_recovery_action", lambda gpu: RECOVERY.get(gpu.field(RECOVERY_ACTION), "Unknown")),
    ("gsp_firmware_version", gsp_firmware),
    ("ibmnpu", [("relaxed_ordering_mode", nothing)]),
]
CLOCKS: Tree = [
    (
        "clocks",
        [
            ("graphics_clock", mhz("ClockInfo", pynvml.NVML_CLOCK_GRAPHICS)),
            ("sm_clock", mhz("ClockInfo", pynvml.NVML_CLOCK_SM)),
            ("mem_clock", mhz("ClockInfo", pynvml.NVML_CLOCK_MEM)),
            ("video_clock", mhz("ClockInfo", pynvml.NVML_CLOCK_VIDEO)),
        ],
    ),
    (
        "applications_clocks",
        [
            ("graphics_clock", mhz("ApplicationsClock", pynvml.NVML_CLOCK_GRAPHICS)),
            ("mem_clock", mhz("ApplicationsClock", pynvml.NVML_CLOCK_MEM)),
        ],
    ),
    (
        "default_applications_clocks",
        [
            ("graphics_clock", mhz("DefaultApplicationsClock", pynvml.NVML_CLOCK_GRAPHICS)),
            ("mem_clock", mhz("DefaultApplicationsClock", pynvml.NVML_CLOCK_MEM)),
        ],
    ),
    ("deferred_clocks", [("mem_clock", nothing)]),
    (
        "max_clocks",
        [
            ("graphics_clock", mhz("MaxClockInfo", pynvml.NVML_CLOCK_GRAPHICS)),
            ("sm_clock", mhz("MaxClockInfo", pynvml.NVML_CLOCK_SM)),
            ("mem_clock", mhz("MaxClockInfo", pynvml.NVML_CLOCK_MEM)),
            ("video_clock", mhz("MaxClockInfo", pynvml.NVML_CLOCK_VIDEO)),
        ],
    ),
    (
        "max_customer_boost_clocks",
        [("graphics_clock", mhz("MaxCustomerBoostClock", pynvml.NVML_CLOCK_GRAPHICS))],
    ),
    (
        "clock_policy",
        [
            ("auto_boost", pair("AutoBoostedClocksEnabled", 0)),
            ("auto_boost_default", pair("AutoBoostedClocksEnabled", 1)),
        ],
    ),
]
ECC: Tree = [
    ("ecc_mode", [("current_ecc", pair("EccMode", 0)), ("pending_ecc", pair("EccMode", 1))]),
    (
        "ecc_errors",
        [
            ("volatile", ecc_errors("volatile", pynvml.NVML_VOLATILE_ECC)),
            (
                "aggregate",
                [
                    *ecc_errors("aggregate", pynvml.NVML_AGGREGATE_ECC),
                    (
                        "sram_threshold_exceeded",
                        answer("SramEccErrorStatus", "EccSramErrorStatus_v1", "bThresholdExceeded"),
                    ),
                ],
            ),
            (
                "aggregate_uncorrectable_sram_sources",
                [
                    ("sram_l2", sram_source("L2")),
                    ("sram_sm", sram_source("Sm")),
                    ("sram_microcontroller", sram_source("Mcu")),
                    ("sram_pcie", sram_source("Pcie")),
                    ("sram_other", sram_source("Other")),
                ],
            ),
            ("channel_repair_pending", pair("RepairStatus", 0, NO_YES)),
            ("tpc_repair_pending", pair("RepairStatus", 1, NO_YES)),
            ("unrepairable_memory", named("UnrepairableMemoryFlag_v1", NO_YES)),
        ],
    ),
    (
        "retired_pages",
        [
            (
                "multiple_single_bit_retirement",
                retired(pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS),
            ),
            ("double_bit_retirement", retired(pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR)),
            ("pending_blacklist", retired_pending),
            ("pending_retirement", retired_pending),
        ],
    ),
    (
        "remapped_rows",
        [
            ("remapped_row_corr", remapped(0)),
            ("remapped_row_corr_inactive", field(REMAPPED_CORRECTABLE_INACTIVE)),
            ("remapped_row_unc", remapped(1)),
            ("remapped_row_unc_inactive", field(REMAPPED_UNCORRECTABLE_INACTIVE)),
            ("remapped_row_pending", remapped_answer(2)),
            ("remapped_row_failure", remapped_answer(3)),
            (
                "row_remapper_histogram",
                [
                    (f"row_remapper_histogram_{level}", banks(level))
                    for level in ("max", "high", "partial", "low", "none")
                ],
            ),
        ],
    ),
]
TEMPERATURE: Tree = [
    ("gpu_temp", degrees("TemperatureV", pynvml.NVML_TEMPERATURE_GPU)),
    ("gpu_temp_tlimit", degrees("MarginTemperature")),
    ("gpu_temp_max_tlimit_threshold", field(TLIMIT_SHUTDOWN, " C")),
    ("gpu_temp_slow_tlimit_threshold", field(TLIMIT_SLOWDOWN, " C")),
    ("gpu_temp_max_gpu_tlimit_threshold", field(TLIMIT_GPU_MAX, " C")),
    ("gpu_target_temperature", degrees("TemperatureThreshold", pynvml.NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_CURR)),
    ("memory_temp", field(MEMORY_TEMPERATURE, " C")),
    ("gpu_temp_max_mem_tlimit_threshold", field(TLIMIT_MEM_MAX, " C")),
]
FABRIC: Tree = [
    ("state", lambda gpu: FABRIC_STATES.get(fabric_of(gpu).state, "Unknown")),
    ("status", fabric(lambda info: "Success" if info.status == 0 else "Unknown Error")),
    ("cliqueId", fabric(lambda info: str(info.cliqueId))),
    ("clusterUuid", fabric(fabric_uuid)),
    (
        "health",
        [
            ("summary", fabric(lambda info: FABRIC_SUMMARIES.get(info.healthSummary, NOT_AVAILABLE))),
            ("bandwidth", fabric_bits(0, 0x3, {1: "Degraded", 2: "Full"})),
            ("route_recovery_in_progress", fabric_truth(2)),
            ("route_unhealthy", fabric_truth(4)),
            ("access_timeout_recovery", fabric_truth(6)),
            ("incorrect_configuration", fabric_bits(8, 0xF, CONFIGURATIONS)),
            ("partition_assigned", fabric_truth(12)),
        ],
    ),
]
NO_SESSIONS = ("session_count", "average_fps", "average_latency")
GPU: Tree = [
    *IDENTITY,
    ("pci", PCI),
    ("fan_speed", lambda gpu: f"{gpu.ask('FanSpeed')} %"),
    ("performance_state", performance_state),
    ("clocks_event_reasons", [(f"clocks_event_reason_{name}", reason(bit)) for name, bit in REASONS.items()]),
    (
        "clocks_event_reasons_counters",
        [(f"clocks_event_reasons_counters_{name}", reason_time(number)) for name, number in REASON_COUNTERS.items()],
    ),
    ("sparse_operation_mode", nothing),
    (
        "fb_memory_usage",
        [(part, mib("MemoryInfo", part, pynvml.nvmlMemory_v2)) for part in ("total", "reserved", "used", "free")],
    ),
    (
        "bar1_memory_usage",
        [
            ("total", mib("BAR1MemoryInfo", "bar1Total")),
            ("used", mib("BAR1MemoryInfo", "bar1Used")),
            ("free", bar1_free),
        ],
    ),
    (
        "cc_protected_memory_usage",
        [(part, mib("ConfComputeProtectedMemoryUsage", part)) for part in ("total", "used", "free")],
    ),
    ("compute_mode", named("ComputeMode", COMPUTE_MODES)),
    (
        "utilization",
        [
            ("gpu_util", lambda gpu: f"{gpu.ask('UtilizationRates').gpu} %"),
            ("memory_util", lambda gpu: f"{gpu.ask('UtilizationRates').memory} %"),
            ("encoder_util", percent("EncoderUtilization")),
            ("decoder_util", percent("DecoderUtilization")),
            ("jpeg_util", percent("JpgUtilization")),
            ("ofa_util", percent("OfaUtilization")),
        ],
    ),
    (
        "encoder_stats",
        [
            (name, lambda gpu, place=place: str(gpu.ask("EncoderStats")[place]))
            for place, name in enumerate(NO_SESSIONS)
        ],
    ),
    (
        "fbc_stats",
        [
            (name, lambda gpu, part=part: str(getattr(gpu.ask("FBCStats"), part)))
            for name, part in zip(NO_SESSIONS, ("sessionsCount", "averageFPS", "averageLatency"))
        ],
    ),
    (
        "dram_encryption_mode",
        [
            ("current_dram_encryption", pair("DramEncryptionMode", 0)),
            ("pending_dram_encryption", pair("DramEncryptionMode", 1)),
        ],
    ),
    *ECC,
    ("temperature", TEMPERATURE),
    (
        "supported_gpu_target_temp",
        [
            ("gpu_target_temp_min", degrees("TemperatureThreshold", pynvml.NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MIN)),
            ("gpu_target_temp_max", degrees("TemperatureThreshold", pynvml.NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MAX)),
        ],
    ),
    ("gpu_power_readings", power(SCOPE_GPU)),
    (
        "gpu_memory_power_readings",
        [
            ("average_power_draw", watts(POWER_AVERAGE, SCOPE_MEMORY)),
            ("instant_power_draw", watts(POWER_INSTANT, SCOPE_MEMORY)),
        ],
    ),
    ("module_power_readings", power(SCOPE_MODULE)),
    ("power_smoothing", nothing),
    (
        "power_profiles",
        [("power_profile_requested_profiles", nothing), ("power_profile_enforced_profiles", nothing)],
    ),
    *CLOCKS,
    ("fabric", FABRIC),
]
