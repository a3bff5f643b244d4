"""What engines tell NCCL, and what a site may not."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2 import Environment
from rackserve.nccl.document import read
from rackserve.nccl.environment import TOPOLOGY_FILE, Detected, as_environment, detect, distance, engine_variables
from rackserve.nccl.environment import reasons as why_of
from rackserve.nccl.names import NCCL, NVSHMEM
from rackserve.nccl.variables import DEAD, DIAGNOSIS, HARMFUL, RANGES, RENAMED, TUNING, WORDS, judge
from rackserve.plan.arguments import Place, engine_environment

from .host import FIXTURES, REPO

PAGE = (REPO / "docs/nccl.md").read_text("utf-8")
IB = Detected("=mlx5_0:1,mlx5_1:1", "PXB")


def names(**given: Any) -> dict[str, str]:
    return as_environment(engine_variables(**{"hosts": 1, "interface": "lo", **given}))


def test_one_host_needs_next_to_nothing() -> None:
    minimal = {"NCCL_DEBUG": "WARN", "NCCL_SOCKET_IFNAME": "lo"}
    assert names() == minimal
    assert names(fabric="infiniband", detected=IB, parts=["deepep"]) == minimal
    assert names(topology_use="measure") == {**minimal, "NCCL_TOPO_FILE": TOPOLOGY_FILE}


@pytest.mark.parametrize("use", ["observe", "measure", "inject"])
def test_the_plan_tells_engines_what_the_profile_says(use: str) -> None:
    instance = {"address": "10.0.0.1", "gpu_ids": [0, 1]}
    place, given = Place(1, "bond0", topology_use=use), {"omp_threads": 1, "ready_timeout_s": 60}
    gpu = engine_environment(instance, {}, "cuda", place, **given)
    assert (gpu["NCCL_SOCKET_IFNAME"], gpu["NCCL_DEBUG"]) == ("lo", "WARN")
    assert gpu.get("NCCL_TOPO_FILE") == (None if use == "observe" else TOPOLOGY_FILE)
    assert not [name for name in engine_environment(instance, {}, "cpu", place, **given) if name.startswith("NCCL_")]
    connected = engine_environment(instance, {"kv_transfer_config": {"kv_connector": "x"}}, "cuda", place, **given)
    assert connected["NCCL_SOCKET_IFNAME"] == "bond0"


def test_the_environment_file_carries_reasons() -> None:
    instance = {"env": {"NCCL_DEBUG": "WARN", "X": "1"}, "env_reasons": {"NCCL_DEBUG": "says why"}}
    template = (REPO / "roles/vllm/templates/vllm.env.j2").read_text()
    text = Environment(trim_blocks=True, autoescape=False).from_string(template).render(instance=instance)  # noqa: S701 - text, not HTML
    assert text.splitlines()[1:] == ["# says why", "NCCL_DEBUG=WARN", "X=1"]


def test_several_hosts_name_adapters_and_interface() -> None:
    infiniband = {
        "NCCL_DEBUG": "WARN",
        "NCCL_SOCKET_IFNAME": "=bond0",
        "NCCL_NET": "IB",
        "NCCL_IB_HCA": "=mlx5_0:1,mlx5_1:1",
    }
    across = {"hosts": 2, "interface": "bond0"}
    assert names(**across, fabric="infiniband", detected=IB) == infiniband
    assert names(**across, fabric="roce", detected=IB) == {**infiniband, "NCCL_IB_TIMEOUT": "22"}
    far = Detected(IB.ib_hca, "PHB")
    assert names(**across, fabric="infiniband", detected=far)["NCCL_NET_GDR_LEVEL"] == "PHB"
    assert set(names(**across)) == {"NCCL_DEBUG", "NCCL_SOCKET_IFNAME"}
    unasked = names(**across, fabric="roce")
    assert "NCCL_IB_HCA" not in unasked and unasked["NCCL_NET"] == "IB"


def test_other_libraries_only_where_they_are_used() -> None:
    across = {"hosts": 2, "interface": "bond0", "fabric": "roce", "detected": IB}
    assert not {name for name in names(**across) if not name.startswith("NCCL_")}
    both = names(**across, parts=["deepep", "nixl"])
    assert {name: value for name, value in both.items() if not name.startswith("NCCL_")} == {
        "NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME": "bond0",
        "NVSHMEM_IB_ENABLE_IBGDA": "1",
        "UCX_NET_DEVICES": "mlx5_0:1,mlx5_1:1",
    }


def test_every_variable_exists_and_has_a_reason_on_the_page() -> None:
    given = engine_variables(
        hosts=2,
        interface="bond0",
        fabric="roce",
        detected=Detected("=mlx5_0:1", "PHB"),
        topology_use="inject",
        parts=["deepep", "nixl"],
    )
    for variable in given:
        prefix, _, rest = variable.name.partition("_")
        assert rest in {"NCCL": NCCL, "NVSHMEM": NVSHMEM, "UCX": {"NET_DEVICES"}}[prefix]
        assert variable.source and f"`{variable.name}" in PAGE
        assert variable.reason in why_of(given)[variable.name]
        found = judge(variable.name, variable.value, "roce")
        assert variable.name == "NCCL_TOPO_FILE" or not found or found.severity == "warning"


@pytest.mark.parametrize(
    ("name", "far"), [("smc-h200-bm-roce-excerpt", "PIX"), ("synthetic-h20-8gpu-8x400ib", "PIX"), ("h100-x4-vm", "PHB")]
)
def test_how_far_gpus_are_from_adapters(name: str, far: str) -> None:
    observed = read((FIXTURES / f"{name}.xml").read_text())
    assert distance(observed) == far
    assert detect({"nccl_ib_hca": "=mlx5_0:1"}, observed) == Detected("=mlx5_0:1", far)
    assert detect({}, None) == Detected("", "")


DISTANT = """<system version="1"><cpu numaid="0"><pci busid="a"><pci busid="b"><pci busid="g0">
<gpu dev="0"/></pci></pci><pci busid="n0"><nic><net name="x"/></nic></pci></pci></cpu>%s</system>"""


def test_distances_over_switches_and_cpus() -> None:
    assert distance(read(DISTANT % "")) == "PXB"
    other = '<cpu numaid="1"><pci busid="g1"><gpu dev="1"/></pci></cpu>'
    assert distance(read(DISTANT % other)) == "PXB"
    apart = '<system version="1"><cpu numaid="0"><pci busid="n"><nic><net name="x"/></nic></pci></cpu>%s</system>'
    assert distance(read(apart % other)) == "SYS"
    assert distance(read('<system version="1"/>')) == ""


@pytest.mark.parametrize(
    ("name", "value", "fabric", "code"),
    [
        ("NCCL_PROTO", "Simple", "none", "harmful-env"),
        ("NCCL_PROTO", "LL,Simple", "none", "harmful-env"),
        ("NCCL_PROTO", "^LL128", "none", "harmful-env"),
        ("NCCL_PROTO", "Fast", "none", "bad-env-value"),
        ("NCCL_ALGO", "Ring,Tree", "none", "harmful-env"),
        ("NCCL_ALGO", "Ring", "infiniband", "harmful-env"),
        ("NCCL_ALGO", "^NVLS,NVLSTree", "none", "harmful-env"),
        ("NCCL_ALGO", "Rings", "none", "bad-env-value"),
        ("NCCL_NET", "IB:mlx5_0", "infiniband", "bad-env-value"),
        ("NCCL_NET", "IB:mlx5_0,mlx5_1,mlx5_2,mlx5_3", "none", "bad-env-value"),
        ("NCCL_NET", "IB", "none", "bad-env-value"),
        ("NCCL_TIMEOUT", "1800", "none", "dead-env"),
        ("NCCL_NVLINK_ENABLE", "1", "none", "dead-env"),
        ("NCCL_IB_HCAS", "mlx5_0", "infiniband", "dead-env"),
        ("NCCL_WHATEVER", "1", "none", "dead-env"),
        ("NCCL_TOPO_FILE", "/opt/nccl/topo.xml", "none", "harmful-env"),
        ("NCCL_GRAPH_FILE", "/x", "none", "harmful-env"),
        ("NCCL_P2P_DISABLE", "1", "none", "harmful-env"),
        ("NCCL_P2P_LEVEL", "NVLINK", "none", "bad-env-value"),
        ("NCCL_NET_GDR_LEVEL", "9", "none", "bad-env-value"),
        ("NCCL_IB_TIMEOUT", "100", "roce", "bad-env-value"),
        ("NCCL_IB_TIMEOUT", "0", "roce", "bad-env-value"),
        ("NCCL_IB_RETRY_CNT", "10", "roce", "bad-env-value"),
        ("NCCL_IB_GID_INDEX", "3", "infiniband", "bad-env-value"),
        ("NCCL_IB_HCA", "mlx5_0, mlx5_1", "roce", "bad-env-value"),
        ("NCCL_IB_HCA", "=" + ",".join(f"mlx5_{i}" for i in range(33)), "roce", "bad-env-value"),
        ("NCCL_IB_DISABLE", "1", "roce", "harmful-env"),
        ("NCCL_DEBUG", "LOUD", "none", "bad-env-value"),
        ("NVSHMEM_REMOTE_TRANSPORT", "ibgda", "roce", "bad-env-value"),
        ("NVSHMEM_USE_IBGDA", "1", "roce", "dead-env"),
        ("NVSHMEM_IBGDA_SUPPORT", "1", "roce", "dead-env"),
        ("NVSHMEM_ENABLE_NIC_PE_MAPPING", "1", "roce", "harmful-env"),
        ("NVSHMEM_HCA_LIST", "=mlx5_0:1", "roce", "bad-env-value"),
        ("UCX_NET_DEVICES", "=mlx5_0:1", "roce", "bad-env-value"),
        ("UCX_IB_GID_INDEX", "3", "none", "bad-env-value"),
    ],
)
def test_dead_and_harmful_variables_are_refused(name: str, value: str, fabric: str, code: str) -> None:
    found = judge(name, value, fabric)
    assert found is not None and (found.severity, found.code) == ("error", code)
    assert name in found.why and found.fix.endswith((".", "?"))


@pytest.mark.parametrize(
    ("name", "value", "fabric", "code"),
    [
        ("NCCL_MIN_NCHANNELS", "16", "none", "untuned-nccl"),
        ("NCCL_P2P_LEVEL", "NVL", "none", "untuned-nccl"),
        ("NCCL_NET_GDR_LEVEL", "2", "roce", "untuned-nccl"),
        ("NCCL_ALGO", "NVLS,Ring,Tree", "none", "untuned-nccl"),
        ("NCCL_ALGO", "broadcast:ring", "none", "untuned-nccl"),
        ("NCCL_PROTO", "LL,LL128,Simple", "none", "untuned-nccl"),
        ("NCCL_IB_DISABLE", "0", "infiniband", "untuned-nccl"),
        ("NCCL_IB_DISABLE", "1", "none", "untuned-nccl"),
        ("NCCL_IB_QPS_PER_CONNECTION", "4", "roce", "untuned-nccl"),
        ("NCCL_IB_HCA", "mlx5_1", "roce", "prefix-match"),
        ("NCCL_DEBUG", "INFO", "none", "debug-env"),
        ("NCCL_DEBUG_SUBSYS", "ALL", "none", "debug-env"),
        ("NCCL_ASYNC_ERROR_HANDLING", "1", "none", "renamed-env"),
        ("NCCL_DMABUF_ENABLE", "1", "roce", "untuned-nccl"),
    ],
)
def test_doubtful_variables_are_told(name: str, value: str, fabric: str, code: str) -> None:
    found = judge(name, value, fabric)
    assert found is not None and (found.severity, found.code) == ("warning", code)


@pytest.mark.parametrize(
    ("name", "value", "fabric"),
    [
        ("NCCL_NET", "IB", "roce"),
        ("NCCL_IB_HCA", "=mlx5_0:1,mlx5_1:1", "roce"),
        ("NCCL_IB_HCA", "^=mlx5_bond_0", "roce"),
        ("NCCL_IB_GID_INDEX", "3", "roce"),
        ("NCCL_IB_TC", "106", "roce"),
        ("NCCL_IB_TIMEOUT", "22", "roce"),
        ("NCCL_SOCKET_IFNAME", "=bond0", "roce"),
        ("NCCL_DEBUG", "WARN", "none"),
        ("NVSHMEM_IB_ENABLE_IBGDA", "1", "roce"),
        ("NVSHMEM_REMOTE_TRANSPORT", "ibrc", "roce"),
        ("NVSHMEM_ENABLE_NIC_PE_MAPPING", "0", "roce"),
        ("UCX_TLS", "rc,cuda_copy", "roce"),
        ("TORCH_NCCL_BLOCKING_WAIT", "1", "none"),
    ],
)
def test_what_is_right_passes(name: str, value: str, fabric: str) -> None:
    assert judge(name, value, fabric) is None


@pytest.mark.parametrize("words", [DEAD, HARMFUL, TUNING, DIAGNOSIS, RANGES, WORDS, RENAMED])
def test_every_judgement_is_documented(words: Any) -> None:
    assert [word for word in words if f"`{word}" not in PAGE] == []


def test_tables_name_what_exists() -> None:
    known = {f"NCCL_{name}" for name in NCCL} | {f"NVSHMEM_{name}" for name in NVSHMEM}
    assert {*HARMFUL, *TUNING, *DIAGNOSIS, *RANGES, *WORDS} <= known
    assert not {*DEAD, *RENAMED} & known
