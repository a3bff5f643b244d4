"""How engines are cut: the shape of a group of ranks, the places it gets, and a deployment with its pools."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Shape:
    """One group of ranks, each rank one GPU (CPU: one worker).

    ``layout`` is replica, single, data_parallel or multi_node; tensor x pipeline ranks make one copy of the model,
    ``data`` copies make the group, which lies on ``hosts`` hosts in equal parts.
    """

    layout: str
    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    hosts: int = 1
    balancing: str = "internal"
    expert_parallel: bool = False
    executor: str = "mp"

    @property
    def copy_ranks(self) -> int:
        """Ranks of one copy of the model."""
        return self.tensor * self.pipeline

    @property
    def ranks(self) -> int:
        """Ranks of the whole group."""
        return self.copy_ranks * self.data

    @property
    def ranks_per_host(self) -> int:
        """Ranks, and so GPUs, of one of its hosts."""
        return self.ranks // self.hosts

    @property
    def data_per_host(self) -> int:
        """Copies of the model on one of its hosts (data_parallel)."""
        return self.data // self.hosts

    @property
    def text(self) -> str:
        """Like TP 8 x DP 4."""
        more = (("PP", self.pipeline), ("DP", self.data))
        return " x ".join([f"TP {self.tensor}", *(f"{name} {count}" for name, count in more if count > 1)])

    @property
    def external(self) -> bool:
        """Every copy of the model is a unit of its own."""
        return self.data > 1 and self.balancing == "external"

    @property
    def several_units(self) -> bool:
        """More than one unit has to be up, and of the same start."""
        return self.hosts > 1 or self.external


@dataclass
class Seat:
    """A group's part of one host."""

    host: str
    gpu_ids: list[int]


@dataclass
class Group:
    """Engines that live and die together; ``slot`` counts the groups of its hosts and so gives their ports."""

    name: str
    index: int
    seats: list[Seat]
    slot: int = 0


@dataclass
class Pool:
    """Groups of one shape; ``part`` is prefill or decode, or empty for a deployment's only pool.

    ``where`` is the place of its keys in the description.
    """

    part: str
    where: str
    shape: Shape
    replicas: int
    hosts: list[str]
    args: dict[str, Any]
    groups: list[Group] = field(default_factory=list)


@dataclass
class Resolved:
    """A deployment with everything it refers to; ``where`` is its place in the description."""

    where: str
    spec: dict[str, Any]
    card: dict[str, Any]
    profile: dict[str, Any]
    env: dict[str, str]
    pools: list[Pool]

    @property
    def name(self) -> str:
        """The deployment's name."""
        return str(self.spec["name"])

    @property
    def hosts(self) -> list[str]:
        """Hosts of all pools, each once."""
        return list(dict.fromkeys(host for pool in self.pools for host in pool.hosts))

    @property
    def max_model_len(self) -> int:
        """Longest context, tokens."""
        return min(int(pool.args["max_model_len"]) for pool in self.pools)
