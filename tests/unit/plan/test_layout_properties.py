"""Whatever sizes are asked for: an answer, and in every plan without an error each rank, GPU and port exactly once."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rackserve.plan import Library, compile_plan, plan_errors

from .conftest import load_site, put
from .layouts_support import H20, keys

QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
SMALL = st.sampled_from([1, 2, 4, 8])
SIZES = {
    "tensor_parallel_size": SMALL,
    "data_parallel_size": st.sampled_from([1, 2, 4, 8, 16, 32]),
    "hosts_per_replica": st.sampled_from([1, 2, 4]),
    "replicas": st.sampled_from([1, 2, 4]),
    "expert_parallel": st.booleans(),
}
ENGINES = st.fixed_dictionaries(
    {
        **SIZES,
        "layout": st.sampled_from(["replica", "data_parallel", "multi_node"]),
        "pipeline_parallel_size": SMALL,
        "data_parallel_lb": st.sampled_from(["internal", "hybrid", "external"]),
        "executor": st.sampled_from(["mp", "ray"]),
    }
)
# Keys that a layout does not have are refused: only those of its own are kept.
OF_OTHERS = {
    "replica": ("data_parallel_size", "hosts_per_replica", "data_parallel_lb", "executor"),
    "data_parallel": ("pipeline_parallel_size", "executor"),
    "multi_node": ("data_parallel_size", "data_parallel_lb"),
}
POOL = st.fixed_dictionaries(SIZES)


def compiled(library: Library, patch: dict[str, Any]) -> dict[str, Any]:
    cluster, groups, addresses = copy.deepcopy(load_site(H20))
    for path, value in patch.items():
        put(cluster, path, value)
    return compile_plan(cluster, groups, addresses, library)


def check(plan: dict[str, Any]) -> None:
    if plan_errors(plan):
        return
    used = Counter((i["host"], gpu) for i in plan["instances"] if i["executor"] == "mp" for gpu in i["gpu_ids"])
    used.update((host, gpu) for part in plan["ray"] for host, gpus in part["gpu_ids"].items() for gpu in gpus)
    assert set(used.values()) == {1} and all(gpu < 8 for _host, gpu in used)
    ports = Counter((i["host"], i["port"]) for i in plan["instances"] if i["serves"])
    assert set(ports.values()) == {1}
    for name in {i["group"] for i in plan["instances"]}:
        mine = [i for i in plan["instances"] if i["group"] == name]
        ranks = [rank for i in mine for rank in i["ranks"]]
        assert ranks == list(range(len(ranks)))
        assert [i["part"] for i in mine].count("headless") == sum(not i["serves"] for i in mine)
        assert mine[0]["serves"]
        several = len({i["unit"] for i in mine}) > 1 or mine[0]["executor"] == "ray"
        assert [group["name"] for group in plan["groups"]].count(name) == several
    parts = [part["engines"] or part for part in plan["gateway"]["deployments"]]
    slots = [slot["instance"] for part in parts for slot in part["slots"] if slot["instance"]]
    targets = [i["name"] for i in plan["instances"] if i["gateway_target"]]
    assert targets in (slots, [])


@given(said=ENGINES)
@QUICK
def test_engines_of_any_size(library: Library, said: dict[str, Any]) -> None:
    own = {key: value for key, value in said.items() if key not in OF_OTHERS[said["layout"]]}
    check(compiled(library, keys(**own)))


@given(prefill=POOL, decode=POOL)
@QUICK
def test_pools_of_any_size(library: Library, prefill: dict[str, Any], decode: dict[str, Any]) -> None:
    pools = {"prefill": {**prefill, "hosts": ["h20-01", "h20-02"]}, "decode": {**decode, "hosts": "gpu"}}
    plain = keys(layout="prefill_decode", router="vllm-router", tensor_parallel_size=1, replicas=1)
    check(compiled(library, plain | keys(**pools)))
