"""The simulated host that health is tested on serves here too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(UNIT / "health"), str(UNIT / "simulated")]

from health_support import HealthHost  # noqa: E402 - needs the paths above


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> HealthHost:
    return HealthHost(tmp_path_factory.mktemp("diagnose"))


@pytest.fixture
def host(healthy: HealthHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[HealthHost]:
    """The host without a fault, before and after."""
    monkeypatch.setenv("RACKSERVE_SIMULATED_ROOT", str(healthy.root))
    monkeypatch.setattr("os.fsync", lambda _handle: None)
    healthy.disk_of_its_own(monkeypatch)
    yield healthy
    healthy.mend()
