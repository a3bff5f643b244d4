"""Kernel settings of a host: what we set, how it is written for the next boot, and who else sets it."""

from __future__ import annotations

from .isolation import isolation_findings
from .knobs import BaselineError, knob_items, merge_knobs, sysctl_text
from .settings import limits_conflicts, sysctl_conflicts, tuner_findings

__all__ = [
    "BaselineError",
    "isolation_findings",
    "knob_items",
    "limits_conflicts",
    "merge_knobs",
    "sysctl_conflicts",
    "sysctl_text",
    "tuner_findings",
]
