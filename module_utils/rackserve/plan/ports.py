"""Every port of a host belongs to one service."""

from __future__ import annotations

from typing import Any, NamedTuple

from .findings import Findings
from .flows import weights_hosts
from .units import RELAY_PORT

_HIGHEST_PORT = 65535
_FIRST_EPHEMERAL_PORT = 32768


class _Claim(NamedTuple):
    host: str
    port: int
    owner: str
    where: str
    fix: str


def check_ports(plan: dict[str, Any], places: dict[str, str], findings: Findings) -> None:
    """Report ports that two services want, or that cannot be; ``places`` is {deployment: where it is described}."""
    gateway = plan["gateway"]
    if gateway and gateway["metrics_port"] == gateway["port"]:
        why = f"clients and metrics share port {gateway['port']}."
        findings.error("port-taken", "cluster.gateway.metrics_port", why, "Give metrics another port.")
    owners: dict[tuple[str, int], str] = {}
    for claim in [*_gateway(gateway, places), *_ray(plan["ray"]), *_groups(plan["groups"], places), *_relay(plan)]:
        _take(claim, owners, findings)
    for item in plan["instances"]:
        where = places[item["deployment"]]
        for port in item.get("side_channel_ports", ()):
            owner = f"the KV cache's side channel of {item['name']}"
            _take(_Claim(item["host"], port, owner, where, "Choose another port_base."), owners, findings)
        if item["serves"]:
            _check_http(item, f"{where}.port_base", owners, findings)


def _check_http(item: dict[str, Any], where: str, owners: dict[tuple[str, int], str], findings: Findings) -> None:
    port = item["port"]
    if port > _HIGHEST_PORT:
        why = f"{item['name']} would need port {port}."
        findings.error("port-range", where, why, "Start lower: ports end at 65535.")
    elif port >= _FIRST_EPHEMERAL_PORT:
        why = f"{item['name']} listens on {port}, inside the range of outgoing connections."
        findings.warning("ephemeral-port", where, why, f"Stay below {_FIRST_EPHEMERAL_PORT}.")
    _take(_Claim(item["host"], port, item["name"], where, "Choose another port_base."), owners, findings)


def _take(claim: _Claim, owners: dict[tuple[str, int], str], findings: Findings) -> None:
    owner = owners.setdefault((claim.host, claim.port), claim.owner)
    if owner != claim.owner:
        why = f"port {claim.port} of {claim.host} is taken by {owner}; {claim.owner} wants it too."
        findings.error("port-taken", claim.where, why, claim.fix)


def _gateway(gateway: dict[str, Any] | None, places: dict[str, str]) -> list[_Claim]:
    if not gateway:
        return []
    host, fix = gateway["host"], "Choose another port."
    claims = [_Claim(host, gateway["port"], "the gateway", "cluster.gateway.port", fix)]
    if gateway["metrics_port"] != gateway["port"]:
        metrics = "the gateway's metrics"
        claims.append(_Claim(host, gateway["metrics_port"], metrics, "cluster.gateway.metrics_port", fix))
    for item in gateway["deployments"]:
        router, where = item["router"], f"{places[item['name']]}.router_settings"
        if router:
            owner = f"the router of {item['name']}"
            claims.append(_Claim(host, router["port"], owner, f"{where}.port", fix))
            claims.append(_Claim(host, router["metrics_port"], f"{owner} (metrics)", f"{where}.metrics_port", fix))
    return claims


def _ray(clusters: list[dict[str, Any]]) -> list[_Claim]:
    claims = []
    for cluster in clusters:
        ports = {port: name for name, port in cluster["ports"].items() if not name.startswith("worker_port")}
        workers = range(cluster["ports"]["worker_port_min"], cluster["ports"]["worker_port_max"] + 1)
        for host in cluster["hosts"]:
            fix = "Choose another port."
            claims += [_Claim(host, port, "Ray", f"cluster.ray.{name}", fix) for port, name in ports.items()]
            claims += [_Claim(host, port, "Ray", "cluster.ray.worker_port_min", fix) for port in workers]
    return claims


def _relay(plan: dict[str, Any]) -> list[_Claim]:
    owner, fix = "the relay of weights", "Choose another port for what has it."
    return [_Claim(host, RELAY_PORT, owner, "cluster", fix) for host in weights_hosts(plan)]


def _groups(groups: list[dict[str, Any]], places: dict[str, str]) -> list[_Claim]:
    claims = []
    for group in groups:
        where, fix = places[group["deployment"]], "Fewer groups on this host, or other ports for what has it."
        agent, meeting = f"the group agent of {group['name']}", f"the meeting point of {group['name']}"
        claims += [_Claim(host, group["agent_port"], agent, where, fix) for host in group["nodes"]]
        if group["master_port"]:
            claims.append(_Claim(group["nodes"][0], group["master_port"], meeting, where, fix))
    return claims
