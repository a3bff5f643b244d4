"""Findings of the health report as causes, and lines of the kernel log that its checks know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Callable

from ..health import kernel as log
from ..health.catalogue import BY_ID, CHECKS
from ..health.check import CRITICAL, FAST, INFO
from .case import KERNEL, Case
from .rule import DEGRADED, DOWN, HEALTH, NOTICE, PLAY, SERVICE_SYMPTOMS, UNIT_SYMPTOMS, Hit, Rule

# Told by rules of their own: units by rules_unit, Xids by rules_xid; kernel lines within the time that was asked for.
SKIPPED = ("services", "gpu-xid", *(known.check for known in log.KNOWN), "kernel-other")
_CATEGORIES = {
    "nvlink": "fabric", "fabric": "fabric", "gpu": "hardware", "rdma": "network", "disk": "storage", "memory": "memory",
    "time": "time", "driver": "driver", "engine": "process", "cpu": "configuration", "kernel": "kernel",
    "weights": "storage",
}  # fmt: skip
_OWN = {
    "gpu-foreign-process": "process", "gpu-orphan-memory": "memory", "gpu-persistence": "configuration",
    "gpu-mig": "configuration", "gpu-compute-mode": "configuration", "gpu-power-limit": "configuration",
    "gpu-application-clocks": "configuration", "gpu-ecc-mode": "configuration", "gpu-ecc-pending": "configuration",
    "kernel-mce": "hardware", "kernel-sxid": "fabric", "kernel-storage": "storage", "kernel-oom": "memory",
}  # fmt: skip
# What a finding explains beyond the health report's own causes.
_HIDES: dict[str, tuple[str, ...]] = {
    "driver-versions": ("cuda-init", "gpu-no-device"),
    "fabric-manager": ("fabric-manager-missing", "cuda-init"),
    "fabric-manager-version": ("fabric-manager-missing", "cuda-init"),
    "fabric-state": ("fabric-manager-missing", "cuda-init"),
    "gpu-lost": ("xid-79", "xid-74", "xid-119", "xid-154", "gpu-no-device", "kernel-aer"),
    "gpu-count": ("gpu-no-device",),
    "nvlink-inactive": ("xid-74", "kernel-sxid"),
    "gpu-ecc-uncorrectable": ("xid-48", "xid-63", "xid-94"),
    "gpu-remap-failed": ("xid-64", "xid-63", "xid-48"),
    "gpu-remap-pending": ("xid-63",),
    "gpu-recovery-action": ("xid-154",),
    "gpu-foreign-process": ("gpu-oom-taken", "gpu-oom"),
    "gpu-orphan-memory": ("gpu-oom-taken", "gpu-oom"),
    "rdma-port-down": ("nccl-ib-missing", "nccl-ib-transport"),
    "rdma-lost": ("nccl-ib-missing", "nccl-ib-transport", "kernel-mlx5"),
    "rdma-gid": ("nccl-ib-transport",),
    "rdma-mtu": ("nccl-ib-transport",),
    "disk-nvme": ("kernel-storage",),
    "disk-read-only": ("kernel-storage", "engine-read-only", "read-only"),
    "disk-space": ("engine-disk-full",),
    "memory-available": ("kernel-oom",),
    "time-sync": (),
}
# Hold up every engine of the host.
_STOPS = {
    "driver-versions", "fabric-manager", "fabric-manager-version", "fabric-state", "gpu-lost", "gpu-count",
    "gpu-memory", "disk-read-only", "disk-nvme", "gpu-foreign-process", "gpu-orphan-memory", "disk-space",
}  # fmt: skip
_TOLD = {one.id for one in CHECKS if one.level == FAST and one.id not in ("services", "gpu-xid", "kernel-other")}
_PROVEN_BY = {"driver-versions": "prove-driver.yml", "fabric-manager": "prove-driver.yml",
              "fabric-manager-version": "prove-driver.yml", "driver-daemons": "prove-driver.yml"}  # fmt: skip


def _category(check: str) -> str:
    return _OWN.get(check) or _CATEGORIES[check.partition("-")[0]]


def _reported(check: str) -> Callable[[Case], Iterable[Hit]]:
    def look(case: Case) -> Iterator[Hit]:
        for host in case.hosts.values():
            for one in host.reading("health", {}).get("findings") or []:
                if one.get("id") == check and not one.get("caused_by"):
                    subject = str(one.get("subject"))
                    text = f"{subject}: {one.get('seen')}"
                    values = {"subject": subject, "seen": str(one.get("seen")), "fix": str(one.get("fix"))}
                    yield Hit(host.name, [host.line(f"health {check}", text)], values=values)

    return look


def _logged(check: str) -> Callable[[Case], Iterable[Hit]]:
    known = next(one for one in log.KNOWN if one.check == check)

    def look(case: Case) -> Iterator[Hit]:
        for source in case.sources((KERNEL,)):
            lines = [line for line in source.lines() if known.pattern.search(line.text)]
            if lines:
                yield Hit(source.host, [lines[0], *lines[-1:]][: len(lines)], values={"subject": "host"})

    return look


def _fix(text: str) -> str:
    return text.replace("{subject}", "what is named").replace("{gpu}", "<index>").replace("{hca}", "<adapter>")


def _hides(check: str) -> tuple[str, ...]:
    follow = tuple(other.id for other in CHECKS if check in other.caused_by and other.id in _TOLD)
    symptoms = (*UNIT_SYMPTOMS, *SERVICE_SYMPTOMS) if check in _STOPS else ()
    return (*_HIDES.get(check, ()), *follow, *symptoms)


def _rule(check: str) -> Rule:
    one = BY_ID[check]
    impact = NOTICE if one.severity == INFO else DOWN if check in _STOPS else DEGRADED
    play = PLAY + _PROVEN_BY[check] + " --limit {host}" if check in _PROVEN_BY else HEALTH
    return Rule(
        check, _category(check), impact, 0.95 if one.severity == CRITICAL else 0.88, "{subject}: {seen}", one.why,
        "{fix}", play, _reported(check), _hides(check),
    )  # fmt: skip


def _kernel_rule(check: str) -> Rule:
    one = BY_ID[check]
    impact = DEGRADED if one.severity == CRITICAL else NOTICE
    return Rule(
        check, _category(check), impact, 0.8, "the kernel log has " + check.partition("-")[2] + " lines", one.why,
        _fix(one.fix), HEALTH, _logged(check), _hides(check),
    )  # fmt: skip


RULES = (
    *(_rule(one.id) for one in CHECKS if one.level == FAST and one.id not in SKIPPED),
    *(_kernel_rule(known.check) for known in log.KNOWN),
)
