"""PCIe and NUMA of simulated machines, read the way tools read them."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from machine_support import BDF, NAMES, REPO, nccl_chain, profile_of, read_config, text
from rackserve.hardware.profile import load
from rackserve.hardware.tree import devices, expand

Machine = Callable[[str], Path]
FIXTURES = REPO / "tests/fixtures"
VIRTUAL = FIXTURES / "h100-x4-vm"
ROOT_PORT, UPSTREAM, DOWNSTREAM, ENDPOINT = 4, 5, 6, 0
ACS = 0x0D


def test_the_virtual_machine_is_the_real_one_attribute_by_attribute(machine: Machine) -> None:
    root, seen = machine("h100-x4-vm"), 0
    for line in (VIRTUAL / "pci.txt").read_text().splitlines():
        where, _, rest = line.partition(" ")
        if where.startswith("/sys/devices/pci"):
            expected = ast.literal_eval(rest)
            folder = root / where.lstrip("/")
            assert {name: text(folder / name) for name in expected} == expected, where
            seen += len(expected)
        elif where.startswith("/sys/devices/system/node"):
            folder = root / where.lstrip("/")
            assert f"{text(folder / 'cpulist')} {text(folder / 'distance')}" == rest
            seen += 1
    assert seen == 10 * 11 + 1


def test_the_virtual_machine_has_no_other_device(machine: Machine) -> None:
    lines = (VIRTUAL / "pci.txt").read_text().splitlines()
    real = {line.split()[0].rsplit("/", 1)[1] for line in lines if line.startswith("/sys/devices/pci")}
    assert {path.name for path in (machine("h100-x4-vm") / "sys/bus/pci/devices").iterdir()} == real


def test_the_virtual_machine_has_its_processors(machine: Machine) -> None:
    real = dict(line.split("\t", 1) for line in (VIRTUAL / "pci.txt").read_text().splitlines() if "\t" in line)
    first = (machine("h100-x4-vm") / "proc/cpuinfo").read_text().split("\n\n")[0]
    ours = dict(line.split("\t", 1) for line in first.splitlines())
    for name in (
        "vendor_id",
        "cpu family",
        "model",
        "model name",
        "stepping",
        "cpu MHz",
        "siblings",
        "core id",
        "cpu cores",
    ):
        assert ours[name] == real[name], name
    # The reading ends in the middle of the flags.
    assert real["flags"].startswith(ours["flags"])


def test_nccl_sees_the_real_virtual_machine(machine: Machine) -> None:
    tree = ElementTree.parse(VIRTUAL / "nccl_topo.xml").getroot()  # noqa: S314 - a fixture of this repository
    cpu = tree.find("cpu")
    assert cpu is not None
    seen = 0
    for element in cpu.findall("pci"):
        chain = nccl_chain(machine("h100-x4-vm"), element.attrib["busid"])
        assert chain == [{**element.attrib, "numa_node": cpu.attrib["numaid"]}]
        seen += 1
    assert seen == 4


def test_nccl_sees_each_switch_once_with_its_gpu(machine: Machine) -> None:
    gpu, switch = nccl_chain(machine("h200-8"), "0000:18:00.0")
    same = {"link_speed": "32.0 GT/s PCIe", "link_width": "16"}
    assert gpu == {
        "busid": "0000:18:00.0", "class": "0x030200", "vendor": "0x10de", "device": "0x2335",
        "subsystem_vendor": "0x10de", "subsystem_device": "0x18be", **same,
    }  # fmt: skip
    assert switch == {
        "busid": "0000:16:00.0", "class": "0x060400", "vendor": "0x1000", "device": "0xc030",
        "subsystem_vendor": "0x1000", "subsystem_device": "0x100b", **same, "numa_node": "0",
    }  # fmt: skip
    assert nccl_chain(machine("h200-8"), "0000:19:00.0")[1]["busid"] == "0000:16:00.0"
    assert nccl_chain(machine("h200-8"), "0000:db:00.0")[1]["numa_node"] == "1"


@pytest.mark.parametrize("name", NAMES)
def test_config_space_says_what_sysfs_says(name: str, machine: Machine) -> None:
    root = machine(name)
    for link in sorted((root / "sys/bus/pci/devices").iterdir()):
        folder = link.resolve()
        config = read_config(folder / "config")
        assert config.ids == tuple(text(folder / part) for part in ("vendor", "device", "class")), link.name
        assert config.subsystem == (text(folder / "subsystem_vendor"), text(folder / "subsystem_device"))
        assert config.revision == text(folder / "revision")
        assert (folder / "config").stat().st_size == (4096 if config.bridge else 256)
        if config.port_type is None:
            assert not (folder / "max_link_speed").exists()
        else:
            assert (config.most[0], str(config.most[1])) == (
                text(folder / "max_link_speed"),
                text(folder / "max_link_width"),
            )
            assert (config.now[0], str(config.now[1])) == (
                text(folder / "current_link_speed"),
                text(folder / "current_link_width"),
            )


@pytest.mark.parametrize("name", NAMES)
def test_bridges_know_the_buses_below_them(name: str, machine: Machine) -> None:
    for link in (machine(name) / "sys/bus/pci/devices").iterdir():
        folder = link.resolve()
        config = read_config(folder / "config")
        below = {path for path in folder.rglob("*") if path.is_dir() and BDF.fullmatch(path.name)}
        if not config.bridge:
            assert not below
            continue
        primary, secondary, subordinate = config.buses
        assert primary == int(link.name[5:7], 16)
        assert {int(path.name[5:7], 16) for path in below if path.parent == folder} == {secondary}
        assert max(int(path.name[5:7], 16) for path in below) == subordinate
        kinds = {ROOT_PORT: (DOWNSTREAM, False), UPSTREAM: (ROOT_PORT, True), DOWNSTREAM: (UPSTREAM, True)}
        above, has_parent = kinds[config.port_type or 0]
        if has_parent:
            assert read_config(folder.parent / "config").port_type == above
        acs = config.extended.get(ACS)
        assert (acs is not None) == (config.port_type in (ROOT_PORT, DOWNSTREAM))
        # Access control that is on would send peer traffic through the root complex.
        assert acs is None or (acs[4] & 0x1, acs[6:8]) == (1, b"\0\0")


@pytest.mark.parametrize("name", NAMES)
def test_devices_stand_where_the_profile_has_them(name: str, machine: Machine) -> None:
    root, profile = machine(name), load(profile_of(name), name)
    tree = devices(profile["machine"])
    links = {path.name: path for path in (root / "sys/bus/pci/devices").iterdir()}
    assert set(links) == {device.at for device in tree}
    for device in tree:
        folder = links[device.at].resolve()
        assert folder == root / "sys/devices" / device.path
        assert text(folder / "numa_node") == str(device.numa_node)
        assert os.path.realpath(folder / "subsystem") == str(root / "sys/bus/pci")
        assert text(folder / "modalias").startswith(f"pci:v0000{device.kind['vendor'][2:].upper()}d0000")
        assert f"PCI_SLOT_NAME={device.at}" in text(folder / "uevent")
        driver = (folder / "driver").readlink().name if (folder / "driver").is_symlink() else None
        assert driver == device.kind["driver"]
        if driver:
            assert (root / "sys/bus/pci/drivers" / driver / device.at).resolve() == folder
        lines = text(folder / "resource").splitlines()
        assert len(lines) == (17 if device.is_bridge else 7)


def test_gpus_have_no_driver_before_it_is_loaded(machine: Machine) -> None:
    for name in NAMES:
        for gpu in profile_of(name)["machine"]["gpus"]:
            assert not (machine(name) / "sys/bus/pci/devices" / gpu["at"] / "driver").is_symlink()


def test_each_node_has_its_frequency_policy_and_a_virtual_machine_none(machine: Machine) -> None:
    policies = "sys/devices/system/cpu/cpufreq"
    found = sorted((machine("h20-8") / policies).iterdir())
    assert [text(path / "scaling_governor") for path in found] == ["powersave"] * 2
    assert list((machine("h100-x4-vm") / policies).iterdir()) == []


def test_interrupts_of_an_adapter_go_to_cpus_next_to_it(machine: Machine) -> None:
    root = machine("h20-8")
    seen = set()
    for name, node in (("mlx5_0", 0), ("mlx5_1", 1)):
        cpus = expand(text(root / f"sys/devices/system/node/node{node}/cpulist"))
        for entry in (root / "sys/class/infiniband" / name / "device/msi_irqs").iterdir():
            seen.add(entry.name)
            assert int(text(root / "proc/irq" / entry.name / "smp_affinity_list")) in cpus
    assert len(seen) == 4 == len(list((root / "proc/irq").iterdir()))


def test_cpus_of_a_node_are_those_of_its_devices(machine: Machine) -> None:
    root = machine("h20-8")
    nodes = root / "sys/devices/system/node"
    assert [text(nodes / "online"), text(nodes / "possible")] == ["0-1", "0-1"]
    for at, node in (("0000:18:00.0", "0"), ("0000:d8:00.0", "1")):
        device, here = root / "sys/bus/pci/devices" / at, nodes / f"node{node}"
        assert text(device / "numa_node") == node
        assert text(device / "local_cpulist") == text(here / "cpulist")
        assert text(device / "local_cpus") == text(here / "cpumap")
    assert text(nodes / "node1/distance") == "21 10"
    assert "Node 1 MemTotal:       536870912 kB" in text(nodes / "node1/meminfo")
    assert "Node 1 Active(file):          0 kB" in text(nodes / "node1/meminfo")
    assert text(root / "sys/class/pci_bus/0000:d8/cpulistaffinity") == text(nodes / "node1/cpulist")


def test_the_synthetic_topology_has_the_same_nodes(machine: Machine) -> None:
    assert text(machine("h20-8") / "sys/devices/system/node/node0/cpumap") == (
        "00000000,0000ffff,ffffffff,00000000,0000ffff,ffffffff"
    )


def test_an_idle_geforce_has_a_slow_link(machine: Machine) -> None:
    gpu = machine("rtx5090-1") / "sys/bus/pci/devices/0000:01:00.0"
    assert [text(gpu / "max_link_speed"), text(gpu / "current_link_speed")] == ["32.0 GT/s PCIe", "2.5 GT/s PCIe"]
