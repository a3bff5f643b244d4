"""Simulated machines of the library's profiles, built once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from driver_support import Host
from gpu_settings_support import Bench
from machine_support import profile_of
from rackserve.simulated.machine import build


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """machine(name): the folder of a profile's machine."""
    machines = tmp_path_factory.mktemp("machines")
    return lambda name: build(name, profile_of(name), machines)[0]


@pytest.fixture
def bench(tmp_path: Path, machine: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Bench:
    host = Host(tmp_path / "root", machine("h100-x4-vm"))
    monkeypatch.setenv("RACKSERVE_SIMULATED_ROOT", str(host.root))
    return Bench(host)
