"""Filters of gated operations: shims over module_utils/rackserve/operation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.operation import record  # noqa: E402 - needs the path above


def plain(value: Any) -> Any:
    """Ansible's tagged and lazy values as plain data."""
    return json.loads(json.dumps(value))


def history_lines(records: Any) -> list[str]:
    """Run records as an aligned table."""
    return record.history_lines(plain(records))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {"history_lines": history_lines}
