"""Every fault of the catalogue on a simulated host: read as host_evidence reads it, and named first."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from faults_support import catalogue
from health_support import HealthHost, process_of
from rackserve.diagnose import readings
from rackserve.diagnose.case import KERNEL, Case, Host, Source
from rackserve.diagnose.catalogue import RULES
from rackserve.diagnose.rank import diagnose
from rackserve.health.program import STATE
from test_health_faults import OWN, let_counters_grow

# Where a diagnosis names it otherwise than the health report.
OTHER = {
    "xid": "xid-31",
    "driver-mismatch": "driver-library-mismatch",
    "gpu-absent": "gpu-init-failed",
}
# One line that no rule knows is no cause.
NONE = ("kernel-log",)
CASES: list[tuple[str, dict[str, Any], str]] = [
    *((name, {}, OTHER.get(name, check)) for name, check in OWN.items() if name not in NONE),
    *(("xid", {"gpu": number % 8, "xid": number}, f"xid-{number}") for number in
      (13, 43, 45, 46, 48, 62, 63, 64, 74, 79, 92, 94, 95, 109, 110, 119, 120, 121, 136, 137, 140, 143, 154)),
    *(("kernel-log", {"message": message}, f"kernel-{check}") for message, check in
      (("aer", "aer"), ("mce", "mce"), ("hung-task", "hung-task"), ("mlx5-power", "mlx5"), ("sxid", "sxid"))),
    ("kernel-log", {"line": "Out of memory: Killed process 4242 (python3) total-vm:1kB"}, "host-oom"),
]  # fmt: skip


def causes(host: HealthHost) -> list[dict[str, Any]]:
    """What a diagnosis says of the host."""
    found = readings.health(host.root, host.expect, 0.0, host.tools())
    log = (host.root / "dev/kmsg").read_text("utf-8")
    source = Source("node1", "kernel.log", KERNEL, log)
    return diagnose(Case([Host("node1", [source], {"health": found})]), RULES)


@pytest.fixture
def kept(host: HealthHost, monkeypatch: pytest.MonkeyPatch) -> HealthHost:
    """The host, an hour after the last look of its timer."""
    monkeypatch.setattr(host.systemd, "pid", lambda _unit: str(os.getpid()), raising=False)
    process_of(host, os.getpid(), "train", "/system.slice/train.service")
    state = host.root / str(STATE).lstrip("/")
    state.parent.mkdir(parents=True, exist_ok=True)
    keep(host, state)
    host.now_s += 60
    return host


def keep(host: HealthHost, state: Path) -> None:
    state.write_text(json.dumps(host.check()["kept"]))


def test_a_healthy_host_names_none(kept: HealthHost) -> None:
    assert causes(kept) == []


@pytest.mark.parametrize(("name", "parameters", "cause"), CASES, ids=[f"{n}-{c}" for n, _, c in CASES])
def test_a_fault_is_named_first(kept: HealthHost, name: str, parameters: dict[str, Any], cause: str) -> None:
    kept.inject(name, **parameters)
    let_counters_grow(kept, name, parameters)
    found = causes(kept)
    assert [one["cause"] for one in found] == [cause], found


def test_every_fault_of_the_catalogue_is_here() -> None:
    assert {name for name, _, _ in CASES} == set(catalogue())
