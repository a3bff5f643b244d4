"""The PCIe tree of a machine, flattened; lists and masks of CPUs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CpuIds = tuple[int, ...]


@dataclass(frozen=True)
class Device:
    """A PCI device; ``kind`` holds its entry of `devices`, ``parents`` the bridges above it, the topmost first."""

    at: str
    name: str
    kind: Mapping[str, Any]
    numa_node: int
    parents: tuple[Device, ...]
    below: tuple[str, ...]
    own_speed: str | None = None
    own_width: int | None = None

    @property
    def bus(self) -> str:
        """Domain and bus, like 0000:18."""
        return self.at.rsplit(":", 1)[0]

    @property
    def bus_number(self) -> int:
        return int(self.at[5:7], 16)

    @property
    def path(self) -> str:
        """Its folder below sys/devices."""
        line = (*self.parents, self)
        return "/".join([f"pci{line[0].bus}", *(device.at for device in line)])

    @property
    def is_bridge(self) -> bool:
        return bool(self.kind["class"].startswith("0x0604"))

    @property
    def current_speed(self) -> str | None:
        """What the link runs at: what both ends can, unless the profile says otherwise."""
        mine = self.kind["max_speed"]
        above = self.parents[-1].kind["max_speed"] if self.parents else None
        return self.own_speed or (min(mine, above or mine, key=rate_gts) if mine else None)

    @property
    def current_width(self) -> int | None:
        mine = self.kind["max_width"]
        above = self.parents[-1].kind["max_width"] if self.parents else None
        return self.own_width or (min(mine, above or mine) if mine else None)


def devices(machine: Mapping[str, Any]) -> list[Device]:
    """All PCI devices of a valid machine, each bridge before what is below it."""
    return list(_walk(machine["pcie"], machine["devices"], -1, ()))


def _walk(nodes: Iterable[Any], kinds: Mapping[str, Any], numa: int, parents: tuple[Device, ...]) -> Iterator[Device]:
    for node in nodes:
        inside = node.get("below") or []
        given = node.get("numa_node")
        device = Device(
            at=node["at"],
            name=node["device"],
            kind=kinds[node["device"]],
            numa_node=numa if given is None else given,
            parents=parents,
            below=tuple(child["at"] for child in inside),
            own_speed=node.get("current_speed"),
            own_width=node.get("current_width"),
        )
        yield device
        yield from _walk(inside, kinds, device.numa_node, (*parents, device))


def rate_gts(speed: str) -> float:
    """The number in `32.0 GT/s PCIe`."""
    return float(speed.split(maxsplit=1)[0])


def generation(speed: str) -> int:
    """The PCIe generation of a link speed."""
    return {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}[rate_gts(speed)]


def nvml_address(at: str) -> str:
    """A PCI address as NVML prints it: 00000000:18:00.0."""
    return f"0000{at}".upper()


def expand(cpulist: str) -> CpuIds:
    """The CPUs in a list like `0-47,96-143`, sorted."""
    found: set[int] = set()
    for part in cpulist.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def cpulist(cpus: CpuIds) -> str:
    """Sorted CPUs as the kernel lists them."""
    parts: list[list[int]] = []
    for cpu in cpus:
        if parts and cpu == parts[-1][1] + 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def cpumask(cpus: CpuIds, count: int) -> str:
    """A mask of ``count`` CPUs as the kernel prints it: groups of 32, the highest first and only as wide as needed."""
    mask = sum(1 << cpu for cpu in cpus)
    groups = []
    for low in range(0, count, 32):
        width = (min(32, count - low) + 3) // 4
        groups.append(f"{(mask >> low) & 0xFFFFFFFF:0{width}x}")
    return ",".join(reversed(groups))


def cpu_count(machine: Mapping[str, Any]) -> int:
    """Threads of the machine."""
    cpu = machine["cpu"]
    return int(cpu["sockets"] * cpu["cores_per_socket"] * cpu["threads_per_core"])


def local_cpus(machine: Mapping[str, Any], node: int) -> CpuIds:
    """The CPUs near a device of this NUMA node; all of them when the node is not known (-1)."""
    for entry in machine["numa"]:
        if entry["node"] == node:
            return expand(entry["cpus"])
    return tuple(range(cpu_count(machine)))
