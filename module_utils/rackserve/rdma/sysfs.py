"""RDMA devices as the kernel shows them in sysfs. This is the one reader; what cannot be read is None, and is named."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INFINIBAND, ETHERNET = "InfiniBand", "Ethernet"
CLASS = "sys/class/infiniband"
BDF = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")
_NUMBERED = re.compile(r"\d+: *(\S.*)\Z")
_RATE = re.compile(r"(\d+(?:\.\d+)?) Gb/sec\b")
_SOFTWARE = {"rxe": "rdma_rxe", "Software iWARP stack": "siw"}
# PCI ids of virtual functions: in a virtual machine nothing else tells them from the card itself.
_VIRTUAL_IDS = {"0x1004", "0x1014", "0x1016", "0x1018", "0x101a", "0x101c", "0x101e"}
_MELLANOX = "0x15b3"
_NVIDIA, _DISPLAY = "0x10de", "0x03"
_MOST_LINKS = 40


@dataclass(frozen=True)
class Gid:
    """One used entry of a port's GID table; ``kind`` is sysfs's type, such as `RoCE v2`."""

    index: int
    gid: str
    kind: str | None
    netdev: str | None

    @property
    def address(self) -> ipaddress.IPv6Address:
        """The GID as an address."""
        return ipaddress.IPv6Address(self.gid)

    @property
    def ipv4(self) -> str | None:
        """The IPv4 address that it stands for."""
        mapped = self.address.ipv4_mapped
        return str(mapped) if mapped else None


@dataclass(frozen=True)
class Port:
    """One port. ``unread`` names the files whose value could not be had; rate in Gb/s."""

    number: int
    state: str | None
    phys_state: str | None
    link_layer: str | None
    rate_gbps: float | None
    lid: int | None
    sm_lid: int | None
    gids: tuple[Gid, ...]
    netdev: str | None
    unread: tuple[str, ...]

    @property
    def up(self) -> bool:
        """The link works, whatever the fabric has made of it."""
        return self.state == "ACTIVE" and self.phys_state == "LinkUp"


@dataclass(frozen=True)
class Hca:
    """One device of /sys/class/infiniband; ``place`` is its PCI folder below sys/devices, None where it has none."""

    name: str
    soft: bool
    driver: str | None
    bus_id: str | None
    place: Path | None
    numa_node: int | None
    virtual: bool
    has_physical: bool
    node_type: str | None
    netdevs: tuple[str, ...]
    ports: tuple[Port, ...]
    facts: dict[str, str | None]
    unread: tuple[str, ...]


def value(path: Path) -> str | None:
    """A small file's text; None where there is none, it cannot be read, or it is empty."""
    try:
        return path.read_text("ascii", "replace").strip() or None
    except OSError:
        return None


def text(path: Path) -> str:
    """The same, empty where there is nothing to read."""
    return value(path) or ""


def inside(root: Path, path: str) -> Path:
    """Where ``path`` leads, every link followed inside the root; a loop leads to the path itself.

    A link that names the root itself, as in a tree made for a test, stays inside, too.
    """
    if root == Path("/"):
        return Path(os.path.realpath(path))
    tops = (root, Path(os.path.realpath(root)))
    here: list[str] = []
    left, links = list(Path(path).parts)[::-1], 0
    while left:
        part = left.pop()
        if part in ("/", ".."):
            here = here[:-1] if part == ".." else []
            continue
        try:
            target = root.joinpath(*here, part).readlink()
        except OSError:
            here.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            return root / path.lstrip("/")
        top = next((top for top in tops if top == target or top in target.parents), None)
        left += (Path("/") / target.relative_to(top) if top else target).parts[::-1]
    return root.joinpath(*here)


def gpu_addresses(root: Path) -> list[str]:
    """PCI addresses of NVIDIA's GPUs, in order, as the bus shows them."""
    devices = root / "sys/bus/pci/devices"
    return [
        name
        for name in sorted(entries(devices))
        if value(devices / name / "vendor") == _NVIDIA and text(devices / name / "class").startswith(_DISPLAY)
    ]


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts mlx5_2 before mlx5_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def entries(folder: Path) -> list[str]:
    """Names in a folder, numbers in order; none where it is not there."""
    try:
        return sorted((entry.name for entry in folder.iterdir()), key=natural)
    except OSError:
        return []


def read_hcas(root: Path) -> list[Hca]:
    """Every RDMA device below ``root``, soft ones and virtual functions too."""
    return [_hca(root, name) for name in entries(root / CLASS) if inside(root, f"/{CLASS}/{name}").is_dir()]


def pci_parts(place: Path | None) -> tuple[str, ...]:
    """The bridges above a PCI device and itself, topmost first, with the root complex in front."""
    if place is None:
        return ()
    parts = place.parts
    start = next((index for index, part in enumerate(parts) if part.startswith("pci") and ":" in part), len(parts))
    return parts[start:]


class _Reader:
    """Reads values of one folder and remembers those that it could not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unread: list[str] = []

    def text(self, name: str) -> str | None:
        found = value(self.folder / name)
        if found is None:
            self.unread.append(name)
        return found

    def matched(self, name: str, pattern: re.Pattern[str]) -> str | None:
        found = value(self.folder / name)
        match = pattern.match(found or "")
        if not match:
            self.unread.append(name)
        return match.group(1) if match else None

    def number(self, name: str) -> int | None:
        try:
            return int(value(self.folder / name) or "", 0)
        except ValueError:
            self.unread.append(name)
            return None


def _hca(root: Path, name: str) -> Hca:
    folder = inside(root, f"/{CLASS}/{name}")
    facts = {key: value(folder / key) for key in ("fw_ver", "hca_type", "board_id", "node_guid", "sys_image_guid")}
    description = value(folder / "node_desc") or ""
    software = _SOFTWARE.get(description)
    node_type = value(folder / "node_type")
    if not os.path.lexists(folder / "device") or software or (folder / "parent").is_file():
        parent = value(folder / "parent")
        netdevs = (parent,) if parent else ()
        ports = _ports(folder, None)
        return Hca(name, True, software, None, None, None, False, False, node_type, netdevs, ports, facts, ())
    shown = "/" + str(folder.relative_to(root))
    device = inside(root, f"{shown}/device")
    place = next((path for path in (device, *device.parents) if BDF.match(path.name)), None)
    event = _event(device)
    bus_id = place.name if place else event.get("PCI_SLOT_NAME")
    if place is None and bus_id and (root / "sys/bus/pci/devices" / bus_id).exists():
        place = inside(root, f"/sys/bus/pci/devices/{bus_id}")
    here = place or device
    reader = _Reader(here)
    numa_node = reader.number("numa_node")
    driver = _driver(here) or event.get("DRIVER")
    unread = [*reader.unread, *(["device/driver"] if not driver else []), *(["device"] if not bus_id else [])]
    physical = os.path.lexists(here / "physfn")
    ids = (value(here / "vendor"), value(here / "device"))
    virtual = physical or (ids[0] == _MELLANOX and ids[1] in _VIRTUAL_IDS)
    return Hca(
        name=name,
        soft=False,
        driver=driver,
        bus_id=bus_id,
        place=place,
        numa_node=numa_node,
        virtual=virtual,
        has_physical=physical,
        node_type=node_type,
        netdevs=tuple(entries(here / "net")),
        ports=_ports(folder, here / "net"),
        facts=facts,
        unread=tuple(unread),
    )


def _driver(device: Path) -> str | None:
    """The last part of where the link `driver` points to; that place need not be there."""
    try:
        return (device / "driver").readlink().name
    except OSError:
        return None


def _event(device: Path) -> dict[str, str]:
    lines = (value(device / "uevent") or "").splitlines()
    return {key: text for key, _, text in (line.partition("=") for line in lines)}


def _ports(folder: Path, net: Path | None) -> tuple[Port, ...]:
    return tuple(_port(folder / "ports" / name, net) for name in entries(folder / "ports") if name.isdigit())


def _port(here: Path, net: Path | None) -> Port:
    reader = _Reader(here)
    state = reader.matched("state", _NUMBERED)
    phys_state = reader.matched("phys_state", _NUMBERED)
    layer = reader.text("link_layer")
    rate = reader.matched("rate", _RATE)
    fabric = layer == INFINIBAND
    lid, sm_lid = (reader.number("lid"), reader.number("sm_lid")) if fabric else (_quiet(here, "lid"), None)
    gids = tuple(_gids(here, reader.unread, needs_kind=layer == ETHERNET))
    return Port(
        number=int(here.name),
        state=state,
        phys_state=phys_state,
        link_layer=layer,
        rate_gbps=None if rate is None else float(rate),
        lid=lid,
        sm_lid=sm_lid if fabric else _quiet(here, "sm_lid"),
        gids=gids,
        netdev=_netdev(net, int(here.name), gids),
        unread=tuple(reader.unread),
    )


def _quiet(here: Path, name: str) -> int | None:
    return _Reader(here).number(name)


def _gids(here: Path, unread: list[str], needs_kind: bool) -> Iterator[Gid]:
    """Used entries. The kernel refuses to say the type of an unused one, so only used ones are asked for it."""
    for index in entries(here / "gids"):
        text = value(here / "gids" / index)
        try:
            used = bool(int(ipaddress.IPv6Address(text or "")))
        except ValueError:
            unread.append(f"gids/{index}")
            continue
        if not used or not index.isdigit():
            continue
        kind = value(here / "gid_attrs/types" / index)
        if kind is None and needs_kind:
            unread.append(f"gid_attrs/types/{index}")
        yield Gid(int(index), text or "", kind, value(here / "gid_attrs/ndevs" / index))


def _netdev(net: Path | None, port: int, gids: tuple[Gid, ...]) -> str | None:
    """The port's network interface: the one its first GID names, else the one of its card with this port's number."""
    named = next((gid.netdev for gid in gids if gid.netdev), None)
    if named or net is None:
        return named
    known = {name: value(net / name / "dev_port") for name in entries(net)}
    same = [name for name, number in known.items() if number == str(port - 1)]
    if same:
        return same[0]
    return next(iter(known)) if len(known) == 1 and port == 1 else None
