"""From a description, the inventory's groups and addresses and the library to the plan."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ..nccl.environment import reasons
from .arguments import (
    check_arguments,
    check_environment,
    check_names,
    communication,
    drop_nulls,
    engine_argv,
    engine_environment,
    parse_size,
)
from .capacity import gpu_memory, gpu_memory_needed_mib, start_times
from .catalog import Library
from .cuda import build_cuda
from .description import CLUSTER, EXCUSABLE, HARDWARE, MODEL, OPTIONS, PROFILE
from .device import check_device, engine_device, planned_hardware
from .driver import build_driver
from .fabric import build_fabric
from .findings import Findings, looks_like_secret
from .flows import build_flows, scrape_targets
from .gateway import build_gateway, gateway_host
from .gpu_settings import build_gpu_settings
from .inventory import Inventory, check_networks, check_sources, read_inventory
from .merge import apply_overrides
from .placement import Resolved, check_ports, place
from .schema import validate
from .sets.check import check_modules, check_set
from .sets.proof import proof
from .sets.schema import RELEASE
from .slices import build_slices

PLAN_VERSION = 1
_MOVING_REVISIONS = ("main", "master", "HEAD", "latest")
_STOP_MARGIN_S = 30
_RELEASE_PARTS = ("device", "built", "python", "vllm", "torch", "ray", "driver", "lock", "engine_command")


@dataclass
class _Context:
    """What every step of one compile needs."""

    described: dict[str, Any]
    catalog: Library
    inventory: Inventory
    findings: Findings
    release: dict[str, Any] | None
    hardware: dict[str, Any] | None
    options: list[str] | None
    driver: dict[str, Any] | None
    cuda: dict[str, Any] | None
    gpu_settings: dict[str, Any]
    fabric: dict[str, Any] | None
    distributions: list[str]

    @property
    def device(self) -> str:
        """What engines run on."""
        return engine_device(self.release, self.hardware) if self.hardware else ""


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
        release = {"id": described["release"], "path": path, **{part: release[part] for part in _RELEASE_PARTS}}
    if hardware:
        hardware = planned_hardware(described["hardware"], hardware, described["simulated_hardware"])
    inventory = read_inventory(groups, addresses, findings)
    check_sources(sources, findings)
    context = _Context(
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
    plan = _plan(context, _resolve_all(context), changes)
    _excuse(described["exceptions"], findings)
    plan["hash"] = plan_hash(plan)
    for part in plan["slices"].values():
        part["plan_hash"] = plan["hash"]
    plan["proof"] = proven
    findings.keep_causes("no-description", "inventories-merged")
    plan["findings"] = findings.sorted()
    return plan


def _plan(context: _Context, deployments: list[Resolved], changes: list[dict[str, Any]]) -> dict[str, Any]:
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
        "ray": [],
        "gateway": None,
        "capacity": {},
    }
    if context.release and context.hardware:
        place(deployments, context.hardware["slots"], inventory, findings)
        for item in deployments:
            plan["capacity"][item.spec["name"]] = _capacity(item, context.hardware, findings)
            plan["instances"] += _instances(item, context.release, context.hardware, context)
    host = gateway_host(described["gateway"], inventory, findings)
    if host:
        at = (host, inventory.addresses[host])
        plan["gateway"] = build_gateway(described["gateway"], at, deployments, plan["instances"], findings)
        if host in inventory.members("gpu"):
            why = f"{host} runs the gateway and engines: one machine down takes both, and they share its CPUs."
            findings.warning("gateway-on-gpu-host", "cluster.gateway.hosts", why, "Give the gateway its own host.")
    places = {item.spec["name"]: item.where for item in deployments}
    check_ports(plan["instances"], places, plan["gateway"], findings)
    management = described["network"]["management_cidrs"]
    plan["scrape_targets"] = scrape_targets(plan["gateway"], plan["instances"])
    plan["firewall"] = {"flows": build_flows(inventory, management, plan["gateway"], plan["instances"])}
    plan["slices"] = build_slices(plan, described["network"], described, inventory, context.distributions)
    return plan


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


def _resolve_all(context: _Context) -> list[Resolved]:
    described, findings = context.described, context.findings
    if not described["deployments"] and not findings.broken("cluster.deployments"):
        findings.warning("no-deployments", "cluster.deployments", "nothing is served.", "Describe a deployment.")
    names: dict[str, str] = {}
    served: dict[str, str] = {}
    paths: dict[str, Any] = {}
    resolved: list[Resolved] = []
    for index, spec in enumerate(described["deployments"]):
        where = f"cluster.deployments[{index}]"
        spec["served_model_name"] = spec["served_model_name"] or spec["name"]
        for seen, key in ((names, "name"), (served, "served_model_name")):
            if spec[key] and spec[key] in seen:
                why = f'"{spec[key]}" is also the {key} of {seen[spec[key]]}.'
                findings.error(f"duplicate-{key.replace('_', '-')}", f"{where}.{key}", why, "Choose another.")
            seen.setdefault(spec[key], where)
        _complete_model(spec["model"], described["paths"]["models"])
        model = spec["model"]
        if paths.setdefault(model["path"], model) != model:
            why = f"{model['path']} is used for two different models."
            findings.error("model-path-conflict", f"{where}.model.path", why, "One directory holds one model.")
        item = _resolve(spec, where, context)
        if item:
            resolved.append(item)
    return resolved


def _complete_model(model: dict[str, Any], parent: str) -> None:
    model["path"] = model["path"] or f"{parent}/{model['card']}"
    source = model["source"]
    if source["kind"] == "controller":
        source["path"] = source["path"] or f".cache/models/{model['card']}"


def _resolve(spec: dict[str, Any], where: str, context: _Context) -> Resolved | None:
    findings, hardware, catalog = context.findings, context.hardware, context.catalog
    if spec["model"]["revision"] in _MOVING_REVISIONS:
        why = f'"{spec["model"]["revision"]}" names other files tomorrow.'
        findings.error("moving-revision", f"{where}.model.revision", why, "Write the commit.")
    hosts = _engine_hosts(spec, where, context)
    card = profile = None
    if not findings.broken(f"{where}.model.card"):
        card = catalog.take("models", spec["model"]["card"], MODEL, f"{where}.model.card", findings)
    if not findings.broken(f"{where}.profile"):
        profile = catalog.take("profiles", spec["profile"], PROFILE, f"{where}.profile", findings)
    if not card or not profile or not hardware or findings.broken(f"{where}.hosts"):
        return None
    if not context.release or any(host not in context.inventory.addresses for host in hosts):
        return None
    device = context.device
    if device not in profile["devices"]:
        why = f'profile "{spec["profile"]}" is for {", ".join(profile["devices"])}; engines run on {device}.'
        findings.error("profile-device", f"{where}.profile", why, "Choose another profile.")
    args = _arguments(spec, where, card, profile, context)
    kind = context.described["network"]["fabric"]["kind"]
    env = check_environment(spec["env"], kind, "kv_transfer_config" in args, f"{where}.env", findings)
    return Resolved(where, spec, card, profile, hosts, args, env)


def _engine_hosts(spec: dict[str, Any], where: str, context: _Context) -> list[str]:
    hosts = context.inventory.resolve(spec["hosts"], f"{where}.hosts", context.findings)
    for host in hosts:
        if host not in context.inventory.members("gpu"):
            why = f"{host} is to run engines and is not in the inventory's group gpu."
            context.findings.error("group-mismatch", f"{where}.hosts", why, "Put it into that group.")
        elif host not in context.inventory.addresses and not context.findings.broken(f"inventory.{host}"):
            why = f"{host} has no usable address."
            context.findings.error("missing-address", f"{where}.hosts", why, "Give it a literal ansible_host.")
    return hosts


def _arguments(
    spec: dict[str, Any], where: str, card: dict[str, Any], profile: dict[str, Any], context: _Context
) -> dict[str, Any]:
    """The engine's arguments: card and profile first, the deployment's over them; a whole max_model_len always."""
    findings, device = context.findings, context.device
    base = {"max_model_len": card["max_model_len"], "shutdown_timeout": profile["shutdown_timeout_s"]}
    spot = f"files/profiles.yml:{spec['profile']}.engine_args"
    usual = check_arguments(drop_nulls(profile["engine_args"]), device, spot, findings)
    own = check_arguments(drop_nulls(spec["engine_args"]), device, f"{where}.engine_args", findings)
    if context.options:
        check_names(usual, context.options, spot, findings)
        check_names(own, context.options, f"{where}.engine_args", findings)
    removed = {name for name, value in spec["engine_args"].items() if value is None}
    args = {**base, **{name: value for name, value in usual.items() if name not in removed}, **own}
    longest = parse_size(args["max_model_len"]) or card["max_model_len"]
    if longest > card["max_model_len"]:
        why = f"{longest} tokens; the model knows {card['max_model_len']}."
        findings.error("context-too-long", f"{where}.engine_args.max_model_len", why, "Lower it.")
    return {**args, "max_model_len": longest}


def _summary(item: Resolved) -> dict[str, Any]:
    spec, model = item.spec, item.spec["model"]
    keys = ("name", "served_model_name", "layout", "tensor_parallel_size", "replicas", "port_base", "profile", "slo")
    return {
        **{key: spec[key] for key in keys},
        "hosts": item.hosts,
        "max_model_len": item.max_model_len,
        "model": {"name": model["card"], **{key: model[key] for key in ("path", "revision", "source")}},
    }


def _capacity(item: Resolved, hardware: dict[str, Any], findings: Findings) -> dict[str, Any]:
    tp, replicas, hosts = item.spec["tensor_parallel_size"], item.spec["replicas"], len(item.hosts)
    lines = [f"{replicas} engine(s) x TP {tp} over {hosts} host(s) with {hardware['slots']} slots"]
    if hardware["device"] == "cuda":
        lines += gpu_memory(hardware, item, findings)
    return {"text": [*lines, start_times(hardware, item.card)[2]], "slo": item.spec["slo"]}


def _instances(
    item: Resolved, release: dict[str, Any], hardware: dict[str, Any], context: _Context
) -> list[dict[str, Any]]:
    spec, name = item.spec, item.spec["name"]
    ready_s, start_s, _text = start_times(hardware, item.card)
    interface = context.described["network"]["cluster_interface"]
    instances = []
    for index, seat in enumerate(item.seats):
        instance: dict[str, Any] = {
            "name": f"{name}-{index}",
            "index": index,
            "deployment": name,
            "unit": f"vllm-{name}-{index}.service",
            "host": seat.host,
            "address": context.inventory.addresses[seat.host],
            "port": spec["port_base"] + seat.local,
            "gpu_ids": seat.gpu_ids if hardware["device"] == "cuda" else [],
            "ranks": list(range(spec["tensor_parallel_size"])),
            "part": "replica",
            "supervision_group": f"{name}-{index}",
            "gateway_target": f"be_{name}/r{index}" if context.described["gateway"] else None,
            "served_model_name": spec["served_model_name"],
            "model_path": spec["model"]["path"],
            "max_model_len": item.max_model_len,
            "api_key_secret": "engine_api_key",
            "shutdown_timeout_s": item.args["shutdown_timeout"],
            "stop_timeout_s": item.args["shutdown_timeout"] + _STOP_MARGIN_S,
            "start_timeout_s": start_s,
        }
        if hardware["device"] == "cuda":
            instance["gpu_memory_needed_mib"] = gpu_memory_needed_mib(hardware, item)
        instance["argv"] = engine_argv(release, instance, item.args)
        env = engine_environment(
            instance,
            item.args,
            context.device,
            omp_threads=hardware["omp_threads"],
            interface=interface,
            ready_timeout_s=ready_s,
            topology_use=hardware["nccl_topology"],
        )
        instance["env"] = dict(sorted({**env, **item.env}.items()))
        told = communication(
            instance, item.args, context.device, interface=interface, topology_use=hardware["nccl_topology"]
        )
        if told:
            instance["env_reasons"] = {name: why for name, why in reasons(told).items() if name not in item.env}
        instances.append(instance)
    return instances


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
