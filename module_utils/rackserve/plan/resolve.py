"""Deployments with everything they refer to."""

from __future__ import annotations

from typing import Any

from .arguments import check_arguments, check_environment, check_names, drop_nulls, parse_size
from .context import Context
from .description import MODEL, PROFILE
from .layouts import check_keys, connector, pools_of, shape_of
from .shapes import Pool, Resolved

_MOVING_REVISIONS = ("main", "master", "HEAD", "latest")


def resolve_all(context: Context) -> list[Resolved]:
    """The deployments whose card, profile and hosts are known; what is wrong becomes findings."""
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


def _resolve(spec: dict[str, Any], where: str, context: Context) -> Resolved | None:
    findings, catalog = context.findings, context.catalog
    if spec["model"]["revision"] in _MOVING_REVISIONS:
        why = f'"{spec["model"]["revision"]}" names other files tomorrow.'
        findings.error("moving-revision", f"{where}.model.revision", why, "Write the commit.")
    check_keys(spec, where, findings)
    card = None
    if not findings.broken(f"{where}.model.card"):
        card = catalog.take("models", spec["model"]["card"], MODEL, f"{where}.model.card", findings)
    profile = _profile(spec, where, context)
    pools = []
    for part, spot, keys in pools_of(spec, where):
        own = profile if keys["profile"] == spec["profile"] else _profile(keys, spot, context)
        pools.append(_pool((part, spot, keys), card, own, context))
    if not card or not profile or not context.hardware or not context.release:
        return None
    known = [pool for pool in pools if pool]
    if not known or len(known) < len(pools):
        return None
    kind = context.described["network"]["fabric"]["kind"]
    transfers = any("kv_transfer_config" in pool.args for pool in known)
    env = check_environment(spec["env"], kind, transfers, f"{where}.env", findings)
    return Resolved(where, spec, card, profile, env, known)


def _profile(keys: dict[str, Any], where: str, context: Context) -> dict[str, Any] | None:
    spot, findings = f"{where}.profile", context.findings
    if findings.broken(spot):
        return None
    profile: dict[str, Any] | None = context.catalog.take("profiles", keys["profile"], PROFILE, spot, findings)
    if profile and context.release and context.hardware and context.device not in profile["devices"]:
        why = f'profile "{keys["profile"]}" is for {", ".join(profile["devices"])}; engines run on {context.device}.'
        findings.error("profile-device", spot, why, "Choose another profile.")
    return profile


def _pool(
    said: tuple[str, str, dict[str, Any]],
    card: dict[str, Any] | None,
    profile: dict[str, Any] | None,
    context: Context,
) -> Pool | None:
    """Engines of one kind, ``said`` as pools_of says it; None where their hosts, card or profile are not known."""
    part, where, keys = said
    hosts = _engine_hosts(keys, where, context)
    if not card or not profile or not context.hardware or context.findings.broken(f"{where}.hosts"):
        return None
    if any(host not in context.inventory.addresses for host in hosts):
        return None
    args = _arguments(keys, where, card, profile, context)
    if part:
        if "kv_transfer_config" in args:
            why = "layout prefill_decode decides how the KV cache gets from one pool to the other."
            spot = f"{where}.engine_args.kv_transfer_config"
            context.findings.error("managed-argument", spot, why, "Leave it out.")
        args["kv_transfer_config"] = connector(part)
    return Pool(part, where, shape_of(keys, part), keys["replicas"], hosts, args)


def _engine_hosts(spec: dict[str, Any], where: str, context: Context) -> list[str]:
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
    spec: dict[str, Any], where: str, card: dict[str, Any], profile: dict[str, Any], context: Context
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
