"""Network devices as NCCL's own transports list them: RDMA ports, or interfaces where there is no RDMA."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..rdma.gdr import read_gdr
from ..rdma.sysfs import CLASS, ETHERNET, INFINIBAND, Hca, read_hcas, text
from . import sysfs

# What NCCL passes to <net maxconn>: max_qp of the adapter, which only verbs tell. This is mlx5 firmware's default.
_RDMA_CONNECTIONS = 131072
_SOCKET_CONNECTIONS = 65536
_SOCKET_MBPS = 10000
_EFA = "efa"
_INTERFACE_UP = 0x1
_LAST = ("docker", "lo", "virbr")
_MOST_INTERFACES = 16


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


def _verbs_order(root: Path) -> list[Hca]:
    """Adapters in the order libibverbs has them."""
    numbered = {}
    for entry in (root / "sys/class/infiniband_verbs").glob("uverbs*"):
        numbered[text(entry / "ibdev")] = int(re.sub(r"\D", "", entry.name) or 0)
    return sorted(read_hcas(root), key=lambda hca: numbered.get(hca.name, len(numbered)))


def rdma(root: Path) -> list[Net]:
    """A net for each active port of an adapter that is a PCI device."""
    gdr = str(int(read_gdr(root)[0] != "none"))
    nets: list[Net] = []
    for hca in _verbs_order(root):
        own = sysfs.real(root, root / CLASS / hca.name / "device")
        if own is None:
            continue
        # EFA's link layer is none that NCCL itself takes: Amazon's plugin lists it, at its own device.
        plugin = hca.driver == _EFA
        device = own if plugin else _merged(own)
        for port in hca.ports:
            if port.state != "ACTIVE" or not (plugin or port.link_layer in (INFINIBAND, ETHERNET)):
                continue
            # As NCCL counts: ports of the same card before it are added to its own number, so a second port becomes 3.
            others = sum(net.device == device for net in nets)
            attributes = {
                "name": hca.name,
                "dev": str(len(nets)),
                "latency": "0",
                "speed": str(round((port.rate_gbps or 0) * 1000)),
                "port": str(port.number + others),
                "guid": _guid(hca.facts["sys_image_guid"] or ""),
                "maxconn": str(_RDMA_CONNECTIONS),
                "gdr": gdr,
            }
            nets.append(Net(attributes, device, own))
    return nets


def _merged(own: Path) -> Path:
    """The device that NCCL takes for all functions of a card: device and function 0 of the same bus."""
    return own.parent / re.sub(r"[0-9a-fA-F]{2}\.[0-9a-fA-F]$", "00.0", own.name) if sysfs.is_bdf(own.name) else own


def _guid(given: str) -> str:
    digits = re.sub(r"[^0-9a-fA-F]", "", given)
    return f"0x{int.from_bytes(bytes.fromhex(digits.zfill(16)), 'little'):x}"


def sockets(root: Path) -> list[Net]:
    """A net for each interface that NCCL's sockets would use: those with an IPv4 address first, by their numbers."""
    first, second = _routed(root), _with_ipv6(root)
    names = first | second

    def place(entry: Path) -> tuple[bool, int, str]:
        return bool(first) and entry.name not in first, _number(entry / "ifindex"), entry.name

    entries = sorted((root / "sys/class/net").glob("*"), key=place)
    usable = [entry for entry in entries if _up(entry) and (entry.name == "lo" or _may_have(entry, names))]
    nets = []
    for number, entry in enumerate(_chosen(usable)[:_MOST_INTERFACES]):
        speed = _number(entry / "speed")
        attributes = {
            "name": entry.name,
            "dev": str(number),
            "latency": "0",
            "speed": str(speed if speed > 0 else _SOCKET_MBPS),
            "port": "0",
            "guid": f"0x{number:x}",
            "maxconn": str(_SOCKET_CONNECTIONS),
            "gdr": "0",
        }
        device = sysfs.real(root, entry / "device")
        if device is not None and not _is_pci(root, device):
            device = None
        nets.append(Net(attributes, device, device))
    return nets


def _chosen(usable: list[Path]) -> list[Path]:
    """IP over InfiniBand, else anything but _LAST, else the first of these that is there."""
    choices = [[entry for entry in usable if entry.name.startswith("ib")]]
    choices.append([entry for entry in usable if not entry.name.startswith(_LAST)])
    choices += [[entry for entry in usable if entry.name.startswith(prefix)] for prefix in _LAST]
    return next((choice for choice in choices if choice), [])


def _number(path: Path) -> int:
    found = re.match(r"-?\d+", text(path))
    return int(found[0]) if found else 0


def _up(entry: Path) -> bool:
    try:
        up = bool(int(text(entry / "flags") or str(_INTERFACE_UP), 0) & _INTERFACE_UP)
    except ValueError:
        up = True
    return up and text(entry / "operstate") not in ("down", "lowerlayerdown", "notpresent")


def _routed(root: Path) -> set[str]:
    """Interfaces with a route, and so an IPv4 address; empty where the tree does not tell."""
    lines = text(root / "proc/net/route").splitlines()[1:]
    return {line.split()[0] for line in lines if line.split()} - {"lo"}


def _with_ipv6(root: Path) -> set[str]:
    lines = text(root / "proc/net/if_inet6").splitlines()
    return {line.split()[-1] for line in lines if line.split()} - {"lo"}


def _may_have(entry: Path, addressed: set[str]) -> bool:
    return entry.name in addressed if addressed else not (entry / "master").exists()


def _is_pci(root: Path, device: Path) -> bool:
    subsystem = sysfs.real(root, device / "subsystem")
    return subsystem.name == "pci" if subsystem else sysfs.is_bdf(device.name)
