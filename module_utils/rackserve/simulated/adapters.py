"""sysfs of host channel adapters, network interfaces and disks."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from ..hardware.tree import CpuIds, Device, local_cpus
from .folder import Folder
from .pci import sysfs

HCA_MODULES = ("mlx5_core", "mlx5_ib", "ib_core", "ib_uverbs", "ib_umad", "rdma_cm", "rdma_ucm")
_STATES = {"DOWN": 1, "INIT": 2, "ARMED": 3, "ACTIVE": 4}
_PHYS_STATES = {"Polling": 2, "Disabled": 3, "LinkUp": 5}
_INFINIBAND, _ETHERNET = 32, 1  # ARPHRD_*
_GID_ENTRIES = 8
_NO_GID = "0000:0000:0000:0000:0000:0000:0000:0000"
_COUNTERS = """
VL15_dropped excessive_buffer_overrun_errors link_downed link_error_recovery local_link_integrity_errors
multicast_rcv_packets multicast_xmit_packets port_rcv_constraint_errors port_rcv_data port_rcv_errors port_rcv_packets
port_rcv_remote_physical_errors port_rcv_switch_relay_errors port_xmit_constraint_errors port_xmit_data
port_xmit_discards port_xmit_packets port_xmit_wait symbol_error unicast_rcv_packets unicast_xmit_packets
"""
_HW_COUNTERS = """
duplicate_request implied_nak_seq_err local_ack_timeout_err np_cnp_sent np_ecn_marked_roce_packets out_of_buffer
out_of_sequence packet_seq_err req_cqe_error req_cqe_flush_error req_remote_access_errors req_remote_invalid_request
req_transport_retries_exceeded resp_cqe_error resp_cqe_flush_error resp_local_length_error resp_remote_access_errors
rnr_nak_retry_err roce_adp_retrans roce_adp_retrans_to roce_slow_restart roce_slow_restart_cnps
roce_slow_restart_trans rp_cnp_handled rp_cnp_ignored rx_atomic_requests rx_icrc_encapsulated rx_read_requests
rx_write_requests
"""
_CAP_MASK = {"InfiniBand": "0xa751e848", "Ethernet": "0x04010000"}
_SECTOR_BYTES = 512
_INTERRUPTS, _FIRST_INTERRUPT = 2, 200


def add_adapters(folder: Folder, machine: Mapping[str, Any], tree: Mapping[str, Device]) -> None:
    """Host channel adapters, other network adapters, disks, and what the kernel modules of all these show."""
    for index, hca in enumerate(machine["hcas"]):
        _hca(folder, hca, sysfs(tree[hca["at"]]), index)
        _interrupts(folder, sysfs(tree[hca["at"]]), index, local_cpus(machine, tree[hca["at"]].numa_node))
    for index, entry in enumerate(machine["ethernets"]):
        device = sysfs(tree[entry["at"]])
        address = {"address": entry["address"], "broadcast": "ff:ff:ff:ff:ff:ff"}
        _netdev(
            folder,
            device,
            entry["netdev"],
            hardware=address,
            arp_type=_ETHERNET,
            number=index + 2,
            speed_mbps=entry["speed_mbps"],
            mtu=entry["mtu"],
            up=True,
        )
    for index, disk in enumerate(machine["disks"]):
        _disk(folder, disk, sysfs(tree[disk["at"]]), index)
    modules = {*machine["modules"], *(HCA_MODULES if machine["hcas"] else ())}
    for module in sorted(modules):
        folder.write_all(f"sys/module/{module}", {"initstate": "live", "refcnt": 0})
    for driver in sorted({device.kind["driver"] for device in tree.values() if device.kind["driver"]}):
        if driver in modules:
            folder.link(f"sys/bus/pci/drivers/{driver}/module", f"sys/module/{driver}")
    if "ib_core" in modules:
        folder.empty.add("sys/class/infiniband")
    if machine["hcas"]:
        folder.write("sys/class/infiniband_verbs/abi_version", 6)
        folder.write("sys/class/infiniband_mad/abi_version", 5)
        folder.write("proc/devices", "231 infiniband_mad\n231 infiniband_verbs")


def _hca(folder: Folder, hca: Mapping[str, Any], device: str, index: int) -> None:
    here = f"{device}/infiniband/{hca['name']}"
    folder.class_link("infiniband", hca["name"], device)
    folder.write_all(
        here,
        {
            "fw_ver": hca["fw_ver"],
            "hca_type": hca["hca_type"],
            "board_id": hca["board_id"],
            "hw_rev": 0,
            "node_type": "1: CA",
            "node_guid": hca["node_guid"],
            "sys_image_guid": hca["node_guid"],
            "node_desc": f"simulated {hca['name']}",
            "uevent": f"NAME={hca['name']}",
        },
    )
    for number, port in enumerate(hca["ports"], 1):
        _port(folder, f"{here}/ports/{number}", port)
    _character_devices(folder, hca, device, index)
    first = hca["ports"][0]
    if first["link_layer"] == "InfiniBand":
        hardware = infiniband_address(first["gids"][0]["gid"])
        arp_type = _INFINIBAND
    else:
        hardware = {"address": mac_of_guid(hca["node_guid"]), "broadcast": "ff:ff:ff:ff:ff:ff"}
        arp_type = _ETHERNET
    _netdev(
        folder,
        device,
        hca["netdev"],
        hardware=hardware,
        arp_type=arp_type,
        number=index + 10,
        speed_mbps=int(float(first["rate"].split(maxsplit=1)[0]) * 1000),
        mtu=hca["mtu"],
        up=first["phys_state"] == "LinkUp",
    )


def _interrupts(folder: Folder, device: str, index: int, near: CpuIds) -> None:
    """Interrupts of an adapter, each at one of the CPUs next to it, as its driver hints them."""
    for place in range(_INTERRUPTS):
        irq = _FIRST_INTERRUPT + index * _INTERRUPTS + place
        folder.write(f"{device}/msi_irqs/{irq}", "msix")
        folder.write(f"proc/irq/{irq}/smp_affinity_list", near[place % len(near)] if near else 0)


def _port(folder: Folder, here: str, port: Mapping[str, Any]) -> None:
    """One port. The kernel answers EINVAL for the type of an unused GID entry; here its file is left out."""
    folder.write_all(
        here,
        {
            "state": f"{_STATES[port['state']]}: {port['state']}",
            "phys_state": f"{_PHYS_STATES[port['phys_state']]}: {port['phys_state']}",
            "rate": port["rate"],
            "link_layer": port["link_layer"],
            "lid": f"0x{port['lid']:x}",
            "sm_lid": f"0x{port['sm_lid']:x}",
            "sm_sl": 0,
            "lid_mask_count": 0,
            "cap_mask": _CAP_MASK[port["link_layer"]],
            "pkeys/0": "0xffff",
        },
    )
    for index in range(max(_GID_ENTRIES, len(port["gids"]))):
        used = port["gids"][index] if index < len(port["gids"]) else None
        folder.write(f"{here}/gids/{index}", used["gid"] if used else _NO_GID)
        if used:
            folder.write(f"{here}/gid_attrs/types/{index}", used["type"])
            if used["ndev"]:
                folder.write(f"{here}/gid_attrs/ndevs/{index}", used["ndev"])
    folder.write_all(f"{here}/counters", dict.fromkeys(_COUNTERS.split(), 0))
    folder.write_all(f"{here}/hw_counters", {**dict.fromkeys(_HW_COUNTERS.split(), 0), "lifespan": 10})


def _character_devices(folder: Folder, hca: Mapping[str, Any], device: str, index: int) -> None:
    nodes = [("infiniband_verbs", f"uverbs{index}", 192 + index, {"ibdev": hca["name"], "abi_version": 1})]
    nodes.append(("infiniband_mad", f"umad{index}", index, {"ibdev": hca["name"], "port": 1}))
    if hca["ports"][0]["link_layer"] == "InfiniBand":
        nodes.append(("infiniband_mad", f"issm{index}", 64 + index, {"ibdev": hca["name"], "port": 1}))
    for kind, name, minor, values in nodes:
        here = f"{device}/{kind}/{name}"
        folder.write_all(here, {**values, "dev": f"231:{minor}"})
        folder.write(f"{here}/uevent", f"MAJOR=231\nMINOR={minor}\nDEVNAME=infiniband/{name}")
        folder.class_link(kind, name, device)


def infiniband_address(gid: str) -> dict[str, str]:
    """The 20-byte address of an IP-over-InfiniBand interface: flags and queue pair, then the port's GID."""
    raw = ipaddress.IPv6Address(gid).packed
    text = ":".join(f"{byte:02x}" for byte in bytes([0x00, 0x00, 0x10, 0x49]) + raw)
    return {"address": text, "broadcast": "00:ff:ff:ff:ff:12:40:1b:ff:ff:00:00:00:00:00:00:ff:ff:ff:ff"}


def mac_of_guid(guid: str) -> str:
    """The MAC address that a Mellanox GUID was made from: the middle two bytes left out."""
    raw = bytes.fromhex(guid.replace(":", ""))
    return ":".join(f"{byte:02x}" for byte in raw[:3] + raw[5:])


def _netdev(
    folder: Folder,
    device: str,
    name: str,
    *,
    hardware: Mapping[str, str],
    arp_type: int,
    number: int,
    speed_mbps: int,
    mtu: int,
    up: bool,
) -> None:
    folder.class_link("net", name, device)
    folder.write_all(
        f"{device}/net/{name}",
        {
            **hardware,
            "addr_assign_type": 0,
            "addr_len": len(hardware["address"].split(":")),
            "carrier": int(up),
            "carrier_changes": 2,
            "carrier_down_count": 1,
            "carrier_up_count": 1,
            "dev_id": "0x0",
            "dev_port": 0,
            "duplex": "full",
            "flags": "0x1003" if up else "0x1002",
            "ifindex": number,
            "iflink": number,
            "mtu": mtu,
            "operstate": "up" if up else "down",
            "speed": speed_mbps if up else -1,
            "tx_queue_len": 1000,
            "type": arp_type,
            "uevent": f"INTERFACE={name}\nIFINDEX={number}",
        },
    )


def _disk(folder: Folder, disk: Mapping[str, Any], device: str, index: int) -> None:
    name, block = disk["name"], f"{disk['name']}n1"
    folder.class_link("nvme", name, device)
    here = f"{device}/nvme/{name}"
    folder.write_all(
        here,
        {
            "model": disk["model"],
            "serial": disk["serial"],
            "firmware_rev": disk["firmware"],
            "transport": "pcie",
            "address": device.rsplit("/", 1)[1],
            "state": "live",
            "cntlid": 1,
            "dev": f"241:{index}",
            "uevent": f"MAJOR=241\nMINOR={index}\nDEVNAME={name}\nNVME_TRTYPE=pcie",
        },
    )
    there = f"{here}/{block}"
    folder.write_all(
        there,
        {
            "dev": f"259:{index}",
            "size": disk["size_bytes"] // _SECTOR_BYTES,
            "ro": 0,
            "removable": 0,
            "nsid": 1,
            "stat": " ".join(["0"] * 17),
            "queue/logical_block_size": _SECTOR_BYTES,
            "queue/physical_block_size": _SECTOR_BYTES,
            "queue/rotational": 0,
            "queue/scheduler": "[none] mq-deadline",
            "uevent": f"MAJOR=259\nMINOR={index}\nDEVNAME={block}\nDEVTYPE=disk",
        },
    )
    folder.link(f"{there}/subsystem", "sys/class/block")
    folder.link(f"{there}/device", here)
    for shelf in ("sys/class/block", "sys/block"):
        folder.link(f"{shelf}/{block}", there)
