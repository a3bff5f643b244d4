"""The topology of simulated machines, their GPUs read through the simulated driver's library."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from driver_support import Host
from rackserve.nccl.document import TopologyError, canonical, read, walk
from rackserve.nccl.environment import Detected, detect
from rackserve.nccl.gpus import from_facts
from rackserve.nccl.parser import Element
from rackserve.nccl.topology import Topology, observe
from rackserve.rdma.info import rdma_info

REPO = Path(__file__).resolve().parents[3]
ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from rackserve.gpu.info.facts import gpu_info
from rackserve.nccl import gpus
print(json.dumps({"ours": gpus.read(), "gpu_info": gpu_info()["gpus"]}))
"""


class Seen(NamedTuple):
    root: Path
    topology: Topology
    facts: list[dict[str, Any]]


@pytest.fixture
def seen(tmp_path: Path, machine: Callable[[str], Path]) -> Callable[[str], Seen]:
    def run(profile: str) -> Seen:
        host = Host(tmp_path / profile, machine(profile))
        done = host.run(sys.executable, "-c", ASK, REPO / "module_utils")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        return Seen(host.root, observe(host.root, answer["ours"]), answer["gpu_info"])

    return run


@pytest.fixture
def detected(seen: Callable[[str], Seen]) -> Callable[[str], Topology]:
    def run(profile: str) -> Topology:
        return seen(profile).topology

    return run


def without_nics(element: Element) -> Element:
    """What NCCL says of GPUs alone: cpuinfo and interfaces of the simulated machine stand elsewhere."""
    kept = [without_nics(child) for child in element.children if child.name != "nic"]
    given = {k: v for k, v in element.attributes.items() if k not in ("arch", "vendor", "familyid", "modelid")}
    return Element(element.name, given, kept)


def test_a_real_host_as_a_profile_gives_nccls_own_dump(detected: Callable[[str], Topology]) -> None:
    dump = read((REPO / "tests/fixtures/nccl-topology/h100-x4-vm.xml").read_text())
    assert canonical(without_nics(detected("h100-x4-vm").observed)) == canonical(without_nics(dump))


def test_gpus_share_switches_with_adapters_on_the_h20_host(detected: Callable[[str], Topology]) -> None:
    made = detected("h20-8")
    assert made.findings == []
    gpus = [element for element in walk(made.observed) if element.name == "gpu"]
    assert len(gpus) == 8 and {g.attributes["sm"] for g in gpus} == {"90"}
    for gpu in gpus:
        assert sorted(link.attributes["count"] for link in gpu.children) == ["4", "4", "5", "5"]
        assert {link.attributes["tclass"] for link in gpu.children} == {"0x068000"}
    nets = [element.attributes["name"] for element in walk(made.observed) if element.name == "net"]
    assert nets == ["mlx5_0", "mlx5_1"]
    switches = [e for e in walk(made.observed) if e.name == "pci" and e.attributes["device"] == "0xc030"]
    shared = [s for s in switches if {n.name for n in walk(s)} >= {"gpu", "net"}]
    assert len(switches) == 8 and len(shared) == 2


@pytest.mark.parametrize("profile", ["h20-8", "h100-x4-vm"])
def test_gpu_info_gives_the_same_topology(seen: Callable[[str], Seen], profile: str) -> None:
    host = seen(profile)
    assert canonical(observe(host.root, host.facts).observed) == canonical(host.topology.observed)
    with pytest.raises(TopologyError, match="MIG is on"):
        from_facts([{**host.facts[0], "mig_mode": True}])


def test_rdma_info_and_the_topology_agree(seen: Callable[[str], Seen]) -> None:
    host = seen("h20-8")
    found = detect(rdma_info(host.root), host.topology.observed)
    assert found == Detected("=mlx5_0:1,mlx5_1:1", "PIX")

    def ways() -> tuple[str, set[str]]:
        nets = [element for element in walk(observe(host.root, host.facts).observed) if element.name == "net"]
        return rdma_info(host.root)["gdr"], {net.attributes["gdr"] for net in nets}

    assert ways() == ("none", {"0"})
    loaded = host.root / "sys/module/nvidia_peermem/version"
    loaded.parent.mkdir(parents=True)
    loaded.write_text("580.65.06\n")
    assert ways() == ("peermem", {"1"})
