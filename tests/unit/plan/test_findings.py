"""Every rule of the description: what is wrong is found, named and placed."""

from __future__ import annotations

from typing import Any

import pytest
from rackserve.plan import Library, compile_plan

from .conftest import Compile, codes, load_site, put

D = "deployments.0"
H20 = "h20-4x8-deepseek-v3"

WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("lab", {"name": "Lab"}, "bad-name", "cluster.name"),
    ("lab", {"release": 2026.11}, "wrong-type", "cluster.release"),
    ("lab", {"release": "2026.11-cpuu"}, "unknown-release", "cluster.release"),
    ("lab", {"release": "../../etc"}, "bad-name", "cluster.release"),
    ("lab", {"hardware": "lab-gpu"}, "unknown-hardware", "cluster.hardware"),
    ("lab", {"simulated_hardware": False}, "device-mismatch", "cluster.release"),
    (H20, {"release": "2026.11-cpu"}, "device-mismatch", "cluster.release"),
    ("lab", {"hardware": "lab-cpu"}, "nothing-to-simulate", "cluster.simulated_hardware"),
    (H20, {"simulated_hardware": True}, "simulated-needs-cpu-release", "cluster.simulated_hardware"),
    ("lab", {"simulated_hardware": "yes"}, "wrong-type", "cluster.simulated_hardware"),
    ("lab", {"netwrok": {}}, "unknown-key", "cluster.netwrok"),
    ("lab", {"network": None}, "missing-key", "cluster.network"),
    ("lab", {"network": []}, "wrong-type", "cluster.network"),
    ("lab", {"network.management_cidrs": []}, "too-few", "cluster.network.management_cidrs"),
    ("lab", {"network.management_cidrs": ["10.77.1"]}, "bad-network", "cluster.network.management_cidrs[0]"),
    ("lab", {"network.fabric": {"kind": "ethernet"}}, "bad-choice", "cluster.network.fabric.kind"),
    ("lab", {"network.fabric": {"kind": "roce"}}, "fabric-without-hcas", "cluster.network.fabric.hcas"),
    ("lab", {"gateway.tls": "yes"}, "wrong-type", "cluster.gateway.tls"),
    ("lab", {"gateway.port": 443}, "out-of-range", "cluster.gateway.port"),
    ("lab", {"gateway.port": True}, "wrong-type", "cluster.gateway.port"),
    ("lab", {"gateway.port": 8404}, "port-taken", "cluster.gateway.metrics_port"),
    ("lab", {"gateway.hosts": "gatway"}, "unknown-host", "cluster.gateway.hosts"),
    ("lab", {"gateway.hosts": ["gw", "node1"]}, "several-gateways", "cluster.gateway.hosts"),
    ("lab", {"gateway.hosts": "node1"}, "group-mismatch", "cluster.gateway.hosts"),
    ("lab", {"gateway.hosts": {}}, "wrong-type", "cluster.gateway.hosts"),
    ("lab", {"gateway.client_cidrs": ["x"]}, "bad-network", "cluster.gateway.client_cidrs[0]"),
    ("lab", {"gateway.api_keys": ["Operator"]}, "bad-name", "cluster.gateway.api_keys[0]"),
    ("lab", {"paths.models": "srv"}, "bad-name", "cluster.paths.models"),
    ("lab", {"paths.models": "/srv/../etc"}, "bad-name", "cluster.paths.models"),
    ("lab", {"exceptions": ["everything"]}, "bad-choice", "cluster.exceptions[0]"),
    ("lab", {"take_over": ["a\nb"]}, "bad-text", "cluster.take_over[0]"),
    ("lab", {"take_over": ["{secret:engine_api_key}"]}, "bad-text", "cluster.take_over[0]"),
    ("lab", {"deployments": {}}, "wrong-type", "cluster.deployments"),
    ("lab", {"deployments": [7]}, "wrong-type", "cluster.deployments[0]"),
    ("lab", {"deployments": [None]}, "missing-key", "cluster.deployments[0]"),
    ("lab", {f"{D}.model": None}, "missing-key", "cluster.deployments[0].model"),
    ("lab", {f"{D}.model.card": "tiny-deepseek"}, "unknown-model", "cluster.deployments[0].model.card"),
    ("lab", {f"{D}.model.path": "srv/models"}, "bad-name", "cluster.deployments[0].model.path"),
    ("lab", {f"{D}.model.revision": "main"}, "moving-revision", "cluster.deployments[0].model.revision"),
    ("lab", {f"{D}.profile": "balancd"}, "unknown-profile", "cluster.deployments[0].profile"),
    ("lab", {f"{D}.profile": "balanced"}, "profile-device", "cluster.deployments[0].profile"),
    ("lab", {f"{D}.layout": "multi_node"}, "one-host", "cluster.deployments[0].hosts_per_replica"),
    ("lab", {f"{D}.layout": "single"}, "single-needs-one-host", "cluster.deployments[0].hosts"),
    ("lab", {f"{D}.hosts": ["node1", "node1"]}, "duplicate-host", "cluster.deployments[0].hosts"),
    ("lab", {f"{D}.hosts": "gw"}, "group-mismatch", "cluster.deployments[0].hosts"),
    ("lab", {f"{D}.tensor_parallel_size": 16}, "tp-too-large", "cluster.deployments[0].tensor_parallel_size"),
    ("lab", {f"{D}.replicas": 33}, "too-many-replicas", "cluster.deployments[0].replicas"),
    ("lab", {f"{D}.port_base": 65535, f"{D}.replicas": 8}, "port-range", "cluster.deployments[0].port_base"),
    ("lab", {f"{D}.engine_args": {"max-model-len": 1}}, "bad-name", "cluster.deployments[0].engine_args.max-model-len"),
    (
        "lab",
        {f"{D}.engine_args": {"max_model_le": 1}},
        "unknown-argument",
        "cluster.deployments[0].engine_args.max_model_le",
    ),
    ("lab", {f"{D}.engine_args": {"seed": False}}, "unknown-argument", "cluster.deployments[0].engine_args.seed"),
    ("lab", {f"{D}.engine_args": {"dtype": "fp8"}}, "unknown-choice", "cluster.deployments[0].engine_args.dtype"),
    ("lab", {f"{D}.env": {"A B": "1"}}, "bad-name", "cluster.deployments[0].env.A B"),
    ("lab", {f"{D}.env": {"A": True}}, "wrong-type", "cluster.deployments[0].env.A"),
    ("lab", {f"{D}.env": {"A": "1\nB=2"}}, "bad-text", "cluster.deployments[0].env.A"),
    ("lab", {f"{D}.slo": {"ttft_p95_s": float("nan")}}, "out-of-range", "cluster.deployments[0].slo.ttft_p95_s"),
    (H20, {f"{D}.tensor_parallel_size": 3}, "heads-do-not-divide", "cluster.deployments[0].tensor_parallel_size"),
    (H20, {f"{D}.tensor_parallel_size": 4}, "weights-do-not-fit", "cluster.deployments[0].tensor_parallel_size"),
    (
        H20,
        {f"{D}.engine_args.max_model_len": 163840},
        "kv-too-small",
        "cluster.deployments[0].engine_args.max_model_len",
    ),
    (
        H20,
        {f"{D}.engine_args.max_model_len": 163841},
        "context-too-long",
        "cluster.deployments[0].engine_args.max_model_len",
    ),
]


@pytest.mark.parametrize(
    ("name", "patch", "code", "where"), WRONG, ids=[f"{w[2]}-{w[3]}-{i}" for i, w in enumerate(WRONG)]
)
def test_wrong_description_is_found(name: str, patch: dict[str, Any], code: str, where: str, compiled: Compile) -> None:
    found = [item for item in compiled(name, patch)["findings"] if item["severity"] == "error"]
    assert (code, where) in [(item["code"], item["where"]) for item in found]
    assert all(item["why"] and item["fix"] and "\n" not in item["why"] + item["fix"] for item in found)


@pytest.mark.parametrize(
    ("inventory", "code"),
    [
        ({"groups": {"gpu": []}}, "empty-group"),
        ({"groups": {"gpu": "node1"}}, "bad-inventory"),
        ({"groups": {"gpu": ["node 1"]}, "addresses": {"node 1": "10.0.0.1"}}, "bad-host-name"),
        ({"addresses": {"node1": None}}, "missing-address"),
        ({"addresses": {"node1": "node1.example.org"}}, "bad-address"),
        ({"addresses": {"node1": 7}}, "bad-address"),
        ({"addresses": {"node1": "10.77.0.12"}}, "duplicate-address"),
        ({"groups": {"gateway": ["gw", "gw2"]}, "addresses": {"gw2": "10.77.0.9"}}, "several-gateways"),
    ],
)
def test_wrong_inventory_is_found(inventory: dict[str, Any], code: str, compiled: Compile) -> None:
    assert code in codes(compiled("lab", **inventory))


def test_unquoted_number_says_quote_it(compiled: Compile) -> None:
    finding = next(item for item in compiled("lab", {"release": 2026.11})["findings"] if item["code"] == "wrong-type")
    assert finding["fix"] == 'Write it in quotes: "2026.11".'


def test_misspelt_words_get_a_suggestion(compiled: Compile) -> None:
    plan = compiled("lab", {"hardware": "lab-cpuu", "gatway": {}, f"{D}.model.card": "tiny-densee"})
    fixes = " ".join(item["fix"] for item in plan["findings"])
    assert all(f'Did you mean "{word}"?' in fixes for word in ("lab-cpu", "gateway", "tiny-dense"))


def test_arithmetic_stands_in_the_finding(compiled: Compile) -> None:
    plan = compiled("lab", {f"{D}.replicas": 33})
    why = next(item["why"] for item in plan["findings"] if item["code"] == "too-many-replicas")
    assert "4 host(s) x floor(8 slots / TP 1) = 32" in why


def test_all_errors_are_listed_at_once(compiled: Compile) -> None:
    plan = compiled("lab", {"name": "X", "release": "no", f"{D}.replicas": "four", "gateway.port": 1})
    assert {"bad-name", "unknown-release", "wrong-type", "out-of-range"} <= set(codes(plan))


@pytest.mark.parametrize("value", ["sk-abc", "hf_abcdefgh", "4f9a1c2b7d8e6f5a4f9a1c2b7d8e6f5a", "Bearer x"])
def test_a_key_in_the_description_is_refused_and_not_repeated(value: str, compiled: Compile) -> None:
    plan = compiled("lab", {"gateway.api_keys": ["operator", value]}, overrides={"gateway": {"max_queue": 9}})
    assert "secret-in-description" in codes(plan)
    assert value not in str(plan)
    plan = compiled("lab", overrides={"gateway": {"api_keys": [value]}})
    assert value not in str(plan)


@pytest.mark.parametrize(
    ("name", "value"), [("VLLM_API_KEY", "s3cr3t"), ("HF_TOKEN", "s3cr3t"), ("DB_PASSWORD", "s3cr3t")]
)
def test_a_secret_in_the_environment_is_refused_and_not_planned(name: str, value: str, compiled: Compile) -> None:
    plan = compiled("lab", {f"{D}.env": {name: value, "TOKENIZERS_PARALLELISM": "false"}})
    assert len(codes(plan)) == 1
    assert value not in str(plan)


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ({"network.management_cidrs": ["0.0.0.0/0"]}, "open-network"),
        ({"network.management_cidrs": ["10.77.1.1/30"]}, "host-bits"),
        ({"gateway.tls": False}, "gateway-without-tls"),
        ({"gateway.api_keys": []}, "no-api-keys"),
        ({"gateway": None}, "no-gateway"),
        ({"deployments": []}, "no-deployments"),
        ({f"{D}.replicas": 5}, "uneven-replicas"),
        ({f"{D}.engine_args": {"max_num_seqs": 1}}, "no-room-for-probe"),
        ({f"{D}.port_base": 40000}, "ephemeral-port"),
        ({"network.fabric": {"kind": "roce", "hcas": 4, "rate_gbps": 200}}, "fabric-differs"),
    ],
)
def test_doubtful_description_is_warned_about(patch: dict[str, Any], code: str, compiled: Compile) -> None:
    plan = compiled("lab", patch)
    assert codes(plan) == []
    assert code in codes(plan, "warning")


def test_unknown_group_and_gateway_on_gpu_host_are_warnings(compiled: Compile) -> None:
    plan = compiled("lab", groups={"gpus": ["node1"], "gateway": ["node1"], "monitoring": [], "all": ["x"]})
    assert codes(plan) == []
    assert codes(plan, "warning") == ["unknown-group", "gateway-on-gpu-host"]


def test_exception_turns_its_warning_into_a_note_and_is_reported_when_unused(compiled: Compile) -> None:
    plan = compiled("lab", {f"{D}.replicas": 5, "exceptions": ["uneven-replicas", "enforce-eager"]})
    assert codes(plan, "warning") == []
    assert codes(plan, "note") == ["simulated-hardware", "uneven-replicas", "exception-unused"]


def test_idle_host_is_a_note(compiled: Compile) -> None:
    plan = compiled("lab", {f"{D}.replicas": 3})
    found = [(item["code"], item["where"]) for item in plan["findings"]]
    assert found == [("simulated-hardware", "cluster.simulated_hardware"), ("idle-host", "inventory.node4")]
    roles = ["host_baseline", "nvidia_driver", "cuda", "gpu_settings", "rdma_fabric", "nccl", "firewall", "host_health"]
    assert plan["slices"]["node4"]["roles"] == roles


def test_two_deployments_must_not_collide(compiled: Compile) -> None:
    first = load_site("lab")[0]["deployments"][0]
    other = {**first, "model": {**first["model"], "revision": "seed-2"}}
    plan = compiled("lab", {"deployments": [first, other]})
    assert {"duplicate-name", "duplicate-served-model-name", "model-path-conflict"} <= set(codes(plan))
    third = {**first, "name": "other", "served_model_name": "tiny-deepseek"}
    assert "duplicate-served-model-name" in codes(compiled("lab", {"deployments": [first, third]}))
    fourth = {**third, "served_model_name": "other"}
    assert set(codes(compiled("lab", {"deployments": [first, fourth]}))) == {"port-taken"}
    fifth = {**fourth, "port_base": 8100, "replicas": 32}
    assert set(codes(compiled("lab", {"deployments": [first, fifth]}))) == {"slots-overallocated"}


def test_expert_blocks_must_divide(compiled: Compile, library: Library) -> None:
    patch = {f"{D}.model.card": "deepseek-v3", f"{D}.tensor_parallel_size": 32}
    assert "tp-too-large" in codes(compiled(H20, patch))
    wide = {**library.hardware["h20-8"], "slots": 32}
    cluster, groups, addresses = load_site(H20)
    put(cluster, f"{D}.tensor_parallel_size", 32)
    books = Library(library.releases, {"h20-8": wide}, library.models, library.profiles)
    assert "blocks-do-not-divide" in codes(compile_plan(cluster, groups, addresses, books))
