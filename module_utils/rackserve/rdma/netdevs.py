"""Network interfaces of a host: which lie below which, and which carry the default route or a mounted file system."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Union

from .sysfs import entries, inside, value

_UP, _REJECT = 0x1, 0x200
_ROUTE_FIELDS, _ROUTE6_FIELDS = 8, 10
_NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "lustre", "ceph", "beegfs", "gpfs", "wekafs", "cifs")
_ADDRESS = re.compile(r"(?:^|,)addr=([0-9a-fA-F.:]+)")
_HOST = re.compile(r"\[?([0-9a-fA-F.:]+?)\]?(?:@\w.*|:/.*)?\Z")
_VLAN_FIELDS = 3
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


def below(root: Path, name: str) -> set[str]:
    """Interfaces that ``name`` is made of, itself too: slaves of a bond, ports of a bridge, the one under a VLAN."""
    found, waiting = set(), [name]
    tagged = _vlans(root)
    while waiting:
        here = waiting.pop()
        if here in found:
            continue
        found.add(here)
        folder = inside(root, f"/sys/class/net/{here}")
        lower = [entry[len("lower_") :] for entry in entries(folder) if entry.startswith("lower_")]
        waiting += [*lower, *slaves(root, here), *entries(folder / "brif"), *tagged.get(here, ())]
    return found


def slaves(root: Path, name: str) -> list[str]:
    """Interfaces of a bond; none where it is no bond."""
    return (value(inside(root, f"/sys/class/net/{name}") / "bonding/slaves") or "").split()


def master(root: Path, name: str) -> str | None:
    """The bond or bridge that an interface belongs to."""
    try:
        return (inside(root, f"/sys/class/net/{name}") / "master").readlink().name
    except OSError:
        return None


def _vlans(root: Path) -> dict[str, list[str]]:
    """VLAN interface to the one under it, by /proc/net/vlan/config."""
    found: dict[str, list[str]] = {}
    for line in (value(root / "proc/net/vlan/config") or "").splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == _VLAN_FIELDS and parts[1].isdigit():
            found.setdefault(parts[0], []).append(parts[2])
    return found


class Route(NamedTuple):
    """A route in use; the default one has the network /0."""

    netdev: str
    network: Network
    metric: int


def routes(root: Path) -> Iterator[Route]:
    """Routes of /proc/net/route and ipv6_route; those that refuse are left out."""
    for line in (value(root / "proc/net/route") or "").splitlines()[1:]:
        parts = line.split()
        if len(parts) >= _ROUTE_FIELDS and _hex(parts[3]) & _UP and not _hex(parts[3]) & _REJECT:
            network, mask = (socket.inet_ntoa(struct.pack("<L", _hex(parts[place]))) for place in (1, 7))
            yield Route(parts[0], ipaddress.IPv4Network(f"{network}/{mask}", strict=False), int(parts[6]))
    for line in (value(root / "proc/net/ipv6_route") or "").splitlines():
        parts = line.split()
        if len(parts) >= _ROUTE6_FIELDS and parts[9] != "lo" and not _hex(parts[8]) & _REJECT:
            address = ipaddress.IPv6Address(int(parts[0], 16))
            yield Route(parts[9], ipaddress.IPv6Network((address, _hex(parts[1])), strict=False), _hex(parts[5]))


def _hex(text: str) -> int:
    return int(text, 16)


def default_netdevs(root: Path) -> list[str]:
    """Interfaces of the default route that is taken: the lowest metric, IPv6 only where there is none for IPv4.

    A fabric whose interfaces ask DHCP often has default routes that are never taken.
    """
    default = [route for route in routes(root) if route.network.prefixlen == 0]
    for version in (4, 6):
        of_version = [route for route in default if route.network.version == version]
        if of_version:
            lowest = min(route.metric for route in of_version)
            return list(dict.fromkeys(route.netdev for route in of_version if route.metric == lowest))
    return []


def mounted_from(root: Path) -> dict[str, str]:
    """Interface to the mount point of a network file system that is reached through it, by the narrowest route."""
    known = list(routes(root))
    found: dict[str, str] = {}
    for address, place in _servers(root):
        matching = [(route.network.prefixlen, route.netdev) for route in known if address in route.network]
        narrowest = max(matching, default=(0, ""))
        if narrowest[0]:  # by the default route is no sign of a network for storage
            found.setdefault(narrowest[1], place)
    return found


def _servers(root: Path) -> Iterator[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, str]]:
    for line in (value(root / "proc/mounts") or value(root / "proc/self/mounts") or "").splitlines():
        source, place, kind, options, *_ = [*line.split(), "", "", "", ""]
        if kind not in _NETWORK_FILE_SYSTEMS:
            continue
        words = _ADDRESS.findall(options) or [match[1] for match in [_HOST.match(source.split(",")[0])] if match]
        for word in words[:1]:
            try:
                yield ipaddress.ip_address(word), place
            except ValueError:
                continue


def all_below(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Interface to the one of ``names`` that it is part of."""
    return {part: name for name in names for part in sorted(below(root, name))}


def operstate(root: Path, name: str) -> str | None:
    """`up`, `down` and so on; None where it cannot be read."""
    return value(inside(root, f"/sys/class/net/{name}") / "operstate")
