"""Groups of units that live and die together, and the Ray clusters below some of them."""

from __future__ import annotations

from typing import Any

from ..nccl.environment import as_environment
from .arguments import Place, communication
from .engines import Site
from .findings import Findings
from .shapes import Group, Pool, Resolved
from .units import AGENT_PORT, MASTER_PORT, RPC_PORT

RAY_TOKEN = "ray_token"  # noqa: S105 - the name of a secret


def build_groups(item: Resolved, instances: list[dict[str, Any]], ray: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The deployment's groups of several units or hosts; units in the order they start."""
    found = []
    clusters = {cluster["name"]: cluster for cluster in ray}
    members: dict[str, list[dict[str, Any]]] = {}
    for instance in instances:
        members.setdefault(instance["group"], []).append(_member(instance))
    for pool in item.pools:
        for group in pool.groups:
            units = members[group.name]
            cluster = clusters.get(group.name)
            below = _ray_members(cluster) if cluster else []
            if len(units) + len(below) > 1:
                found.append(_group(item, pool, group, below + units))
    return found


def _group(item: Resolved, pool: Pool, group: Group, units: list[dict[str, Any]]) -> dict[str, Any]:
    shape = pool.shape
    master = {"data_parallel": RPC_PORT, "multi_node": MASTER_PORT}[shape.layout] + group.slot
    return {
        "name": group.name,
        "deployment": item.name,
        "layout": shape.layout,
        "executor": shape.executor,
        "nodes": [seat.host for seat in group.seats],
        "units": [{key: value for key, value in unit.items() if key != "serves"} for unit in units],
        "serving_units": [unit["unit"] for unit in units if unit["serves"]],
        "agent_port": AGENT_PORT + group.slot,
        "master_port": None if shape.executor == "ray" else master,
    }


def _member(instance: dict[str, Any]) -> dict[str, Any]:
    keys = ("unit", "host", "address", "part", "serves")
    return {"instance": instance["name"], **{key: instance[key] for key in keys}}


def _ray_members(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {**node, "instance": None, "unit": cluster["unit"], "part": f"ray-{node['part']}", "serves": False}
        for node in cluster["nodes"]
    ]


def build_ray(deployments: list[Resolved], site: Site, findings: Findings) -> list[dict[str, Any]]:
    """One Ray cluster for each group whose executor is Ray; a host belongs to one at most."""
    clusters: list[dict[str, Any]] = []
    owners: dict[str, str] = {}
    for item in deployments:
        for pool in (pool for pool in item.pools if pool.shape.executor == "ray"):
            for group in pool.groups:
                shared = next((seat.host for seat in group.seats if seat.host in owners), None)
                if shared:
                    why = f"{shared} would belong to the Ray clusters of {owners[shared]} and of {group.name}."
                    findings.error("ray-overlap", f"{pool.where}.hosts", why, "Give each group its own hosts.")
                owners.update((seat.host, group.name) for seat in group.seats)
                clusters.append(_cluster(item, pool, group, site))
    return clusters


def _cluster(item: Resolved, pool: Pool, group: Group, site: Site) -> dict[str, Any]:
    hosts = [seat.host for seat in group.seats]
    nodes = [
        {"host": host, "address": site.addresses[host], "part": "worker" if number else "head"}
        for number, host in enumerate(hosts)
    ]
    network = site.network
    place = Place(len(hosts), network["cluster_interface"], network["fabric"]["kind"], site.hardware["nccl_topology"])
    return {
        "name": group.name,
        "deployment": item.name,
        "unit": f"ray-{group.name}.service",
        "head": hosts[0],
        "address": site.addresses[hosts[0]],
        "hosts": hosts,
        "nodes": nodes,
        "gpus_per_host": pool.shape.ranks_per_host,
        "gpu_ids": {seat.host: seat.gpu_ids for seat in group.seats},
        "ports": dict(site.ray_ports),
        "env": {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "GLOO_SOCKET_IFNAME": place.interface,
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            **as_environment(communication(pool.args, site.device, place)),
        },
        "token_secret": RAY_TOKEN,
    }


def check_ray_ports(ports: dict[str, int], findings: Findings) -> None:
    """Ray refuses to start where one of its ports lies among its workers', or two are the same."""
    low, high, where = ports["worker_port_min"], ports["worker_port_max"], "cluster.ray"
    if low > high:
        why = f"worker_port_min {low} is above worker_port_max {high}."
        findings.error("ray-ports", f"{where}.worker_port_min", why, "Exchange them.")
    seen: dict[int, str] = {}
    for name, port in ports.items():
        if name in ("worker_port_min", "worker_port_max"):
            continue
        other = f"the workers' {low} to {high}" if low <= port <= high else seen.setdefault(port, name)
        if other != name:
            findings.error("ray-ports", f"{where}.{name}", f"port {port} is also {other}.", "Choose another.")
