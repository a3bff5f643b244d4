"""Instances: every engine's unit with its command, environment and timeouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..nccl.environment import reasons
from .arguments import Place, communication, engine_argv, engine_environment
from .capacity import gpu_memory_needed_mib, start_times
from .router import in_url
from .shapes import Pool, Resolved
from .units import LOOPBACK, Unit, parallel_words, units_of

_STOP_MARGIN_S = 30
_SIDE_CHANNEL_PORT = 5600


@dataclass
class Site:
    """What engines of every deployment share; ``channels`` {host: next free port of the KV cache's side channel}."""

    release: dict[str, Any]
    hardware: dict[str, Any]
    device: str
    network: dict[str, Any]
    addresses: dict[str, str]
    gateway: bool
    ray_ports: dict[str, int]
    aliases: dict[str, list[str]]
    channels: dict[str, int] = field(default_factory=dict)


def build_instances(item: Resolved, site: Site) -> list[dict[str, Any]]:
    """The instances of a deployment, group by group, each group's head first."""
    instances: list[dict[str, Any]] = []
    ports: dict[str, int] = {}
    serving = 0
    for pool in item.pools:
        for group in pool.groups:
            for unit in units_of(pool, group):
                instance = _identity(item, pool, unit, site)
                if unit.serves:
                    local = ports.get(unit.seat.host, 0)
                    ports[unit.seat.host] = local + 1
                    instance["port"] = item.spec["port_base"] + local
                    instance["gateway_target"] = _target(item, pool, site, serving)
                    serving += 1
                _complete(instance, item, pool, unit, site)
                instances.append(instance)
    return instances


def _target(item: Resolved, pool: Pool, site: Site, slot: int) -> str | None:
    """The gateway's server of an engine; one behind a router has its own beside it, one of a pool none."""
    if not site.gateway:
        return None
    if item.spec["router"] == "haproxy":
        return f"be_{item.name}/r{slot}"
    return None if pool.part else f"be_{item.name}-engines/e{slot}"


def _identity(item: Resolved, pool: Pool, unit: Unit, site: Site) -> dict[str, Any]:
    spec, args = item.spec, pool.args
    instance = {
        "name": unit.name,
        "index": unit.group.index,
        "deployment": item.name,
        "unit": f"vllm-{unit.name}.service",
        "host": unit.seat.host,
        "address": site.addresses[unit.seat.host],
        "port": None,
        "gpu_ids": unit.gpu_ids if site.hardware["device"] == "cuda" else [],
        "ranks": unit.ranks,
        "dp_ranks": unit.copies,
        "node_rank": unit.node,
        "part": unit.part,
        "pool": pool.part or None,
        "serves": unit.serves,
        "executor": pool.shape.executor,
        "group": unit.group.name,
        "supervision_group": unit.group.name,
        "gateway_target": None,
        "gateway_doors": [],
        "served_model_name": spec["served_model_name"],
        "model_path": spec["model"]["path"],
        "max_model_len": args["max_model_len"],
        "api_key_secret": "engine_api_key",
        "shutdown_timeout_s": args["shutdown_timeout"],
        "stop_timeout_s": args["shutdown_timeout"] + _STOP_MARGIN_S,
        "start_timeout_s": start_times(site.hardware, item.card)[1],
    }
    if site.hardware["device"] == "cuda":
        instance["gpu_memory_needed_mib"] = gpu_memory_needed_mib(site.hardware, item.card, pool)
    return instance


def _complete(instance: dict[str, Any], item: Resolved, pool: Pool, unit: Unit, site: Site) -> None:
    shape = pool.shape
    meeting = site.addresses[unit.group.seats[0].host] if shape.hosts > 1 else LOOPBACK
    words = parallel_words(shape, unit, meeting)
    # Whoever has no HTTP server is refused a number of them.
    args = {name: value for name, value in pool.args.items() if unit.serves or name != "api_server_count"}
    names = [item.spec["served_model_name"], *site.aliases.get(item.name, [])]
    instance["argv"] = engine_argv(site.release, instance, names, words, args)
    place = Place(
        hosts=shape.hosts,
        interface=site.network["cluster_interface"],
        fabric=site.network["fabric"]["kind"],
        topology_use=site.hardware["nccl_topology"],
    )
    told = communication(args, site.device, place)
    env = engine_environment(
        instance,
        args,
        site.device,
        place,
        omp_threads=site.hardware["omp_threads"],
        ready_timeout_s=start_times(site.hardware, item.card)[0],
    )
    if pool.part:
        env.update(_side_channel(instance, unit, site))
    if shape.executor == "ray":
        env.update(RAY_ADDRESS=f"{in_url(instance['address'])}:{site.ray_ports['port']}", RAY_AUTH_MODE="token")
    instance["env"] = dict(sorted({**env, **item.env}.items()))
    if told:
        instance["env_reasons"] = {name: why for name, why in reasons(told).items() if name not in item.env}


def _side_channel(instance: dict[str, Any], unit: Unit, site: Site) -> dict[str, str]:
    """Where the other pool asks for KV cache; vLLM adds a copy's number to the port."""
    first, last = unit.copies[0], unit.copies[-1]
    base = max(_SIDE_CHANNEL_PORT, site.channels.get(unit.seat.host, 0) - first)
    site.channels[unit.seat.host] = base + last + 1
    instance["side_channel_ports"] = list(range(base + first, base + last + 1))
    return {"VLLM_NIXL_SIDE_CHANNEL_HOST": instance["address"], "VLLM_NIXL_SIDE_CHANNEL_PORT": str(base)}
