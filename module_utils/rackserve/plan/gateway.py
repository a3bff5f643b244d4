"""The gateway's part of the plan: one backend a deployment, one slot a server, spare slots ahead."""

from __future__ import annotations

from typing import Any

from .findings import Findings
from .inventory import Inventory, check_networks
from .router import build_router
from .shapes import Resolved

_UNUSED_ADDRESS = "0.0.0.0"  # noqa: S104 - a placeholder for a server that is disabled, never bound
STATS_SOCKET = "/run/haproxy/rackserve.sock"
SERVER_STATE_FILE = "/var/lib/rackserve/gateway/server-state"
_DEFAULT_ROOM = 128
# Kept free: a probe that waits for one of the requests to end looks like one of a hung engine.
_PROBES = 1


def gateway_host(spec: dict[str, Any] | None, inventory: Inventory, findings: Findings) -> str | None:
    """The one host of the gateway; None when there is none, or when the description is wrong."""
    if spec is None:
        why = "no gateway: clients talk to the engines, nothing drains, queues or checks them."
        findings.warning("no-gateway", "cluster.gateway", why, "Describe a gateway.")
        return None
    hosts = inventory.resolve(spec["hosts"], "cluster.gateway.hosts", findings)
    if len(hosts) > 1:
        why = f"{len(hosts)} gateways ({', '.join(hosts)}); one is built so far, two sharing an address come later."
        fix = "Keep one host in the group. Were two inventories merged? One inventory is one cluster."
        findings.error("several-gateways", "cluster.gateway.hosts", why, fix)
        return None
    for host in hosts:
        if host not in inventory.members("gateway"):
            why = f"{host} is the gateway and not in the inventory's group gateway."
            findings.error("group-mismatch", "cluster.gateway.hosts", why, "Put it into that group.")
    return hosts[0] if hosts and hosts[0] in inventory.addresses else None


def build_gateway(
    spec: dict[str, Any],
    at: tuple[str, str],
    deployments: list[Resolved],
    instances: list[dict[str, Any]],
    findings: Findings,
) -> dict[str, Any]:
    """The gateway as the load_balancer role reads it; ``at`` is its host and address."""
    if not spec["tls"]:
        why = "requests and API keys cross the network in clear."
        findings.warning("gateway-without-tls", "cluster.gateway.tls", why, "Set tls: true.")
    if not spec["api_keys"]:
        why = "no API key is named: nobody can use the gateway."
        findings.warning("no-api-keys", "cluster.gateway.api_keys", why, "Name at least one key.")
    for item in deployments:
        if _room(item) <= _PROBES:
            where = f"{item.where}.engine_args.max_num_seqs"
            why = "an engine takes one request: the gateway's probe waits behind it, and a long one looks like a hang."
            findings.warning("no-room-for-probe", where, why, "Set it to 2 or more.")
    ports: set[int] = set()
    keys = ("port", "tls", "metrics_port", "api_keys", "max_queue", "queue_timeout_s")
    return {
        "host": at[0],
        "address": at[1],
        **{key: spec[key] for key in keys},
        "client_cidrs": check_networks(spec["client_cidrs"], "cluster.gateway.client_cidrs", findings),
        "stats_socket": STATS_SOCKET,
        "server_state_file": SERVER_STATE_FILE,
        "deployments": [_backend(item, at, spec["spare_slots"], instances, ports) for item in deployments],
    }


def _backend(item: Resolved, at: tuple[str, str], spares: int, instances: list[dict[str, Any]], ports: set[int]) -> Any:
    mine = [i for i in instances if i["deployment"] == item.name]
    router = build_router(item, mine, ports)
    servers = [
        {"instance": i["name"], "host": i["host"], "address": i["address"], "port": i["port"]}
        for i in mine
        if i["serves"]
    ]
    spare = {"instance": None, "host": None, "address": _UNUSED_ADDRESS, "port": item.spec["port_base"]}
    slots = servers + [dict(spare) for _ in range(spares)]
    inflight = max(1, _room(item) - _PROBES)
    engines = None
    if router:
        # Around the router: while it is rolled or down, and for proofs of single engines. Pools have no such way.
        engines = {
            "backend": f"be_{item.name}-engines",
            "probe_backend": f"probe_{item.name}-engines",
            "max_inflight_per_server": inflight,
            "slots": [{"slot": f"e{index}", **server} for index, server in enumerate(servers)],
        }
        engines = engines if "workers" in router else None
        slots = [
            {"instance": f"router-{item.name}", "host": at[0], **{key: router[key] for key in ("address", "port")}}
        ]
        inflight *= max(1, len(router["workers"] if "workers" in router else router["decode"]))
    return {
        "name": item.name,
        "served_model_name": item.spec["served_model_name"],
        "backend": f"be_{item.name}",
        "probe_backend": f"probe_{item.name}",
        "max_inflight_per_server": inflight,
        "slots": [{"slot": f"r{index}", **slot} for index, slot in enumerate(slots)],
        "check": dict(item.profile["check"]),
        "router": router,
        "engines": engines,
        "fallback": [f"be_{name}" for name in item.spec["fallback"]],
    }


def doors(deployments: list[dict[str, Any]], instance: dict[str, Any]) -> list[dict[str, Any]]:
    """[{address, port}] of all by which the gateway reaches an engine: its own, and its router's.

    Empty for what has no server of its own: requests cannot be led around it.
    """
    if not instance["gateway_target"]:
        return []
    routers = [entry["router"] for entry in deployments if entry["name"] == instance["deployment"] and entry["router"]]
    return [{"address": way["address"], "port": way["port"]} for way in [instance, *routers]]


def _room(item: Resolved) -> int:
    """Requests that all ranks behind one HTTP server take at once."""
    pool = item.pools[-1]
    shape = pool.shape
    behind = {"internal": shape.data, "hybrid": shape.data_per_host, "external": 1}[shape.balancing]
    return int(pool.args.get("max_num_seqs", _DEFAULT_ROOM)) * max(1, behind)
