"""How much of a model lies on one GPU: weights and KV cache, stage by stage."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .fit import redundant_experts
from .shapes import Pool

_GIB = 2**30


class Stage(NamedTuple):
    """One GPU's share of a stage: bytes, how they come about, and how many terms that has."""

    weights: float
    kv_bytes_per_token: float
    text: str
    parts: int


def stages(card: dict[str, Any], pool: Pool) -> list[Stage]:
    """The stages of an engine, one where its layers are not cut.

    Tensor parallelism divides everything. Data-parallel copies repeat it, except routed experts, which lie once on all
    GPUs of a stage of the group, whole or cut. KV heads are divided among ranks as far as they go; a shared latent
    (MLA) is kept whole by every rank.
    """
    shape, layers = pool.shape, card["layers"]
    cut = stage_layers(layers, min(shape.pipeline, layers))
    found, first = [], 0
    for number, count in enumerate(cut, start=1):
        kv = card["kv_bytes_per_token"] * count / layers / min(shape.tensor, card["kv_heads"])
        if shape.pipeline == 1:
            experts, rest = card["expert_weights_bytes"], card["weights_bytes"] - card["expert_weights_bytes"]
        else:
            experts, rest = _share_of(card, first, count)
        bytes_, text, parts = _per_gpu(experts, rest, card, pool)
        if shape.pipeline > 1:
            text, parts = f"stage {number} of {shape.pipeline} with {count} of {layers} layers: {text}", parts + 1
        found.append(Stage(bytes_, kv, text, parts))
        first += count
    return found


def stage_layers(layers: int, stages_: int) -> list[int]:
    """Layers of each stage as vLLM cuts them: what is left over goes to the stages before the last, from behind."""
    cut = [layers // stages_] * stages_
    for position in range(2, layers % stages_ + 2):
        cut[-position] += 1
    return cut


def _share_of(card: dict[str, Any], first: int, count: int) -> tuple[float, float]:
    """Bytes of routed experts and of the rest in ``count`` layers from ``first`` on."""
    layers, dense, experts = card["layers"], card["dense_layers"], card["expert_weights_bytes"]
    with_experts = max(0, first + count - max(first, dense))
    ends = (first == 0) + (first + count == layers)
    inner = card["weights_bytes"] - experts - 2 * card["embedding_bytes"]
    return experts * with_experts / max(1, layers - dense), inner * count / layers + ends * card["embedding_bytes"]


def _per_gpu(experts: float, rest: float, card: dict[str, Any], pool: Pool) -> tuple[float, str, int]:
    shape = pool.shape
    if not experts or (shape.data == 1 and not shape.expert_parallel):
        total = experts + rest
        return total / shape.tensor, f"{total / _GIB:.1f} GiB / TP {shape.tensor}", 1
    gpus, copies = shape.tensor * shape.data, redundant_experts(pool.args)
    share, text = 1 / gpus, f"experts {experts / _GIB:.1f} GiB / {gpus}"
    if shape.expert_parallel:
        # Whole experts: the GPU with most of them counts.
        most = math.ceil((card["experts"] + copies) / gpus)
        share = most / max(1, card["experts"])
        text = f"{most} of {card['experts']} experts of {experts / _GIB:.1f} GiB"
    text += f" + rest {rest / _GIB:.1f} GiB / TP {shape.tensor}"
    return experts * share + rest / shape.tensor, text, 2
