"""Hardware profiles: those of the library are right, and whatever is wrong with one is said in one line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rackserve.hardware.profile import ProfileError, load, problems
from rackserve.hardware.provenance import UNVERIFIED, cite, leaves, values

REPO = Path(__file__).resolve().parents[3]
FILES = sorted((REPO / "files/hardware").glob("*.yml"))
Profile = dict[str, Any]


@pytest.fixture(scope="session")
def h20() -> Profile:
    data: Profile = yaml.safe_load((REPO / "files/hardware/h20-8.yml").read_text())
    return data


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_profile_is_right(path: Path) -> None:
    assert problems(yaml.safe_load(path.read_text()), path.name) == []


def test_the_profiles_are_there() -> None:
    with_machine = {path.stem for path in FILES if "machine" in yaml.safe_load(path.read_text())}
    assert with_machine == {
        "h20-8", "h20-3e-8", "h100-sxm-8", "h200-8", "h100-nvl-8", "rtx5090-1", "h100-x4-vm",
    }  # fmt: skip


def test_a_profile_without_a_machine_needs_no_sources() -> None:
    path = REPO / "files/hardware/lab-cpu.yml"
    assert load(yaml.safe_load(path.read_text()), "lab-cpu.yml")["machine"] is None


def test_the_documentation_has_a_row_for_each_machine() -> None:
    text = (REPO / "docs/hardware.md").read_text()
    rows = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `") and line.count("|") == 5}
    assert rows == {path.stem for path in FILES if "machine" in yaml.safe_load(path.read_text())}


def test_values_without_a_source_are_never_hidden() -> None:
    for path in FILES:
        profile = yaml.safe_load(path.read_text())
        if "machine" in profile:
            assert all(cite(profile["cites"], leaf) for leaf in values(profile))
            assert any(cite(profile["cites"], leaf) == UNVERIFIED for leaf in values(profile))


def test_leaves_and_the_longest_prefix() -> None:
    value = {"a": {"b": [1, {"c": 2}], "d": []}, "e": 3}
    paths = [".".join(path) for path in leaves(value)]
    assert paths == ["a.b.0", "a.b.1.c", "a.d", "e"]
    cites = {"a": "one", "a.b.1": "two"}
    assert cite(cites, ("a", "b", "1", "c")) == "two"
    assert cite(cites, ("a", "b", "10")) == "one"
    assert cite(cites, ("e",)) is None


Change = Callable[[Profile], object]


def put(path: str, value: Any) -> Change:
    """Set a dotted path (numbers index lists)."""

    def change(profile: Profile) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        here: Any = profile
        for part in parents:
            here = here[part]
        here[last] = value

    return change


def drop(path: str) -> Change:
    def change(profile: Profile) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        here: Any = profile
        for part in parents:
            here = here[part]
        del here[last]

    return change


TWO_BUSES = [{"at": "0000:38:00.0", "device": "gpu"}, {"at": "0000:39:00.0", "device": "nvme"}]
SECOND_GPU = "machine.pcie.2.below.0.below.0.below.0"
REFUSED: dict[str, tuple[Change, str]] = {
    "planner field": (put("slots", "8"), "h20.slots must be a whole number"),
    "unknown key": (put("machine.discs", []), 'h20.machine has no key "discs". Did you mean "disks"?'),
    "machine is text": (put("machine", "big"), "h20.machine must be an object"),
    "platform": (put("machine.platform", "cloud"), "h20.machine.platform is"),
    "address": (put("machine.hcas.0.at", "19:00.0"), "is not a PCI address (dddd:bb:dd.f, lower case)"),
    "upper case address": (put(f"{SECOND_GPU}.at", "0000:3A:00.0"), "is not a PCI address"),
    "node is text": (put("machine.pcie.2", "x"), "h20.machine.pcie[2] must be an object"),
    "kind": (put(f"{SECOND_GPU}.device", "gpux"), 'there is no kind "gpux" in machine.devices. Known: gpu,'),
    "id": (put("machine.devices.gpu.device", "2329"), "is not 0x and 4 lower-case hexadecimal digits"),
    "rate": (put("machine.hcas.0.ports.0.rate", "200"), "is not a rate like 200 Gb/sec (4X HDR)"),
    "gid": (put("machine.hcas.0.ports.0.gids.0.gid", "fe80::1"), "is not eight groups of four hexadecimal digits"),
    "gpu is text": (put("machine.gpu", "H20"), "machine.gpu must be an object"),
    "gpu without address": (drop("machine.gpus.0.at"), "machine.gpus.0 has no address; add `at`"),
    "state word": (put("machine.gpu.Name", "x"), "machine.gpu.Name is no word of the state (a-z, 0-9, _); rename it"),
    "state value": (put("machine.gpu.power.min_mw", 1.5), "machine.gpu.power.min_mw must be text, a whole number"),
    "same address twice": (put(f"{SECOND_GPU}.at", "0000:18:00.0"), "has 0000:18:00.0 2 times"),
    "numa of a device": (put("machine.pcie.1.numa_node", 7), "puts 0000:15:01.0 on NUMA node 7; add it"),
    "below a GPU": (
        put(f"{SECOND_GPU}.below", [{"at": "0000:3f:00.0", "device": "nvme"}]),
        "puts devices below 0000:38:00.0, which is no bridge",
    ),
    "two buses": (
        put("machine.pcie.2.below.0.below.0.below", TWO_BUSES),
        "has devices of buses 0000:38, 0000:39 directly below 0000:37:00.0",
    ),
    "bus order": (put("machine.pcie.2.below.0.at", "0000:30:00.0"), "buses below a bridge have higher numbers"),
    "kind unused": (put("machine.devices.spare", {}), "machine.devices.spare"),
    "cpus": (put("machine.numa.0.cpus", "0-46,96-143"), "does not hold each of the 192 CPUs once"),
    "node order": (put("machine.numa.0.node", 1), "must list nodes 0, 1, … in order"),
    "distance": (put("machine.numa.0.distance", [10]), "needs a distance to every node"),
    "gpu not in the tree": (put("machine.gpus.0.at", "0000:1f:00.0"), "is at 0000:1f:00.0, which is not in"),
    "gpu not listed": (drop("machine.gpus.7"), "has a GPU at 0000:d8:00.0 that machine.gpus does not list"),
    "hca at a GPU": (put("machine.hcas.0.at", "0000:18:00.0"), "of class 0x030200; its class begins with 0x02"),
    "switch at a disk": (put("machine.nvswitches.0", "0000:65:00.0"), "its class begins with 0x0680"),
    "same name twice": (put("machine.hcas.1.name", "mlx5_0"), "uses mlx5_0 2 times"),
    "switches in a VM": (put("machine.platform", "virtual"), "must be empty on a virtual machine"),
    "links": (put("machine.gpu.nvlink.to.0.links", 5), "machine.gpus.0.nvlink has ends for 19 of 18 links"),
    "link nowhere": (put("machine.gpu.nvlink.to.0.at", "0000:0f:00.0"), "ends at 0000:0f:00.0, which is not in"),
    "link ends": (put("machine.gpu.nvlink.to", [{"at": "0000:05:00.0"}]), "nvlink.to[0].links is required"),
    "links without ends": (drop("machine.gpu.nvlink.to"), "does not say where links end; add `to` or `remote`"),
    "slots": (put("slots", 7), "slots is 7, but machine.gpus gives 8; make them agree"),
    "memory": (put("memory_mib", 98304), "memory_mib is 98304, but machine.gpu.memory gives 97871"),
    "memory is text": (put("machine.gpu.memory.total_bytes", "96 GB"), "but machine.gpu.memory gives 0"),
    "power": (put("power_limit_w", 700), "power_limit_w is 700, but machine.gpu.power.limit_mw gives 500.0"),
    "name": (put("gpu", "NVIDIA H20-3e"), "gpu is NVIDIA H20-3e, but machine.gpu.name gives NVIDIA H20"),
    "hcas": (put("hcas", 4), "hcas is 4, but machine.hcas gives 2"),
    "rate of the plan": (put("rate_gbps", 400), "rate_gbps is {400.0}, but machine.hcas' rate gives {200.0}"),
    "fabric manager": (put("fabric_manager", False), "fabric_manager is False, but machine.nvswitches gives True"),
    "host memory": (put("host_memory_mib", 1000), "host_memory_mib is 1000, less than the 1048576 of machine.numa"),
    "no source": (drop("cites.slots"), "slots has no source; add cites.slots"),
    "unknown source": (put("cites.slots", "rumour"), 'cites.slots there is no source "rumour"'),
    "stale cite": (
        lambda profile: profile["cites"].update({"machine.gpus.0.fan": "chosen"}),
        "cites.machine.gpus.0.fan names no value of the profile; remove it",
    ),
    "unused source": (put("sources.rumour", "Somebody said so."), "sources.rumour is cited nowhere; cite or remove it"),
    "empty source": (put("sources.chosen", " "), "sources.chosen must be one text; write it in quotes"),
    "no sources": (drop("sources"), "sources must be an object of texts; add it"),
    "no cites": (drop("cites"), "cites must be an object of texts; add it"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_said_in_a_line(what: str, h20: Profile) -> None:
    change, expected = REFUSED[what]
    profile = copy.deepcopy(h20)
    change(profile)
    found = problems(profile, "h20")
    assert any(expected in line for line in found), found
    assert all("\n" not in line and line.startswith("h20") for line in found)
    with pytest.raises(ProfileError):
        load(profile, "h20")


def test_loading_fills_in_what_is_not_written(h20: Profile) -> None:
    machine = load(h20, "h20")["machine"]
    assert machine["hcas"][0]["ports"][0]["state"] == "ACTIVE"
    assert machine["ethernets"][0]["mtu"] == 1500
    assert "ports" in h20["machine"]["hcas"][0]
    assert "state" not in h20["machine"]["hcas"][0]["ports"][0]


@pytest.mark.parametrize(
    "value", [None, [], "x", 3, {"a": {}}, {"cpu": []}, {"pcie": [None, {"below": "x"}], "gpus": [1]}]
)
def test_a_malformed_machine_never_raises(value: Any, h20: Profile) -> None:
    profile = {**copy.deepcopy(h20), "machine": value}
    assert problems(profile, "h20") if value is not None else problems(profile, "h20") == []
