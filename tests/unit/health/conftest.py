"""The simulated host that health is tested on, and the support of the simulated hosts' own tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "simulated"))

from health_support import HealthHost


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> HealthHost:
    return HealthHost(tmp_path_factory.mktemp("health"))


@pytest.fixture
def host(healthy: HealthHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[HealthHost]:
    """The host without a fault, before and after."""
    monkeypatch.setenv("RACKSERVE_SIMULATED_ROOT", str(healthy.root))
    monkeypatch.setattr("os.fsync", lambda _handle: None)
    healthy.disk_of_its_own(monkeypatch)
    yield healthy
    healthy.mend()
