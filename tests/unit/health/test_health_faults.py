"""The whole catalogue of faults: each is ranked first by its own check, whatever else is seen only because of it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from faults_support import catalogue
from health_support import HealthHost, process_of
from rackserve.health.catalogue import BY_ID
from rackserve.simulated.effects import edits_of
from rackserve.simulated.records import Entry
from rackserve.simulated.values import Machine, resolve

# Fault to the check that is its own.
OWN = {
    "xid": "gpu-xid",
    "ecc-correctable": "gpu-ecc-correctable",
    "ecc-uncorrectable": "gpu-ecc-uncorrectable",
    "remap-pending": "gpu-remap-pending",
    "remap-failed": "gpu-remap-failed",
    "gpu-off-bus": "gpu-lost",
    "nvlink-down": "nvlink-inactive",
    "nvlink-errors": "nvlink-errors",
    "fabric-not-ready": "fabric-state",
    "fabric-manager-absent": "fabric-manager",
    "fabric-manager-version": "fabric-manager-version",
    "driver-mismatch": "driver-versions",
    "clocks-throttled": "gpu-throttle",
    "pcie-narrower": "gpu-pcie-width",
    "hca-down": "rdma-port-down",
    "hca-init": "rdma-subnet-manager",
    "hca-slow": "rdma-rate",
    "hca-flapping": "rdma-link-flap",
    "gid-missing": "rdma-gid",
    "gpu-absent": "gpu-count",
    "gpu-model-differs": "gpu-model",
    "gpu-memory-small": "gpu-memory",
    "vbios-differs": "gpu-vbios",
    "inforom-corrupt": "gpu-inforom",
    "ecc-off": "gpu-ecc-mode",
    "ecc-pending": "gpu-ecc-pending",
    "sram-worn": "gpu-sram-threshold",
    "remap-exhausted": "gpu-remap-exhausted",
    "repair-pending": "gpu-repair-pending",
    "recovery-action": "gpu-recovery-action",
    "mig-on": "gpu-mig",
    "compute-mode": "gpu-compute-mode",
    "gpu-hot": "gpu-temperature",
    "gpu-memory-hot": "gpu-memory-temperature",
    "power-limit-low": "gpu-power-limit",
    "application-clocks-low": "gpu-application-clocks",
    "pcie-replays": "gpu-pcie-replay",
    "fabric-failed": "fabric-state",
    "persistenced-stopped": "driver-daemons",
    "hca-off-bus": "rdma-lost",
    "hca-pcie-narrower": "rdma-pcie-width",
    "hca-errors": "rdma-errors",
    "hca-retransmits": "rdma-transport",
    "hca-congested": "rdma-discards",
    "hca-firmware": "rdma-firmware",
    "hca-ethernet": "rdma-link-layer",
    "hca-mtu": "rdma-mtu",
    "nvme-dead": "disk-nvme",
    "disk-read-only": "disk-read-only",
    "foreign-process": "gpu-foreign-process",
    "orphan-memory": "gpu-orphan-memory",
    "disk-full": "disk-space",
    "kernel-log": "kernel-other",
}
VARIANTS: list[tuple[str, dict[str, Any], str]] = [
    *(("xid", {"gpu": number % 8, "xid": number}, "gpu-xid") for number in
      (8, 13, 43, 45, 46, 48, 62, 63, 64, 74, 79, 92, 94, 95, 109, 110, 119, 120, 121, 136, 137, 140, 143, 154, 777)),
    ("ecc-uncorrectable", {"gpu": 1, "location": "sram", "count": 3}, "gpu-ecc-uncorrectable"),
    ("ecc-correctable", {"gpu": 6, "location": "sram"}, "gpu-ecc-correctable"),
    ("nvlink-errors", {"gpu": 2, "link": 17, "error": "crc_flit"}, "nvlink-errors"),
    ("nvlink-errors", {"gpu": 3, "link": 7, "error": "recovery"}, "nvlink-errors"),
    ("fabric-not-ready", {"gpu": 4, "fabric_state": "not-started"}, "fabric-state"),
    *(("clocks-throttled", {"gpu": 5, "reason": reason}, "gpu-throttle") for reason in
      ("hw-slowdown", "hw-power-brake", "sw-thermal", "sw-power-cap")),
    ("pcie-narrower", {"gpu": 6, "width": 4, "generation": 3}, "gpu-pcie-width"),
    ("hca-down", {"hca": "mlx5_1", "phys_state": "disabled"}, "rdma-port-down"),
    ("hca-slow", {"hca": "mlx5_1", "rate_gbps": 40}, "rdma-rate"),
    *(("kernel-log", {"message": message}, f"kernel-{check}") for message, check in
      (("aer", "aer"), ("mce", "mce"), ("hung-task", "hung-task"), ("mlx5-power", "mlx5"), ("sxid", "sxid"))),
    ("kernel-log", {"line": "Out of memory: Killed process 4242 (python3)"}, "kernel-oom"),
    ("kernel-log", {"line": "nvme nvme1: I/O 12 QID 4 timeout, reset controller"}, "kernel-storage"),
    ("recovery-action", {"gpu": 7, "action": "reset"}, "gpu-recovery-action"),
]  # fmt: skip
CASES = [*((name, {}, check) for name, check in OWN.items()), *VARIANTS]


def title(case: Any) -> str | None:
    return case if isinstance(case, str) else "-".join(map(str, case.values())) or "defaults"


def let_counters_grow(host: HealthHost, name: str, parameters: dict[str, Any]) -> None:
    """Half a minute of what a booted host's counters do."""
    machine, fault = Machine(host.root), catalogue()[name]
    entry = Entry(name, resolve(machine, fault, parameters))
    for counters in edits_of(machine, fault, entry.parameters, {"pid": "1", "module.version": "1.0"}).counters():
        for path, step in counters.files:
            host.grow(path, step * 6)
    host.now_s += 30


def test_the_catalogue_has_forty_faults_and_each_has_a_check_of_its_own() -> None:
    assert len(catalogue()) >= 40
    assert set(OWN) == set(catalogue())
    assert {check for _, _, check in CASES} <= set(BY_ID)


def test_a_healthy_host_has_no_finding_and_nothing_unknown(host: HealthHost) -> None:
    result = host.check()
    assert (result["findings"], result["unknown"], result["exit_code"]) == ([], [], 0)
    again = host.check(result["kept"])
    assert (again["findings"], again["unknown"]) == ([], [])


@pytest.mark.parametrize(("name", "parameters", "own"), CASES, ids=title)
def test_a_fault_is_ranked_first_by_its_own_check(
    host: HealthHost, name: str, parameters: dict[str, Any], own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.systemd, "pid", lambda _unit: str(os.getpid()), raising=False)
    process_of(host, os.getpid(), "train", "/system.slice/train.service")
    before = host.check()["kept"]
    host.now_s += 60
    host.inject(name, **parameters)
    let_counters_grow(host, name, parameters)
    result = host.check(before)
    findings = result["findings"]
    assert findings, f"nothing found; unknown: {result['unknown']}"
    assert (findings[0]["id"], findings[0]["caused_by"]) == (own, ""), findings
    roots = {finding["id"] for finding in findings if not finding["caused_by"]}
    assert roots == {own}, findings
    assert all(entry["caused_by"] == own for entry in result["unknown"]), result["unknown"]
    assert "{" not in findings[0]["fix"].replace("{1,2}", ""), findings[0]["fix"]


@pytest.mark.parametrize("name", [name for name in OWN if name not in ("kernel-log", "foreign-process", "xid")])
def test_a_fault_that_is_taken_off_is_seen_no_more(host: HealthHost, name: str) -> None:
    host.inject(name)
    host.mend()
    assert host.check()["findings"] == []
