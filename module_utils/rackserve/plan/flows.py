"""Who may talk to whom: firewall flows, scrape targets, and a host's inbound rules."""

from __future__ import annotations

from typing import Any

from .inventory import Inventory
from .units import RELAY_PORT

_SSH_PORT = 22
# What ranks and KV connectors open among each other: their own choice of port, without a key.
_UNPLANNED = "1024-65535"
_RAY_WORKERS = "worker_port"


class _Flows:
    """Collects flows ``{name, from: [host or network], to: host, port, proto, why}``."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def add(self, name: str, sources: list[str], to: str, port: int | str, why: str) -> None:
        unique = [source for source in dict.fromkeys(sources) if source != to]
        self.found.append({"name": name, "from": unique, "to": to, "port": port, "proto": "tcp", "why": why})


def build_flows(inventory: Inventory, management: list[str], plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Every permitted flow ``{name, from: [host or network], to: host, port, proto, why}``.

    ``port`` is a number, or text like "1024-65535". A flow that only the target itself needs has an empty ``from``: it
    still closes the port to everybody else. Engines answer some paths without a key, so nobody but the gateway,
    monitoring and the other hosts of a group reaches their ports.
    """
    watchers = [host for host in inventory.members("monitoring") if host in inventory.addresses]
    flows, gateway = _Flows(), plan["gateway"]
    for host in inventory.hosts:
        if host in inventory.addresses:
            flows.add("ssh", management, host, _SSH_PORT, "operators and the controller")
    if gateway:
        _gateway(flows, gateway, management, watchers)
    for item in (item for item in plan["instances"] if item["serves"]):
        if gateway:
            sources, why = [gateway["host"]], "requests and health checks"
        else:
            sources, why = management, "clients of the API: there is no gateway"
        flows.add(f"engine-{item['name']}", sources, item["host"], item["port"], why)
        if watchers:
            flows.add(f"metrics-{item['name']}", watchers, item["host"], item["port"], "metrics, which ask for no key")
    for group in plan["groups"]:
        _group(flows, group)
    for cluster in plan["ray"]:
        _ray(flows, cluster, watchers)
    _kv_cache(flows, plan["instances"])
    for host in weights_hosts(plan):
        flows.add("weights-relay", [], host, RELAY_PORT, "weights, from the hosts of a copy while it runs")
    return flows.found


def _gateway(flows: _Flows, gateway: dict[str, Any], management: list[str], watchers: list[str]) -> None:
    host, scrapers = gateway["host"], management + watchers
    flows.add("gateway", management + gateway["client_cidrs"], host, gateway["port"], "clients of the API")
    flows.add("gateway-metrics", scrapers, host, gateway["metrics_port"], "metrics of the gateway")
    for item in gateway["deployments"]:
        router = item["router"]
        if router:
            flows.add(f"router-{item['name']}", [], host, router["port"], "requests, from the gateway alone")
            name = f"router-metrics-{item['name']}"
            flows.add(name, scrapers, host, router["metrics_port"], "metrics of the router")


def _group(flows: _Flows, group: dict[str, Any]) -> None:
    for host in group["nodes"]:
        others = [node for node in group["nodes"] if node != host]
        flows.add(f"agent-{group['name']}", others, host, group["agent_port"], "what each member of the group sees")
        if others:
            flows.add(f"group-{group['name']}", others, host, _UNPLANNED, "ranks of one engine among each other")


def _ray(flows: _Flows, cluster: dict[str, Any], watchers: list[str]) -> None:
    ports = cluster["ports"]
    named = {name: port for name, port in ports.items() if not name.startswith(_RAY_WORKERS)}
    for host in cluster["hosts"]:
        others = [node for node in cluster["hosts"] if node != host]
        for name, port in named.items():
            if name == "port" and host != cluster["head"]:
                continue
            sources = others + watchers if name == "metrics_export_port" else others
            flows.add(f"ray-{cluster['name']}", sources, host, port, f"Ray: {name.replace('_', ' ')}")
        workers = f"{ports['worker_port_min']}-{ports['worker_port_max']}"
        flows.add(f"ray-{cluster['name']}", others, host, workers, "Ray: workers")


def _kv_cache(flows: _Flows, instances: list[dict[str, Any]]) -> None:
    """The hosts of a deployment's two pools reach each other's KV cache."""
    deployments = dict.fromkeys(item["deployment"] for item in instances if item["pool"])
    for name in deployments:
        mine = [item for item in instances if item["deployment"] == name]
        hosts = {pool: list(dict.fromkeys(i["host"] for i in mine if i["pool"] == pool)) for pool in _OTHER}
        for item in mine:
            others = hosts[_OTHER[item["pool"]]]
            ports = item["side_channel_ports"]
            port = ports[0] if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"
            flows.add(f"kv-{item['name']}", others, item["host"], port, "where the KV cache lies")
        for pool, other in _OTHER.items():
            for host in hosts[pool]:
                if set(hosts[other]) != {host}:
                    flows.add(f"kv-{name}", hosts[other], host, _UNPLANNED, "KV cache from prefill to decode")


def weights_hosts(plan: dict[str, Any]) -> list[str]:
    """Hosts that have weights, in the order of the plan."""
    of_groups = [host for group in plan["groups"] for host in group["nodes"]]
    of_ray = [host for cluster in plan["ray"] for host in cluster["hosts"]]
    return list(dict.fromkeys([*(item["host"] for item in plan["instances"]), *of_groups, *of_ray]))


_OTHER = {"prefill": "decode", "decode": "prefill"}


def scrape_targets(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """What monitoring reads: ``{job, host, address, port, path}``."""
    rows = [("vllm", item["host"], item["address"], item["port"]) for item in plan["instances"] if item["serves"]]
    gateway = plan["gateway"]
    for cluster in plan["ray"]:
        port = cluster["ports"]["metrics_export_port"]
        rows += [("ray", node["host"], node["address"], port) for node in cluster["nodes"]]
    if gateway:
        routers = [item["router"] for item in gateway["deployments"] if item["router"]]
        rows += [("vllm-router", gateway["host"], gateway["address"], router["metrics_port"]) for router in routers]
        rows.append(("haproxy", gateway["host"], gateway["address"], gateway["metrics_port"]))
    return [
        {"job": job, "host": host, "address": address, "port": port, "path": "/metrics"}
        for job, host, address, port in rows
    ]


def inbound_rules(flows: list[dict[str, Any]], addresses: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Flows as each target host's rules ``{name, port, proto, sources: [IP or network]}``, one rule a port."""
    rules: dict[str, dict[int | str, dict[str, Any]]] = {}
    for flow in flows:
        rule = rules.setdefault(flow["to"], {}).setdefault(
            flow["port"], {"name": flow["name"], "port": flow["port"], "proto": flow["proto"], "sources": []}
        )
        sources = (addresses.get(source, source) for source in flow["from"])
        rule["sources"] = list(dict.fromkeys([*rule["sources"], *sources]))
    return {host: list(by_port.values()) for host, by_port in rules.items()}
