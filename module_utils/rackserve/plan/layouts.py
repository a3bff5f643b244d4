"""Layouts: which keys belong to which, and the pools a deployment's keys describe."""

from __future__ import annotations

from typing import Any

from .deployment import DEPLOYMENT
from .findings import Findings
from .shapes import Shape

_ONE_HOST = ("replica", "single")
# The layouts whose engines a key of a deployment shapes.
_BELONGS = {
    "hosts": (*_ONE_HOST, "data_parallel", "multi_node"),
    "replicas": (*_ONE_HOST, "data_parallel", "multi_node"),
    "tensor_parallel_size": (*_ONE_HOST, "data_parallel", "multi_node"),
    "pipeline_parallel_size": (*_ONE_HOST, "multi_node"),
    "data_parallel_size": ("data_parallel",),
    "data_parallel_lb": ("data_parallel",),
    "expert_parallel": (*_ONE_HOST, "data_parallel", "multi_node"),
    "hosts_per_replica": ("data_parallel", "multi_node"),
    "executor": ("multi_node",),
    "prefill": ("prefill_decode",),
    "decode": ("prefill_decode",),
}
PARTS = ("prefill", "decode")


def check_keys(spec: dict[str, Any], where: str, findings: Findings) -> None:
    """Report keys that another layout has, and the pools that prefill_decode lacks."""
    layout, keys = spec["layout"], DEPLOYMENT.keys or {}
    for key, layouts in _BELONGS.items():
        if spec[key] == keys[key].empty() or layout in layouts or findings.broken(f"{where}.{key}"):
            continue
        fix = f"Remove it, or use layout {' or '.join(layouts)}."
        if layout == "prefill_decode":
            fix = "Write it into prefill and decode."
        why = f"layout {layout} has no {key}."
        findings.error("key-of-another-layout", f"{where}.{key}", why, fix)
    for part in PARTS:
        if layout == "prefill_decode" and not spec[part] and not findings.broken(f"{where}.{part}"):
            why = f"layout prefill_decode needs the pool {part}."
            findings.error("pool-missing", f"{where}.{part}", why, "Give its hosts, replicas and sizes.")
    if spec["router_settings"] and spec["router"] != "vllm-router":
        why = f"the router is {spec['router']}, which has no such settings."
        findings.error("router-settings-unused", f"{where}.router_settings", why, "Use router: vllm-router.")


def pools_of(spec: dict[str, Any], where: str) -> list[tuple[str, str, dict[str, Any]]]:
    """The pools as (part, where, keys): one with the deployment's own keys, or prefill and decode."""
    if spec["layout"] != "prefill_decode":
        return [("", where, spec)]
    found = []
    for part in PARTS:
        if spec[part]:
            own = spec[part]
            args = {**spec["engine_args"], **own["engine_args"]}
            keys = {**own, "profile": own["profile"] or spec["profile"], "engine_args": args}
            found.append((part, f"{where}.{part}", keys))
    return found


def shape_of(keys: dict[str, Any], part: str) -> Shape:
    """The shape that a deployment's or a pool's keys describe; keys of other layouts count as not given."""
    tensor, data, hosts = keys["tensor_parallel_size"], keys["data_parallel_size"], keys["hosts_per_replica"]
    if part:
        layout = "data_parallel" if data > 1 or hosts > 1 else "replica"
        return Shape(layout, tensor, data=data, hosts=hosts, expert_parallel=keys["expert_parallel"])
    layout = keys["layout"]
    if layout == "data_parallel":
        given = {"data": data, "hosts": hosts, "balancing": keys["data_parallel_lb"]}
    else:
        given = {"pipeline": keys["pipeline_parallel_size"]}
    if layout == "multi_node":
        given.update(hosts=hosts, executor=keys["executor"])
    return Shape(layout, tensor, expert_parallel=keys["expert_parallel"], **given)


def connector(part: str) -> dict[str, str]:
    """How a pool hands KV cache over; a request whose cache cannot be had fails instead of being computed twice."""
    role = {"prefill": "kv_producer", "decode": "kv_consumer"}[part]
    return {"kv_connector": "NixlConnector", "kv_role": role, "kv_load_failure_policy": "fail"}
