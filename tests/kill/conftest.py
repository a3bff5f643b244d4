"""Make this folder's and the light lab's helpers importable."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "kill"), str(TESTS / "light"), str(TESTS.parent / "module_utils")]
