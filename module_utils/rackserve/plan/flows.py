"""Who may talk to whom: firewall flows, scrape targets, and a host's inbound rules."""

from __future__ import annotations

from typing import Any

from .inventory import Inventory

_SSH_PORT = 22


def build_flows(
    inventory: Inventory,
    management: list[str],
    gateway: dict[str, Any] | None,
    instances: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Every permitted flow ``{name, from: [host or network], to: host, port, proto, why}``, by target host.

    A flow that only the target itself needs has an empty ``from``: it still closes the port to everybody else.
    Engines answer some paths without a key, so nobody but the gateway and monitoring reaches their ports.
    """
    watchers = [host for host in inventory.members("monitoring") if host in inventory.addresses]
    flows: list[dict[str, Any]] = []

    def add(name: str, sources: list[str], to: str, port: int, why: str) -> None:
        unique = [source for source in dict.fromkeys(sources) if source != to]
        flows.append({"name": name, "from": unique, "to": to, "port": port, "proto": "tcp", "why": why})

    for host in inventory.hosts:
        if host in inventory.addresses:
            add("ssh", management, host, _SSH_PORT, "operators and the controller")
    if gateway:
        clients = management + gateway["client_cidrs"]
        add("gateway", clients, gateway["host"], gateway["port"], "clients of the API")
        scrapers = management + watchers
        add("gateway-metrics", scrapers, gateway["host"], gateway["metrics_port"], "metrics of the gateway")
    for item in instances:
        if gateway:
            sources, why = [gateway["host"]], "requests and health checks"
        else:
            sources, why = management, "clients of the API: there is no gateway"
        add(f"engine-{item['name']}", sources, item["host"], item["port"], why)
        if watchers:
            add(f"metrics-{item['name']}", watchers, item["host"], item["port"], "metrics, which ask for no key")
    return flows


def scrape_targets(gateway: dict[str, Any] | None, instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What monitoring reads: ``{job, host, address, port, path}``."""
    rows = [("vllm", item["host"], item["address"], item["port"]) for item in instances]
    if gateway:
        rows.append(("haproxy", gateway["host"], gateway["address"], gateway["metrics_port"]))
    return [
        {"job": job, "host": host, "address": address, "port": port, "path": "/metrics"}
        for job, host, address, port in rows
    ]


def inbound_rules(flows: list[dict[str, Any]], addresses: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Flows as each target host's rules ``{name, port, proto, sources: [IP or network]}``, one rule a port."""
    rules: dict[str, dict[int, dict[str, Any]]] = {}
    for flow in flows:
        rule = rules.setdefault(flow["to"], {}).setdefault(
            flow["port"], {"name": flow["name"], "port": flow["port"], "proto": flow["proto"], "sources": []}
        )
        sources = (addresses.get(source, source) for source in flow["from"])
        rule["sources"] = list(dict.fromkeys([*rule["sources"], *sources]))
    return {host: list(by_port.values()) for host, by_port in rules.items()}
