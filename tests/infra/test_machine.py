"""A lab host shows the machine of its hardware profile at the kernel's own paths, and nothing of the real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from conftest import REPO

Shell = Callable[[str, str], str]
HOST = "node2"
LOOK = """
import json
from pathlib import Path

def facts(folder):
    names = "class vendor device numa_node local_cpulist max_link_speed max_link_width current_link_width".split()
    return {name: (folder / name).read_text().strip() for name in names if (folder / name).exists()}

def port(folder):
    names = "state phys_state link_layer rate".split()
    return {name: (folder / name).read_text().strip() for name in names}

devices = {path.name: facts(path) for path in Path("/sys/bus/pci/devices").iterdir()}
ways = {path.name: [part for part in path.resolve().parts if part.count(":") == 2] for path in
        Path("/sys/bus/pci/devices").iterdir()}
adapters = {path.name: {"at": (path / "device").resolve().name, "port": port(path / "ports/1")} for path in
            Path("/sys/class/infiniband").iterdir()}
nodes = {path.name: (path / "cpulist").read_text().strip() for path in Path("/sys/devices/system/node").glob("node*")}
print(json.dumps({"devices": devices, "ways": ways, "adapters": adapters, "nodes": nodes}))
"""


@pytest.fixture(scope="module")
def profile() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPO / "files/hardware/h20-8.yml").read_text("utf-8"))
    return loaded


@pytest.fixture
def seen(shell: Shell) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shell(HOST, f"python3 - <<'LOOK'\n{LOOK}\nLOOK"))
    return found


def tree(
    nodes: list[dict[str, Any]], above: tuple[str, ...] = (), numa: int = -1
) -> dict[str, tuple[tuple[str, ...], int]]:
    """{address: (addresses above it and its own, NUMA node)} of the profile's PCIe tree."""
    found: dict[str, tuple[tuple[str, ...], int]] = {}
    for node in nodes:
        here, near = (*above, node["at"]), node.get("numa_node", numa)
        found[node["at"]] = (here, near)
        found.update(tree(node.get("below", []), here, near))
    return found


def test_every_pci_device_of_the_profile_is_there_and_no_other(seen: dict[str, Any], profile: dict[str, Any]) -> None:
    wanted = tree(profile["machine"]["pcie"])
    assert sorted(seen["devices"]) == sorted(wanted)
    for at, (way, numa) in wanted.items():
        assert tuple(seen["ways"][at]) == way
        assert seen["devices"][at]["numa_node"] == str(numa)
        node = seen["nodes"].get(f"node{numa}")
        assert node is None or seen["devices"][at]["local_cpulist"] == node


def test_eight_gpus_with_their_links(seen: dict[str, Any], profile: dict[str, Any]) -> None:
    kind = profile["machine"]["devices"]["gpu"]
    gpus = [
        at
        for at, device in seen["devices"].items()
        if device["vendor"] == "0x10de" and device["class"] == kind["class"]
    ]
    assert sorted(gpus) == [gpu["at"] for gpu in profile["machine"]["gpus"]]
    for at in gpus:
        device = seen["devices"][at]
        assert (device["device"], device["max_link_speed"]) == (kind["device"], kind["max_speed"])
        assert device["max_link_width"] == device["current_link_width"] == str(kind["max_width"])


def test_host_channel_adapters(seen: dict[str, Any], profile: dict[str, Any]) -> None:
    wanted = {adapter["name"]: adapter["at"] for adapter in profile["machine"]["hcas"]}
    assert {name: adapter["at"] for name, adapter in seen["adapters"].items()} == wanted
    for adapter in seen["adapters"].values():
        assert adapter["port"]["state"] == "4: ACTIVE"
        assert adapter["port"]["rate"].startswith(f"{profile['rate_gbps']} Gb/sec")


def test_nvml_agrees(shell: Shell, profile: dict[str, Any]) -> None:
    asked = "pci.bus_id,name,memory.total,power.default_limit"
    said = shell(HOST, f"nvidia-smi --query-gpu={asked} --format=csv,noheader,nounits 2>/dev/null").strip().splitlines()
    assert [line.split(", ") for line in said] == [
        [f"0000{gpu['at'].upper()}", profile["gpu"], str(profile["memory_mib"]), f"{profile['power_limit_w']:.2f}"]
        for gpu in profile["machine"]["gpus"]
    ]


def test_what_people_read_says_simulated(shell: Shell) -> None:
    for command in (
        "nvidia-smi",
        "nvidia-smi -q -x",
        "nvidia-smi -L 2>&1",
        "nvidia-smi --query-gpu=name --format=csv 2>&1",
        "cat /proc/driver/nvidia/version",
        "nv-fabricmanager --version",
        "dpkg-query -W -f '${Description}' libnvidia-ml1",
        "systemctl show -P Description nvidia-fabricmanager nvidia-persistenced",
        "modinfo nvidia",
    ):
        assert "simulated" in shell(HOST, command).lower(), command
