"""Fixtures around the real HAProxy of gateway_lab."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gateway_lab import Engine, Gateway, deployment, running


@pytest.fixture
def engines() -> Iterator[list[Engine]]:
    started = [Engine("e0"), Engine("e1")]
    yield started
    for engine in started:
        engine.close()


@pytest.fixture
def gateway(tmp_path: Path, engines: list[Engine]) -> Iterator[Gateway]:
    """One deployment `m` on two engines and one empty slot."""
    with running(Gateway(tmp_path, [deployment("m", [*engines, None])])) as started:
        yield started
