"""What a host's GPUs say of themselves."""

from __future__ import annotations

from typing import Any, Callable

from ...preflight.findings import Finding, finding
from ..settings.nvml import GPU_IS_LOST, NvmlError
from .nvml import Nvml
from .read import read_gpu

FIELDS = (
    "uuid", "name", "serial", "vbios_version", "bus_id", "compute_capability", "memory_mib", "memory",
    "persistence_mode", "mig_mode", "performance_state", "recovery_action", "pcie", "power", "clocks",
    "supported_clocks", "ecc", "remapped_rows", "nvlinks", "fabric", "throttle_reasons", "processes", "temperatures",
)  # fmt: skip
_LOST_FIX = "see journalctl -k -g 'NVRM: Xid'; drain the host, power it off and on"
_OTHER_FIX = "see nvidia-smi -q and journalctl -k -g NVRM on this host"


def gpu_info(make_nvml: Callable[[], Nvml] = Nvml) -> dict[str, Any]:
    """Read every GPU.

    Returns {gpus, driver_version, nvml_version, cuda_version, findings}. A GPU that cannot be asked keeps its place,
    with every fact null. Raises NvmlError where there is no driver to ask: no GPUs is then not known.
    """
    nvml = make_nvml()
    gpus, findings = [], []
    for index in range(nvml.count()):
        gpu, found = _one(nvml, index)
        gpus.append(gpu)
        findings += found
    if not gpus:
        why, fix = "NVML shows no GPU", "lspci -d 10de: lists what the host has; journalctl -k -g NVRM says more"
        findings.append(finding("note", "gpu-none", "GPUs", why, fix))
    return {
        "gpus": gpus,
        "driver_version": nvml.system_text("nvmlSystemGetDriverVersion"),
        "nvml_version": nvml.system_text("nvmlSystemGetNVMLVersion"),
        "cuda_version": nvml.cuda_version(),
        "findings": findings,
    }


def _one(nvml: Nvml, index: int) -> tuple[dict[str, Any], list[Finding]]:
    where = f"GPU {index}"
    try:
        gpu, failed = read_gpu(nvml, index)
    except NvmlError as error:
        blank = {"index": index, **dict.fromkeys(FIELDS), "unread": [{"field": "gpu", "reason": str(error)}]}
        lost = error.code == GPU_IS_LOST
        code, fix = ("gpu-lost", _LOST_FIX) if lost else ("gpu-unreadable", _OTHER_FIX)
        return blank, [finding("error", code, where, f"unknown: it cannot be asked ({error})", fix)]
    if not failed:
        return gpu, []
    why = f"unknown: {failed[0]}" + (f", and {len(failed) - 1} more" if len(failed) > 1 else "")
    return gpu, [finding("warning", "gpu-unreadable", where, why, _OTHER_FIX)]
