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

from rackserve.completion import check, table, warm  # noqa: E402 - needs the path above
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


def smoke_targets(gateway: Any, golden: Any = None, chat: Any = True) -> list[dict[str, Any]]:
    """What completion_check asks in a smoke test."""
    return slots.smoke_targets(plain(gateway), plain(golden or {}), bool(chat))


def wrong_doors(results: Any) -> list[str]:
    """A line for each request to a closed door that did not get the status that was meant for it."""
    known = [{"item": plain(dict(one["item"])), "status": int(one.get("status", -1))} for one in results]
    return slots.wrong_doors(known)


def engine_targets(instances: Any, golden: Any = None) -> list[dict[str, Any]]:
    """What completion_check has to prove of these engines, asked directly."""
    return slots.engine_targets(plain(instances), plain(golden or {}))


def warm_engines(instances: Any, config_dir: str) -> list[dict[str, Any]]:
    """What engine_warm_up has to warm of these engines; their keys are in files of ``config_dir``."""
    return warm.engines_of(plain(list(instances)), str(config_dir))


def acceptance_table(rows: Any, gateway: Any = None) -> list[str]:
    """completion_check's rows as aligned lines; with the gateway's slice, instances are named."""
    return table.acceptance_table(plain(rows), slots.instance_names(plain(gateway)) if gateway else None)


def out_on_purpose(servers: Any) -> list[str]:
    """A line for each server that an operation took out until somebody asks for it back."""
    return slots.out_on_purpose(plain(servers))


def still_out(servers: Any) -> list[str]:
    """A line for each server that is out, with who took it out."""
    return slots.still_out(plain(servers))


def cut_off(servers: Any) -> list[dict[str, Any]]:
    """The servers that an operation drained and did not give back; not those that are out on purpose."""
    return slots.cut_off(plain(list(servers)))


def unproven(rows: Any, servers: Any = ()) -> str:
    """One line naming what failed in completion_check's rows, less servers that are out on purpose; "" for none."""
    left = slots.unproven(plain(rows), plain(list(servers)))
    return check.failure_line(left, "the gateway")


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {
            "gateway_slots": gateway_slots,
            "acceptance_targets": acceptance_targets,
            "smoke_targets": smoke_targets,
            "wrong_doors": wrong_doors,
            "engine_targets": engine_targets,
            "warm_engines": warm_engines,
            "acceptance_table": acceptance_table,
            "out_on_purpose": out_on_purpose,
            "still_out": still_out,
            "cut_off": cut_off,
            "unproven": unproven,
        }
