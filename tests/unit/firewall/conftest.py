"""Share the namespace fixture."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from firewall_host import host

__all__ = ["host"]
