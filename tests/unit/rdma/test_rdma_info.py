"""What rdma_info says of trees of hosts: devices, ports, purposes, and the value for NCCL."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rackserve.rdma.info import rdma_info
from rackserve.simulated.machine import build
from sysfs_tree import Tree, down, efa, eight_rails, infiniband, roce

REPO = Path(__file__).resolve().parents[3]
RAILS = ",".join(f"mlx5_{number}:1" for number in range(8))


def say(tree: Tree, **named: str) -> dict[str, Any]:
    return rdma_info(tree.root, named)


def by_name(said: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {hca["name"]: hca for hca in said["hcas"]}


def whys(said: dict[str, Any], code: str = "") -> list[str]:
    return [f"{found['where']}: {found['why']}" for found in said["findings"] if code in ("", found["code"])]


def eight_infiniband(tree: Tree) -> None:
    eight_rails(tree, [infiniband()] * 8, [f"ib{number}" for number in range(8)])


def eight_roce(tree: Tree) -> None:
    names = [f"rail{number}" for number in range(8)]
    eight_rails(tree, [roce(name, f"192.168.{number}.2") for number, name in enumerate(names)], names)


def test_eight_infiniband_adapters(tree: Tree) -> None:
    eight_infiniband(tree)
    said = say(tree)
    assert (said["nccl_ib_hca"], said["gdr"], said["findings"]) == (f"={RAILS}", "dmabuf", [])
    hca = said["hcas"][5]
    assert (hca["name"], hca["driver"], hca["bus_id"], hca["numa_node"]) == ("mlx5_5", "mlx5_core", "0000:62:01.0", 1)
    assert (hca["kind"], hca["netdevs"], hca["purpose"]) == ("pf", ["ib5"], "compute")
    (port,) = hca["ports"]
    assert (port["port"], port["state"], port["phys_state"], port["link_layer"]) == (
        1,
        "ACTIVE",
        "LinkUp",
        "InfiniBand",
    )
    assert (port["rate_gbps"], port["lid"], port["sm_lid"], port["usable"]) == (400, 0x11, 1, True)
    assert [gid["index"] for gid in port["gids"]] == [0]


def test_an_empty_directory_is_no_rdma(tree: Tree) -> None:
    (tree.root / "sys/class/infiniband").mkdir()
    said = say(tree)
    assert (said["hcas"], said["nccl_ib_hca"]) == ([], "")
    assert whys(said) == ["/sys/class/infiniband: no usable RDMA: directory empty"]
    assert said["findings"][0]["severity"] == "note"


def test_no_directory_is_no_rdma_either(tree: Tree) -> None:
    assert whys(say(tree)) == ["/sys/class/infiniband: no usable RDMA: no such directory, ib_core is not loaded"]


def test_an_ethernet_only_host(tree: Tree) -> None:
    """mlx5 adapters in Ethernet without an address: RoCE has no GID to use."""
    for number in range(2):
        netdev = f"enp{number}"
        tree.adapter(f"mlx5_{number}", f"0000:{number + 1:02x}:00.0", ports=[roce(netdev)], netdev=netdev)
    said = say(tree)
    assert said["nccl_ib_hca"] == ""
    assert [hca["ports"][0]["usable"] for hca in said["hcas"]] == [False, False]
    assert whys(said, "rdma-port")[0] == (
        "adapter mlx5_0 port 1: no RoCE v2 GID with an address: interface enp0 has no IP address, or RoCE v2 is off"
    )
    assert whys(said, "rdma-none") == [
        "/sys/class/infiniband: no usable RDMA: no port of mlx5_0, mlx5_1 can be used"
    ]  # fmt: skip


def test_roce_takes_the_first_routable_gid_of_version_2(tree: Tree) -> None:
    port = roce("enp1", "2001:db8::7", "192.168.1.2", "enp1.100=192.168.100.2")
    tree.adapter("mlx5_0", "0000:01:00.0", ports=[port], netdev="enp1")
    tree.vlan("enp1.100", "enp1", 100)
    said = say(tree)
    (hca,) = said["hcas"]
    assert hca["netdevs"] == ["enp1", "enp1.100"] and hca["purpose"] == "compute"
    seen = hca["ports"][0]
    assert (seen["gid_index"], seen["netdev"], seen["reason"]) == (
        5, "enp1", "ACTIVE/LinkUp, RoCE v2 GID 5 (192.168.1.2)",
    )  # fmt: skip
    assert seen["gids"][7] == {
        "index": 7, "gid": "0000:0000:0000:0000:0000:ffff:c0a8:6402", "type": "RoCE v2", "netdev": "enp1.100",
        "ipv4": "192.168.100.2",
    }  # fmt: skip
    assert said["nccl_ib_hca"] == "=mlx5_0:1"


def test_roce_by_ipv6_alone_is_named(tree: Tree) -> None:
    tree.adapter("mlx5_0", "0000:01:00.0", ports=[roce("enp1", "2001:db8::7")], netdev="enp1")
    said = say(tree)
    assert said["hcas"][0]["ports"][0]["usable"] is True
    assert whys(said) == ["adapter mlx5_0 port 1: its GIDs are IPv6 only, NCCL looks for IPv4"]


def test_roce_version_1_alone_cannot_be_used(tree: Tree) -> None:
    port = roce("enp1", "192.168.1.2")
    tree.adapter("mlx5_0", "0000:01:00.0", ports=[{**port, "gids": port["gids"][::2]}], netdev="enp1")
    assert say(tree)["hcas"][0]["ports"][0]["usable"] is False


def test_a_management_vlan_on_an_adapter_makes_it_management(tree: Tree) -> None:
    eight_roce(tree)
    tree.adapter("mlx5_8", "0000:e0:00.0", ports=[roce("enp9", "10.1.0.2")], netdev="enp9")
    tree.vlan("enp9.7", "enp9", 7)
    tree._routes.clear()
    tree.route("enp9.7", gateway="10.0.0.1")
    hca = by_name(say(tree))["mlx5_8"]
    assert (hca["purpose"], hca["purpose_reason"]) == (
        "management", "enp9 is part of enp9.7, which carries the default route",
    )  # fmt: skip


def test_a_management_bond_of_two_adapters(tree: Tree) -> None:
    """Two ports in one kernel bond with the default route; both keep devices of their own."""
    eight_roce(tree)
    for number in (8, 9):
        port = roce(f"man{number}", "bond0=10.0.0.2", gbps=25, lanes="1X EDR")
        tree.adapter(f"mlx5_{number}", f"0000:e0:00.{number - 8}", ports=[port], netdev=f"man{number}")
    tree.bond("bond0", ["man8", "man9"])
    tree._routes.clear()
    tree.route("bond0", gateway="10.0.0.1")
    said = say(tree)
    for name in ("mlx5_8", "mlx5_9"):
        hca = by_name(said)[name]
        assert (hca["kind"], hca["purpose"]) == ("pf", "management")
    assert said["nccl_ib_hca"] == f"={RAILS}"


def test_only_the_default_route_that_is_taken_counts(tree: Tree) -> None:
    """Rails that ask DHCP have default routes with a higher metric."""
    eight_roce(tree)
    for number in range(8):
        tree.route(f"rail{number}", gateway=f"192.168.{number}.1", metric=200 + number)
    assert say(tree)["nccl_ib_hca"] == f"={RAILS}"


def test_a_default_route_of_ipv6_counts_where_ipv4_has_none(tree: Tree) -> None:
    eight_roce(tree)
    tree._routes.clear()
    tree.route("rail0", "192.168.0.0/24")
    zero = "0" * 32
    tree.put("proc/net/ipv6_route", f"{zero} 00 {zero} 00 {'fe80'.ljust(32, '1')} 00000400 1 0 00000003 rail3")
    assert [hca["name"] for hca in say(tree)["hcas"] if hca["purpose"] == "management"] == ["mlx5_3"]


def test_storage_by_its_rate(tree: Tree) -> None:
    eight_infiniband(tree)
    tree.adapter("mlx5_8", "0000:e0:00.0", ports=[infiniband(100, "4X EDR")])
    said = say(tree)
    hca = by_name(said)["mlx5_8"]
    assert (hca["purpose"], hca["purpose_reason"]) == ("storage", "100 Gb/s, below half of the most common 400")
    assert said["nccl_ib_hca"] == f"={RAILS}" and said["findings"] == []


def test_storage_by_what_is_mounted_through_it(tree: Tree) -> None:
    eight_roce(tree)
    tree.adapter("mlx5_8", "0000:e0:00.0", ports=[roce("stor0", "172.16.0.2")], netdev="stor0")
    tree.route("stor0", "172.16.0.0/16")
    tree.put("proc/mounts", "172.16.9.9:/models /srv/models nfs4 rw,vers=4.2,addr=172.16.9.9,clientaddr=172.16.0.2 0 0")
    hca = by_name(say(tree))["mlx5_8"]
    assert (hca["purpose"], hca["purpose_reason"]) == ("storage", "stor0 leads to what is mounted on /srv/models")


def test_the_only_adapters_stay_for_gpus_though_storage_comes_over_them(tree: Tree) -> None:
    """Two adapters for eight GPUs, Lustre over both: nothing else could carry the GPUs' traffic."""
    for number in range(2):
        tree.adapter(
            f"mlx5_{number}", f"0000:{number + 1:02x}:00.0", ports=[infiniband(200, "4X HDR")], netdev=f"ib{number}"
        )
        tree.route(f"ib{number}", f"172.{16 + number}.0.0/16")
    tree.put("proc/mounts", "172.16.0.9@o2ib:172.16.0.8@o2ib:/fs /lustre lustre rw 0 0")
    assert say(tree)["nccl_ib_hca"] == "=mlx5_0:1,mlx5_1:1"
    tree.put("proc/mounts", "172.16.0.9:/a /a nfs rw,addr=172.16.0.9 0 0\n172.17.0.9:/b /b nfs rw,addr=172.17.0.9 0 0")
    assert say(tree)["nccl_ib_hca"] == "=mlx5_0:1,mlx5_1:1"


def test_lustre_over_one_of_many(tree: Tree) -> None:
    eight_infiniband(tree)
    tree.adapter("mlx5_8", "0000:e0:00.0", ports=[infiniband()], netdev="ib8")
    tree.route("ib8", "172.16.0.0/16")
    tree.put("proc/mounts", "172.16.0.9@o2ib:172.16.0.8@o2ib:/fs /lustre lustre rw 0 0")
    assert by_name(say(tree))["mlx5_8"]["purpose"] == "storage"


def test_a_far_adapter_of_a_lower_rate(tree: Tree) -> None:
    eight_infiniband(tree)
    tree.adapter("mlx5_8", "0000:e0:00.0", ports=[infiniband(200, "4X HDR")], numa=1)
    hca = by_name(say(tree))["mlx5_8"]
    assert (hca["purpose"], hca["purpose_reason"]) == (
        "storage", "200 Gb/s, and every GPU has a nearer adapter of a higher rate",
    )  # fmt: skip


def test_what_is_ambiguous_is_asked_not_guessed(tree: Tree) -> None:
    """Three slow adapters and a fast one: which are for the GPUs?"""
    for number in range(3):
        tree.adapter(f"mlx5_{number}", f"0000:{number + 1:02x}:00.0", ports=[infiniband(25, "1X EDR")])
    tree.adapter("mlx5_3", "0000:09:00.0", ports=[infiniband()])
    said = say(tree)
    assert [hca["purpose"] for hca in said["hcas"]] == ["unknown"] * 3 + ["compute"]
    assert said["nccl_ib_hca"] == "=mlx5_3:1"
    assert whys(said, "rdma-purpose")[0] == "adapter mlx5_0: 25 Gb/s is the most common rate, and others have 400"
    assert "{mlx5_0: compute" in said["findings"][0]["fix"]


def test_the_operator_wins(tree: Tree) -> None:
    eight_infiniband(tree)
    said = say(tree, mlx5_0="storage", mlx5_9="compute")
    assert by_name(said)["mlx5_0"]["purpose_reason"] == "the operator says so"
    assert said["nccl_ib_hca"] == f"={RAILS}".replace("mlx5_0:1,", "")
    assert whys(said) == ["adapter mlx5_9: purposes names it, the host does not have it"]
    with pytest.raises(ValueError, match=r"purposes: mlx5_0: fast: write one of compute, storage"):
        say(tree, mlx5_0="fast")


def test_a_bluefield_beside_other_adapters_is_asked_about(tree: Tree) -> None:
    eight_roce(tree)
    tree.adapter("mlx5_8", "0000:e0:00.0", ports=[roce("bf0", "10.9.0.2")], netdev="bf0", hca_type="MT41692")
    said = say(tree)
    assert by_name(said)["mlx5_8"]["purpose"] == "unknown" and len(whys(said, "rdma-purpose")) == 1


def test_eight_bluefields_are_for_gpus(tree: Tree) -> None:
    eight_roce(tree)
    for path in (tree.root / "sys/class/infiniband").glob("*/hca_type"):
        path.write_text("MT41692\n")
    assert say(tree)["nccl_ib_hca"] == f"={RAILS}"


@pytest.mark.parametrize(
    ("port", "reason", "severity"),
    [
        (down(infiniband()), "DOWN/Polling: no cable, or nothing answers at its other end", "note"),
        (down(infiniband(), "3: Disabled"), "DOWN/Disabled: somebody switched the port off", "note"),
        (down(roce("ib_mlx5_8", "10.9.0.2")), "DOWN/Polling: no cable, or nothing answers at its other end", "note"),
        (infiniband(state="2: INIT"), "INIT/LinkUp: no subnet manager has brought it up", "warning"),
        (infiniband(state="3: ARMED"), "ARMED/LinkUp: no subnet manager has brought it up", "warning"),
        (infiniband(sm_lid="0x0"), "no subnet manager: sm_lid is 0", "warning"),
        (infiniband(lid="0x0"), "the subnet manager gave it no address: lid is 0", "warning"),
        (infiniband(phys_state="4: PortConfigurationTraining"),
         "ACTIVE/PortConfigurationTraining: the link is not up", "warning"),
    ],
)  # fmt: skip
def test_a_port_that_does_not_work_says_why(tree: Tree, port: dict[str, Any], reason: str, severity: str) -> None:
    eight_infiniband(tree)
    tree.adapter("mlx5_8", "0000:e0:00.0", ports=[port])
    said = say(tree)
    hca = by_name(said)["mlx5_8"]
    assert (hca["ports"][0]["usable"], hca["ports"][0]["reason"]) == (False, reason)
    assert hca["purpose"] == "unknown"
    assert said["nccl_ib_hca"] == f"={RAILS}"
    assert [(found["severity"], found["where"]) for found in said["findings"]] == [(severity, "adapter mlx5_8 port 1")]


def test_two_ports_of_one_card(tree: Tree) -> None:
    tree.adapter("mlx4_0", "0000:01:00.0", ports=[infiniband(56, "4X FDR"), down(infiniband())], driver="mlx4_core")
    assert say(tree)["nccl_ib_hca"] == "=mlx4_0:1"


def test_adapters_are_listed_in_the_order_of_their_numbers(tree: Tree) -> None:
    for number in (10, 2, 1):
        tree.adapter(f"mlx5_{number}", f"0000:{number:02x}:00.0", ports=[infiniband()])
    assert say(tree)["nccl_ib_hca"] == "=mlx5_1:1,mlx5_2:1,mlx5_10:1"


def test_link_layers_are_never_mixed(tree: Tree) -> None:
    eight_infiniband(tree)
    for number in (8, 9):
        port = roce(f"eth{number}", f"10.9.{number}.2", gbps=200, lanes="4X HDR")
        tree.adapter(f"mlx5_{number}", f"0000:{0xD0 + number:02x}:00.0", ports=[port], netdev=f"eth{number}", numa=-1)
    shutil.rmtree(tree.root / "sys/bus/pci/devices")  # no GPU is known, so that distance does not decide
    said = say(tree)
    assert said["nccl_ib_hca"] == f"={RAILS}"
    assert [by_name(said)[name]["purpose"] for name in ("mlx5_8", "mlx5_9")] == ["unknown", "unknown"]
    assert len(whys(said, "rdma-purpose")) == 2
    forced = say(tree, mlx5_8="compute")
    assert forced["nccl_ib_hca"] == f"={RAILS}"
    assert whys(forced, "rdma-mixed-layers") == [
        "NCCL_IB_HCA: mlx5_8:1 left out: NCCL takes one link layer, and the others are InfiniBand"
    ]


def test_virtual_functions_stay_out_on_the_host_of_their_card(tree: Tree) -> None:
    pf = tree.adapter("mlx5_0", "0000:01:00.0", ports=[infiniband()])
    for number in (1, 2):
        vf = tree.adapter(f"mlx5_{number}", f"0000:01:00.{number}", ports=[infiniband()], device="0x101e")
        tree.link(f"{vf}/physfn", pf)
    said = say(tree)
    assert [hca["kind"] for hca in said["hcas"]] == ["pf", "vf", "vf"]
    assert said["nccl_ib_hca"] == "=mlx5_0:1" and said["findings"] == []


def test_virtual_functions_are_what_a_virtual_machine_has(tree: Tree) -> None:
    tree.put("proc/cpuinfo", "flags\t\t: fpu vme hypervisor lahf_lm")
    for number in range(8):
        at = f"0{number:x}01:00:02.0"
        tree.adapter(f"mlx5_{number}", at, ports=[infiniband()], device="0x101e", netdev=f"ib{number}", numa=None)
        tree.put(f"sys/bus/pci/devices/{at}/numa_node", number // 4)
    tree.adapter("mlx5_an0", "abcd:00:02.0", ports=[roce("enP1", "10.0.0.4", gbps=40)], netdev="enP1", device="0x101a")
    here = tree.netdev("eth0", None)
    tree.link(f"{here}/lower_enP1", "sys/class/net/enP1")
    tree._routes.clear()
    tree.route("eth0", gateway="10.0.0.1")
    said = say(tree)
    assert said["nccl_ib_hca"] == f"={RAILS}"
    assert (by_name(said)["mlx5_an0"]["purpose"], said["hcas"][0]["kind"]) == ("management", "vf")


def lag(tree: Tree, name: str, bus: str, bond: str, **options: Any) -> list[str]:
    """One device over both functions of a card."""
    slaves = [f"{bond}p{number}" for number in range(2)]
    port = roce(bond, "192.168.7.2", gbps=200, lanes="4X HDR")
    tree.adapter(name, f"0000:{bus}:00.0", ports=[port], netdev=slaves[0])
    second = tree.pci(f"0000:{bus}:00.1", vendor="0x15b3", device="0x1021", driver="mlx5_core")
    tree.netdev(slaves[1], second, state=options.pop("second", "up"))
    tree.bond(bond, slaves, **options)
    return slaves


@pytest.mark.parametrize("name", ["mlx5_bond_0", "rocep1s0f0"])
def test_a_bond_is_one_device_over_two_functions(tree: Tree, name: str) -> None:
    slaves = lag(tree, name, "01", "bond4")
    said = say(tree)
    (hca,) = said["hcas"]
    assert (hca["kind"], hca["bus_id"], hca["purpose"]) == ("bond", "0000:01:00.0", "compute")
    assert hca["netdevs"] == ["bond4", *slaves]
    assert said["nccl_ib_hca"] == f"={name}:1" and said["findings"] == []


def test_half_a_bond_is_named(tree: Tree) -> None:
    lag(tree, "mlx5_bond_0", "01", "bond4", second="down", partner="00:00:00:00:00:00")
    said = say(tree)
    assert said["hcas"][0]["ports"][0]["usable"] is True
    assert whys(said, "rdma-bond") == [
        "adapter mlx5_bond_0: half of bond4: bond4p1 is down; the device still says ACTIVE",
        "adapter mlx5_bond_0: no LACP partner answers on bond4",
    ]


def test_software_devices_are_never_for_gpus(tree: Tree) -> None:
    nic = tree.pci("0000:01:00.0", driver="virtio-pci")
    rxe = tree.hca("rxe0", nic, [roce("eno1", "10.0.0.2")], node_desc="rxe")
    tree.put(f"{rxe}/parent", "eno1")
    tree.hca("siw0", nic, [roce("eno1", "10.0.0.2")], node_desc="Software iWARP stack", node_type="4: RNIC")
    tree.hca("rxe1", None, [roce("lo", "127.0.0.1")])
    said = say(tree)
    assert [(hca["name"], hca["kind"], hca["driver"], hca["bus_id"]) for hca in said["hcas"]] == [
        ("rxe0", "soft", "rdma_rxe", None), ("rxe1", "soft", None, None), ("siw0", "soft", "siw", None),
    ]  # fmt: skip
    assert not any(port["usable"] for hca in said["hcas"] for port in hca["ports"])
    assert said["nccl_ib_hca"] == "" and whys(said, "rdma-none") != []


def test_iwarp_is_not_for_nccl(tree: Tree) -> None:
    options = {"driver": "ice", "node_type": "4: RNIC", "netdev": "enp1"}
    tree.adapter("irdma0", "0000:01:00.0", ports=[roce("enp1", "10.9.0.2", gbps=100)], **options)
    assert say(tree)["hcas"][0]["ports"][0]["reason"] == "it speaks iWARP, which NCCL does not"


@pytest.mark.parametrize("count", [4, 32])
def test_efa_needs_its_plugin(tree: Tree, count: int) -> None:
    """aws-p4d and aws-p5: EFA has no link layer that NCCL's own code takes."""
    for number in range(count):
        at = f"0000:{number // 4 + 0x10:02x}:{number % 4 + 0x18:02x}.0"
        tree.adapter(f"rdmap{number}s27", at, ports=[efa()], netdev=None, driver="efa")
    said = say(tree)
    assert said["nccl_ib_hca"] == "" and len(said["hcas"]) == count
    assert {hca["ports"][0]["usable"] for hca in said["hcas"]} == {None}
    assert "the plugin aws-ofi-nccl" in whys(said, "rdma-efa")[0]
    assert whys(said, "rdma-unknown") == []


def test_four_numa_nodes(tree: Tree) -> None:
    eight_rails(tree, [infiniband()] * 8, [f"ib{number}" for number in range(8)], nodes=4)
    assert [hca["numa_node"] for hca in say(tree)["hcas"]] == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("text", "rate"),
    [("400 Gb/sec (4X NDR)", 400), ("200 Gb/sec (2X NDR)", 200), ("2.5 Gb/sec (1X SDR)", 2.5), ("800 Gb/sec", 800)],
)
def test_rates(tree: Tree, text: str, rate: float) -> None:
    tree.adapter("mlx5_0", "0000:01:00.0", ports=[infiniband(rate=text)])
    said = say(tree)["hcas"][0]["ports"][0]["rate_gbps"]
    assert said == rate and isinstance(said, type(rate))


def remove(path: str) -> Callable[[Tree], None]:
    return lambda tree: (tree.root / path).unlink()


def write(path: str, text: str) -> Callable[[Tree], None]:
    return lambda tree: [(tree.root / path).write_text(text), None][1]


HERE = "sys/class/infiniband/mlx5_0"


@pytest.mark.parametrize(
    ("harm", "named", "usable"),
    [
        (remove(f"{HERE}/ports/1/state"), "port 1: unknown: state", None),
        (remove(f"{HERE}/ports/1/phys_state"), "port 1: unknown: phys_state", None),
        (remove(f"{HERE}/ports/1/link_layer"), "port 1: unknown: link_layer", None),
        (remove(f"{HERE}/ports/1/lid"), "port 1: unknown: lid", None),
        (remove(f"{HERE}/ports/1/sm_lid"), "port 1: unknown: sm_lid", None),
        (write(f"{HERE}/ports/1/sm_lid", "none"), "port 1: unknown: sm_lid", None),
        (write(f"{HERE}/ports/1/state", ""), "port 1: unknown: state", None),
        (write(f"{HERE}/ports/1/rate", "fast"), "port 1: unknown: rate", True),
        (remove(f"{HERE}/ports/1/rate"), "port 1: unknown: rate", True),
        (remove(f"{HERE}/device/numa_node"), "mlx5_0: unknown: numa_node", True),
        (remove(f"{HERE}/device/driver"), "mlx5_0: unknown: device/driver", True),
    ],
)
def test_what_cannot_be_read_is_unknown_and_named(
    tree: Tree, harm: Callable[[Tree], None], named: str, usable: bool | None
) -> None:
    eight_infiniband(tree)
    harm(tree)
    said = say(tree)
    assert said["hcas"][0]["ports"][0]["usable"] is usable
    (found,) = whys(said)
    assert found.startswith("adapter mlx5_0") and f"{named} cannot be read" in found
    missing = "rate" in named or usable is None
    assert ("mlx5_0:1" in said["nccl_ib_hca"]) is not missing


def test_a_gid_without_a_type_is_unknown(tree: Tree) -> None:
    tree.adapter("mlx5_0", "0000:01:00.0", ports=[roce("enp1", "10.9.0.2")], netdev="enp1")
    (tree.root / f"{HERE}/ports/1/gid_attrs/types/3").unlink()
    said = say(tree)
    assert said["hcas"][0]["ports"][0]["usable"] is None and said["nccl_ib_hca"] == ""
    assert "gid_attrs/types/3 cannot be read" in whys(said, "rdma-unknown")[0]


def test_without_routes_management_cannot_be_told_and_that_is_said(tree: Tree) -> None:
    eight_infiniband(tree)
    (tree.root / "proc/net/route").unlink()
    assert "proc/net/route cannot be read" in whys(say(tree))[0]


def test_a_tree_copied_without_links_is_read_too(tree: Tree, tmp_path: Path) -> None:
    """cp -rL makes folders of links; the device then says its address itself."""
    here = tree.adapter("mlx5_0", "0000:01:00.0", ports=[infiniband()])
    tree.put(f"{here}/uevent", "DRIVER=mlx5_core\nPCI_SLOT_NAME=0000:01:00.0")
    flat = tmp_path / "flat"
    shutil.copytree(tree.root / "proc", flat / "proc")
    shutil.copytree(f"{tree.root}/{HERE}/ports", flat / HERE / "ports")
    (flat / HERE / "device").mkdir()
    for name in ("uevent", "numa_node", "vendor"):
        shutil.copy(tree.root / here / name, flat / HERE / "device" / name)
    hca = rdma_info(flat)["hcas"][0]
    assert (hca["bus_id"], hca["driver"], hca["numa_node"], hca["kind"]) == ("0000:01:00.0", "mlx5_core", 0, "pf")


def test_absolute_links_stay_inside_the_tree(tree: Tree) -> None:
    here = tree.adapter("mlx5_0", "0000:01:00.0", ports=[infiniband()])
    for path, target in ((f"{here}/infiniband/mlx5_0/device", here), (HERE, f"{here}/infiniband/mlx5_0")):
        (tree.root / path).unlink()
        (tree.root / path).symlink_to(f"/{target}")
    assert say(tree)["hcas"][0]["bus_id"] == "0000:01:00.0"


@pytest.mark.parametrize(("profile", "expected"), [("h20-8", "=mlx5_0:1,mlx5_1:1"), ("h100-x4-vm", "")])
def test_the_machines_of_our_profiles(tmp_path: Path, profile: str, expected: str) -> None:
    data = yaml.safe_load((REPO / f"files/hardware/{profile}.yml").read_text("utf-8"))
    root, _ = build(profile, data, tmp_path)
    assert rdma_info(root)["nccl_ib_hca"] == expected


def test_the_program_for_real_machines_says_what_it_read(tree: Tree) -> None:
    (tree.root / "sys/class/infiniband").mkdir()
    script = REPO / "tests/device/rdma_info_on_device.py"
    done = subprocess.run(
        [sys.executable, str(script), "--root", str(tree.root)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "infiniband: is there, and empty\n" in done.stdout
    assert "no usable RDMA: directory empty" in done.stdout
    assert "gdr: dmabuf; NCCL_IB_HCA: (empty)" in done.stdout
