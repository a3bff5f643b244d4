"""Filters of the gateway and of acceptance: shims over module_utils/rackserve/gateway and completion."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.completion import table  # noqa: E402 - needs the path above
from rackserve.gateway import slots  # noqa: E402 - needs the path above


def plain(value: Any) -> Any:
    """Ansible's tagged and lazy values as plain data."""
    return json.loads(json.dumps(value))


def gateway_slots(gateway: Any) -> list[dict[str, Any]]:
    """The planned slots as gateway_servers takes them."""
    return slots.gateway_slots(plain(gateway))


def acceptance_targets(gateway: Any, golden: Any = None, chat: Any = True, depth: str = "full") -> list[dict[str, Any]]:
    """What completion_check has to prove through this gateway."""
    return slots.acceptance_targets(plain(gateway), plain(golden or {}), bool(chat), str(depth))


def engine_targets(instances: Any, golden: Any = None) -> list[dict[str, Any]]:
    """What completion_check has to prove of these engines, asked directly."""
    return slots.engine_targets(plain(instances), plain(golden or {}))


def acceptance_table(rows: Any, gateway: Any = None) -> list[str]:
    """completion_check's rows as aligned lines; with the gateway's slice, instances are named."""
    return table.acceptance_table(plain(rows), slots.instance_names(plain(gateway)) if gateway else None)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {
            "gateway_slots": gateway_slots,
            "acceptance_targets": acceptance_targets,
            "engine_targets": engine_targets,
            "acceptance_table": acceptance_table,
        }
