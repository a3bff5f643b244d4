"""What fits: weights per GPU of every shape, and the variants that guides recommend and no hardware can run."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from rackserve.plan import Library, compile_plan
from rackserve.plan.weights import stage_layers

from .conftest import Compile, codes, load_site, put
from .layouts_support import H20, POOLS, RANKS_OF_FOUR_HOSTS, STAGES_OF_TWO_HOSTS, D, keys


def arithmetic(plan: dict[str, Any]) -> str:
    return "\n".join(plan["capacity"]["deepseek-v3"]["text"])


def why(plan: dict[str, Any], code: str) -> str:
    found = [item["why"] for item in plan["findings"] if item["severity"] == "error"]
    assert codes(plan) == [code]
    return found[0]


def with_card(library: Library, patch: dict[str, Any], **change: Any) -> dict[str, Any]:
    """The plan of a changed H20 sample whose model card differs."""
    cluster, groups, addresses = copy.deepcopy(load_site(H20))
    for path, value in patch.items():
        put(cluster, path, value)
    models = {**library.models, "deepseek-v3": {**library.models["deepseek-v3"], **change}}
    return compile_plan(cluster, groups, addresses, Library(**{**library.__dict__, "models": models}))


@pytest.mark.parametrize(
    ("patch", "weights"),
    [
        ({}, "626.4 GiB / TP 8 = 78.3 GiB per GPU"),
        (keys(expert_parallel=True), "32 of 256 experts of 609.1 GiB + rest 17.3 GiB / TP 8 = 78.3 GiB per GPU"),
        (RANKS_OF_FOUR_HOSTS, "8 of 256 experts of 609.1 GiB + rest 17.3 GiB / TP 1 = 36.3 GiB per GPU"),
        (
            RANKS_OF_FOUR_HOSTS | keys(tensor_parallel_size=8, data_parallel_size=4),
            "8 of 256 experts of 609.1 GiB + rest 17.3 GiB / TP 8 = 21.2 GiB per GPU",
        ),
        (
            RANKS_OF_FOUR_HOSTS
            | keys(tensor_parallel_size=8, data_parallel_size=2, hosts_per_replica=2, expert_parallel=False),
            "experts 609.1 GiB / 16 + rest 17.3 GiB / TP 8 = 40.2 GiB per GPU",
        ),
        (
            RANKS_OF_FOUR_HOSTS
            | {f"{D}.engine_args": {"enable_eplb": True, "eplb_config": {"num_redundant_experts": 32}}},
            "9 of 256 experts of 609.1 GiB + rest 17.3 GiB / TP 1 = 38.7 GiB per GPU",
        ),
        # 61 layers are 31 and 30; the first three of the 31 have no experts.
        (STAGES_OF_TWO_HOSTS, "stage 2 of 2 with 30 of 61 layers: 323.6 GiB / TP 8 = 40.4 GiB per GPU"),
    ],
)
def test_weights_of_a_gpu(patch: dict[str, Any], weights: str, compiled: Compile) -> None:
    plan = compiled(H20, patch)
    assert codes(plan) == []
    assert f"weights: {weights}" in arithmetic(plan)


def test_copies_of_a_dense_model_repeat_everything(compiled: Compile) -> None:
    patch = keys(layout="data_parallel", tensor_parallel_size=4, data_parallel_size=2, replicas=4)
    plan = compiled(H20, patch | {f"{D}.model.card": "qwen2.5-7b-instruct"})
    assert "14.2 GiB / TP 4 = 3.5 GiB per GPU" in arithmetic(plan)
    assert "tokens a rank" in arithmetic(plan)


def test_both_pools_are_counted(compiled: Compile) -> None:
    text = arithmetic(compiled(H20, POOLS))
    assert "prefill: weights: 626.4 GiB / TP 8 = 78.3 GiB per GPU" in text
    assert "decode: weights: 16 of 256 experts of 609.1 GiB + rest 17.3 GiB / TP 1 = 55.3 GiB per GPU" in text


@pytest.mark.parametrize(
    ("layers", "stages", "cut"),
    [
        (61, 2, [31, 30]),
        (61, 4, [15, 15, 16, 15]),
        (61, 8, [7, 7, 8, 8, 8, 8, 8, 7]),
        (4, 4, [1, 1, 1, 1]),
        (4, 1, [4]),
    ],
)
def test_layers_are_cut_as_vllm_cuts_them(layers: int, stages: int, cut: list[int]) -> None:
    assert stage_layers(layers, stages) == cut


def test_full_precision_fits_no_eight_gpus_of_96_gb(library: Library) -> None:
    """671 billion parameters of two bytes are 1.34 TB; eight H20 have 0.77 TB."""
    plan = with_card(library, {}, weights_bytes=1342 * 10**9, expert_weights_bytes=1307 * 10**9, shard_block=1)
    assert why(plan, "weights-do-not-fit").startswith("156.2 GiB of weights per GPU against 87.9 GiB")


def test_blocks_of_128_do_not_divide_by_32(compiled: Compile) -> None:
    plan = compiled(H20, keys(layout="multi_node", tensor_parallel_size=32, hosts_per_replica=4, replicas=1))
    assert why(plan, "blocks-do-not-divide").startswith("2048 / 32 = 64 is no multiple")


def test_a_utilisation_of_80_percent_is_less_than_the_weights(compiled: Compile) -> None:
    plan = compiled(H20, {f"{D}.engine_args.gpu_memory_utilization": 0.8})
    assert "78.3 GiB of weights per GPU against 76.5 GiB" in why(plan, "weights-do-not-fit")


def test_four_copies_of_eight_gpus_do_not_fit_a_host_of_eight(compiled: Compile) -> None:
    plan = compiled(H20, keys(layout="data_parallel", data_parallel_size=4, replicas=1))
    assert why(plan, "ranks-over-slots") == "TP 8 x DP 4 = 32 ranks; a host has 8 slots."


def test_whole_experts_do_not_fit_one_host(compiled: Compile) -> None:
    plan = compiled(H20, RANKS_OF_FOUR_HOSTS | keys(data_parallel_size=8, hosts_per_replica=1, replicas=4))
    text = why(plan, "weights-do-not-fit")
    assert "32 of 256 experts of 609.1 GiB + rest 17.3 GiB / TP 1 = 93.4 GiB of weights per GPU" in text


def test_four_gpus_cannot_hold_it(compiled: Compile) -> None:
    plan = compiled(H20, keys(tensor_parallel_size=4, replicas=8))
    assert "156.6 GiB of weights per GPU" in why(plan, "weights-do-not-fit")


def test_experts_cut_over_all_ranks_must_keep_their_blocks(compiled: Compile) -> None:
    plan = compiled(H20, RANKS_OF_FOUR_HOSTS | keys(expert_parallel=False))
    assert "2048 / 32 = 64 is no multiple" in why(plan, "blocks-do-not-divide")


def test_sums_across_hosts_are_warned_about(compiled: Compile) -> None:
    patch = keys(layout="multi_node", tensor_parallel_size=16, hosts_per_replica=2, replicas=2)
    plan = compiled(H20, patch)
    assert codes(plan) == []
    assert "tp-across-hosts" in codes(plan, "warning")
    assert "tp-across-hosts" in codes(compiled(H20, patch | {"exceptions": ["tp-across-hosts"]}), "note")


def test_decoding_without_graphs_is_warned_about(compiled: Compile) -> None:
    backend = {f"{D}.engine_args.all2all_backend": "deepep_high_throughput"}
    assert "slow-argument" in codes(compiled(H20, RANKS_OF_FOUR_HOSTS | backend), "warning")
    prefill = {"hosts": ["h20-01", "h20-02"], "data_parallel_size": 16, "hosts_per_replica": 2, "expert_parallel": True}
    plan = compiled(H20, POOLS | keys(prefill=prefill | {"profile": "expert-prefill"}))
    assert codes(plan) == [] and "slow-argument" not in codes(plan, "warning")
    assert codes(plan, "note").count("package-beside-vllm") == 3


def test_ray_needs_a_release_that_carries_it(library: Library) -> None:
    cluster, groups, addresses = copy.deepcopy(load_site(H20))
    for path, value in (STAGES_OF_TWO_HOSTS | keys(executor="ray")).items():
        put(cluster, path, value)
    releases = {**library.releases, "2026.11": {**library.releases["2026.11"], "ray": None}}
    plan = compile_plan(cluster, groups, addresses, Library(**{**library.__dict__, "releases": releases}))
    assert "ray-not-in-release" in codes(plan)


def test_more_stages_than_layers(library: Library) -> None:
    plan = with_card(library, STAGES_OF_TWO_HOSTS, layers=1, dense_layers=0)
    assert "too-many-stages" in codes(plan)


def test_ports_that_two_services_want(compiled: Compile) -> None:
    ray = STAGES_OF_TWO_HOSTS | keys(executor="ray")
    assert set(codes(compiled(H20, ray | keys(port_base=20100)))) == {"port-taken"}
    assert set(codes(compiled(H20, ray | {"ray.port": 8700}))) == {"port-taken"}
    assert set(codes(compiled(H20, STAGES_OF_TWO_HOSTS | keys(port_base=29501)))) == {"port-taken"}
    assert set(codes(compiled(H20, POOLS | keys(port_base=5600)))) == {"port-taken"}
    assert codes(compiled("lab", keys(router="vllm-router") | {"gateway.port": 8300})) == ["port-taken"]
    assert codes(compiled(H20, ray | {"ray": {"worker_port_min": 21000}})) == ["ray-ports"]
    assert codes(compiled(H20, ray | {"ray": {"node_manager_port": 6379}})) == ["ray-ports"]


def test_a_shorter_fallback_is_told(compiled: Compile) -> None:
    first = load_site("lab")[0]["deployments"][0]
    model = {"card": "tiny-dense", "revision": "seed-1"}
    fast = {"name": "fast", "model": model, "profile": "lab", "port_base": 8100, "engine_args": {"max_model_len": 512}}
    plan = compiled("lab", {"deployments": [first | {"fallback": ["fast"]}, fast]})
    assert codes(plan) == [] and "fallback-shorter" in codes(plan, "note")
    twice = compiled("lab", {"deployments": [first | {"fallback": ["fast", "fast"]}, fast]})
    assert codes(twice) == ["fallback-twice"]
