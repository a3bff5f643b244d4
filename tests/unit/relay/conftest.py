"""Fixtures of the relay's tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from relay_support import Chain


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    made = Chain(tmp_path)
    yield made
    for node in made.nodes:
        node.server.close()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    def wait(true: Callable[[], bool]) -> None:
        event = threading.Event()
        for _ in range(500):
            if true():
                return
            event.wait(0.02)
        raise AssertionError("it did not come true in 10 s")

    return wait
