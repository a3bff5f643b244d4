"""What fits: weights, KV cache and start times, with the arithmetic as text."""

from __future__ import annotations

import math
from typing import Any

from .arguments import parse_size
from .findings import Findings
from .shapes import Pool
from .weights import Stage, stages

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


def gpu_memory_needed_mib(hardware: dict[str, Any], card: dict[str, Any], pool: Pool) -> int:
    """What an engine has to find free on each of its GPUs, MiB.

    vLLM refuses to start with less than memory x gpu_memory_utilization, also where kv_cache_memory_bytes decides how
    much it takes; then weights, cache and reserve have to fit as well.
    """
    share = pool.args.get("gpu_memory_utilization", _DEFAULT_UTILIZATION)
    needed: int = math.ceil(hardware["memory_mib"] * share)
    fixed = parse_size(pool.args.get("kv_cache_memory_bytes"))
    if fixed:
        weights = max(stage.weights for stage in stages(card, pool))
        needed = max(needed, math.ceil((weights + fixed) / _MIB) + int(hardware["activation_reserve_mib"]))
    return needed


def gpu_memory(hardware: dict[str, Any], card: dict[str, Any], pool: Pool, findings: Findings) -> list[str]:
    """Check that weights and at least one full context fit a GPU; return the arithmetic as lines."""
    args, where, max_model_len = pool.args, pool.where, int(pool.args["max_model_len"])
    memory, reserve = hardware["memory_mib"] / 1024, hardware["activation_reserve_mib"] / 1024
    share = args.get("gpu_memory_utilization", _DEFAULT_UTILIZATION)
    fixed = parse_size(args.get("kv_cache_memory_bytes"))
    budget = memory * share

    def room_of(stage: Stage) -> float:
        return fixed / _GIB if fixed else budget - stage.weights / _GIB - reserve

    cut = stages(card, pool)
    fullest = max(cut, key=lambda stage: stage.weights)
    weights = fullest.weights / _GIB
    lines = [
        f"weights: {fullest.text} = {weights:.1f} GiB per GPU",
        f"budget: {memory:.1f} GiB x gpu_memory_utilization {share:g} = {budget:.1f} GiB per GPU",
    ]
    sum_text = f"{weights:.1f} GiB of weights per GPU against {budget:.1f} GiB ({memory:.1f} GiB x {share:g})"
    if fullest.parts > 1:
        sum_text = f"{fullest.text} = {sum_text}"
    if weights > budget:
        fix = "Use more GPUs an engine, a smaller or quantised model, or larger GPUs."
        findings.error("weights-do-not-fit", f"{where}.tensor_parallel_size", f"{sum_text}: they do not fit.", fix)
        return [*lines, "the weights alone do not fit"]
    tightest = min(cut, key=lambda stage: room_of(stage) / stage.kv_bytes_per_token)
    room, per_token = room_of(tightest), tightest.kv_bytes_per_token
    tokens = max(0, math.floor(room * _GIB / per_token))
    origin = "kv_cache_memory_bytes"
    if not fixed:
        origin = f"{budget:.1f} - {tightest.weights / _GIB:.1f} - {reserve:.1f} GiB reserve"
    whose = "an engine" if pool.shape.data == 1 else "a rank"
    lines.append(
        f"KV cache: {origin} = {room:.1f} GiB / {per_token / 1024:.1f} KiB per token = {tokens} tokens {whose}"
    )
    if fixed and weights + fixed / _GIB + reserve > memory:
        why = f"{weights:.1f} GiB weights + {room:.1f} GiB KV + {reserve:.1f} GiB reserve exceed {memory:.1f} GiB."
        findings.error("kv-does-not-fit", f"{where}.engine_args.kv_cache_memory_bytes", why, "Make it smaller.")
    elif tokens < max_model_len:
        why = f"{sum_text} leave a KV cache of {tokens} tokens; one request may take {max_model_len}."
        fix = "Lower max_model_len, raise gpu_memory_utilization (at most 0.95) or use more GPUs an engine."
        findings.error("kv-too-small", f"{where}.engine_args.max_model_len", why, fix)
    else:
        lines.append(f"full contexts at once: {tokens} / {max_model_len} = {tokens / max_model_len:.1f} {whose}")
    return lines
