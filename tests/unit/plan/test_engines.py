"""Placement, command lines, environments, capacity, gateway, flows and slices."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from rackserve.firewall.rules import admits, build_rules
from rackserve.plan import Library, compile_plan, plan_errors, plan_tables
from rackserve.plan.arguments import check_arguments, check_environment, option_words, parse_size
from rackserve.plan.findings import Findings
from rackserve.plan.known import ADVISED_ARGS, ADVISED_ENV, MANAGED_ARGS, MANAGED_ENV, REFUSED_ARGS, REFUSED_ENV

from .conftest import Compile, codes, load_site

D = "deployments.0"
H20 = "h20-4x8-deepseek-v3"


def big(hosts: int, replicas: int, tp: int = 1) -> tuple[dict[str, Any], dict[str, list[str]], dict[str, str]]:
    cluster, _groups, _addresses = copy.deepcopy(load_site(H20))
    item = cluster["deployments"][0]
    item.update(tensor_parallel_size=tp, replicas=replicas, engine_args={})
    item["model"].update(card="qwen2.5-7b-instruct")
    names = [f"h{n:03}" for n in range(hosts)]
    addresses = {name: f"10.9.{n // 250}.{n % 250 + 1}" for n, name in enumerate(names)}
    return cluster, {"gpu": names, "gateway": ["gw"]}, {**addresses, "gw": "10.8.0.1"}


def test_growing_at_the_end_moves_no_engine(library: Library) -> None:
    def seats(plan: dict[str, Any]) -> dict[str, Any]:
        return {i["name"]: (i["host"], i["port"], i["gpu_ids"]) for i in plan["instances"]}

    small, large = (seats(compile_plan(*big(n, n * 8), library)) for n in (2, 5))
    assert len(small) == 16 and len(large) == 40
    assert small.items() <= large.items()


def test_gpus_and_ports_of_a_host_are_handed_out_once(library: Library) -> None:
    plan = compile_plan(*big(1, 4, tp=2), library)
    assert [i["gpu_ids"] for i in plan["instances"]] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [i["port"] for i in plan["instances"]] == [8000, 8001, 8002, 8003]
    assert [i["env"]["CUDA_VISIBLE_DEVICES"] for i in plan["instances"]] == ["0,1", "2,3", "4,5", "6,7"]


def test_second_deployment_takes_the_next_gpus(library: Library) -> None:
    cluster, groups, addresses = big(2, 2, tp=4)
    other = {**copy.deepcopy(cluster["deployments"][0]), "name": "other", "port_base": 8100}
    other["served_model_name"] = "other"
    cluster["deployments"].append(other)
    plan = compile_plan(cluster, groups, addresses, library)
    assert plan_errors(plan) == []
    assert [(i["name"], i["host"], i["gpu_ids"][0]) for i in plan["instances"]] == [
        ("deepseek-v3-0", "h000", 0),
        ("deepseek-v3-1", "h001", 0),
        ("other-0", "h000", 4),
        ("other-1", "h001", 4),
    ]


def test_uneven_replicas_go_to_the_first_hosts(compiled: Compile) -> None:
    hosts = [i["host"] for i in compiled("lab", {f"{D}.replicas": 6})["instances"]]
    assert hosts == ["node1", "node1", "node2", "node2", "node3", "node4"]


def test_command_line_of_a_gpu_engine(compiled: Compile) -> None:
    argv = compiled(H20)["instances"][1]["argv"]
    assert argv == [
        *("/opt/rackserve/releases/2026.11/bin/python3", "-m", "vllm.entrypoints.cli.main", "serve"),
        "/data/models/DeepSeek-V3",
        *("--served-model-name", "DeepSeek-V3", "--host", "10.20.0.12", "--port", "8000"),
        *("--tensor-parallel-size", "8", "--gpu-memory-utilization", "0.92", "--max-model-len", "32768"),
        *("--max-num-batched-tokens", "8192", "--max-num-seqs", "80", "--shutdown-timeout", "120"),
        *("--disable-access-log-for-endpoints", "/health,/metrics"),
        *("--enable-server-load-tracking", "--fail-on-environ-validation"),
    ]


def test_environment_follows_the_device(compiled: Compile) -> None:
    cpu, gpu = compiled("lab")["instances"][0]["env"], compiled(H20)["instances"][0]["env"]
    assert {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}.items() <= cpu.items()
    assert {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "NCCL_SOCKET_IFNAME": "lo"}.items() <= gpu.items()
    for env in (cpu, gpu):
        assert {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}.items() <= env.items()
        assert "VLLM_API_KEY" not in env
    assert "NCCL_SOCKET_IFNAME" not in cpu and "OMP_NUM_THREADS" not in gpu


def test_deployment_overrules_profile_and_null_removes(compiled: Compile) -> None:
    args = {"max_num_seqs": None, "max_model_len": "1k", "enable_prefix_caching": False, "shutdown_timeout": 33}
    plan = compiled("lab", {f"{D}.engine_args": args, f"{D}.env": {"OMP_NUM_THREADS": 2}})
    instance = plan["instances"][0]
    words = instance["argv"]
    assert "--max-num-seqs" not in words
    assert "--no-enable-prefix-caching" in words
    assert words[words.index("--max-model-len") + 1] == "1000"
    assert words[words.index("--shutdown-timeout") + 1] == "33"
    assert instance["max_model_len"] == 1000
    assert (instance["shutdown_timeout_s"], instance["stop_timeout_s"]) == (33, 63)
    assert instance["env"]["OMP_NUM_THREADS"] == "2"
    assert plan["gateway"]["deployments"][0]["max_inflight_per_server"] == 127


def test_timeouts_leave_room(compiled: Compile) -> None:
    for name in ("lab", H20, "rtx5090-single"):
        for item in compiled(name)["instances"]:
            assert item["stop_timeout_s"] > item["shutdown_timeout_s"] + 15
            assert item["start_timeout_s"] > int(item["env"]["VLLM_ENGINE_READY_TIMEOUT_S"])
    # 690e9 bytes at 2,000 MiB/s are 330 s; twice that and the base of 600 s.
    assert compiled(H20)["instances"][0]["start_timeout_s"] == 600 + 2 * 330 + 60


@pytest.mark.parametrize(
    ("value", "size"),
    [
        *((32768, 32768), ("32k", 32000), ("32K", 32768), ("2M", 2 * 2**20)),
        *(("auto", None), (True, None), (0, None), (-1, None), (1.5, None), (None, None), ("9" * 40, None)),
    ],
)
def test_sizes_are_read_as_vllm_reads_them(value: object, size: int | None) -> None:
    assert parse_size(value) == size


def test_option_words() -> None:
    args = {"b_flag": True, "c_off": False, "a_list": [1, "x"], "d_json": {"k": {"n": 1}}, "e": 0.5}
    assert option_words(args) == [
        "--a-list",
        "1",
        "x",
        "--b-flag",
        "--no-c-off",
        "--d-json",
        '{"k":{"n":1}}',
        "--e",
        "0.5",
    ]


@pytest.mark.parametrize("name", [*REFUSED_ARGS, *MANAGED_ARGS, "api_key", "hf_token"])
def test_dead_and_managed_arguments_are_refused(name: str) -> None:
    findings = Findings()
    assert check_arguments({name: "x"}, "cuda", "here", findings) == {}
    assert [item["severity"] for item in findings.items] == ["error"]


@pytest.mark.parametrize("name", [*ADVISED_ARGS])
def test_doubtful_arguments_pass_with_a_warning(name: str) -> None:
    findings = Findings()
    assert check_arguments({name: 1}, "cuda", "here", findings) == {name: 1}
    assert [item["severity"] for item in findings.items] == ["warning"]


def test_remote_code_never_reaches_the_command_line() -> None:
    findings = Findings()
    assert check_arguments({"trust_remote_code": True}, "cuda", "here", findings) == {}
    assert [item["code"] for item in findings.items] == ["trust-remote-code"]


@pytest.mark.parametrize(
    ("args", "device", "found"),
    [
        ({"enforce_eager": True}, "cuda", ["enforce-eager"]),
        ({"enforce_eager": True}, "cpu", []),
        ({"dtype": "float8_e4m3fn"}, "cuda", ["bad-argument-value"]),
        ({"all2all_backend": "pplx"}, "cuda", ["bad-argument-value"]),
        ({"seed": "--trust-remote-code"}, "cuda", ["bad-argument-value"]),
        ({"lora_modules": ["a=b", "--api-key"]}, "cuda", ["bad-argument-value"]),
        ({"gpu_memory_utilization": 0.97}, "cuda", ["risky-argument"]),
        ({"gpu_memory_utilization": "0.9"}, "cuda", ["out-of-range"]),
        ({"gpu_memory_utilization": 1.0}, "cuda", ["out-of-range"]),
        ({"max_num_seqs": 0}, "cuda", ["out-of-range"]),
        ({"max_model_len": "auto"}, "cuda", ["out-of-range"]),
        ({"kv_cache_memory_bytes": []}, "cuda", ["out-of-range"]),
        ({"kv_cache_memory_bytes": "67108864"}, "cuda", []),
    ],
)
def test_argument_values(args: dict[str, Any], device: str, found: list[str]) -> None:
    findings = Findings()
    check_arguments(args, device, "here", findings)
    assert [item["code"] for item in findings.items] == found


@pytest.mark.parametrize("name", [*REFUSED_ENV, *MANAGED_ENV])
def test_dead_and_managed_variables_are_refused(name: str) -> None:
    findings = Findings()
    assert check_environment({name: "1"}, "none", False, "here", findings) == {}
    assert [item["severity"] for item in findings.items] == ["error"]


@pytest.mark.parametrize("name", [*ADVISED_ENV])
def test_doubtful_variables_pass_with_a_warning(name: str) -> None:
    findings = Findings()
    assert check_environment({name: "1"}, "none", False, "here", findings) == {name: "1"}
    assert [item["severity"] for item in findings.items] == ["warning"]


@pytest.mark.parametrize(
    ("env", "fabric", "connector", "good"),
    [
        ({"NCCL_NET": "IB:mlx5_0"}, "infiniband", False, False),
        ({"NCCL_NET": "IB"}, "infiniband", False, True),
        ({"NCCL_IB_GID_INDEX": "3"}, "infiniband", False, False),
        ({"NCCL_IB_GID_INDEX": "3"}, "roce", False, True),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, "none", False, True),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, "none", True, False),
        ({"TOKENIZERS_PARALLELISM": "false"}, "none", False, True),
    ],
)
def test_variables_that_depend(env: dict[str, str], fabric: str, connector: bool, good: bool) -> None:
    findings = Findings()
    assert bool(check_environment(env, fabric, connector, "here", findings)) is good
    assert bool(findings.items) is not good


def test_capacity_agrees_with_the_physics(compiled: Compile) -> None:
    text = "\n".join(compiled(H20, {f"{D}.engine_args.gpu_memory_utilization": 0.9})["capacity"]["deepseek-v3"]["text"])
    assert "78.3 GiB per GPU" in text and "86.0 GiB per GPU" in text
    tokens = int(text.split(" tokens an engine")[0].split("= ")[-1])
    assert 70_000 < tokens < 76_000
    low = compiled(H20, {f"{D}.engine_args.gpu_memory_utilization": 0.8})
    assert codes(low) == ["weights-do-not-fit"]


def needed(plan: dict[str, Any]) -> list[int]:
    assert plan_errors(plan) == []
    return sorted({item["gpu_memory_needed_mib"] for item in plan["instances"]})


def test_what_an_engine_has_to_find_free(compiled: Compile) -> None:
    gib, args = 2**30, f"{D}.engine_args"
    # 97,871 MiB x 0.92, rounded up: vLLM compares with what is free when it starts.
    assert needed(compiled(H20)) == [90042]
    assert needed(compiled(H20, {f"{args}.gpu_memory_utilization": 0.95})) == [92978]
    # Without the argument vLLM takes its own 0.92; a fixed cache that fits beside the weights demands no more.
    assert needed(compiled(H20, {args: {"gpu_memory_utilization": None, "max_model_len": "8k"}})) == [90042]
    assert needed(compiled(H20, {f"{args}.kv_cache_memory_bytes": 6 * gib})) == [90042]
    # 672,600,000,000 bytes of weights / 8 + 13 GiB = 93,493 MiB, and 3,072 MiB of reserve, are more than that.
    assert needed(compiled(H20, {f"{args}.kv_cache_memory_bytes": 13 * gib})) == [96565]


def test_hardware_without_gpus_demands_no_gpu_memory(compiled: Compile) -> None:
    plan = compiled(
        "lab", {"hardware": "lab-cpu", "simulated_hardware": False, "network.fabric": {}, "gpu_settings": {}}
    )
    assert plan_errors(plan) == []
    assert all("gpu_memory_needed_mib" not in item and item["gpu_ids"] == [] for item in plan["instances"])
    assert {part["simulated_hardware"] for part in plan["slices"].values()} == {False}


def test_engines_beside_simulated_gpus_are_cpu_engines_in_their_places(compiled: Compile) -> None:
    plan = compiled("lab", {f"{D}.replicas": 8})
    assert plan_errors(plan) == []
    assert (plan["hardware"]["simulated"], plan["hardware"]["golden_class"]) == (True, "simulated-h20-8")
    assert {part["simulated_hardware"] for part in plan["slices"].values()} == {True}
    mine = [item for item in plan["instances"] if item["host"] == "node1"]
    assert [item["gpu_ids"] for item in mine] == [[0], [1]]
    assert {item["gpu_memory_needed_mib"] for item in mine} == {90042}
    for item in mine:
        assert {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}.items() <= item["env"].items()
        assert not {"CUDA_VISIBLE_DEVICES", "NCCL_SOCKET_IFNAME"} & set(item["env"])
    text = "\n".join(plan["capacity"]["tiny-deepseek"]["text"])
    assert "with 8 slots" in text and "gpu_memory_utilization 0.92 = 87.9 GiB per GPU" in text
    assert codes(compiled("lab", {f"{D}.profile": "balanced"})) == ["profile-device"]
    real = compiled(H20)["hardware"]
    assert (real["simulated"], real["golden_class"]) == (False, "h20-8")


def test_kv_cache_of_a_fixed_size_is_checked(compiled: Compile) -> None:
    gib = 2**30
    fits = compiled(H20, {f"{D}.engine_args.kv_cache_memory_bytes": 6 * gib})
    assert plan_errors(fits) == []
    assert codes(compiled(H20, {f"{D}.engine_args.kv_cache_memory_bytes": 30 * gib})) == ["kv-does-not-fit"]
    assert codes(compiled(H20, {f"{D}.engine_args.kv_cache_memory_bytes": 2**20})) == ["kv-too-small"]


def test_gateway_slots_and_checks(compiled: Compile) -> None:
    part = compiled("lab")["gateway"]["deployments"][0]
    assert [slot["slot"] for slot in part["slots"]] == [f"r{n}" for n in range(8)]
    assert part["slots"][3] == {
        "slot": "r3",
        "instance": "tiny-deepseek-3",
        "host": "node4",
        "address": "10.77.0.14",
        "port": 8000,
    }
    assert part["slots"][4]["instance"] is None
    assert part["max_inflight_per_server"] == 31
    targets = {f"{part['backend']}/{slot['slot']}": slot["instance"] for slot in part["slots"]}
    assert all(targets[i["gateway_target"]] == i["name"] for i in compiled("lab")["instances"])
    assert {i["gateway_target"] for i in compiled("lab", {"gateway": None})["instances"]} == {None}
    assert set(part["check"]) == {"interval_s", "timeout_s", "fall", "rise"}


def test_flows_reach_what_is_needed_and_nothing_else(compiled: Compile) -> None:
    plan = compiled("lab")
    inbound = {h: {r["port"]: r["sources"] for r in s["firewall"]["inbound"]} for h, s in plan["slices"].items()}
    assert inbound["node1"] == {22: ["10.77.1.0/30"], 8000: ["10.77.0.10"], 8690: []}
    assert inbound["gw"] == {22: ["10.77.1.0/30"], 8443: ["10.77.1.0/30"], 8404: ["10.77.1.0/30"]}
    flows = plan["firewall"]["flows"]
    assert all(flow["from"] or flow["name"] == "weights-relay" for flow in flows)
    assert all(flow["to"] not in flow["from"] for flow in flows)


def test_an_engine_that_only_its_own_host_asks_is_closed_to_everybody_else(compiled: Compile) -> None:
    """The gateway runs on the engine's host: no source is left, and the port must be filtered all the same."""
    plan = compiled("rtx5090-single")
    (instance,) = plan["instances"]
    assert instance["host"] == plan["gateway"]["host"]
    rules = {rule["port"]: rule["sources"] for rule in plan["slices"][instance["host"]]["firewall"]["inbound"]}
    assert rules[instance["port"]] == []
    built = build_rules(plan["slices"][instance["host"]]["firewall"]["inbound"], "owned_ports", ["192.168.10.0/24"])
    assert not admits(built["flows"], "owned_ports", "192.168.10.7", instance["port"])


def test_what_ranks_open_among_each_other_stays_on_loopback(compiled: Compile) -> None:
    inside = {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    assert all(inside.items() <= item["env"].items() for item in compiled(H20)["instances"])
    connector = {"kv_connector": "OffloadingConnector", "kv_role": "kv_both"}
    outside = compiled(H20, {f"{D}.engine_args.kv_transfer_config": connector})["instances"][0]
    assert (outside["env"]["VLLM_HOST_IP"], outside["env"]["NCCL_SOCKET_IFNAME"]) == (outside["address"], "bond0")


def test_without_a_gateway_clients_reach_engines(compiled: Compile) -> None:
    plan = compiled("lab", {"gateway": None})
    assert plan["gateway"] is None
    assert "load_balancer" not in plan["slices"]["gw"]["roles"]
    assert [f["from"] for f in plan["firewall"]["flows"] if f["name"] == "engine-tiny-deepseek-0"] == [["10.77.1.0/30"]]


def test_slices_hold_what_roles_read(compiled: Compile) -> None:
    plan = compiled("lab")
    assert "builder1" not in plan["slices"]
    node, gateway = plan["slices"]["node1"], plan["slices"]["gw"]
    assert [i["name"] for i in node["instances"]] == ["tiny-deepseek-0"]
    assert (node["gateway"], gateway["release"], gateway["models"]) == (None, None, [])
    assert node["release"]["path"] == "/opt/rackserve/releases/2026.11-cpu"
    assert node["models"][0]["source"] == {"kind": "controller", "path": ".cache/models/tiny-deepseek-v3"}
    assert gateway["roles"] == ["host_baseline", "firewall", "load_balancer", "host_health"]
    assert {part["plan_hash"] for part in plan["slices"].values()} == {plan["hash"]}


def test_slice_does_not_grow_with_the_cluster(library: Library) -> None:
    def size(hosts: int) -> int:
        part = compile_plan(*big(hosts, hosts * 8), library)["slices"]["h000"]
        return len(json.dumps({key: value for key, value in part.items() if key != "hosts"}))

    assert size(16) == size(2)


@pytest.mark.parametrize(
    "shape",
    [
        {"replicas": 512},
        {"layout": "data_parallel", "data_parallel_size": 512, "hosts_per_replica": 64, "replicas": 1},
        {"layout": "data_parallel", "data_parallel_size": 16, "hosts_per_replica": 2, "replicas": 32},
        {"layout": "multi_node", "pipeline_parallel_size": 16, "hosts_per_replica": 2, "replicas": 32},
    ],
)
def test_64_hosts_of_8_gpus_are_planned_within_a_second(shape: dict[str, Any], library: Library) -> None:
    cluster, groups, addresses = big(64, 1)
    cluster["deployments"][0].update(shape)
    started_s = time.process_time()
    plan = compile_plan(cluster, groups, addresses, library)
    assert time.process_time() - started_s < 1
    assert plan_errors(plan) == []


def test_single_layout_puts_all_on_one_host(compiled: Compile) -> None:
    plan = compiled("lab", {f"{D}.layout": "single", f"{D}.hosts": ["node2"], f"{D}.replicas": 2})
    assert plan_errors(plan) == []
    assert [(i["host"], i["port"]) for i in plan["instances"]] == [("node2", 8000), ("node2", 8001)]


def test_hash_follows_content_only(compiled: Compile, library: Library) -> None:
    cluster, groups, addresses = load_site("lab")
    shuffled = dict(reversed(list(cluster.items())))
    plan = compile_plan(shuffled, groups, dict(reversed(list(addresses.items()))), library)
    assert plan == compiled("lab")
    assert plan["hash"] != compiled("lab", {f"{D}.engine_args.max_num_seqs": 31})["hash"]
    # A note changes no hash: nothing on a host follows from it.
    assert plan["hash"] == compiled("lab", {"exceptions": ["enforce-eager"]})["hash"]


def test_tables_show_everything(compiled: Compile) -> None:
    text = "\n".join(plan_tables(compiled("lab", overrides={"gateway": {"port": 9443}})))
    for part in ("vllm-tiny-deepseek-3.service", "be_tiny-deepseek", "(spare)", "https://10.77.0.10:9443"):
        assert part in text
    assert "cluster.gateway.port: 8443 -> 9443" in text
    assert "hardware h20-8: its GPUs are simulated" in text
    assert "  simulated GPUs  " in text
    assert "note [simulated-hardware]" in text
    real = "\n".join(plan_tables(compiled(H20)))
    assert "simulated" not in real
    bare = {"hardware": "lab-cpu", "simulated_hardware": False, "network.fabric": {}, "gpu_settings": {}}
    assert "not proven on real lab-cpu; it ran on simulated h20-8" in "\n".join(plan_tables(compiled("lab", bare)))
    assert plan_tables({**compiled("lab", bare), "findings": []})[-2:] == ["Findings", "  none"]
    empty = "\n".join(plan_tables(compiled("lab", {"deployments": [], "gateway": None})))
    assert "warning [no-deployments]" in empty
