"""Checks of the kernel log beside Xids."""

from __future__ import annotations

from typing import Callable

from .check import CRITICAL, HOST, INFO, WARNING, Check, Problem
from .kernel import lines_of, unexplained
from .look import Look

_RECENT_S = 600.0
_SHOWN = 160


def _of(check: str) -> Callable[[Look], list[Problem]]:
    def judge(look: Look) -> list[Problem]:
        lines = lines_of(look.lines(), check)
        if not lines:
            return []
        times = f"{len(lines)} lines, last {lines[-1].age_s:.0f} s ago"
        return [Problem(HOST, f"{times}: {lines[-1].text[:_SHOWN]}")]

    return judge


def _other(look: Look) -> list[Problem]:
    lines = unexplained(look.lines(), _RECENT_S)
    if not lines:
        return []
    return [Problem(HOST, f"{len(lines)} within {_RECENT_S:.0f} s, last: {lines[-1].text[:_SHOWN]}")]


CHECKS = (
    Check(
        "kernel-sxid", CRITICAL, "any since boot", "NVIDIA Fabric Manager guide: SXid", "An NVSwitch reports an error.",
        "drain the host; look the number up in the Fabric Manager guide; reset all GPUs, or reboot",
        _of("kernel-sxid"), ("nvlink-inactive",),
    ),
    Check(
        "kernel-mce", CRITICAL, "any since boot", "imbue; nccl-ib 5", "CPU or memory reported a hardware error.",
        "ras-mc-ctl --errors or mcelog; ipmitool sel list; replace the part that they name", _of("kernel-mce"),
        ("memory-ecc",),
    ),
    Check(
        "kernel-aer", CRITICAL, "uncorrected, within 24 h", "nccl-ib 5", "A PCIe device lost or damaged a transfer.",
        "lspci -vv -s <address of the line>; drain the host, reseat the card", _of("kernel-aer"),
        ("gpu-lost", "gpu-pcie-width", "rdma-lost", "rdma-pcie-width"),
    ),
    Check(
        "kernel-hung-task", WARNING, "within 24 h", "nccl-ib 5",
        "A process waits in the kernel, for a disk or a driver.",
        "journalctl -k -g 'blocked for more' shows where; the driver: drain and reboot", _of("kernel-hung-task"),
        ("disk-read-only", "disk-nvme", "gpu-lost", "kernel-storage"),
    ),
    Check(
        "kernel-mlx5", WARNING, "any since boot", "gpud; imbue",
        "An adapter has too little power, heat, or PCIe lanes.",
        "power: the slot's auxiliary cable and BIOS setting; heat: fans; 'limited by': reseat the card",
        _of("kernel-mlx5"), ("rdma-pcie-width", "rdma-lost"),
    ),
    Check(
        "kernel-storage", CRITICAL, "within 24 h", "Meta gcm: IO errors", "A disk or file system reported an error.",
        "journalctl -k -g 'I/O error'; smartctl -a; drain the host and replace the disk", _of("kernel-storage"),
        ("disk-nvme", "disk-read-only"),
    ),
    Check(
        "kernel-oom", WARNING, "within 24 h", "Linux", "The kernel ended a process for want of memory.",
        "journalctl -k -g 'Out of memory' names it; give it a limit, or less to do", _of("kernel-oom"),
        ("memory-available", "memory-installed"),
    ),
    Check(
        "kernel-other", INFO, "warnings and worse of the last 10 minutes that no check knows", "imbue: unknown lines",
        "New kinds of faults show here first.", "read it: journalctl -k -p warning --since -10min", _other,
        ("driver-versions",),
    ),
)  # fmt: skip
