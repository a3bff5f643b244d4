"""The guard's command line for one engine of the plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def guard_argv(
    instance: dict[str, Any], others: Iterable[dict[str, Any]], script: str, ignored: Sequence[str], simulated: bool
) -> list[str]:
    """Words of the command; empty for an engine without GPUs.

    ``others`` are the engines of its host: one that shares a GPU by the plan may be there. ``script`` is the guard on
    the host; it runs with the interpreter of the engine's release, which has pynvml.
    """
    mine = set(instance.get("gpu_ids") or [])
    if not mine:
        return []
    words = [instance["argv"][0], "-I", script, "--unit", instance["unit"]]
    words += ["--gpus", ",".join(map(str, sorted(mine)))]
    words += ["--needed-mib", str(instance.get("gpu_memory_needed_mib") or 0)]
    for other in others:
        if other["unit"] != instance["unit"] and mine & set(other.get("gpu_ids") or []):
            words += ["--allow-unit", other["unit"]]
    for name in ignored:
        words += ["--ignore-process", name]
    return [*words, "--simulated"] if simulated else words
