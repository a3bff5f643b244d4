"""Whatever is put on and taken off in whatever order: the host shows what the faults that are on do, nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from faults_support import Hosts, SimulatedHost, catalogue, h20_hardware, quick
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rackserve.simulated import faults

# Faults that share keys, files and units.
POOL: list[tuple[str, dict[str, Any]]] = [
    ("pcie-narrower", {"width": 8}),
    ("pcie-narrower", {"width": 4, "generation": 3}),
    ("gpu-off-bus", {}),
    ("hca-down", {}),
    ("hca-init", {}),
    ("hca-slow", {}),
    ("hca-flapping", {}),
    ("gid-missing", {}),
    ("ecc-correctable", {"count": 1}),
    ("ecc-correctable", {"count": 10}),
    ("ecc-uncorrectable", {}),
    ("remap-pending", {}),
    ("clocks-throttled", {"reason": "sw-power-cap"}),
    ("clocks-throttled", {"reason": "hw-thermal", "sm_mhz": 900}),
    ("orphan-memory", {"used_mib": 100}),
    ("foreign-process", {}),
    ("foreign-process", {"user": "daemon"}),
    ("fabric-not-ready", {}),
    ("fabric-manager-absent", {}),
    ("fabric-manager-version", {}),
    ("driver-mismatch", {}),
]
STEPS = st.lists(
    st.tuples(st.sampled_from(["inject", "inject", "clear"]), st.integers(0, len(POOL) - 1)), min_size=1, max_size=14
)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Hosts:
    return Hosts(h20_hardware(tmp_path_factory.mktemp("machines") / "h20-8"), tmp_path_factory)


def shown(host: SimulatedHost) -> dict[str, Any]:
    """What the host shows, without our own records."""
    return {name: value for name, value in host.tree().items() if not name.endswith("faults.json")}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_the_end_depends_on_what_is_on_only(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, int]]
) -> None:
    quick(monkeypatch)
    host = hosts.fresh()
    healthy, on = shown(host), []
    for verb, number in steps:
        name, parameters = POOL[number]
        if verb == "inject":
            assert host.inject(name, **parameters)["changed"] == (number not in on)
            on += [number] if number not in on else []
        else:
            # Only this one: all its parameters are given.
            full = faults.resolve(faults.Machine(host.root), faults.find(catalogue(), name), parameters)
            assert host.clear(name, **full)["changed"] == (number in on)
            on = [other for other in on if other != number]
    end = shown(host)
    host.clear("all")
    assert shown(host) == healthy
    for number in on:
        host.inject(POOL[number][0], **POOL[number][1])
    assert shown(host) == end
    host.clear("all")
