"""What fits: weights, KV cache and start times, with the arithmetic as text."""

from __future__ import annotations

import math
from typing import Any

from .arguments import parse_size
from .findings import Findings
from .placement import Resolved

_GIB = 2**30
_MIB = 2**20
_DEFAULT_UTILIZATION = 0.92  # of vLLM 0.32 and later
_START_MARGIN_S = 60


def start_times(hardware: dict[str, Any], card: dict[str, Any]) -> tuple[int, int, str]:
    """Return (ready_timeout_s, start_timeout_s, text): base + 2 x bytes / disk; systemd waits a minute longer."""
    speed = hardware["disk_read_mib_s"]
    load_s = math.ceil(card["bytes"] / _MIB / speed)
    ready_s = hardware["start_base_s"] + 2 * load_s
    text = (
        f"start: {hardware['start_base_s']} s + 2 x {card['bytes'] / _GIB:.1f} GiB / {speed} MiB/s ({load_s} s) "
        f"= {ready_s} s until ready, systemd waits {ready_s + _START_MARGIN_S} s"
    )
    return ready_s, ready_s + _START_MARGIN_S, text


def gpu_memory_needed_mib(hardware: dict[str, Any], item: Resolved) -> int:
    """What an engine has to find free on each of its GPUs, MiB.

    vLLM refuses to start with less than memory x gpu_memory_utilization, also where kv_cache_memory_bytes decides how
    much it takes; then weights, cache and reserve have to fit as well.
    """
    share = item.args.get("gpu_memory_utilization", _DEFAULT_UTILIZATION)
    needed: int = math.ceil(hardware["memory_mib"] * share)
    fixed = parse_size(item.args.get("kv_cache_memory_bytes"))
    if fixed:
        weights = item.card["weights_bytes"] / item.spec["tensor_parallel_size"]
        needed = max(needed, math.ceil((weights + fixed) / _MIB) + int(hardware["activation_reserve_mib"]))
    return needed


def gpu_memory(hardware: dict[str, Any], item: Resolved, findings: Findings) -> list[str]:
    """Check that weights and at least one full context fit a GPU; return the arithmetic as lines."""
    card, args, where, max_model_len = item.card, item.args, item.where, item.max_model_len
    tp = item.spec["tensor_parallel_size"]
    memory = hardware["memory_mib"] / 1024
    weights = card["weights_bytes"] / tp / _GIB
    reserve = hardware["activation_reserve_mib"] / 1024
    share = args.get("gpu_memory_utilization", _DEFAULT_UTILIZATION)
    # KV heads are divided among ranks as far as they go; a shared latent (MLA) is kept whole by every rank.
    per_token = card["kv_bytes_per_token"] / min(tp, card["kv_heads"])
    fixed = parse_size(args.get("kv_cache_memory_bytes"))
    budget = memory * share
    room = fixed / _GIB if fixed else budget - weights - reserve
    lines = [
        f"weights: {card['weights_bytes'] / _GIB:.1f} GiB / TP {tp} = {weights:.1f} GiB per GPU",
        f"budget: {memory:.1f} GiB x gpu_memory_utilization {share:g} = {budget:.1f} GiB per GPU",
    ]
    sum_text = f"{weights:.1f} GiB of weights per GPU against {budget:.1f} GiB ({memory:.1f} GiB x {share:g})"
    if weights > budget:
        fix = "Use more GPUs an engine, a smaller or quantised model, or larger GPUs."
        findings.error("weights-do-not-fit", f"{where}.tensor_parallel_size", f"{sum_text}: they do not fit.", fix)
        return [*lines, "the weights alone do not fit"]
    tokens = max(0, math.floor(room * _GIB / per_token))
    origin = "kv_cache_memory_bytes" if fixed else f"{budget:.1f} - {weights:.1f} - {reserve:.1f} GiB reserve"
    lines.append(
        f"KV cache: {origin} = {room:.1f} GiB / {per_token / 1024:.1f} KiB per token = {tokens} tokens an engine"
    )
    if fixed and weights + fixed / _GIB + reserve > memory:
        why = f"{weights:.1f} GiB weights + {room:.1f} GiB KV + {reserve:.1f} GiB reserve exceed {memory:.1f} GiB."
        findings.error("kv-does-not-fit", f"{where}.engine_args.kv_cache_memory_bytes", why, "Make it smaller.")
    elif tokens < max_model_len:
        why = f"{sum_text} leave a KV cache of {tokens} tokens; one request may take {max_model_len}."
        fix = "Lower max_model_len, raise gpu_memory_utilization (at most 0.95) or use more GPUs an engine."
        findings.error("kv-too-small", f"{where}.engine_args.max_model_len", why, fix)
    else:
        lines.append(f"full contexts at once: {tokens} / {max_model_len} = {tokens / max_model_len:.1f} an engine")
    return lines
