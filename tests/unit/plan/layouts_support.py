"""Layouts that tests compile, and what they look at in the plan."""

from __future__ import annotations

from typing import Any

D = "deployments.0"
H20 = "h20-4x8-deepseek-v3"


def keys(**values: Any) -> dict[str, Any]:
    """A patch of a sample's only deployment."""
    return {f"{D}.{key}": value for key, value in values.items()}


RANKS_OF_FOUR_HOSTS = keys(
    layout="data_parallel",
    tensor_parallel_size=1,
    data_parallel_size=32,
    hosts_per_replica=4,
    replicas=1,
    expert_parallel=True,
)
STAGES_OF_TWO_HOSTS = keys(layout="multi_node", pipeline_parallel_size=2, hosts_per_replica=2, replicas=2)
POOLS = keys(
    layout="prefill_decode",
    tensor_parallel_size=1,
    replicas=1,
    router="vllm-router",
    prefill={"hosts": ["h20-01", "h20-02"], "replicas": 2, "tensor_parallel_size": 8},
    decode={
        "hosts": ["h20-03", "h20-04"],
        "data_parallel_size": 16,
        "hosts_per_replica": 2,
        "expert_parallel": True,
        "profile": "expert-decode",
    },
)
TWO_LAB_HOSTS = keys(hosts=["node1", "node2"], replicas=1, hosts_per_replica=2) | {f"{D}.model.card": "tiny-dense"}


def options(instance: dict[str, Any]) -> dict[str, str]:
    """{option: its value, or nothing} of an engine's command."""
    words = instance["argv"]
    found: dict[str, str] = {}
    for word, after in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            found[word] = "" if after.startswith("--") else after
    return found


def cut(instance: dict[str, Any]) -> dict[str, str]:
    """Of its options, those that say how the engine is cut."""
    about = ("parallel", "nnodes", "node-rank", "master", "headless", "executor")
    return {name: value for name, value in options(instance).items() if any(word in name for word in about)}
