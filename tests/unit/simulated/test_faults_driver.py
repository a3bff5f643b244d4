"""Faults as the simulated driver shows them: every NVML and nvidia-smi reading of the catalogue, by the programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from faults_support import REPO, VERSION, SimulatedHost, catalogue, h20_hardware, quick

DRIVER = REPO / "files/simulated/driver"
SHOWN = [name for name, fault in catalogue().items() if {r.source for r in fault.seen} & {"nvml", "nvidia-smi"}]
CHOICES: list[tuple[str, dict[str, Any]]] = [
    *[("clocks-throttled", {"reason": reason}) for reason in ("hw-slowdown", "hw-power-brake", "sw-thermal")],
    ("clocks-throttled", {"reason": "sw-power-cap", "gpu": 7}),
    ("ecc-correctable", {"location": "sram", "gpu": 2}),
    ("ecc-uncorrectable", {"location": "sram", "gpu": 2}),
    ("fabric-not-ready", {"fabric_state": "not-started", "gpu": 3}),
    ("nvlink-errors", {"error": "recovery", "link": 17}),
    ("nvlink-errors", {"error": "crc_flit", "link": 2, "gpu": 6}),
    ("pcie-narrower", {"generation": 2, "width": 1}),
    ("gpu-off-bus", {"gpu": 5}),
]
CASES: list[tuple[str, dict[str, Any]]] = [*((name, {}) for name in SHOWN), *CHOICES]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    command = ["make", "-s", "-C", str(DRIVER), f"OUT={folder}", f"DRIVER_VERSION={VERSION}", "CUDA_VERSION=13000"]
    subprocess.run(command, check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimulatedHost:
    hardware = h20_hardware(tmp_path_factory.mktemp("machines") / "h20-8")
    return SimulatedHost(tmp_path_factory.mktemp("host") / "root", hardware)


def ask(host: SimulatedHost, built: Path, command: list[str]) -> str:
    environment = {
        **os.environ,
        "RACKSERVE_SIMULATED_ROOT": str(host.root),
        "LD_LIBRARY_PATH": str(built),
        "PYTHONPATH": str(Path(sys.executable).parents[1] / "lib" / "site-packages"),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + (done.stderr if "Traceback" in done.stderr else "")


def shown(host: SimulatedHost, built: Path, seen: list[Mapping[str, Any]]) -> list[str]:
    """The readings that the programs do not give."""
    nvml = [reading for reading in seen if reading["source"] == "nvml"]
    expressions = json.dumps([reading["where"] for reading in nvml])
    answer = ask(host, built, [sys.executable, str(REPO / "tests/nvml_expression.py"), expressions])
    assert answer.startswith("["), answer
    wrong = [
        f"{reading['where']}: {value}, not {reading['reading']}"
        for reading, value in zip(nvml, json.loads(answer))
        if value != reading["reading"]
    ]
    for reading in seen:
        if reading["source"] == "nvidia-smi":
            words = reading["where"].split()
            assert words[0] == "nvidia-smi"
            said = ask(host, built, [sys.executable, str(DRIVER / "nvidia-smi"), *words[1:]])
            wrong += [] if reading["reading"] in said else [f"{reading['where']}: {said}, not {reading['reading']}"]
    return wrong


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=[f"{n}-{p}" for n, p in CASES])
def test_nvml_and_nvidia_smi_show_the_fault(
    host: SimulatedHost, built: Path, name: str, parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    # The pid of a process that lives.
    monkeypatch.setattr(host.systemd, "pid", lambda _unit: str(os.getpid()))
    before = shown(host, built, host.inject(name, check=True, **parameters)["seen"])
    assert before, "a healthy host shows all of it already"
    seen = host.inject(name, **parameters)["seen"]
    assert shown(host, built, seen) == []
    host.clear(name)
    assert shown(host, built, seen) != []
