"""Copied sysfs trees of hosts that are not here: a tree is built from words, and holds what the kernel would show.

Links are relative, as in sysfs. A file that a test wants away is removed after the tree is written.
"""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NO_GID = "0000:0000:0000:0000:0000:0000:0000:0000"
NO_GATEWAY = str(ipaddress.IPv4Address(0))
OPEN_DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
PROPRIETARY_DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:07:11 UTC 2025\n"
ROUTE_HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def gid_of(address: str) -> str:
    """An address as sysfs writes a GID; IPv4 mapped into IPv6."""
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:
        parsed = ipaddress.IPv6Address(f"::ffff:{parsed}")
    return parsed.exploded


class Tree:
    """A root folder with sys and proc in it."""

    def __init__(self, root: Path, *, nvidia: str | None = OPEN_DRIVER, kernel: str = "6.8.0-45-generic") -> None:
        self.root = root
        self.put("proc/sys/kernel/osrelease", kernel)
        self.put("proc/cpuinfo", "flags\t\t: fpu vme de pse\n")
        self.put("proc/mounts", "/dev/sda1 / ext4 rw 0 0\n")
        (root / "sys/class").mkdir(parents=True)
        self._routes: list[str] = []
        if nvidia is not None:
            self.put("proc/driver/nvidia/version", nvidia)
            self.put("sys/module/nvidia/version", "580.65.06")
        self.route("eno1", gateway="10.0.0.1")
        self.netdev("eno1", None)

    def put(self, path: str, text: object) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{text}\n")
        return target

    def link(self, path: str, target: str) -> None:
        """A relative link, as sysfs has them."""
        here = self.root / path
        here.parent.mkdir(parents=True, exist_ok=True)
        here.symlink_to(os.path.relpath(self.root / target, here.parent))

    def pci(self, *line: str, numa: int | None = 0, **values: str) -> str:
        """A PCI device below bridges: addresses from the topmost down; its folder."""
        here = f"sys/devices/pci{line[0][:7]}"
        for place, at in enumerate(line):
            here = f"{here}/{at}"
            if not (self.root / here).exists():
                self._device(here, at, numa, **(values if place + 1 == len(line) else {"class": "0x060400"}))
        return here

    def _device(self, here: str, at: str, numa: int | None, **values: str) -> None:
        (self.root / here).mkdir(parents=True)
        driver = values.pop("driver", None)
        for name, text in values.items():
            self.put(f"{here}/{name}", text)
        if numa is not None:
            self.put(f"{here}/numa_node", numa)
        if driver:
            (self.root / f"sys/bus/pci/drivers/{driver}").mkdir(parents=True, exist_ok=True)
            self.link(f"{here}/driver", f"sys/bus/pci/drivers/{driver}")
        self.link(f"sys/bus/pci/devices/{at}", here)

    def gpu(self, *line: str, numa: int = 0) -> None:
        self.pci(*line, numa=numa, vendor="0x10de", device="0x2329", **{"class": "0x030200"})

    def netdev(self, name: str, device: str | None, *, state: str = "up", dev_port: int = 0) -> str:
        here = f"{device or 'sys/devices/virtual'}/net/{name}"
        self.put(f"{here}/operstate", state)
        self.put(f"{here}/dev_port", dev_port)
        if device:
            self.link(f"{here}/device", device)
        self.link(f"sys/class/net/{name}", here)
        return here

    def bond(
        self, name: str, slaves: Sequence[str], mode: str = "802.3ad 4", partner: str = "02:00:00:00:00:01"
    ) -> None:
        """A kernel bond over interfaces that are there."""
        here = self.netdev(name, None)
        self.put(f"{here}/bonding/slaves", " ".join(slaves))
        self.put(f"{here}/bonding/mode", mode)
        self.put(f"{here}/bonding/ad_partner_mac", partner)
        for slave in slaves:
            self.link(f"{here}/lower_{slave}", f"sys/class/net/{slave}")
            self.link(f"{(self.root / 'sys/class/net' / slave).resolve().relative_to(self.root)}/master", here)

    def vlan(self, name: str, netdev: str, tag: int) -> None:
        """A VLAN, as /proc/net/vlan/config lists it."""
        self.netdev(name, None)
        self.put("proc/net/vlan/config", f"VLAN Dev name    | VLAN ID\nName-Type: x\n{name}  | {tag}  | {netdev}")

    def route(self, netdev: str, network: str = "0.0.0.0/0", gateway: str = NO_GATEWAY, metric: int = 0) -> None:
        parsed = ipaddress.IPv4Network(network)
        words = [struct.unpack("<L", ipaddress.IPv4Address(text).packed)[0] for text in
                 (str(parsed.network_address), gateway, str(parsed.netmask))]  # fmt: skip
        line = f"{netdev}\t{words[0]:08X}\t{words[1]:08X}\t0003\t0\t0\t{metric}\t{words[2]:08X}\t0\t0\t0"
        self._routes.append(line)
        self.put("proc/net/route", ROUTE_HEADER + "\n".join(self._routes))

    def hca(self, name: str, device: str | None, ports: Sequence[Mapping[str, Any]], **values: str) -> str:
        """An RDMA device; without a PCI device it is a soft one. Ports are `infiniband()`, `roce()` or `efa()`."""
        here = f"{device or 'sys/devices/virtual'}/infiniband/{name}"
        known = {"node_type": "1: CA", "hca_type": "MT4129", "fw_ver": "28.41.1000", "board_id": "MT_0000000838",
                 "node_guid": "a088:c203:0012:3400", "sys_image_guid": "a088:c203:0012:3400", **values}  # fmt: skip
        for key, text in known.items():
            self.put(f"{here}/{key}", text)
        if device:
            self.link(f"{here}/device", device)
        for number, port in enumerate(ports, 1):
            gids = port["gids"]
            for key in ("state", "phys_state", "rate", "link_layer", "lid", "sm_lid"):
                self.put(f"{here}/ports/{number}/{key}", port[key])
            for index in range(max(4, len(gids))):
                gid, kind, netdev = gids[index] if index < len(gids) else (NO_GID, None, None)
                self.put(f"{here}/ports/{number}/gids/{index}", gid)
                if kind:
                    self.put(f"{here}/ports/{number}/gid_attrs/types/{index}", kind)
                if netdev:
                    self.put(f"{here}/ports/{number}/gid_attrs/ndevs/{index}", netdev)
        self.link(f"sys/class/infiniband/{name}", here)
        return here

    def adapter(self, name: str, *line: str, ports: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """A ConnectX on PCI with its interface; options: netdev, numa, driver, and values of the device."""
        netdev, numa = options.pop("netdev", f"ib_{name}"), options.pop("numa", 0)
        driver, state = options.pop("driver", "mlx5_core"), options.pop("operstate", "up")
        ids = {"vendor": "0x15b3", "device": options.pop("device", "0x1021"), "class": "0x020000"}
        here = self.pci(*line, numa=numa, driver=driver, **ids)
        if netdev:
            self.netdev(netdev, here, state=state)
        self.hca(name, here, ports, **options)
        return here


def infiniband(gbps: float = 400, lanes: str = "4X NDR", **values: Any) -> dict[str, Any]:
    """A working InfiniBand port; its first GID is link-local by nature."""
    gids = [("fe80:0000:0000:0000:a088:c203:0012:3400", "IB/RoCE v1", None)]
    base = {"state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": f"{gbps:g} Gb/sec ({lanes})"}
    return {**base, "link_layer": "InfiniBand", "lid": "0x11", "sm_lid": "0x1", "gids": gids, **values}


def roce(netdev: str, *addresses: str, gbps: float = 400, lanes: str = "4X NDR", **values: Any) -> dict[str, Any]:
    """A working RoCE port: each address as v1 and v2, the link-local ones first. `if=address` names an interface."""
    gids = []
    for word in ("fe80::a288:c2ff:fe12:3400", *addresses):
        where, _, address = word.rpartition("=")
        gids += [(gid_of(address), kind, where or netdev) for kind in ("IB/RoCE v1", "RoCE v2")]
    base = {"state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": f"{gbps:g} Gb/sec ({lanes})"}
    return {**base, "link_layer": "Ethernet", "lid": "0x0", "sm_lid": "0x0", "gids": gids, **values}


def efa() -> dict[str, Any]:
    """A port of Amazon's EFA, which always says that it works."""
    port = infiniband(100, "4X EDR", lid="0x0", sm_lid="0x0", link_layer="Unknown")
    return {**port, "gids": [("fe80:0000:0000:0000:0800:1fff:fe00:0001", None, None)]}


def down(port: Mapping[str, Any], link: str = "2: Polling", **values: Any) -> dict[str, Any]:
    """The same port without a link; its rate then says nothing."""
    return {**port, "state": "1: DOWN", "phys_state": link, "rate": "10 Gb/sec (4X SDR)", **values}


def rail(number: int) -> tuple[str, str, str]:
    """PCI addresses of one rail: root port, port of its switch, and the bus of adapter and GPU."""
    return (
        f"0000:{0x10 + number * 0x10:02x}:01.0",
        f"0000:{0x11 + number * 0x10:02x}:00.0",
        f"{0x12 + number * 0x10:02x}",
    )


def eight_rails(tree: Tree, ports: Sequence[Mapping[str, Any]], netdevs: Sequence[str], nodes: int = 2) -> None:
    """Eight adapters, each behind one switch with its GPU, spread over NUMA nodes."""
    for number in range(8):
        root, switch, bus = rail(number)
        numa = number * nodes // 8
        tree.gpu(root, switch, f"0000:{bus}:00.0", numa=numa)
        address = f"0000:{bus}:01.0"
        tree.adapter(f"mlx5_{number}", root, switch, address, ports=[ports[number]], netdev=netdevs[number], numa=numa)
