"""Xids of Hopper: how bad each is, and what to do. Source: NVIDIA's Xid catalogue of 2025-10, as gpud carries it."""

from __future__ import annotations

from typing import NamedTuple

from .check import CRITICAL, INFO, WARNING

_DAY_S, _HOUR_S = 86400.0, 3600.0
RESET = (
    "drain the host (playbooks/roll-serving.yml), stop what uses {gpu}, nvidia-smi --gpu-reset -i {index}, or reboot"
)
REBOOT = "drain the host and reboot it; if it comes back, run dcgmi diag -r 3 and replace {gpu}"
REPLACE = "drain the host and reset {gpu}; at its second time, replace the GPU (dcgmi diag -r 3 for the vendor)"
PROGRAM = "look at the program that it names: the GPU goes on; the same Xid on many GPUs is the program's"
PENDING = "reset {gpu} at the next drain: nvidia-smi -q -i {index} -d ROW_REMAPPER says what is pending"
LINK = "drain the host and reset all GPUs of it; if it comes back, reseat or replace what nvidia-smi nvlink -e names"


class Xid(NamedTuple):
    """``within_s``: how long one counts; 0 is until the reboot. ``caused_by``: the check that sees the thing itself."""

    severity: str
    fix: str
    within_s: float = 0.0
    caused_by: tuple[str, ...] = ()


_FATAL = {
    46: RESET, 62: RESET, 95: REPLACE, 109: RESET, 110: RESET, 119: REBOOT, 120: REBOOT, 136: LINK, 143: REBOOT,
    155: LINK, 156: RESET, 158: RESET, 140: REPLACE,
}  # fmt: skip
_PROGRAMS = (8, 11, 13, 31, 32, 37, 38, 39, 40, 41, 42, 43, 44, 45, 68, 69)
_SOON = (92, 94, 121, 137, 145, 146, 147, 148, 149, 150)

XIDS: dict[int, Xid] = {
    **{number: Xid(CRITICAL, fix) for number, fix in _FATAL.items()},
    **{number: Xid(INFO, PROGRAM, _HOUR_S) for number in _PROGRAMS},
    **{number: Xid(WARNING, PENDING, _DAY_S) for number in _SOON},
    48: Xid(CRITICAL, REPLACE, caused_by=("gpu-ecc-uncorrectable",)),
    63: Xid(WARNING, PENDING, caused_by=("gpu-remap-pending", "gpu-remap-failed")),
    64: Xid(CRITICAL, REPLACE, caused_by=("gpu-remap-failed",)),
    74: Xid(CRITICAL, LINK, caused_by=("nvlink-inactive",)),
    79: Xid(CRITICAL, REBOOT, caused_by=("gpu-lost", "gpu-count")),
    137: Xid(WARNING, LINK, _DAY_S),
    154: Xid(CRITICAL, "do what its line names as the recovery action", caused_by=("gpu-recovery-action",)),
}
OTHER = Xid(
    WARNING, "look it up in NVIDIA's Xid catalogue (docs.nvidia.com/deploy/xid-errors) before the next job", _DAY_S
)
