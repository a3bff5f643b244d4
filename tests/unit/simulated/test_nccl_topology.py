"""The topology of simulated machines, their GPUs read through the simulated driver's library."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from driver_support import Host
from rackserve.nccl.document import canonical, read, walk
from rackserve.nccl.parser import Element
from rackserve.nccl.topology import Topology, observe

REPO = Path(__file__).resolve().parents[3]
ASK = (
    "import json, sys; sys.path.insert(0, sys.argv[1]); from rackserve.nccl import gpus; print(json.dumps(gpus.read()))"
)


@pytest.fixture
def detected(tmp_path: Path, machine: Callable[[str], Path]) -> Callable[[str], Topology]:
    def run(profile: str) -> Topology:
        host = Host(tmp_path / profile, machine(profile))
        done = host.run(sys.executable, "-c", ASK, REPO / "module_utils")
        assert done.returncode == 0, done.stderr
        return observe(host.root, json.loads(done.stdout))

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
