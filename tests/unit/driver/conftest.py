"""Make the helpers of this folder importable."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from driver_host import DriverHost


@pytest.fixture
def host(tmp_path: Path) -> DriverHost:
    """A host on which everything is as the release says."""
    return DriverHost(tmp_path)
