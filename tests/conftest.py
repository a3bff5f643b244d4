"""Options of the whole suite."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A busy machine is no failure: no example is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the files under tests/golden")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "asked_by(variable, value): takes minutes; deselected unless the environment variable says the value"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests to the make targets that ask for them; pytest counts them as deselected."""
    later = [
        item for item in items for mark in item.iter_markers("asked_by") if os.environ.get(mark.args[0]) != mark.args[1]
    ]
    if later:
        config.hook.pytest_deselected(items=later)
        items[:] = [item for item in items if item not in later]
