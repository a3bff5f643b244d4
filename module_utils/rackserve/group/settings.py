"""What the agent of a host is told, out of the host's slice of the plan."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

SHORTEST_LOST_S = 10


class GroupError(Exception):
    """The agent cannot be told this; one line says why."""


def parts(
    group: Mapping[str, Any], ray: Mapping[str, Any] | None, addresses: Mapping[str, str]
) -> list[dict[str, str]]:
    """Everything that has to go together, as {label, unit, host, address}: its engines, and the Ray they run on.

    Units of Ray have one name on every host, so their labels carry the host.
    """
    places = [(str(unit["unit"]), str(unit["host"])) for unit in group["units"]]
    if ray and ray["name"] == group["name"]:
        places += [(f"ray-{ray['name']}.service", str(host)) for host in ray["hosts"]]
    places = list(dict.fromkeys(places))
    names = [unit for unit, _host in places]
    return [
        {
            "label": unit if names.count(unit) == 1 else f"{unit}@{host}",
            "unit": unit,
            "host": host,
            "address": addresses[host],
        }
        for unit, host in places
    ]


def _settings(group: Mapping[str, Any], host: str, found: list[dict[str, str]]) -> dict[str, Any]:
    members = list(dict.fromkeys(part["host"] for part in found if part["host"] != host))
    return {
        "name": group["name"],
        "member": host,
        "address": next(part["address"] for part in found if part["host"] == host),
        "port": group["agent_port"],
        "own": {part["label"]: part["unit"] for part in found if part["host"] == host},
        "peers": [
            {
                "member": member,
                "address": next(part["address"] for part in found if part["host"] == member),
                "units": [part["label"] for part in found if part["host"] == member],
            }
            for member in members
        ],
    }


def member_addresses(groups: Iterable[Mapping[str, Any]], addresses: Mapping[str, str]) -> list[str]:
    """Addresses of all members of these groups, for the agent's filter."""
    return list(dict.fromkeys(addresses[host] for group in groups for host in group["nodes"]))


def group_settings(
    host: str,
    groups: Iterable[Mapping[str, Any]],
    ray: Mapping[str, Any] | None,
    addresses: Mapping[str, str],
    *,
    patience: tuple[float, float],
    files: list[str],
    unit: str,
) -> str:
    """The agent's configuration as JSON.

    ``ray`` is the host's Ray cluster, ``addresses`` {host: address}, ``patience`` (seconds between looks, seconds of
    silence until a member counts as lost), ``files`` are paths whose change makes the agent start anew, ``unit`` is the
    digest of its unit file. Raises GroupError when the silence leaves no room for an agent that starts anew.
    """
    interval_s, lost_s = patience
    if lost_s < SHORTEST_LOST_S or lost_s < 5 * interval_s:
        raise GroupError(
            f"vllm_group_lost_s is {lost_s:g}: it must be at least {SHORTEST_LOST_S} and five times "
            f"vllm_group_interval_s ({interval_s:g}), or an agent that starts anew would be taken for a lost host"
        )
    told = {"interval_s": interval_s, "lost_s": lost_s, "files": files, "unit": unit}
    mine = [_settings(group, host, parts(group, ray, addresses)) for group in groups]
    return json.dumps({**told, "groups": mine}, indent=1) + "\n"
