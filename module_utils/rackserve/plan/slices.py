"""What one host reads of the plan; the roles see nothing else."""

from __future__ import annotations

from typing import Any

from ..health.expect import expectations
from .flows import inbound_rules
from .gpu_settings import host_gpu_settings
from .inventory import Inventory
from .units import RELAY_PORT


def build_slices(
    plan: dict[str, Any], network: dict[str, Any], described: dict[str, Any], inventory: Inventory, may_run: list[str]
) -> Any:
    """Return {host: slice}; only ``hosts`` grows with the cluster (and the gateway's slots on its host).

    ``may_run``: the distributions that hosts with GPUs may run.
    """
    everyone = [{"name": host, "address": inventory.addresses.get(host)} for host in inventory.hosts]
    inbound = inbound_rules(plan["firewall"]["flows"], inventory.addresses)
    by_host: dict[str, list[dict[str, Any]]] = {}
    for item in plan["instances"]:
        by_host.setdefault(item["host"], []).append(item)
    gateway = plan["gateway"]
    ray = {host: cluster for cluster in plan["ray"] for host in cluster["hosts"]}
    slices: dict[str, Any] = {}
    for host in inventory.hosts:
        mine = by_host.get(host, [])
        groups = [group for group in plan["groups"] if host in group["nodes"]]
        cluster = _ray_part(ray.get(host), host)
        serves = bool(mine or cluster)
        is_gateway = bool(gateway) and gateway["host"] == host
        names = {item["deployment"] for item in [*mine, *groups]}
        has_gpus = host in inventory.members("gpu")
        driver = plan["driver"] if has_gpus else None
        cuda = plan["cuda"] if has_gpus else None
        settings = host_gpu_settings(plan["gpu_settings"], _gpu_users(mine, cluster, host), plan["hardware"], has_gpus)
        fabric = plan["fabric"] if has_gpus else None
        nccl = _nccl(plan["hardware"]) if has_gpus else None
        for_gpus = {
            "nvidia_driver": driver,
            "cuda": cuda,
            "gpu_settings": settings,
            "rdma_fabric": fabric,
            "nccl": nccl,
        }
        roles = ["host_baseline", *(role for role, wanted in for_gpus.items() if wanted), "firewall"]
        roles += ["serving_runtime", "model_store", *(["ray"] if cluster else []), "vllm"] if serves else []
        roles += _gateway_roles(gateway) if is_gateway else []
        roles += ["host_health"]  # what to expect of a host follows what came to run there
        slices[host] = {
            "plan_hash": plan["hash"],
            "cluster": plan["cluster"],
            "host": host,
            "address": inventory.addresses.get(host),
            "roles": roles,
            "network": {key: network[key] for key in ("cluster_interface", "management_cidrs")},
            "hosts": everyone,
            "release": plan["release"] if serves else None,
            "simulated_hardware": bool(plan["hardware"] and plan["hardware"]["simulated"]),
            "driver": driver,
            "cuda": cuda,
            "gpu_settings": settings,
            "fabric": fabric,
            "nccl": nccl,
            "models": models(item for item in plan["deployments"] if item["name"] in names),
            "instances": mine,
            "groups": groups,
            "relay_port": RELAY_PORT if serves else 0,
            "ray": cluster,
            "gateway": gateway if is_gateway else None,
            "firewall": {"inbound": inbound.get(host, [])},
            "distributions": may_run if has_gpus else [],
            "take_over": described["take_over"],
        }
        slices[host]["health"] = expectations(slices[host], plan["hardware"])
    return slices


def _ray_part(cluster: dict[str, Any] | None, host: str) -> dict[str, Any] | None:
    return {**cluster, "part": "head" if host == cluster["head"] else "worker"} if cluster else None


def _gpu_users(mine: list[dict[str, Any]], cluster: dict[str, Any] | None, host: str) -> list[dict[str, Any]]:
    """Units with their GPUs; Ray's unit holds those of the engines that run over it."""
    return [*mine, {"unit": cluster["unit"], "gpu_ids": cluster["gpu_ids"][host]}] if cluster else mine


def _gateway_roles(gateway: dict[str, Any]) -> list[str]:
    routers = any(item["router"] for item in gateway["deployments"])
    return ["router", "load_balancer"] if routers else ["load_balancer"]


def _nccl(hardware: dict[str, Any] | None) -> dict[str, str] | None:
    """{hardware, topology: observe, measure or inject}; None without GPUs."""
    if not hardware or hardware["device"] != "cuda":
        return None
    return {"hardware": hardware["id"], "topology": hardware["nccl_topology"]}


def models(deployments: Any) -> list[dict[str, Any]]:
    """The different models of some deployments, one for each path."""
    by_path: dict[str, dict[str, Any]] = {}
    for item in deployments:
        by_path.setdefault(item["model"]["path"], item["model"])
    return list(by_path.values())
