"""Every layout: its units, what vLLM is told, who meets where, and who may reach whom."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rackserve.firewall.rules import admits, build_rules
from rackserve.plan import plan_errors, plan_tables

from .conftest import Compile, codes, load_site
from .layouts_support import H20, POOLS, RANKS_OF_FOUR_HOSTS, STAGES_OF_TWO_HOSTS, TWO_LAB_HOSTS, D, cut, keys, options


def by_name(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    assert plan_errors(plan) == []
    return {item["name"]: item for item in plan["instances"]}


def test_replicas_are_single_units_on_loopback(compiled: Compile) -> None:
    plan = compiled(H20)
    assert plan["groups"] == plan["ray"] == []
    for item in by_name(plan).values():
        assert (item["part"], item["serves"], item["node_rank"], item["executor"]) == ("replica", True, 0, "mp")
        assert (item["group"], item["pool"], item["ranks"], item["dp_ranks"]) == (
            item["name"],
            None,
            list(range(8)),
            [0],
        )
        assert cut(item) == {"--tensor-parallel-size": "8"}
        assert item["env"]["VLLM_HOST_IP"] == "127.0.0.1"


def test_stages_and_whole_experts_on_one_host(compiled: Compile) -> None:
    plan = compiled(H20, keys(tensor_parallel_size=4, pipeline_parallel_size=2, expert_parallel=True))
    assert [cut(item) for item in by_name(plan).values()] == 4 * [
        {"--tensor-parallel-size": "4", "--pipeline-parallel-size": "2", "--enable-expert-parallel": ""}
    ]
    assert plan["groups"] == []


def test_internal_ranks_have_one_head_that_serves(compiled: Compile) -> None:
    plan = compiled(H20, RANKS_OF_FOUR_HOSTS)
    head, *others = by_name(plan).values()
    met = {"--data-parallel-address": "10.20.0.11", "--data-parallel-rpc-port": "29550"}
    same = {"--tensor-parallel-size": "1", "--enable-expert-parallel": "", "--data-parallel-size": "32"} | met
    assert cut(head) == same | {"--data-parallel-size-local": "8"}
    assert (head["name"], head["part"], head["port"], head["gateway_target"]) == (
        "deepseek-v3-0",
        "head",
        8000,
        "be_deepseek-v3/r0",
    )
    for node, item in enumerate(others, start=1):
        assert (item["name"], item["part"], item["serves"]) == (f"deepseek-v3-0-n{node}", "headless", False)
        assert (item["port"], item["gateway_target"], item["node_rank"]) == (None, None, node)
        own = {"--data-parallel-start-rank": str(8 * node), "--headless": ""}
        assert cut(item) == same | {"--data-parallel-size-local": "8"} | own
        assert not {"--host", "--port"} & set(options(item))
        assert item["dp_ranks"] == item["ranks"] == list(range(8 * node, 8 * node + 8))
    backend = plan["gateway"]["deployments"][0]
    assert [slot["instance"] for slot in backend["slots"]] == ["deepseek-v3-0", None, None, None, None]
    assert backend["max_inflight_per_server"] == 32 * 80 - 1


def test_a_group_names_its_units_head_first(compiled: Compile) -> None:
    (group,) = compiled(H20, RANKS_OF_FOUR_HOSTS)["groups"]
    assert [unit["unit"] for unit in group["units"]] == [
        "vllm-deepseek-v3-0.service",
        *(f"vllm-deepseek-v3-0-n{node}.service" for node in (1, 2, 3)),
    ]
    assert group["units"][1] == {
        "instance": "deepseek-v3-0-n1",
        "unit": "vllm-deepseek-v3-0-n1.service",
        "host": "h20-02",
        "address": "10.20.0.12",
        "part": "headless",
    }
    assert (group["name"], group["nodes"]) == ("deepseek-v3-0", ["h20-01", "h20-02", "h20-03", "h20-04"])
    assert group["serving_units"] == ["vllm-deepseek-v3-0.service"]
    assert (group["agent_port"], group["master_port"]) == (8700, 29550)


def test_hybrid_ranks_serve_on_every_host(compiled: Compile) -> None:
    plan = compiled(H20, RANKS_OF_FOUR_HOSTS | keys(data_parallel_lb="hybrid"))
    items = list(by_name(plan).values())
    assert [item["gateway_target"] for item in items] == [f"be_deepseek-v3/r{n}" for n in range(4)]
    assert [options(item)["--data-parallel-start-rank"] for item in items] == ["0", "8", "16", "24"]
    assert all("--data-parallel-hybrid-lb" in options(item) and "--headless" not in options(item) for item in items)
    assert [options(item)["--port"] for item in items] == ["8000"] * 4
    assert len(plan["groups"][0]["serving_units"]) == 4
    assert plan["gateway"]["deployments"][0]["max_inflight_per_server"] == 8 * 80 - 1


def test_external_ranks_are_units_of_their_own(compiled: Compile) -> None:
    patch = keys(tensor_parallel_size=4, data_parallel_size=4, hosts_per_replica=2, replicas=2)
    plan = compiled(H20, RANKS_OF_FOUR_HOSTS | patch | keys(data_parallel_lb="external"))
    items = by_name(plan)
    assert list(items) == [f"deepseek-v3-{group}-r{rank}" for group in (0, 1) for rank in range(4)]
    last = items["deepseek-v3-1-r3"]
    assert (last["host"], last["port"], last["gpu_ids"], last["ranks"]) == (
        "h20-04",
        8001,
        [4, 5, 6, 7],
        [12, 13, 14, 15],
    )
    assert cut(last) == {
        "--tensor-parallel-size": "4",
        "--enable-expert-parallel": "",
        "--data-parallel-size": "4",
        "--data-parallel-rank": "3",
        "--data-parallel-address": "10.20.0.13",
        "--data-parallel-rpc-port": "29550",
    }
    assert [item["gateway_target"] for item in items.values()] == [f"be_deepseek-v3/r{n}" for n in range(8)]


def test_external_ranks_of_one_host_meet_on_loopback(compiled: Compile) -> None:
    patch = keys(layout="data_parallel", tensor_parallel_size=4, data_parallel_size=2, data_parallel_lb="external")
    plan = compiled(H20, patch | keys(replicas=4, expert_parallel=True))
    (group, *_), first = plan["groups"], by_name(plan)["deepseek-v3-0-r0"]
    assert options(first)["--data-parallel-address"] == first["env"]["VLLM_HOST_IP"] == "127.0.0.1"
    assert (group["nodes"], len(group["units"])) == (["h20-01"], 2)
    rules = {rule["port"]: rule["sources"] for rule in plan["slices"]["h20-01"]["firewall"]["inbound"]}
    assert rules[8700] == [] and "1024-65535" not in rules


def test_one_engine_over_hosts_meets_at_its_first(compiled: Compile) -> None:
    plan = compiled(H20, STAGES_OF_TWO_HOSTS)
    items = by_name(plan)
    assert list(items) == ["deepseek-v3-0", "deepseek-v3-0-n1", "deepseek-v3-1", "deepseek-v3-1-n1"]
    peer = items["deepseek-v3-1-n1"]
    assert cut(peer) == {
        "--tensor-parallel-size": "8",
        "--pipeline-parallel-size": "2",
        "--nnodes": "2",
        "--node-rank": "1",
        "--master-addr": "10.20.0.13",
        "--master-port": "29501",
        "--headless": "",
    }
    assert peer["ranks"] == list(range(8, 16))
    assert [item["gateway_target"] for item in items.values()] == ["be_deepseek-v3/r0", None, "be_deepseek-v3/r1", None]
    assert [group["master_port"] for group in plan["groups"]] == [29501, 29501]


def test_groups_that_share_hosts_share_no_port(compiled: Compile) -> None:
    patch = keys(tensor_parallel_size=4, replicas=4)
    plan = compiled(H20, STAGES_OF_TWO_HOSTS | patch)
    items = by_name(plan)
    assert [(group["agent_port"], group["master_port"]) for group in plan["groups"]] == [
        (8700, 29501),
        (8701, 29502),
    ] * 2
    assert (items["deepseek-v3-1-n1"]["gpu_ids"], items["deepseek-v3-1"]["port"]) == ([4, 5, 6, 7], 8001)


def test_ranks_of_several_hosts_meet_on_the_cluster_interface(compiled: Compile) -> None:
    patch = RANKS_OF_FOUR_HOSTS | keys(profile="expert-decode")
    for item in by_name(compiled(H20, patch)).values():
        assert {
            "VLLM_HOST_IP": item["address"],
            "GLOO_SOCKET_IFNAME": "bond0",
            "NCCL_SOCKET_IFNAME": "=bond0",
            "NCCL_NET": "IB",
            "NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME": "bond0",
            "NVSHMEM_IB_ENABLE_IBGDA": "1",
        }.items() <= item["env"].items()
        assert "NCCL_NET" in item["env_reasons"]


def test_a_ray_cluster_lies_below_its_engine(compiled: Compile) -> None:
    plan = compiled(H20, STAGES_OF_TWO_HOSTS | keys(executor="ray"))
    first, second = by_name(plan).values()
    assert cut(first) == {
        "--tensor-parallel-size": "8",
        "--pipeline-parallel-size": "2",
        "--distributed-executor-backend": "ray",
    }
    assert {"RAY_ADDRESS": "10.20.0.11:6379", "RAY_AUTH_MODE": "token"}.items() <= first["env"].items()
    assert (first["executor"], first["ranks"], second["host"]) == ("ray", list(range(16)), "h20-03")
    cluster = plan["ray"][1]
    assert (cluster["name"], cluster["head"], cluster["hosts"]) == ("deepseek-v3-1", "h20-03", ["h20-03", "h20-04"])
    assert (cluster["unit"], cluster["gpus_per_host"], cluster["token_secret"]) == (
        "ray-deepseek-v3-1.service",
        8,
        "ray_token",
    )
    assert [(unit["part"], unit["host"], unit["instance"]) for unit in plan["groups"][1]["units"]] == [
        ("ray-head", "h20-03", None),
        ("ray-worker", "h20-04", None),
        ("head", "h20-03", "deepseek-v3-1"),
    ]


def test_hosts_of_a_ray_cluster_get_what_they_need(compiled: Compile) -> None:
    plan = compiled(H20, STAGES_OF_TWO_HOSTS | keys(executor="ray"))
    worker = plan["slices"]["h20-02"]
    assert (worker["instances"], worker["ray"]["part"]) == ([], "worker")
    assert plan["slices"]["h20-01"]["ray"]["part"] == "head"
    assert worker["roles"][-5:-1] == ["serving_runtime", "model_store", "ray", "vllm"]
    assert worker["release"] and [model["name"] for model in worker["models"]] == ["deepseek-v3"]
    assert worker["health"]["gpus"]["allocated"] == list(range(8))
    assert "ray-deepseek-v3-0.service" in worker["health"]["units"]
    assert {unit for gpu in worker["gpu_settings"]["gpus"] for unit in gpu["units"]} == {"ray-deepseek-v3-0.service"}
    assert [group["name"] for group in worker["groups"]] == ["deepseek-v3-0"]
    ports = {rule["port"]: rule["sources"] for rule in worker["firewall"]["inbound"]}
    assert ports[6380] == ports["20000-20199"] == ["10.20.0.11"]
    assert 6379 not in ports


def test_prefill_and_decode_are_two_pools(compiled: Compile) -> None:
    items = by_name(compiled(H20, POOLS))
    assert [(i["name"], i["part"], i["pool"], i["serves"]) for i in items.values()] == [
        ("deepseek-v3-p0", "prefill", "prefill", True),
        ("deepseek-v3-p1", "prefill", "prefill", True),
        ("deepseek-v3-d0", "decode", "decode", True),
        ("deepseek-v3-d0-n1", "headless", "decode", False),
    ]
    for item in items.values():
        said = json.loads(options(item)["--kv-transfer-config"])
        assert said == {
            "kv_connector": "NixlConnector",
            "kv_role": "kv_producer" if item["pool"] == "prefill" else "kv_consumer",
            "kv_load_failure_policy": "fail",
        }
        assert item["env"]["VLLM_NIXL_SIDE_CHANNEL_HOST"] == item["env"]["VLLM_HOST_IP"] == item["address"]
        assert item["env"]["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"
    # vLLM adds the rank's number to the port.
    assert items["deepseek-v3-d0-n1"]["side_channel_ports"] == list(range(5608, 5616))
    assert options(items["deepseek-v3-d0"])["--all2all-backend"] == "deepep_low_latency"
    assert "--all2all-backend" not in options(items["deepseek-v3-p0"])


def test_pools_on_one_host_share_no_port(compiled: Compile) -> None:
    small = {"hosts": ["h20-01"], "tensor_parallel_size": 4}
    patch = POOLS | keys(prefill=small, decode=small) | {f"{D}.model.card": "qwen2.5-7b-instruct"}
    items = by_name(compiled(H20, patch)).values()
    assert [(i["port"], i["gpu_ids"][0], i["side_channel_ports"]) for i in items] == [
        (8000, 0, [5600]),
        (8001, 4, [5601]),
    ]


def test_a_router_stands_between_gateway_and_engines(compiled: Compile) -> None:
    plan = compiled(H20, POOLS)
    (backend,) = plan["gateway"]["deployments"]
    assert [slot["instance"] for slot in backend["slots"]] == ["router-deepseek-v3"]
    assert {item["gateway_target"] for item in plan["instances"]} == {None}
    assert [item["gateway_doors"] for item in plan["instances"]] == [[]] * len(plan["instances"])
    router = backend["router"]
    assert (router["kind"], router["unit"]) == ("vllm-router", "rackserve-router-deepseek-v3.service")
    assert (router["address"], router["port"], router["metrics_port"]) == ("127.0.0.1", 8300, 8350)
    assert router["prefill"] == ["http://10.20.0.11:8000", "http://10.20.0.12:8000"]
    assert router["decode"] == ["http://10.20.0.13:8000"]
    assert plan["slices"]["gw-01"]["roles"][-3:-1] == ["router", "load_balancer"]
    assert router["unit"] in plan["slices"]["gw-01"]["health"]["units"]


def test_a_router_of_replicas_knows_its_workers(compiled: Compile) -> None:
    patch = keys(router="vllm-router", router_settings={"policy": "round_robin", "port": 8310})
    (backend,) = compiled("lab", patch)["gateway"]["deployments"]
    router = backend["router"]
    assert router["workers"] == [f"http://10.77.0.1{n}:8000" for n in (1, 2, 3, 4)]
    assert (router["policy"], router["port"], router["cache_threshold"]) == ("round_robin", 8310, 0.5)
    assert backend["max_inflight_per_server"] == 4 * 31


def test_fallbacks_name_backends_and_their_engines_answer_to_both_names(compiled: Compile) -> None:
    first = load_site("lab")[0]["deployments"][0] | {"fallback": ["fast"]}
    model = {"card": "tiny-dense", "revision": "seed-1"}
    fast = {"name": "fast", "model": model, "profile": "lab", "port_base": 8100, "fallback": ["tiny-deepseek"]}
    plan = compiled("lab", {"deployments": [first, fast]})
    backends = {part["name"]: part["fallback"] for part in plan["gateway"]["deployments"]}
    assert backends == {"tiny-deepseek": ["be_fast"], "fast": ["be_tiny-deepseek"]}
    words = by_name(plan)["fast-0"]["argv"]
    assert words[words.index("--served-model-name") + 1 :][:3] == ["fast", "tiny-deepseek", "--host"]


def test_the_hosts_of_a_group_and_nobody_else_reach_its_ports(compiled: Compile) -> None:
    plan = compiled(H20, STAGES_OF_TWO_HOSTS)
    for host, mate, stranger in (("h20-01", "10.20.0.12", "10.20.0.13"), ("h20-04", "10.20.0.13", "10.20.0.12")):
        inbound = plan["slices"][host]["firewall"]["inbound"]
        flows = build_rules(inbound, "owned_ports", ["10.20.255.0/24"])["flows"]
        for port in (8700, 29501, 45678):
            assert admits(flows, "owned_ports", mate, port)
            assert not admits(flows, "owned_ports", stranger, port)
            assert not admits(flows, "owned_ports", "10.20.0.10", port)
        assert admits(flows, "owned_ports", "10.20.0.10", 8000) is (host == "h20-01")
        assert admits(flows, "owned_ports", "10.20.255.9", 22)


def test_both_pools_reach_each_others_cache(compiled: Compile) -> None:
    plan = compiled(H20, POOLS)
    flows = build_rules(plan["slices"]["h20-04"]["firewall"]["inbound"], "owned_ports", ["10.20.255.0/24"])["flows"]
    for source in ("10.20.0.11", "10.20.0.12", "10.20.0.13"):
        assert admits(flows, "owned_ports", source, 5615) and admits(flows, "owned_ports", source, 40000)
    assert not admits(flows, "owned_ports", "10.20.0.10", 5615)


def test_monitoring_reads_whatever_serves(compiled: Compile) -> None:
    rows = [(row["job"], row["host"], row["port"]) for row in compiled(H20, POOLS)["scrape_targets"]]
    assert rows == [
        ("vllm", "h20-01", 8000),
        ("vllm", "h20-02", 8000),
        ("vllm", "h20-03", 8000),
        ("vllm-router", "gw-01", 8350),
        ("haproxy", "gw-01", 8404),
    ]
    ray = compiled(H20, STAGES_OF_TWO_HOSTS | keys(executor="ray"))["scrape_targets"]
    assert [row["port"] for row in ray if row["job"] == "ray"] == [6383] * 4


@pytest.mark.parametrize(
    "patch",
    [keys(layout="data_parallel", data_parallel_size=2), keys(layout="multi_node", tensor_parallel_size=2)],
    ids=["data_parallel", "multi_node"],
)
def test_the_lab_can_have_ranks_on_two_hosts(patch: dict[str, Any], compiled: Compile) -> None:
    plan = compiled("lab", TWO_LAB_HOSTS | patch)
    head, other = by_name(plan).values()
    assert codes(plan, "warning") == []
    assert (head["host"], head["part"], other["host"], other["part"]) == ("node1", "head", "node2", "headless")
    for item in (head, other):
        assert {"VLLM_HOST_IP": item["address"], "GLOO_SOCKET_IFNAME": "host0"}.items() <= item["env"].items()
        assert [group["name"] for group in plan["slices"][item["host"]]["groups"]] == ["tiny-deepseek-0"]
    assert "rackserve-group.service" in plan["slices"]["node2"]["health"]["units"]


def test_growing_at_the_end_moves_no_group(compiled: Compile) -> None:
    more = {"groups": {"gpu": [f"h20-0{n}" for n in range(1, 7)]}, "addresses": {}}
    more["addresses"] = {"h20-05": "10.20.0.15", "h20-06": "10.20.0.16"}
    small = by_name(compiled(H20, STAGES_OF_TWO_HOSTS))
    large = by_name(compiled(H20, STAGES_OF_TWO_HOSTS | keys(replicas=3), **more))
    assert {name: large[name]["host"] for name in small} == {name: item["host"] for name, item in small.items()}
    assert len(large) == 6


def test_hosts_that_fill_no_block_stay_idle(compiled: Compile) -> None:
    plan = compiled(H20, STAGES_OF_TWO_HOSTS | keys(replicas=1, hosts=["h20-01", "h20-02", "h20-03"]))
    assert [item["where"] for item in plan["findings"] if item["code"] == "idle-host"] == [
        "inventory.h20-03",
        "inventory.h20-04",
    ]


def test_headless_engines_start_no_http_server(compiled: Compile) -> None:
    plan = compiled(H20, RANKS_OF_FOUR_HOSTS | {f"{D}.engine_args.api_server_count": 4})
    head, other = list(by_name(plan).values())[:2]
    assert "--api-server-count" in options(head) and "--api-server-count" not in options(other)


def test_tables_show_groups_and_clusters(compiled: Compile) -> None:
    text = "\n".join(plan_tables(compiled(H20, STAGES_OF_TWO_HOSTS | keys(executor="ray"))))
    for part in ("Groups", "Ray", "ray-deepseek-v3-1.service", "h20-03:6379", "h20-01, h20-02"):
        assert part in text
    assert "Groups" not in "\n".join(plan_tables(compiled(H20)))
