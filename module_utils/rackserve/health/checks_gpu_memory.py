"""Checks of GPU memory: ECC, remapped rows, repairs."""

from __future__ import annotations

from .check import CRITICAL, INFO, WARNING, Check, NotHere, Problem
from .checks_gpu import LOST, each
from .gpus import Gpu
from .look import Look

_CORRECTED = 50
_SRAM_CORRECTED = 10_000
_REMAPS = 512


def _mode(gpu: Gpu, _: Look) -> list[Problem]:
    mode = gpu.get("ecc")
    return [Problem(gpu.subject, "ECC is off")] if mode and not mode[0] else []


def _pending(gpu: Gpu, _: Look) -> list[Problem]:
    mode = gpu.get("ecc")
    changes = mode and mode[0] != mode[1]
    return [Problem(gpu.subject, f"ECC becomes {'on' if mode[1] else 'off'} at the next reboot")] if changes else []


def _uncorrected(gpu: Gpu, _: Look) -> list[Problem]:
    counts = {"device memory": gpu.get("dram_uncorrected") or 0, "SRAM": gpu.get("sram_uncorrected") or 0}
    said = ", ".join(f"{count} in {where}" for where, count in counts.items() if count)
    return [Problem(gpu.subject, f"{said}, since the driver was loaded")] if said else []


def _corrected(gpu: Gpu, _: Look) -> list[Problem]:
    counts = {"device memory": gpu.get("dram_corrected") or 0, "SRAM": gpu.get("sram_corrected") or 0}
    said = ", ".join(f"{count} in {where}" for where, count in counts.items() if count)
    severity = WARNING if counts["SRAM"] > _SRAM_CORRECTED else INFO
    return [Problem(gpu.subject, said, severity)] if sum(counts.values()) >= _CORRECTED else []


def _exceeded(gpu: Gpu, _: Look) -> list[Problem]:
    return [Problem(gpu.subject, "the driver says that the threshold is exceeded")] if gpu.get("sram_exceeded") else []


def _remap_failed(gpu: Gpu, _: Look) -> list[Problem]:
    rows = gpu.get("remapped")
    return [Problem(gpu.subject, "a row could not be remapped")] if rows and rows[3] else []


def _remap_pending(gpu: Gpu, _: Look) -> list[Problem]:
    rows = gpu.get("remapped")
    return [Problem(gpu.subject, "a row is remapped at the next reset")] if rows and rows[2] else []


def _remap_exhausted(gpu: Gpu, _: Look) -> list[Problem]:
    rows, banks = gpu.get("remapped"), gpu.get("banks")
    if rows and rows[1] >= _REMAPS:
        return [Problem(gpu.subject, f"{rows[1]} rows remapped for uncorrectable errors")]
    return [Problem(gpu.subject, f"{banks[4]} banks have no spare row left")] if banks and banks[4] else []


def _repair(gpu: Gpu, _: Look) -> list[Problem]:
    pending = gpu.get("repair")
    if pending is None:
        return []
    names = [name for name, on in zip(("a memory channel", "a TPC"), pending) if on]
    return [Problem(gpu.subject, f"{' and '.join(names)} waits for its repair")] if names else []


def _ecc_wanted(look: Look) -> list[Problem]:
    if (look.expect.get("gpus") or {}).get("ecc") is False:
        raise NotHere("the plan turns ECC off (cluster.gpu_settings.ecc)")
    return each(_mode)(look)


CHECKS = (
    Check(
        "gpu-ecc-mode", WARNING, "off, unless the plan says so", "nccl-ib 5; imbue: ECC on",
        "A flipped bit in weights or caches changes answers, and nobody sees it.",
        "drain the host, nvidia-smi -i {gpu} -e 1, reboot", _ecc_wanted, LOST,
    ),
    Check(
        "gpu-ecc-pending", INFO, "current and pending mode differ", "nccl-ib 5: no pending change",
        "The next reboot changes memory size and protection of the GPU.",
        "nvidia-smi -i {gpu} -e 0|1 takes it back; or reboot the drained host", each(_pending), ("gpu-ecc-mode", *LOST),
    ),
    Check(
        "gpu-ecc-uncorrectable", CRITICAL, "1 or more since the driver was loaded", "nccl-ib 5; Azure AzNHC; OCI",
        "Data was lost: the engine that had it was ended, or computed with it.",
        "drain the host, reset {subject} (nvidia-smi --gpu-reset -i {gpu}); at its second time replace it",
        each(_uncorrected), ("gpu-remap-failed", *LOST),
    ),
    Check(
        "gpu-ecc-correctable", INFO, "50 or more since the driver was loaded; SRAM over 10000 is a warning",
        "Azure AzNHC: SRAM 10000; rackserve: 50", "Corrected errors come before uncorrectable ones.",
        "none now; watch it grow. SRAM: plan the replacement of {subject}", each(_corrected), LOST,
    ),
    Check(
        "gpu-sram-threshold", CRITICAL, "the driver's own flag", "NVML SramEccErrorStatus",
        "Caches and registers have no spare rows: the GPU is worn out.",
        "drain the host and replace {subject}", each(_exceeded), LOST,
    ),
    Check(
        "gpu-remap-failed", CRITICAL, "any", "nccl-ib 5; OCI: terminate",
        "The row stays in use and fails again.", "drain the host and replace {subject}", each(_remap_failed), LOST,
    ),
    Check(
        "gpu-remap-pending", WARNING, "any", "nccl-ib 5; OCI: reboot",
        "Until then the bad row stays in use.",
        "at the next drain: nvidia-smi --gpu-reset -i {gpu}, or reboot", each(_remap_pending),
        ("gpu-remap-failed", *LOST),
    ),
    Check(
        "gpu-remap-exhausted", WARNING, "512 rows, or a bank without a spare row", "DCGM; Azure: over 512",
        "The next bad row cannot be replaced.", "plan the replacement of {subject}", each(_remap_exhausted),
        ("gpu-remap-failed", *LOST),
    ),
    Check(
        "gpu-repair-pending", WARNING, "any", "NVML RepairStatus", "Part of the GPU is off until it is repaired.",
        "at the next drain: reset {subject}, or reboot", each(_repair), LOST,
    ),
)  # fmt: skip
