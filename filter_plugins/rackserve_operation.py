"""Filters of gated operations: shims over module_utils/rackserve/operation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.gateway import notes  # noqa: E402 - needs the path above
from rackserve.operation import order, record  # noqa: E402 - needs the path above


def plain(value: Any) -> Any:
    """Ansible's tagged and lazy values as plain data."""
    return json.loads(json.dumps(value))


def history_lines(records: Any) -> list[str]:
    """Run records as an aligned table."""
    return record.history_lines(plain(records))


def units_due(instances: Any, probe: Any, left: Any = (), kept: Any = ()) -> list[str]:
    """Units of one host that are not on the plan's files yet, or whose change was cut off."""
    return order.units_due(plain(instances), plain(probe or {}), plain(list(left)), plain(list(kept)))


def next_engines(instances: Any, units: Any, left: Any) -> list[dict[str, Any]]:
    """Engines of one host to roll, those that were left drained first."""
    return order.next_engines(plain(list(instances)), plain(list(units)), plain(list(left)))


def next_groups(groups: Any, instances: Any, left: Any) -> list[dict[str, Any]]:
    """Engines over several hosts, those that were left drained first."""
    return order.next_groups(plain(list(groups)), plain(list(instances)), plain(list(left)))


def canary_peers(instances: Any, mine: Any, moved: Any) -> list[dict[str, Any]]:
    """Engines on the old release to compare one with; none where it is not the first."""
    return order.canary_peers(plain(list(instances)), plain(mine), plain(list(moved)))


def host_targets(plan: Any, host: Any) -> list[str]:
    """Servers that end when a host does, and those of routers that would go on asking its engines."""
    parts = plain([plan["instances"], plan["groups"], (plan["gateway"] or {"deployments": []})["deployments"]])
    return order.host_targets(*parts, str(host))


def release_change(recorded: Any, wanted: Any) -> dict[str, str]:
    """{release_from, release_to} of hosts' recorded releases."""
    try:
        return order.release_change(plain(list(recorded)), str(wanted))
    except ValueError as problem:
        raise AnsibleFilterError(str(problem)) from None


def server_names(servers: Any) -> list[str]:
    """Rows of gateway_servers as backend/slot."""
    return [f"{row['backend']}/{row['slot']}" for row in servers]


def left_drained(servers: Any, operation: Any) -> list[str]:
    """Servers that an earlier run of the operation, or of one it may go on with, left drained."""
    owned = notes.taken_over(str(operation))
    return server_names(row for row in servers if row["drained_by"] in owned)


def probe_lines(probe: Any) -> list[str]:
    """What differs on a host, one line a role, and what is stale there."""
    return order.probe_lines(plain(probe or {}))


def operation_commands(operations: Any) -> str:
    """What to type for these operations."""
    return order.commands([str(name) for name in operations])


def _gateway_deployment(plan: Any, deployment: Any) -> dict[str, Any]:
    found = [entry for entry in plan["gateway"]["deployments"] if entry["name"] == deployment]
    if not found:
        names = ", ".join(entry["name"] for entry in plan["gateway"]["deployments"])
        raise AnsibleFilterError(f"no deployment {deployment!r} behind the gateway; there are: {names}")
    return dict(plain(found[0]))


def removed_servers(servers: Any, plan: Any, deployment: Any) -> list[dict[str, Any]]:
    """Servers of a deployment that the plan has no slot for."""
    return order.removed_servers(plain(servers), _gateway_deployment(plan, deployment))


def absent_hosts(removed: Any, hosts: Any, present: Any) -> list[str]:
    """Hosts with a removed server that take no part in the run."""
    return order.absent_hosts(plain(list(removed)), plain(list(hosts)), plain(list(present)))


def units_to_stop(shown: Any) -> list[str]:
    """Units that run or are enabled, in what systemctl show says."""
    return order.units_to_stop(str(shown))


def added_instances(servers: Any, plan: Any, deployment: Any) -> list[dict[str, Any]]:
    """Engines of a deployment that the gateway has no server for yet."""
    return order.added_instances(plain(plan["instances"]), plain(servers), str(deployment))


def scale_conflicts(probe: Any, host: Any, planned: Any, added: Any) -> list[str]:
    """What else than the change of a deployment's size would change or start on a host."""
    units = None if planned is None else plain(list(planned))
    return order.scale_conflicts(str(host), plain(probe or {}), units, plain(list(added)))


def is_known_replacement(records: Any, host: Any, machine_id: Any) -> bool:
    """Whether an unfinished replacement of the host has begun to bring up this machine."""
    return record.is_known_replacement(plain(records), str(host), str(machine_id))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {
            "history_lines": history_lines,
            "left_drained": left_drained,
            "probe_lines": probe_lines,
            "operation_commands": operation_commands,
            "server_names": server_names,
            "units_due": units_due,
            "next_engines": next_engines,
            "next_groups": next_groups,
            "canary_peers": canary_peers,
            "host_targets": host_targets,
            "release_change": release_change,
            "removed_servers": removed_servers,
            "absent_hosts": absent_hosts,
            "units_to_stop": units_to_stop,
            "added_instances": added_instances,
            "scale_conflicts": scale_conflicts,
            "is_known_replacement": is_known_replacement,
        }
