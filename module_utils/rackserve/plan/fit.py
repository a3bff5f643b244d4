"""Whether a shape can be: ranks against GPUs and hosts, what divides what, and what an engine's device can do."""

from __future__ import annotations

from typing import Any

from .findings import Findings, as_dict
from .shapes import Pool, Shape

_DEEP_EP = ("deepep_high_throughput", "deepep_low_latency", "deepep_v2")
_BRING_PACKAGE = {**dict.fromkeys(_DEEP_EP, "deep_ep"), "nixl_ep": "nixl"}
_FOR_DBO = (*_DEEP_EP, "nixl_ep")
# What vLLM on CPUs does not do, by key, and what to write instead.
_ON_CPU = {
    "executor": ("has no Ray executor", "Use executor mp."),
    "pipeline_parallel_size": (
        "dies of the first request when layers are cut into stages",
        "Use tensor_parallel_size.",
    ),
    "data_parallel_size": ("cannot exchange tokens between ranks of a model with experts", "Use replicas."),
    "expert_parallel": ("cannot exchange tokens between GPUs' experts", "Remove it."),
    "engine_args.enable_eplb": ("does not balance experts", "Remove it."),
}


def check_shape(
    pool: Pool, card: dict[str, Any], hardware: dict[str, Any], release: dict[str, Any], findings: Findings
) -> bool:
    """Report everything that keeps the pool's engines from starting; True when they may be placed."""
    shape, where = pool.shape, pool.where
    if not _check_sizes(shape, where, findings) or not _check_hosts(shape, where, int(hardware["slots"]), findings):
        return False
    _check_balancing(shape, card, where, findings)
    _check_division(shape, card, where, findings)
    _check_executor(shape, release, where, findings)
    _check_experts(pool, card, findings)
    if release["device"] == "cpu":
        _check_cpu(pool, card, findings)
    return not findings.broken(where)


def _check_sizes(shape: Shape, where: str, findings: Findings) -> bool:
    if shape.layout == "data_parallel" and shape.data == 1:
        fix = "Give data_parallel_size, or use layout replica."
        findings.error("one-rank", f"{where}.data_parallel_size", "one rank has nobody to share with.", fix)
    elif shape.layout == "data_parallel" and shape.data % shape.hosts:
        why = f"{shape.data} ranks do not divide by {shape.hosts} hosts."
        fix = f"Use a multiple of {shape.hosts}; layout multi_node cuts one engine over hosts."
        findings.error("ranks-do-not-divide", f"{where}.data_parallel_size", why, fix)
    elif shape.layout == "multi_node" and shape.hosts == 1:
        why = "layout multi_node is for engines over several hosts; hosts_per_replica is 1."
        findings.error("one-host", f"{where}.hosts_per_replica", why, "Give the hosts of one engine, or use replica.")
    elif shape.layout == "multi_node" and shape.ranks % shape.hosts:
        why = f"{shape.text} = {shape.ranks} ranks do not divide by {shape.hosts} hosts."
        findings.error("ranks-do-not-divide", f"{where}.hosts_per_replica", why, "Use a divisor.")
    else:
        return True
    return False


def _check_hosts(shape: Shape, where: str, slots: int, findings: Findings) -> bool:
    spot, each = f"{where}.tensor_parallel_size", shape.ranks_per_host
    if each <= slots:
        return True
    if shape.layout in ("replica", "single") and shape.pipeline == 1:
        why = f"an engine needs {each} slots; a host has {slots}."
        findings.error("tp-too-large", spot, why, f"At most {slots} with layout replica.")
        return False
    why = f"{shape.text} = {shape.ranks} ranks; a host has {slots} slots."
    if shape.hosts > 1:
        why = f"{shape.text} = {shape.ranks} ranks / {shape.hosts} hosts = {each}; a host has {slots} slots."
    if shape.layout == "replica":
        fix = "Use smaller sizes, or layout multi_node."
    else:
        fix = f"Use smaller sizes, or hosts_per_replica {-(-shape.ranks // slots)}."
    findings.error("ranks-over-slots", spot, why, fix)
    return False


def _check_balancing(shape: Shape, card: dict[str, Any], where: str, findings: Findings) -> None:
    spot = f"{where}.data_parallel_lb"
    if shape.balancing == "hybrid" and (shape.hosts == 1 or shape.data_per_host == 1):
        why = f"{shape.data} rank(s) on {shape.hosts} host(s): hybrid balances hosts of two ranks or more."
        findings.error("hybrid-needs-ranks", spot, why, "Use internal, or external (models with experts).")
    if shape.external and not card["experts"]:
        why = "the model has no experts, and vLLM refuses external ranks of such a model."
        findings.error("external-needs-experts", spot, why, "Use layout replica: independent engines do the same.")


def _check_division(shape: Shape, card: dict[str, Any], where: str, findings: Findings) -> None:
    tp, spot = shape.tensor, f"{where}.tensor_parallel_size"
    heads, block = card["attention_heads"], card["shard_block"]
    if shape.pipeline > card["layers"]:
        why = f"{card['layers']} layers cannot be cut into {shape.pipeline} parts."
        findings.error("too-many-stages", f"{where}.pipeline_parallel_size", why, f"At most {card['layers']}.")
    if heads % tp:
        fits = ", ".join(str(n) for n in range(1, min(heads, 64) + 1) if heads % n == 0)
        why = f"{heads} attention heads do not divide by {tp}."
        findings.error("heads-do-not-divide", spot, why, f"Use one of {fits}.")
        return
    for size in card["shard_dims"]:
        if size % tp or size // tp % block:
            why = f"{size} / {tp} = {size / tp:g} is no multiple of the quantisation block {block}."
            findings.error("blocks-do-not-divide", spot, why, "Use a smaller tensor_parallel_size.")
            return
    # Without expert parallelism vLLM cuts every expert over all ranks of the group, not over one copy's alone.
    width, ranks = card["expert_dim"], tp * shape.data
    if width and shape.data > 1 and not shape.expert_parallel and (width % ranks or width // ranks % block):
        why = (
            f"without expert_parallel each expert is cut over {shape.text} = {ranks} ranks, and "
            f"{width} / {ranks} = {width / ranks:g} is no multiple of the quantisation block {block}."
        )
        findings.error("blocks-do-not-divide", f"{where}.data_parallel_size", why, "Set expert_parallel: true.")


def _check_executor(shape: Shape, release: dict[str, Any], where: str, findings: Findings) -> None:
    spot = f"{where}.executor"
    if shape.executor == "ray" and not release["ray"] and release["device"] != "cpu":
        why = f"release {release['id']} carries no Ray."
        findings.error("ray-not-in-release", spot, why, "Use executor mp, or a release with Ray.")
    if release["device"] == "cuda" and shape.tensor > shape.ranks_per_host:
        why = f"TP {shape.tensor} over hosts of {shape.ranks_per_host} ranks: every layer's sum crosses the network."
        fix = f"Use tensor_parallel_size {shape.ranks_per_host} and a larger pipeline_parallel_size."
        findings.warning("tp-across-hosts", f"{where}.tensor_parallel_size", why, fix)


def _check_cpu(pool: Pool, card: dict[str, Any], findings: Findings) -> None:
    shape = pool.shape
    asked = {
        "executor": shape.executor == "ray",
        "pipeline_parallel_size": shape.pipeline > 1,
        "data_parallel_size": shape.data > 1 and bool(card["experts"]),
        "expert_parallel": shape.expert_parallel and shape.data == 1,
        "engine_args.enable_eplb": pool.args.get("enable_eplb") is True,
    }
    if pool.part == "prefill":
        why = "the KV cache goes from pool to pool by NIXL, which releases for CPUs do not carry."
        findings.error("cpu-cannot", pool.where, why, "Use layout replica.")
    for key in (key for key, wanted in asked.items() if wanted):
        why, fix = _ON_CPU[key]
        findings.error("cpu-cannot", f"{pool.where}.{key}", f"vLLM on CPUs {why}.", fix)


def _check_experts(pool: Pool, card: dict[str, Any], findings: Findings) -> None:
    shape, args, spot = pool.shape, pool.args, f"{pool.where}.engine_args"
    if shape.expert_parallel and not card["experts"]:
        why = "the model has no experts."
        findings.error("no-experts", f"{pool.where}.expert_parallel", why, "Remove it.")
    backend = args.get("all2all_backend")
    if backend in _FOR_DBO and not shape.expert_parallel:
        why = f"{backend} carries tokens between experts of different GPUs, and there are none."
        findings.error("needs-expert-parallel", f"{spot}.all2all_backend", why, "Set expert_parallel: true.")
    elif backend in _BRING_PACKAGE:
        why = f"{backend} needs the Python package {_BRING_PACKAGE[backend]}, which vLLM does not bring."
        findings.note("package-beside-vllm", f"{spot}.all2all_backend", why, "The release has to carry it.")
    if pool.part == "prefill":
        why = "the KV cache goes from pool to pool by NIXL, whose Python package nixl vLLM does not bring."
        findings.note("package-beside-vllm", pool.where, why, "The release has to carry it.")
    if backend == "deepep_high_throughput" and shape.data > 1 and pool.part != "prefill":
        why = "it turns CUDA graphs off, which decoding lives of."
        findings.warning("slow-argument", f"{spot}.all2all_backend", why, "Use deepep_low_latency for decoding.")
    if args.get("enable_dbo") is True and backend not in _FOR_DBO:
        why = "overlapping batches need an all2all_backend that computes meanwhile."
        findings.error("dbo-needs-backend", f"{spot}.enable_dbo", why, f"Use one of {', '.join(_FOR_DBO)}.")
    _check_balanced_experts(pool, card, spot, findings)


def _check_balanced_experts(pool: Pool, card: dict[str, Any], spot: str, findings: Findings) -> None:
    shape, on = pool.shape, pool.args.get("enable_eplb") is True
    copies = redundant_experts(pool.args)
    if copies and not on:
        why = f"{copies} redundant experts, and nothing that would place them."
        findings.error("eplb-off", f"{spot}.eplb_config", why, "Set enable_eplb: true.")
    if on and not shape.expert_parallel:
        why = "experts are balanced among GPUs only where each GPU has whole ones."
        findings.error("needs-expert-parallel", f"{spot}.enable_eplb", why, "Set expert_parallel: true.")
    elif on and (card["experts"] + copies) % (shape.tensor * shape.data):
        ranks, total = shape.tensor * shape.data, card["experts"] + copies
        why = f"{card['experts']} experts + {copies} redundant = {total} do not divide by {ranks} GPUs."
        least = -card["experts"] % ranks
        fix = f"Use num_redundant_experts {least}, {least + ranks}, {least + 2 * ranks} and so on."
        findings.error("eplb-does-not-divide", f"{spot}.eplb_config", why, fix)


def redundant_experts(args: dict[str, Any]) -> int:
    """Copies of experts that EPLB adds to each layer."""
    count = as_dict(args.get("eplb_config")).get("num_redundant_experts", 0)
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 0
