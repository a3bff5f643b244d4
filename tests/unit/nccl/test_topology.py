"""Hosts built from real topologies give these topologies back; hosts of other kinds give what NCCL would see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rackserve.nccl.document import TopologyError, canonical, differences, read, walk
from rackserve.nccl.lint import lint
from rackserve.nccl.parser import Element
from rackserve.nccl.topology import Topology, observe

from .host import FIXTURES, Host, build

# A dump's order of links, and how it writes 0.0, differ between versions.
DUMPS = ("h100-x4-vm", "smc-h200-bm-roce-excerpt", "synthetic-h20-8gpu-8x400ib")
LINK = {"max_link_speed": "32.0 GT/s PCIe", "max_link_width": 16}
GPU = {"class": "0x030200", "vendor": "0x10de", "device": "0x2329", **LINK}
NIC = {"class": "0x020700", "vendor": "0x15b3", "device": "0x1021", **LINK}
SWITCH = {"class": "0x060400", "vendor": "0x1000", "device": "0xc030", **LINK}


def fixture(name: str) -> Element:
    root = read((FIXTURES / f"{name}.xml").read_text())
    for element in walk(root):
        if element.attributes.get("latency") == "0.000000":
            element.attributes["latency"] = "0"
    return root


def gpu(index: int, bus: str, *links: str) -> dict[str, Any]:
    return {"index": index, "bus_id": f"0000{bus}", "compute_capability": "9.0", "gdr": True, "nvlinks": list(links)}


def paths(topology: Topology) -> dict[str, str]:
    """Name of each GPU and net to the devices above it, top down."""
    found: dict[str, str] = {}

    def go(element: Element, above: tuple[str, ...]) -> None:
        here = element.attributes.get("busid", element.attributes.get("numaid", ""))
        if element.name in ("gpu", "net"):
            found[element.attributes.get("name", f"gpu{element.attributes.get('dev')}")] = " ".join(above)
        for child in element.children:
            go(child, (*above, here) if here else above)

    go(topology.observed, ())
    return found


@pytest.mark.parametrize("name", DUMPS)
def test_a_host_gives_back_the_topology_it_was_built_from(name: str, tmp_path: Path) -> None:
    wanted = fixture(name)
    made = observe(tmp_path, build(tmp_path, wanted))
    assert differences(wanted, made.observed) == []
    assert canonical(wanted) == canonical(made.observed)
    assert made.findings == []


@pytest.mark.parametrize("name", DUMPS)
def test_nccl_reads_both_texts(name: str, tmp_path: Path) -> None:
    texts = observe(tmp_path, build(tmp_path, fixture(name))).texts()
    for text in (texts["observed"], texts["inject"]):
        assert [item for item in lint(text) if item["level"] == "error"] == []
        assert text.isascii() and "\t" not in text and text.startswith('<system version="1">\n')
    assert {element.name for element in walk(read(texts["inject"]))} == {"system", "cpu", "pci"}
    assert lint(texts["inject"]) == [] and "host_hash" not in texts["observed"]
    assert canonical(read(texts["observed"])) == canonical(fixture(name))


def test_attributes_stand_in_nccls_order(tmp_path: Path) -> None:
    text = observe(tmp_path, build(tmp_path, fixture("h100-x4-vm"))).texts()["observed"]
    for line in (FIXTURES / "h100-x4-vm.xml").read_text().splitlines():
        assert line.replace(' host_hash="0x19d5b45ff86345f5"', "").strip() in text


def test_two_levels_of_switches(tmp_path: Path) -> None:
    """Upstream and downstream ports: NCCL keeps the upstream port of each switch."""
    host = Host(tmp_path)
    host.cpuinfo()
    host.node(0, "ffff")
    down = "pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:00.0/0000:18:00.0"
    host.pci("pci0000:15/0000:15:01.0", **LINK)
    host.pci("pci0000:15/0000:15:01.0/0000:16:00.0", **SWITCH)
    host.pci("pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:00.0", **SWITCH)
    host.pci(down, **SWITCH)
    for slot, (bus, kind) in enumerate({"0000:1a:00.0": GPU, "0000:1b:00.0": GPU, "0000:1c:00.0": NIC}.items()):
        host.pci(f"{down}/0000:19:0{slot}.0", **SWITCH)
        where = host.pci(f"{down}/0000:19:0{slot}.0/{bus}", **kind)
        if kind is NIC:
            host.hca("mlx5_0", where)
    made = observe(tmp_path, [gpu(1, "0000:1b:00.0"), gpu(0, "0000:1a:00.0")])
    above = "0 0000:16:00.0 0000:18:00.0"
    assert paths(made) == {
        "gpu0": f"{above} 0000:1a:00.0",
        "gpu1": f"{above} 0000:1b:00.0",
        "mlx5_0": f"{above} 0000:1c:00.0",
    }


def test_four_numa_nodes_of_an_amd_host(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.cpuinfo("AuthenticAMD", 25, 17)
    buses = {}
    for node in range(4):
        host.node(node, f"0000000{1 << node}")
        bus = f"0000:{node}1:00.0"
        host.pci(f"pci0000:{node}0/0000:{node}0:01.0", numa_node=node, **LINK)
        host.pci(f"pci0000:{node}0/0000:{node}0:01.0/{bus}", numa_node=node, **GPU)
        buses[node] = bus
    # Index and address need not go together.
    made = observe(tmp_path, [gpu(3 - node, bus) for node, bus in buses.items()])
    assert paths(made) == {f"gpu{3 - node}": f"{node} {bus}" for node, bus in buses.items()}
    for cpu in made.observed.children:
        node = int(cpu.attributes["numaid"])
        assert cpu.attributes == {
            "numaid": str(node),
            "affinity": f"0000000{1 << node}",
            "arch": "x86_64",
            "vendor": "AuthenticAMD",
            "familyid": "175",
            "modelid": "17",
        }


def test_functions_of_a_card_share_its_device(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.cpuinfo()
    host.pci("pci0000:10/0000:10:01.0", **LINK)
    for function in (0, 1):
        host.hca(f"mlx5_{function}", host.pci(f"pci0000:10/0000:10:01.0/0000:11:00.{function}", **NIC))
    virtual = host.pci("pci0000:10/0000:10:01.0/0000:11:01.2", **NIC)
    host.link(f"{virtual}/physfn", "sys/devices/pci0000:10/0000:10:01.0/0000:11:00.0")
    host.hca("mlx5_2", virtual)
    host.pci("pci0000:10/0000:10:02.0", **LINK)
    host.pci("pci0000:10/0000:10:02.0/0000:12:00.0", **GPU)
    made = observe(tmp_path, [gpu(0, "0000:12:00.0")])
    nets = {n.attributes["name"]: n.attributes["port"] for n in walk(made.observed) if n.name == "net"}
    assert nets == {"mlx5_0": "1", "mlx5_1": "2", "mlx5_2": "3"}
    assert {paths(made)[name] for name in nets} == {"0 0000:11:00.0"}


def test_a_virtual_function_of_a_virtual_machine_loses_its_place(tmp_path: Path) -> None:
    """Merged to a device that is not there: NCCL puts it below a CPU; the finding says so."""
    host = Host(tmp_path)
    host.cpuinfo()
    host.hca("mlx5_0", host.pci("pci0001:00/0001:00:02.0", numa_node=-1, **NIC))
    host.pci("pci0002:00/0002:00:00.0", numa_node=-1, **GPU)
    made = observe(tmp_path, [gpu(0, "0002:00:00.0")])
    assert paths(made) == {"gpu0": "-1 0002:00:00.0", "mlx5_0": "-1"}
    assert [(item["code"], item["where"]) for item in made.findings] == [
        ("vf-merged", "adapter mlx5_0"),
        ("adapters-at-root", "adapters"),
    ]


def test_adapters_on_the_root_complex_are_told(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.cpuinfo()
    host.hca("mlx5_0", host.pci("pci0000:10/0000:10:00.0", **NIC))
    host.pci("pci0000:12/0000:12:00.0", **GPU)
    made = observe(tmp_path, [gpu(0, "0000:12:00.0")])
    assert [(item["severity"], item["code"]) for item in made.findings] == [("note", "adapters-at-root")]


def test_a_bond_is_one_adapter_on_the_first_function(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.cpuinfo()
    host.pci("pci0000:10/0000:10:01.0", **LINK)
    first = host.pci("pci0000:10/0000:10:01.0/0000:11:00.0", **NIC)
    host.pci("pci0000:10/0000:10:01.0/0000:11:00.1", **NIC)
    host.hca("mlx5_bond_0", first, ports=({"rate": "200 Gb/sec (2X NDR)", "link_layer": "Ethernet"},))
    made = observe(tmp_path, [])
    net = next(element for element in walk(made.observed) if element.name == "net")
    assert net.attributes["name"] == "mlx5_bond_0" and net.attributes["speed"] == "200000"
    assert paths(made) == {"mlx5_bond_0": "0 0000:11:00.0"}


def test_efa_stands_at_its_own_device(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.cpuinfo()
    host.pci("pci0000:10/0000:10:01.0", **LINK)
    where = host.pci("pci0000:10/0000:10:01.0/0000:10:1b.0", **{**NIC, "vendor": "0x1d0f", "device": "0xefa0"})
    (tmp_path / "sys/bus/pci/drivers/efa").mkdir(parents=True)
    host.link(f"{where}/driver", "sys/bus/pci/drivers/efa")
    host.hca("rdmap16s27", where, ports=({"link_layer": "Unspecified", "rate": "100 Gb/sec (4X EDR)"},))
    assert paths(observe(tmp_path, [])) == {"rdmap16s27": "0 0000:10:1b.0"}


def test_ports_of_one_adapter_count_on(tmp_path: Path) -> None:
    """As ncclIbGetPciPath counts: ports of the same card before it are added to a port's own number."""
    host = Host(tmp_path)
    host.cpuinfo()
    host.pci("pci0000:10/0000:10:01.0", **LINK)
    host.hca("mlx5_0", host.pci("pci0000:10/0000:10:01.0/0000:11:00.0", **NIC), ports=({}, {}))
    nets = [element.attributes for element in walk(observe(tmp_path, []).observed) if element.name == "net"]
    assert [(net["name"], net["dev"], net["port"]) for net in nets] == [("mlx5_0", "0", "1"), ("mlx5_0", "1", "3")]


def test_what_is_not_active_or_no_device_is_left_out(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.cpuinfo()
    host.pci("pci0000:10/0000:10:01.0", **LINK)
    for slot, port in enumerate(({"state": "1: DOWN"}, {"state": "2: INIT"}, {"link_layer": "Unspecified"}, {})):
        host.hca(f"mlx5_{slot}", host.pci(f"pci0000:10/0000:10:01.0/0000:1{slot}:00.0", **NIC), ports=(port,))
    soft = "sys/devices/virtual/infiniband/rxe0"
    host.put(f"{soft}/ports/1/state", "4: ACTIVE")
    host.put(f"{soft}/ports/1/link_layer", "Ethernet")
    host.link("sys/class/infiniband/rxe0", soft)
    assert paths(observe(tmp_path, [])) == {"mlx5_3": "0 0000:13:00.0"}


def test_without_rdma_interfaces_with_an_address_are_used(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.cpuinfo()
    (host.root / "sys/class/infiniband").mkdir(parents=True)
    host.pci("pci0000:10/0000:10:01.0", **LINK)
    host.pci("pci0000:10/0000:10:01.0/0000:12:00.0", **GPU)
    for function, name in enumerate(("eno1", "eno2", "eno3")):
        device = host.pci(f"pci0000:10/0000:10:01.0/0000:11:00.{function}", **{**NIC, "class": "0x020000"})
        host.interface(name, device, index=9 - function, speed=25000 if name == "eno1" else -1)
    host.interface("bond0", None, index=12, speed=50000)
    host.interface("docker0", None, index=13)
    host.interface("eno4", None, index=14, state="down")
    host.put(
        "proc/net/route", "Iface\tDestination\neno1\t00000000\neno2\t00000A0A\nbond0\t0000\ndocker0\t0011\neno4\t00"
    )
    made = observe(tmp_path, [gpu(0, "0000:12:00.0")])
    nets = [element.attributes for element in walk(made.observed) if element.name == "net"]
    assert {net["name"]: (net["dev"], net["speed"]) for net in nets} == {
        "eno2": ("0", "10000"),
        "eno1": ("1", "25000"),
        "bond0": ("2", "50000"),
    }
    assert paths(made) == {
        "gpu0": "0 0000:12:00.0",
        "eno1": "0 0000:11:00.0",
        "eno2": "0 0000:11:00.1",
        "bond0": "0",
    }


def test_interfaces_of_ip_over_infiniband_come_first(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.cpuinfo()
    host.pci("pci0000:00/0000:00:06.0", **GPU)
    host.interface("eth0", None)
    host.interface("ibs1", None, index=3)
    made = observe(tmp_path, [gpu(0, "0000:00:06.0")])
    assert set(paths(made)) == {"gpu0", "ibs1"}


def test_links_between_gpus_and_the_most_a_generation_has(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.cpuinfo()
    for bus in ("0000:06:00.0", "0000:07:00.0"):
        host.pci(f"pci{bus[:7]}/{bus}", **GPU)
    ampere = {**gpu(0, "0000:06:00.0", *["00000000:07:00.0"] * 14), "compute_capability": "8.6"}
    made = observe(tmp_path, [ampere, gpu(1, "0000:07:00.0", "00000000:06:00.0", "0000FFFF:01:00.0")])
    links = [element.attributes for element in walk(made.observed) if element.name == "nvlink"]
    assert links == [
        {"target": "0000:07:00.0", "count": "12", "tclass": "0x030200"},
        {"target": "0000:06:00.0", "count": "1", "tclass": "0x030200"},
        {"target": "ffff:01:00.0", "count": "1", "tclass": "0x068000"},
    ]


def test_gdr_follows_the_class_where_nobody_says(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.cpuinfo()
    host.pci("pci0000:06/0000:06:00.0", **GPU)
    host.pci("pci0000:07/0000:07:00.0", **{**GPU, "class": "0x030000"})
    given = [{**gpu(i, f"0000:0{i + 6}:00.0"), "gdr": None} for i in range(2)]
    found = {
        e.attributes["dev"]: e.attributes["gdr"] for e in walk(observe(tmp_path, given).observed) if e.name == "gpu"
    }
    assert found == {"0": "1", "1": "0"}


def test_switches_that_reach_each_other(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.cpuinfo()
    for bus in ("16", "36"):
        host.pci(f"pci0000:{bus}/0000:{bus}:01.0/0000:{bus}:00.0", **SWITCH)
        inner = f"pci0000:{bus}/0000:{bus}:01.0/0000:{bus}:00.0/0000:{bus}:02.0"
        host.pci(inner, **SWITCH)
        host.pci(f"{inner}/0000:{bus[0]}8:00.0", **GPU)
    host.put("sys/kernel/pci_switch_link/virtual_switch_links/0000:16:00.0/0000:36:00.0", "")
    host.put("sys/kernel/pci_switch_link/virtual_switch_links/0000:16:00.0/0000:99:00.0", "")
    made = observe(tmp_path, [gpu(0, "0000:18:00.0"), gpu(1, "0000:38:00.0")])
    found = [element.attributes["target"] for element in walk(made.observed) if element.name == "pcilink"]
    assert found == ["0000:36:00.0"]


def test_a_narrow_link_and_nonsense_are_told(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.cpuinfo()
    host.pci("pci0000:15/0000:15:01.0", **LINK)
    host.pci("pci0000:15/0000:15:01.0/0000:18:00.0", **GPU, current_link_width=8)
    host.pci("pci0000:25/0000:25:01.0", max_link_speed="2.5 GT/s PCIe", max_link_width=1)
    host.pci("pci0000:25/0000:25:01.0/0000:28:00.0", **GPU)
    made = observe(tmp_path, [gpu(0, "0000:18:00.0"), gpu(1, "0000:28:00.0")])
    assert [(item["severity"], item["code"], item["where"]) for item in made.findings] == [
        ("warning", "link-narrow", "PCI device 0000:18:00.0"),
        ("warning", "link-nonsense", "PCI device 0000:28:00.0"),
    ]
    assert "8 of 16 lanes" in made.findings[0]["why"]


def test_a_gpu_that_sysfs_does_not_show(tmp_path: Path) -> None:
    Host(tmp_path).cpuinfo()
    made = observe(tmp_path, [gpu(0, "0000:18:00.0")])
    assert paths(made) == {"gpu0": "-1 0000:18:00.0"}
    assert [item["code"] for item in made.findings] == ["device-invisible"]
    assert lint(made.texts()["observed"])[0]["level"] == "warning"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([{"index": 0}], "has no bus_id"),
        ([{"bus_id": "00000000:18:00.0"}], "is not like 9.0"),
        ([gpu(0, "0000:18:00.0"), gpu(1, "0000:18:00.0")], "the same bus_id"),
        ([gpu(0, "0000:18:00.0"), gpu(0, "0000:19:00.0")], "the same index"),
        ([{**gpu(0, "0000:18:00.0"), "mig_mode": True}], "MIG is on"),
    ],
)
def test_gpus_that_cannot_be(given: list[dict[str, Any]], says: str, tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=says):
        observe(tmp_path, given)


def test_more_devices_than_nccl_reads(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.cpuinfo()
    given = []
    for place in range(130):
        bus = f"{place:04x}:01:00.0"
        host.pci(f"pci{bus[:7]}/{bus}", **GPU)
        given.append(gpu(place, bus))
    with pytest.raises(TopologyError, match="NCCL reads 255"):
        observe(tmp_path, given).texts()
