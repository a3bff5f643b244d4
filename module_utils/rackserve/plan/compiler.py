"""From a description, the inventory's groups and addresses and the library to the plan."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .capacity import gpu_memory, start_times
from .catalog import Library
from .context import Context
from .cuda import build_cuda
from .description import CLUSTER, EXCUSABLE, HARDWARE, OPTIONS
from .device import check_device, planned_hardware
from .driver import build_driver
from .engines import Site, build_instances
from .fabric import build_fabric
from .findings import Findings, looks_like_secret
from .flows import build_flows, scrape_targets
from .gateway import build_gateway, doors, gateway_host
from .gpu_settings import build_gpu_settings
from .groups import build_groups, build_ray, check_ray_ports
from .inventory import check_networks, check_sources, read_inventory
from .merge import apply_overrides
from .placement import place
from .ports import check_ports
from .resolve import resolve_all
from .router import aliases, check_router_release, check_routers, router_release
from .schema import validate
from .sets.check import check_modules, check_set
from .sets.proof import proof
from .sets.schema import RELEASE
from .shapes import Resolved
from .slices import build_slices

PLAN_VERSION = 1
_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "hosts_per_replica", "replicas")
_SUMMARY = (
    *("name", "served_model_name", "layout", *_SIZES, "data_parallel_lb", "expert_parallel", "executor"),
    *("router", "fallback", "port_base", "profile", "slo"),
)
_RELEASE_PARTS = ("device", "built", "python", "vllm", "torch", "ray", "driver", "lock", "engine_command")


def compile_plan(
    cluster: Any, groups: Any, addresses: Any, library: Library, overrides: Any = None, *, sources: Any = None
) -> dict[str, Any]:
    """Compile one cluster.

    ``cluster`` is the description (docs/cluster.md), ``groups`` {group: [host]} and ``addresses`` {host: IP} come from
    the inventory, ``overrides`` is a merge patch, ``sources`` {host: folder of its inventory}. Returns the plan: plain
    data, the same for the same input. Nothing in the input raises: what is wrong stands in ``plan["findings"]``; a plan
    with an error finding must not be applied.
    """
    findings = Findings()
    if not cluster:
        fix = "Write it into group_vars/all/cluster.yml beside the inventory (docs/cluster.md), or correct -i."
        findings.error("no-description", "cluster", "the inventory describes no cluster.", fix)
    merged, changes = apply_overrides(cluster, overrides, findings)
    _refuse_secrets(merged, findings)
    described = validate(CLUSTER, merged, "cluster", findings)
    release = library.take("releases", described["release"], RELEASE, "cluster.release", findings)
    hardware = library.take("hardware", described["hardware"], HARDWARE, "cluster.hardware", findings)
    proven = _check_release(described, release, hardware, findings)
    network = described["network"]
    network["management_cidrs"] = check_networks(
        network["management_cidrs"], "cluster.network.management_cidrs", findings
    )
    check_device(release, hardware, described["simulated_hardware"], findings)
    _check_platform(release, hardware, network["fabric"], findings)
    fitting = None if findings.broken("cluster.release") else release  # what follows from that is not told again
    driver = build_driver(described, fitting, hardware, findings)
    cuda = build_cuda(described, fitting, hardware, findings)
    settings = build_gpu_settings(described, hardware, findings)
    fabric = build_fabric(described, fitting, hardware, findings)
    options = None
    distributions = [described["distribution"]] if described["distribution"] else []
    if release:
        distributions = distributions or list(release["distributions"])
        if release["options"]:
            options = library.take("options", release["options"], OPTIONS, "cluster.release", findings)
        path = f"{described['paths']['releases']}/{described['release']}"
        router = router_release(release, described["paths"]["releases"])
        parts = {part: release[part] for part in _RELEASE_PARTS}
        release = {"id": described["release"], "path": path, **parts, "router": router}
    if hardware:
        hardware = planned_hardware(described["hardware"], hardware, described["simulated_hardware"])
    inventory = read_inventory(groups, addresses, findings)
    check_sources(sources, findings)
    context = Context(
        described,
        library,
        inventory,
        findings,
        release,
        hardware,
        options,
        driver,
        cuda,
        settings,
        fabric,
        distributions,
    )
    plan = _plan(context, resolve_all(context), changes)
    _excuse(described["exceptions"], findings)
    plan["hash"] = plan_hash(plan)
    for part in plan["slices"].values():
        part["plan_hash"] = plan["hash"]
    plan["proof"] = proven
    findings.keep_causes("no-description", "inventories-merged")
    plan["findings"] = findings.sorted()
    return plan


def _plan(context: Context, deployments: list[Resolved], changes: list[dict[str, Any]]) -> dict[str, Any]:
    described, inventory, findings = context.described, context.inventory, context.findings
    plan: dict[str, Any] = {
        "version": PLAN_VERSION,
        "cluster": described["name"],
        "hash": "",
        "release": context.release,
        "hardware": context.hardware,
        "driver": context.driver,
        "cuda": context.cuda,
        "gpu_settings": context.gpu_settings,
        "fabric": context.fabric,
        "overrides": changes,
        "deployments": [_summary(item) for item in deployments],
        "instances": [],
        "groups": [],
        "ray": [],
        "gateway": None,
        "capacity": {},
    }
    check_routers(deployments, bool(described["gateway"]), findings)
    if context.release:
        check_router_release(deployments, context.release, findings)
    if context.release and context.hardware:
        place(deployments, context.hardware, context.release, inventory, findings)
        _add_engines(plan, deployments, _site(context, context.release, context.hardware, deployments), findings)
    host = gateway_host(described["gateway"], inventory, findings)
    if host:
        at = (host, inventory.addresses[host])
        plan["gateway"] = build_gateway(described["gateway"], at, deployments, plan["instances"], findings)
        for instance in plan["instances"]:
            instance["gateway_doors"] = doors(plan["gateway"]["deployments"], instance)
        plan["gateway"]["router_release"] = context.release["router"] if context.release else None
        if host in inventory.members("gpu"):
            why = f"{host} runs the gateway and engines: one machine down takes both, and they share its CPUs."
            findings.warning("gateway-on-gpu-host", "cluster.gateway.hosts", why, "Give the gateway its own host.")
    check_ports(plan, {item.name: item.where for item in deployments}, findings)
    plan["scrape_targets"] = scrape_targets(plan)
    plan["firewall"] = {"flows": build_flows(inventory, described["network"]["management_cidrs"], plan)}
    plan["slices"] = build_slices(plan, described["network"], described, inventory, context.distributions)
    return plan


def _site(context: Context, release: dict[str, Any], hardware: dict[str, Any], deployments: list[Resolved]) -> Site:
    described = context.described
    return Site(
        release=release,
        hardware=hardware,
        device=context.device,
        network=described["network"],
        addresses=context.inventory.addresses,
        gateway=bool(described["gateway"]),
        ray_ports=described["ray"],
        aliases=aliases(deployments),
    )


def _add_engines(plan: dict[str, Any], deployments: list[Resolved], site: Site, findings: Findings) -> None:
    plan["ray"] = build_ray(deployments, site, findings)
    if plan["ray"]:
        check_ray_ports(site.ray_ports, findings)
    for item in deployments:
        plan["capacity"][item.name] = _capacity(item, site.hardware, findings)
        instances = build_instances(item, site)
        plan["instances"] += instances
        plan["groups"] += build_groups(item, instances, plan["ray"])


def plan_hash(plan: dict[str, Any]) -> str:
    """sha256 of the plan's canonical JSON, without its findings, what is proven of it and the hash itself."""
    slices = {host: {**part, "plan_hash": ""} for host, part in plan["slices"].items()}
    rest = {key: value for key, value in plan.items() if key not in ("hash", "findings", "proof")}
    text = json.dumps({**rest, "slices": slices}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_secrets(cluster: Any, findings: Findings) -> None:
    gateway = cluster.get("gateway") if isinstance(cluster, dict) else None
    keys = gateway.get("api_keys") if isinstance(gateway, dict) else None
    for index, key in enumerate(keys if isinstance(keys, list) else []):
        if looks_like_secret(key):
            findings.error(
                "secret-in-description",
                f"cluster.gateway.api_keys[{index}]",
                "this reads like a key itself; the description and the plan carry names only.",
                "Name the key here, put its value into the vault file as api_key_<name>; if it was real, replace it.",
            )


def _check_release(
    described: dict[str, Any], release: dict[str, Any] | None, hardware: dict[str, Any] | None, findings: Findings
) -> dict[str, Any] | None:
    """Judge the set itself; returns where it was proven ({set, proven, text}), None without release or hardware."""
    where = f"files/releases/{described['release']}.yml"
    if release:
        check_set(release, where, findings)
    if not release or not hardware:
        return None
    check_modules(release, hardware, where, findings)
    proven = proof(release, described["hardware"], described["simulated_hardware"])
    if not proven["proven"]:
        fix = "Prove it and record that in the set's proven_on (docs/releases.md)."
        findings.warning("release-unproven", "cluster.release", f"{proven['text']}.", fix)
    return proven


def _check_platform(
    release: dict[str, Any] | None, hardware: dict[str, Any] | None, fabric: dict[str, Any], findings: Findings
) -> None:
    if release and not release["built"]:
        why = "release set is described, its builder and driver roles come later."
        findings.warning("release-not-built", "cluster.release", why, "Plan with it; it cannot be installed yet.")
    where = "cluster.network.fabric"
    if fabric["kind"] != "none" and not fabric["hcas"]:
        findings.error("fabric-without-hcas", f"{where}.hcas", "a fabric needs adapters.", "Say how many a host has.")
    if hardware and (fabric["hcas"], fabric["rate_gbps"]) != (hardware["hcas"], hardware["rate_gbps"]):
        why = (
            f"described: {fabric['hcas']} x {fabric['rate_gbps']} Gb/s; "
            f"hardware profile: {hardware['hcas']} x {hardware['rate_gbps']} Gb/s."
        )
        findings.warning("fabric-differs", where, why, "Correct one of them.")


def _summary(item: Resolved) -> dict[str, Any]:
    spec, model = item.spec, item.spec["model"]
    return {
        **{key: spec[key] for key in _SUMMARY},
        **{part: spec[part] for part in ("prefill", "decode") if spec[part]},
        "hosts": item.hosts,
        "max_model_len": item.max_model_len,
        "model": {"name": model["card"], **{key: model[key] for key in ("path", "revision", "source")}},
    }


def _capacity(item: Resolved, hardware: dict[str, Any], findings: Findings) -> dict[str, Any]:
    lines: list[str] = []
    for pool in item.pools:
        shape, said = pool.shape, f"{pool.part}: " if pool.part else ""
        what = "engine(s)" if shape.hosts == 1 else f"group(s) of {shape.hosts} hosts"
        over = f"over {len(pool.hosts)} host(s) with {hardware['slots']} slots"
        lines.append(f"{said}{pool.replicas} {what} x {shape.text} {over}")
        if hardware["device"] == "cuda":
            lines += [said + line for line in gpu_memory(hardware, item.card, pool, findings)]
    return {"text": [*lines, start_times(hardware, item.card)[2]], "slo": item.spec["slo"]}


def _excuse(codes: list[str], findings: Findings) -> None:
    for code in dict.fromkeys(codes):
        used = False
        for item in findings.items:
            if item["code"] == code and item["severity"] == "warning":
                item["severity"] = "note"
                item["fix"] = f"Accepted by cluster.exceptions: {EXCUSABLE[code]}."
                used = True
        if not used:
            why = f'the exception "{code}" excuses nothing any more.'
            findings.note("exception-unused", "cluster.exceptions", why, "Remove it.")
