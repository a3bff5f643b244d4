"""Network devices as NCCL's own transports list them: RDMA ports, or interfaces where there is no RDMA."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import sysfs

# What NCCL passes to <net maxconn>: max_qp of the adapter, which only verbs tell. This is mlx5 firmware's default.
_RDMA_CONNECTIONS = 131072
_SOCKET_CONNECTIONS = 65536
_SOCKET_MBPS = 10000
_LINK_LAYERS = ("InfiniBand", "Ethernet")
_ACTIVE = "4:"
_DMABUF_KERNEL = (5, 12)
_INTERFACE_UP = 0x1
_LEFT_OUT = ("docker", "lo", "virbr")
_PEER_MEMORY = (
    "sys/module/nvidia_peermem",
    "sys/kernel/mm/memory_peers/nv_mem",
    "sys/kernel/mm/memory_peers/nv_mem_nc",
)


@dataclass(frozen=True)
class Net:
    """A <net>: its attributes, and the folder of the PCI device it hangs on; None: the first CPU.

    merged: another device stands in for its own, since NCCL merges functions of one card.
    """

    attributes: Mapping[str, str]
    device: Path | None
    own: Path | None

    @property
    def merged(self) -> bool:
        return self.device != self.own


def find(root: Path) -> list[Net]:
    """Active RDMA ports; interfaces with an address where there is none."""
    return rdma(root) or sockets(root)


def peer_memory(root: Path) -> bool:
    """Whether adapters reach the memory of GPUs: nvidia_peermem is loaded, or DMA-BUF works."""
    if any((root / path).is_dir() for path in _PEER_MEMORY):
        return True
    release = re.match(r"(\d+)\.(\d+)", sysfs.text(root / "proc/sys/kernel/osrelease"))
    if not release:
        release = re.search(r"Linux version (\d+)\.(\d+)", sysfs.text(root / "proc/version"))
    open_module = "Open Kernel Module" in sysfs.text(root / "proc/driver/nvidia/version")
    return bool(open_module and release and (int(release[1]), int(release[2])) >= _DMABUF_KERNEL)


def _verbs_order(root: Path) -> list[str]:
    """Names of adapters in the order libibverbs has them."""
    numbered = {}
    for entry in (root / "sys/class/infiniband_verbs").glob("uverbs*"):
        numbered[sysfs.text(entry / "ibdev")] = int(re.sub(r"\D", "", entry.name) or 0)
    names = [entry.name for entry in (root / "sys/class/infiniband").glob("*")]
    return sorted(names, key=lambda name: (numbered.get(name, len(numbered)), _natural(name)))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def rdma(root: Path) -> list[Net]:
    """A net for each active port of an adapter that is a PCI device."""
    gdr = str(int(peer_memory(root)))
    nets: list[Net] = []
    for name in _verbs_order(root):
        entry = root / "sys/class/infiniband" / name
        own = sysfs.real(root, entry / "device")
        if own is None:
            continue
        ports = sorted((entry / "ports").glob("*"), key=lambda path: _natural(path.name))
        active = [port for port in ports if _active(port)]
        device = _merged(own)
        others = len({net.own for net in nets if net.device == device})
        for port in active:
            attributes = {
                "name": name,
                "dev": str(len(nets)),
                "latency": "0",
                "speed": _mbps(sysfs.text(port / "rate")),
                "port": str(int(re.sub(r"\D", "", port.name) or 1) + others),
                "guid": _guid(sysfs.text(entry / "sys_image_guid")),
                "maxconn": str(_RDMA_CONNECTIONS),
                "gdr": gdr,
            }
            nets.append(Net(attributes, device, own))
    return nets


def _active(port: Path) -> bool:
    return sysfs.text(port / "state").startswith(_ACTIVE) and sysfs.text(port / "link_layer") in _LINK_LAYERS


def _merged(own: Path) -> Path:
    """The device that NCCL takes for all functions of a card: device and function 0 of the same bus."""
    return own.parent / re.sub(r"[0-9a-fA-F]{2}\.[0-9a-fA-F]$", "00.0", own.name) if sysfs.is_bdf(own.name) else own


def _mbps(rate: str) -> str:
    number = re.match(r"[0-9.]+", rate)
    return str(round(float(number[0]) * 1000)) if number else "0"


def _guid(given: str) -> str:
    digits = re.sub(r"[^0-9a-fA-F]", "", given)
    return f"0x{int.from_bytes(bytes.fromhex(digits.zfill(16)), 'little'):x}"


def sockets(root: Path) -> list[Net]:
    """A net for each interface that NCCL's sockets would use, in the order of their numbers."""
    entries = sorted((root / "sys/class/net").glob("*"), key=lambda path: (_number(path / "ifindex"), path.name))
    addressed = _with_address(root)
    usable = [entry for entry in entries if entry.name != "lo" and _up(entry) and _may_have(entry, addressed)]
    fabric = [entry for entry in usable if entry.name.startswith("ib")]
    plain = [entry for entry in usable if not entry.name.startswith(_LEFT_OUT)]
    nets = []
    for number, entry in enumerate(fabric or plain or usable):
        speed = _number(entry / "speed")
        attributes = {
            "name": entry.name,
            "dev": str(number),
            "latency": "0",
            "speed": str(speed if speed > 0 else _SOCKET_MBPS),
            "port": "0",
            "guid": "0x0",
            "maxconn": str(_SOCKET_CONNECTIONS),
            "gdr": "0",
        }
        device = sysfs.real(root, entry / "device")
        if device is not None and not _is_pci(root, device):
            device = None
        nets.append(Net(attributes, device, device))
    return nets


def _number(path: Path) -> int:
    found = re.match(r"-?\d+", sysfs.text(path))
    return int(found[0]) if found else 0


def _up(entry: Path) -> bool:
    try:
        up = bool(int(sysfs.text(entry / "flags") or str(_INTERFACE_UP), 0) & _INTERFACE_UP)
    except ValueError:
        up = True
    return up and sysfs.text(entry / "operstate") not in ("down", "lowerlayerdown", "notpresent")


def _with_address(root: Path) -> set[str]:
    """Interfaces that have a route or an IPv6 address; empty where the tree does not tell."""
    routes = sysfs.text(root / "proc/net/route").splitlines()[1:]
    names = {line.split()[0] for line in routes if line.split()}
    names |= {line.split()[-1] for line in sysfs.text(root / "proc/net/if_inet6").splitlines() if line.split()}
    return names - {"lo"}


def _may_have(entry: Path, addressed: set[str]) -> bool:
    return entry.name in addressed if addressed else not (entry / "master").exists()


def _is_pci(root: Path, device: Path) -> bool:
    subsystem = sysfs.real(root, sysfs.below(root, device) / "subsystem")
    return subsystem.name == "pci" if subsystem else sysfs.is_bdf(device.name)
