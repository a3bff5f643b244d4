"""A host's files as a topology says they are: sysfs of PCI devices, adapters, interfaces, NUMA nodes, cpuinfo."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rackserve.nccl.document import walk
from rackserve.nccl.parser import Element

REPO = Path(__file__).resolve().parents[3]
FIXTURES = REPO / "tests/fixtures/nccl-topology"
OPEN_DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
_IDS = ("class", "vendor", "device", "subsystem_vendor", "subsystem_device")


class Host:
    """A folder that looks like a host's root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._fillers = 0
        self.put("proc/sys/kernel/osrelease", "5.15.0-113-generic")

    def put(self, path: str, text: object) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{text}\n")
        return target

    def link(self, path: str, to: str) -> None:
        """A relative link, as sysfs has them."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(self.root / to, place.parent))

    def cpuinfo(self, vendor: str = "GenuineIntel", family: int = 6, model: int = 143) -> None:
        self.put("proc/cpuinfo", f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n")

    def node(self, number: int, cpumap: str) -> None:
        self.put(f"sys/devices/system/node/node{number}/cpumap", cpumap)

    def pci(self, path: str, **values: object) -> str:
        """A device at `path` below sys/devices; returns that folder."""
        where = f"sys/devices/{path}"
        given = {"numa_node": 0, "class": "0x060400", "vendor": "0x8086", "device": "0x352a", **values}
        for name, value in given.items():
            if value is not None:
                self.put(f"{where}/{name}", value)
        busid = Path(path).name
        self.link(f"{where}/subsystem", "sys/bus/pci")
        (self.root / "sys/bus/pci").mkdir(parents=True, exist_ok=True)
        self.link(f"sys/bus/pci/devices/{busid}", where)
        return where

    def bridge(self, above: str, numa: object, speed: str = "32.0 GT/s PCIe", width: object = 16) -> str:
        """A bridge that NCCL passes over, below a path of sys/devices; returns its path."""
        self._fillers += 1
        path = f"{above}/0000:f{self._fillers // 32:x}:{self._fillers % 32:02x}.0"
        self.pci(path, numa_node=numa, max_link_speed=speed, max_link_width=width)
        return path

    def hca(self, name: str, device: str, *, ports: tuple[dict[str, Any], ...] = ({},), guid: str = "0" * 16) -> None:
        """An adapter of a device's folder; ports {state, rate, link_layer}."""
        where = f"{device}/infiniband/{name}"
        self.put(f"{where}/sys_image_guid", ":".join(guid[i : i + 4] for i in range(0, 16, 4)))
        for number, port in enumerate(ports, 1):
            given = {
                "state": "4: ACTIVE",
                "phys_state": "5: LinkUp",
                "rate": "400 Gb/sec (4X NDR)",
                "link_layer": "InfiniBand",
                **port,
            }
            for key, value in given.items():
                self.put(f"{where}/ports/{number}/{key}", value)
        self.link(f"{where}/device", device)
        self.link(f"sys/class/infiniband/{name}", where)

    def interface(self, name: str, device: str | None, *, index: int = 2, speed: int = -1, state: str = "up") -> None:
        where = f"{device or 'sys/devices/virtual'}/net/{name}"
        values = {"ifindex": index, "speed": speed, "operstate": state, "flags": "0x1003"}
        for key, value in values.items():
            self.put(f"{where}/{key}", value)
        if device:
            self.link(f"{where}/device", device)
        self.link(f"sys/class/net/{name}", where)

    def virtio(self, path: str, name: str) -> str:
        """A device of another bus on a PCI device; returns its folder."""
        where = f"sys/devices/{path}/{name}"
        (self.root / where).mkdir(parents=True)
        (self.root / "sys/bus/virtio").mkdir(parents=True, exist_ok=True)
        self.link(f"{where}/subsystem", "sys/bus/virtio")
        return where


def build(root: Path, system: Element) -> list[dict[str, Any]]:
    """Build the host of a topology; returns its GPUs as `nccl_topology` takes them."""
    host = Host(root)
    gpus: list[dict[str, Any]] = []
    gdr = False
    for element in walk(system):
        gdr = gdr or (element.name == "net" and element.attributes.get("gdr") == "1")
        for target, tclass in _switches(element):
            host.pci(f"pci{target[:7]}/{target}", **{"class": tclass, "numa_node": 0})
    if gdr:
        host.put("sys/module/nvidia_peermem/version", "580.65.06")
    for cpu in system.children:
        family = int(cpu.attributes["familyid"])
        host.cpuinfo(cpu.attributes["vendor"], family, int(cpu.attributes["modelid"]))
        if "affinity" in cpu.attributes:
            host.node(int(cpu.attributes["numaid"]), cpu.attributes["affinity"])
        for child in cpu.children:
            if child.name == "nic":
                _virtual_nics(host, child)
                continue
            root_bus = f"pci{child.attributes['busid'][:7]}"
            _pci(host, child, root_bus, cpu.attributes["numaid"], gpus)
    return sorted(gpus, key=lambda gpu: int(gpu["index"]))


def _switches(element: Element) -> Iterator[tuple[str, str]]:
    """Ends of NVLinks that are visible, each once: they stand below a root of their own."""
    seen = element.__dict__.setdefault("_seen", set())
    for link in element.children if element.name == "gpu" else ():
        target = link.attributes["target"]
        if not target.startswith("fffffff") and target not in seen and element.attributes.get("dev") == "0":
            seen.add(target)
            yield target, link.attributes["tclass"]


def _pci(host: Host, element: Element, above: str, numa: str, gpus: list[dict[str, Any]]) -> None:
    """A device below `above`, with a bridge between them where its link has a width: NCCL takes the slower end."""
    given = element.attributes
    width = given["link_width"]
    port = above
    if width != "0":
        port = host.bridge(above, numa, given["link_speed"], width)
    path = f"{port}/{given['busid']}"
    values = {key: given[key] for key in _IDS if key in given}
    host.pci(
        path, numa_node=numa, max_link_speed=given["link_speed"], max_link_width=16 if width == "0" else width, **values
    )
    for child in element.children:
        if child.name == "pci":
            _pci(host, child, path, numa, gpus)
        elif child.name == "gpu":
            gpus.append(_gpu(child, given["busid"]))
        elif child.name == "nic":
            _nics(host, child, f"sys/devices/{path}")


def _gpu(element: Element, busid: str) -> dict[str, Any]:
    links = []
    for link in element.children:
        target = link.attributes["target"]
        nvml = "FFFFFFFF:FF:FF.0" if target.startswith("fffffff") else f"0000{target}".upper()
        links += [nvml] * int(link.attributes["count"])
    sm = int(element.attributes["sm"])
    return {
        "index": int(element.attributes["dev"]),
        "bus_id": f"0000{busid}".upper(),
        "compute_capability": f"{sm // 10}.{sm % 10}",
        "gdr": element.attributes["gdr"] == "1",
        "nvlinks": links,
    }


def _nics(host: Host, nic: Element, device: str) -> None:
    layer = "InfiniBand" if (host.root / device / "class").read_text().startswith("0x0207") else "Ethernet"
    for net in nic.children:
        rate = f"{int(net.attributes['speed']) // 1000} Gb/sec (4X NDR)"
        number = int(net.attributes["guid"], 16).to_bytes(8, "little").hex()
        host.hca(net.attributes["name"], device, ports=({"rate": rate, "link_layer": layer},), guid=number)


def _virtual_nics(host: Host, nic: Element) -> None:
    for place, net in enumerate(nic.children):
        slot = f"pci0000:00/0000:00:0{place + 3}.0"
        host.pci(slot, **{"class": "0x020000", "vendor": "0x1af4", "device": "0x1041", "numa_node": -1})
        host.interface(net.attributes["name"], host.virtio(slot, f"virtio{place}"), index=place + 2)
