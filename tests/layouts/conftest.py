"""Make this folder's and the lab tests' helpers importable."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "layouts"), str(TESTS / "infra"), str(TESTS.parent / "module_utils")]
