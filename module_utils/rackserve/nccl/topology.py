"""The topology NCCL would detect on a host (`observed`), and what may be given back to it (`inject`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..preflight.findings import Finding, finding
from ..rdma.sysfs import text
from . import nets, sysfs
from .document import system, write
from .environment import distance
from .gpus import Gpu, from_facts
from .parser import Element

_INVISIBLE_CLASS = "0x068000"
_GPU_CLASS, _NIC_CLASS = "0x03", "0x02"
_DATA_CENTER_GPU = "0x0302"
_SWITCH_VENDOR = "0x1000"
_UNKNOWN_NODE = "-1"
_SLOW_GTS = 2.5
_INJECTED = ("system", "cpu", "pci")


@dataclass(frozen=True)
class Topology:
    """Both texts' elements, and what is worth knowing about the host."""

    observed: Element
    inject: Element
    findings: list[Finding]

    def texts(self) -> dict[str, Any]:
        """{observed, inject, findings}. Raises TopologyError where NCCL could not read the text."""
        return {"observed": write(self.observed), "inject": write(self.inject), "findings": self.findings}


def observe(root: Path, gpus: Iterable[Any]) -> Topology:
    """What NCCL 2.28.9 would write to NCCL_TOPO_DUMP_FILE with one rank a GPU.

    gpus: [{index, bus_id, compute_capability, gdr, nvlinks}]. Raises TopologyError.
    """
    tree = _Tree(root)
    known = from_facts(gpus)
    for gpu in known:
        tree.add_gpu(gpu)
    ports = nets.rdma(root)
    for net in ports or nets.sockets(root):
        tree.add_net(net)
    observed = system([_sorted(cpu) for cpu in tree.cpus.values()])
    findings = tree.findings + _judge(tree, known)
    if ports and distance(observed) == "PHB":
        why = "no GPU reaches one by switches alone, so GPUDirect RDMA is off at NCCL's default level, PXB"
        fix = "engines over several hosts get NCCL_NET_GDR_LEVEL=PHB; a virtual machine may need a topology"
        findings.append(finding("note", "adapters-at-root", "adapters", why, fix))
    return Topology(observed, injectable(observed), findings)


def injectable(observed: Element) -> Element:
    """CPUs and PCI devices alone: nothing in it can be taken for a GPU or an adapter that is no longer there."""
    kept = [injectable(child) for child in observed.children if child.name in _INJECTED]
    return Element(observed.name, dict(observed.attributes), kept)


def _sorted(element: Element) -> Element:
    """PCI devices in the order of bus ids, as NCCL has them; what is on a device stands before what is below it."""
    children = sorted(element.children, key=lambda child: (child.name == "pci", child.attributes.get("busid", "")))
    return Element(element.name, element.attributes, [_sorted(child) for child in children])


class _Tree:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.cpus: dict[str, Element] = {}
        self.findings: list[Finding] = []
        self.paths: dict[str, Path] = {}
        self._pci: dict[str, Element] = {}

    def _cpu(self, numaid: str) -> Element:
        if numaid not in self.cpus:
            self.cpus[numaid] = Element("cpu", sysfs.cpu_attributes(self.root, numaid))
        return self.cpus[numaid]

    def _device(self, busid: str, fallback: str) -> Element:
        """The <pci> of a bus id, with all that NCCL keeps above it."""
        if busid in self._pci:
            return self._pci[busid]
        path = sysfs.device_path(self.root, busid)
        if path is None:
            why = "it is not in /sys, so NCCL knows nothing above it and puts it below an unknown CPU"
            fix = "show the whole /sys to the program, or inject a topology that names it"
            self.findings.append(finding("warning", "device-invisible", f"PCI device {busid}", why, fix))
            attributes = {"busid": busid, "class": fallback, "link_speed": "", "link_width": ""}
            return self._attach(Element("pci", attributes), self._cpu(_UNKNOWN_NODE))
        kept = sysfs.chain(path)
        numaid = sysfs.numa_node(kept[-1])
        device = below = self._new(path, busid)
        for step in kept[1:]:
            known = self._pci.get(step.name)
            above = known or self._new(step, step.name)
            above.children.append(below)
            if known:
                return device
            below = above
        self._cpu(numaid).children.append(below)
        return device

    def attributes(self, busid: str) -> dict[str, str]:
        """Attributes of a <pci> that stands in the tree."""
        return self._pci[busid].attributes

    def _new(self, path: Path, busid: str) -> Element:
        element = Element("pci", sysfs.pci_attributes(path, busid))
        if element.attributes.get("vendor") == _SWITCH_VENDOR:
            links = sysfs.switch_links(self.root, busid)
            element.children += [Element("pcilink", {"target": target}) for target in links]
        self._pci[busid] = element
        self.paths[busid] = path
        return element

    def _attach(self, element: Element, parent: Element) -> Element:
        self._pci[element.attributes["busid"]] = element
        parent.children.append(element)
        return element

    def add_gpu(self, gpu: Gpu) -> None:
        device = self._device(gpu.bus_id, _GPU_CLASS)
        gdr = gpu.gdr
        if gdr is None:
            gdr = device.attributes["class"].startswith(_DATA_CENTER_GPU)
        given = {"dev": gpu.index, "sm": gpu.sm, "rank": gpu.index, "gdr": int(gdr)}
        element = Element("gpu", {key: str(value) for key, value in given.items()})
        for target in dict.fromkeys(gpu.nvlinks):
            count = str(gpu.nvlinks.count(target))
            attributes = {"target": target, "count": count, "tclass": self._class_of(target)}
            element.children.append(Element("nvlink", attributes))
        device.children.append(element)

    def _class_of(self, target: str) -> str:
        path = sysfs.device_path(self.root, target)
        return (text(path / "class") if path else "") or _INVISIBLE_CLASS

    def add_net(self, net: nets.Net) -> None:
        device = net.device
        if device is not None and not device.exists():
            self._tell_merged(net)
            device = None
        if device is not None:
            parent = self._device(device.name, _NIC_CLASS)
        elif self.cpus:
            parent = next(iter(self.cpus.values()))
        else:
            return
        nic = next((child for child in parent.children if child.name == "nic"), None)
        if nic is None:
            nic = Element("nic")
            parent.children.append(nic)
        nic.children.append(Element("net", dict(net.attributes)))

    def _tell_merged(self, net: nets.Net) -> None:
        name, own = net.attributes["name"], net.own.name if net.own else "?"
        why = f"it is {own}, NCCL takes it for device 00.0 of that bus, which is not there, and puts it below a CPU"
        fix = "try NCCL_IB_MERGE_VFS=0 and measure"
        self.findings.append(finding("warning", "vf-merged", f"adapter {name}", why, fix))


def _judge(tree: _Tree, gpus: list[Gpu]) -> list[Finding]:
    found: list[Finding] = []
    for busid, path in tree.paths.items():
        attributes = tree.attributes(busid)
        most, now = int(attributes["link_width"]), sysfs.current_width(path)
        where = f"PCI device {busid}"
        if 0 < now < most:
            why = f"its link has {now} of {most} lanes; NCCL counts on {most}"
            fix = "reseat the card or riser, compare with lspci -vv (LnkSta); then look again"
            found.append(finding("warning", "link-narrow", where, why, fix))
        if sysfs.speed_gts(attributes["link_speed"]) <= _SLOW_GTS and attributes["link_speed"]:
            why = f"its link says {attributes['link_speed']} x{most}, so NCCL counts on almost nothing"
            fix = "a switch of a virtual machine says so: measure with an injected topology (docs/nccl.md)"
            found.append(finding("warning", "link-nonsense", where, why, fix))
    if gpus and _UNKNOWN_NODE in tree.cpus and len(_online_nodes(tree.root)) > 1:
        why = "devices do not say which NUMA node they are at, and the host has several"
        fix = "look at the BIOS or the hypervisor; a topology may be injected (docs/nccl.md)"
        found.append(finding("warning", "numa-unknown", "NUMA nodes", why, fix))
    return found


def _online_nodes(root: Path) -> list[Path]:
    return [entry for entry in (root / "sys/devices/system/node").glob("node*") if entry.name[4:].isdigit()]
