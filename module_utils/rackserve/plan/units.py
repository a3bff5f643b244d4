"""The units of a group: which ranks each runs, and how vLLM is told."""

from __future__ import annotations

from dataclasses import dataclass

from .shapes import Group, Pool, Seat, Shape

RPC_PORT, MASTER_PORT, AGENT_PORT = 29550, 29501, 8700
# Weights from host to host; open only while some are copied.
RELAY_PORT = 8690
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Unit:
    """One service of a group: ``ranks`` of all the group's, ``copies`` of the model (data-parallel ranks)."""

    group: Group
    name: str
    seat: Seat
    node: int
    part: str
    serves: bool
    gpu_ids: list[int]
    ranks: list[int]
    copies: list[int]


def units_of(pool: Pool, group: Group) -> list[Unit]:
    """The units of a group in the order they start: the head first."""
    shape = pool.shape
    head = pool.part or ("head" if shape.several_units or shape.executor == "ray" else "replica")
    if shape.executor == "ray":
        first, everything = group.seats[0], list(range(shape.ranks))
        return [Unit(group, group.name, first, 0, head, True, first.gpu_ids, everything, [0])]
    if shape.external:
        return [_rank_unit(shape, group, rank, head) for rank in range(shape.data)]
    found = []
    for node, seat in enumerate(group.seats):
        serves = node == 0 or shape.balancing == "hybrid"
        part = head if node == 0 else "replica" if serves else "headless"
        name = f"{group.name}-n{node}" if node else group.name
        ranks = _block(node, shape.ranks_per_host)
        copies = _block(node, shape.data_per_host) if shape.data > 1 else [0]
        found.append(Unit(group, name, seat, node, part, serves, seat.gpu_ids, ranks, copies))
    return found


def _block(number: int, size: int) -> list[int]:
    return list(range(number * size, (number + 1) * size))


def _rank_unit(shape: Shape, group: Group, rank: int, head: str) -> Unit:
    node, local = divmod(rank, shape.data_per_host)
    seat = group.seats[node]
    gpus = seat.gpu_ids[local * shape.copy_ranks : (local + 1) * shape.copy_ranks]
    part = "replica" if rank else head
    return Unit(group, f"{group.name}-r{rank}", seat, node, part, True, gpus, _block(rank, shape.copy_ranks), [rank])


def parallel_words(shape: Shape, unit: Unit, meeting: str) -> list[str]:
    """The options that say how the engine is cut; ``meeting`` is the address of the group's first host."""
    words = ["--tensor-parallel-size", str(shape.tensor)]
    if shape.pipeline > 1:
        words += ["--pipeline-parallel-size", str(shape.pipeline)]
    if shape.expert_parallel:
        words += ["--enable-expert-parallel"]
    if shape.data > 1:
        words += ["--data-parallel-size", str(shape.data), *_data_words(shape, unit, meeting)]
    if shape.executor == "ray":
        words += ["--distributed-executor-backend", "ray"]
    elif shape.layout == "multi_node":
        words += ["--nnodes", str(shape.hosts), "--node-rank", str(unit.node)]
        words += ["--master-addr", meeting, "--master-port", str(MASTER_PORT + unit.group.slot)]
    return words if unit.serves else [*words, "--headless"]


def _data_words(shape: Shape, unit: Unit, meeting: str) -> list[str]:
    met = ["--data-parallel-address", meeting, "--data-parallel-rpc-port", str(RPC_PORT + unit.group.slot)]
    if shape.external:
        return ["--data-parallel-rank", str(unit.copies[0]), *met]
    if shape.hosts == 1:
        return []
    words = ["--data-parallel-size-local", str(shape.data_per_host), *met]
    if shape.balancing == "hybrid":
        words += ["--data-parallel-hybrid-lb"]
    # To vLLM a first rank means hybrid, except where it is headless: the head of internal balancing has none.
    if shape.balancing == "hybrid" or not unit.serves:
        words += ["--data-parallel-start-rank", str(unit.copies[0])]
    return words
