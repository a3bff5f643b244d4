"""Who is next in a gated operation, and what it compares with: from the plan, the probe and the gateway."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def units_due(
    instances: Sequence[dict[str, Any]], probe: dict[str, Any], left: Iterable[str], kept: Iterable[str]
) -> list[str]:
    """Units of one host that are not on the plan's files yet, or not proven on them, in the plan's order.

    Of a run that was cut off: `left`, the targets that it drained, and `kept`, the units whose old files are kept.
    """
    stale = {entry["unit"] for entry in probe.get("stale", []) if entry["role"] in ("vllm", "ray")}
    differing = {entry["id"] for entry in probe.get("roles", {}).get("vllm", {}).get("differs", [])}
    drained, unfinished = set(left), set(kept)
    return [
        item["unit"]
        for item in instances
        if item["unit"] in stale
        or item["unit"] in unfinished
        or f"unit-{item['name']}" in differing
        or (item["gateway_target"] and item["gateway_target"] in drained)
    ]


def next_engines(
    instances: Sequence[dict[str, Any]], units: Iterable[str], left: Iterable[str]
) -> list[dict[str, Any]]:
    """Engines of one host to roll: first those that an earlier run left drained, so that none is out beside them."""
    drained, wanted = set(left), set(units)
    first = [item for item in instances if item["gateway_target"] in drained]
    return first + [item for item in instances if item["unit"] in wanted and item not in first]


def next_groups(
    groups: Sequence[dict[str, Any]], instances: Sequence[dict[str, Any]], left: Iterable[str]
) -> list[dict[str, Any]]:
    """Engines over several hosts in the order to roll them: first those that an earlier run left drained."""
    drained = set(left)
    first = {item["group"] for item in instances if item["gateway_target"] in drained}
    return sorted(groups, key=lambda group: group["name"] not in first)


def canary_peers(
    instances: Sequence[dict[str, Any]], mine: dict[str, Any], moved: Iterable[str], most: int = 3
) -> list[dict[str, Any]]:
    """Engines to compare one on the new release with; none where another one is there already, so was compared.

    `moved`: units that are known to be on the new release; all others count as old ones.
    """
    if mine.get("port") is None:
        return []
    there = set(moved)
    others = [
        item
        for item in instances
        if item["port"] is not None
        and item["unit"] != mine["unit"]
        and (item["deployment"], item["pool"], item["part"]) == (mine["deployment"], mine["pool"], mine["part"])
    ]
    return [] if any(item["unit"] in there for item in others) else others[:most]


def host_targets(
    instances: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]], served: Sequence[dict[str, Any]], host: str
) -> list[str]:
    """Servers that end when a host does: of its engines, and of engines over several hosts in which it has a part.

    With those of routers in front of them (``served``: the gateway's deployments): a router knows no drain.
    """
    names = {group["name"] for group in groups if host in group["nodes"]}
    mine = [item for item in instances if item["host"] == host or item["group"] in names]
    ended = list(dict.fromkeys(item["gateway_target"] for item in mine if item["gateway_target"]))
    of = {item["deployment"] for item in mine if item["gateway_target"]}
    routers = [entry for entry in served if entry["engines"] and entry["name"] in of]
    return ended + [f"{entry['backend']}/{slot['slot']}" for entry in routers for slot in entry["slots"]]


def next_hosts(hosts: Sequence[str], instances: Sequence[dict[str, Any]], out: Iterable[str]) -> list[str]:
    """Hosts in the order to change them: first those whose engines are out already, so that none is out beside them."""
    drained = set(out)
    first = {item["host"] for item in instances if item["gateway_target"] in drained}
    return [host for host in hosts if host in first] + [host for host in hosts if host not in first]


def release_change(recorded: Iterable[str], wanted: str) -> dict[str, str]:
    """{release_from, release_to} of hosts' recorded releases; `release_from` is "" where none differs.

    Raises ValueError where hosts are on several other releases.
    """
    others = sorted({name for name in recorded if name and name != wanted})
    if len(others) > 1:
        raise ValueError(f"hosts run {' and '.join(others)}: bring them to one release first (upgrade-release --limit)")
    return {"release_from": others[0] if others else "", "release_to": wanted}


def removed_servers(servers: Sequence[dict[str, Any]], deployment: dict[str, Any]) -> list[dict[str, Any]]:
    """Filled servers of a deployment's backends whose address and port the plan gives to no slot of theirs.

    `deployment`: an entry of the plan's gateway.deployments.
    """
    parts = [deployment, deployment["engines"]] if deployment.get("engines") else [deployment]
    planned = {
        (part["backend"], slot["address"], slot["port"]) for part in parts for slot in part["slots"] if slot["address"]
    }
    backends = {part["backend"] for part in parts}
    return [
        server
        for server in servers
        if server["backend"] in backends
        and server["address"]
        and (server["backend"], server["address"], server["port"]) not in planned
    ]


def absent_hosts(
    removed: Sequence[dict[str, Any]], hosts: Sequence[dict[str, Any]], present: Iterable[str]
) -> list[str]:
    """A line for each host of the plan that has a removed server and takes no part: its engine could not be stopped."""
    there = set(present)
    return [
        f"{host['name']} has {server['backend']}/{server['slot']} and takes no part in this run"
        for server in removed
        for host in hosts
        if host["address"] == server["address"] and host["name"] not in there
    ]


def units_to_stop(shown: str) -> list[str]:
    """Units that run, or would after a boot, in what `systemctl show -p Id,ActiveState,UnitFileState` says of some."""
    found = []
    for block in shown.split("\n\n"):
        said = dict(line.partition("=")[::2] for line in block.splitlines())
        resting = said.get("ActiveState") in ("inactive", "failed") and said.get("UnitFileState") != "enabled"
        if said.get("Id") and not resting:
            found.append(said["Id"])
    return found


def probe_lines(probe: dict[str, Any], most: int = 8) -> list[str]:
    """What a probe found on a host: a line for each role with the ids that differ, and one for each stale unit."""
    lines = []
    for role, found in sorted(probe.get("roles", {}).items()):
        ids = [entry["id"] for entry in found.get("differs", [])]
        if ids:
            more = f" and {len(ids) - most} more" if len(ids) > most else ""
            lines.append(f"{role}: {', '.join(ids[:most])}{more}")
    return lines + [f"{entry['unit']}: {entry['why']}" for entry in probe.get("stale", [])]


def added_instances(
    instances: Sequence[dict[str, Any]], servers: Sequence[dict[str, Any]], deployment: str
) -> list[dict[str, Any]]:
    """Engines of a deployment that no server of the gateway has yet, and parts of such without a server."""
    filled = {(row["address"], row["port"]) for row in servers if row["address"]}
    mine = [item for item in instances if item["deployment"] == deployment]
    known = {item["group"] for item in mine if item["port"] is not None and (item["address"], item["port"]) in filled}
    return [item for item in mine if item["group"] not in known]


# What an added engine changes on hosts; other differences are site's business.
_SCALED_ROLES = {
    "serving_runtime", "model_store", "vllm", "ray", "router", "load_balancer", "firewall", "host_health",
    "gpu_settings",
}  # fmt: skip


def scale_conflicts(host: str, probe: dict[str, Any], planned: Iterable[str] | None, added: Iterable[str]) -> list[str]:
    """Why a change of a deployment's size is not begun: what else would change or start on the host. Empty if nothing.

    planned: units of all engines that the plan has on the host; None for a host without GPUs. A host that got no
    release yet is a new one: all of it is brought there. One that gets its first engine or loses its last gets other
    kernel settings with that: no engine that stays runs there.
    """
    dirty, units = set(probe.get("dirty_roles", [])), set(added)
    new = "serving_runtime" in dirty
    mine = _SCALED_ROLES | ({"host_baseline"} if planned is not None and units.issuperset(planned) else set())
    found = [] if new else [f"{host}: {role} differs" for role in sorted(dirty - mine)]
    return found + [
        f"{host}: {entry['unit']} does not run and is not added"
        for entry in probe.get("inactive", [])
        if entry["role"] == "vllm" and entry["unit"] not in units
    ]


def commands(operations: list[str]) -> str:
    """What to type for these operations, in their order, each once; "" for none."""
    return "; ".join(f"ansible-playbook -i <inventory> playbooks/{name}.yml" for name in dict.fromkeys(operations))
