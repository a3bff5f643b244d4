"""sysfs of PCI devices and NUMA nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..hardware.tree import CpuIds, Device, cpu_count, cpulist, cpumask, expand, local_cpus
from .config_space import config
from .folder import Folder

# What the kernel prints for a region that is not there: start, end, flags.
_NO_REGION = "0x0000000000000000 0x0000000000000000 0x0000000000000000"
_REGIONS, _REGIONS_OF_BRIDGE = 7, 17


def add_devices(folder: Folder, machine: Mapping[str, Any], tree: list[Device]) -> None:
    """Every device with its attributes, links of buses and drivers."""
    for device in tree:
        _device(folder, machine, device, tree)
    for root in {device.path.split("/")[0] for device in tree}:
        where = f"sys/devices/{root}"
        folder.opaque.add(where)
        folder.write(f"{where}/uevent", b"")
        numa = next(device.numa_node for device in tree if device.path.startswith(f"{root}/"))
        _bus(folder, machine, where, root[len("pci") :], numa)


def _device(folder: Folder, machine: Mapping[str, Any], device: Device, tree: list[Device]) -> None:
    where = sysfs(device)
    kind = device.kind
    near = local_cpus(machine, device.numa_node)
    modalias = _modalias(kind)
    names: tuple[str, ...] = ("vendor", "device", "subsystem_vendor", "subsystem_device", "class", "revision")
    folder.write_all(where, {name: kind[name] for name in names})
    folder.write_all(
        where,
        {
            "numa_node": device.numa_node,
            "local_cpus": cpumask(near, cpu_count(machine)),
            "local_cpulist": cpulist(near),
            "modalias": modalias,
            "enable": 1,
            "irq": 0,
            "resource": "\n".join([_NO_REGION] * (_REGIONS_OF_BRIDGE if device.is_bridge else _REGIONS)),
            "uevent": _uevent(device, modalias),
        },
    )
    if kind["max_speed"]:
        folder.write_all(
            where,
            {
                "max_link_speed": kind["max_speed"],
                "max_link_width": kind["max_width"] or 1,
                "current_link_speed": device.current_speed or kind["max_speed"],
                "current_link_width": device.current_width or kind["max_width"] or 1,
            },
        )
    folder.write(f"{where}/config", config(device, _last_bus(device, tree)))
    folder.link(f"{where}/subsystem", "sys/bus/pci")
    folder.link(f"sys/bus/pci/devices/{device.at}", where)
    if kind["driver"]:
        driver = f"sys/bus/pci/drivers/{kind['driver']}"
        folder.link(f"{where}/driver", driver)
        folder.link(f"{driver}/{device.at}", where)
    if device.below:
        _bus(folder, machine, where, device.below[0].rsplit(":", 1)[0], device.numa_node)


def sysfs(device: Device) -> str:
    """The device's folder in the machine's folder."""
    return f"sys/devices/{device.path}"


def _bus(folder: Folder, machine: Mapping[str, Any], where: str, bus: str, numa: int) -> None:
    here = f"{where}/pci_bus/{bus}"
    near = local_cpus(machine, numa)
    folder.write_all(here, {"cpuaffinity": cpumask(near, cpu_count(machine)), "cpulistaffinity": cpulist(near)})
    folder.write(f"{here}/uevent", b"")
    folder.class_link("pci_bus", bus, where)


def _last_bus(device: Device, tree: list[Device]) -> int:
    return max((other.bus_number for other in tree if device in other.parents), default=0)


def _modalias(kind: Mapping[str, Any]) -> str:
    ids = [kind[name][2:].upper() for name in ("vendor", "device", "subsystem_vendor", "subsystem_device")]
    base, sub, interface = (kind["class"][start : start + 2] for start in (2, 4, 6))
    vendor, device, subsystem_vendor, subsystem = (f"0000{part}" for part in ids)
    return f"pci:v{vendor}d{device}sv{subsystem_vendor}sd{subsystem}bc{base}sc{sub}i{interface}"


def _uevent(device: Device, modalias: str) -> str:
    kind = device.kind
    lines = [f"DRIVER={kind['driver']}"] if kind["driver"] else []
    lines += [
        f"PCI_CLASS={int(kind['class'], 16):X}",
        f"PCI_ID={kind['vendor'][2:].upper()}:{kind['device'][2:].upper()}",
        f"PCI_SUBSYS_ID={kind['subsystem_vendor'][2:].upper()}:{kind['subsystem_device'][2:].upper()}",
        f"PCI_SLOT_NAME={device.at}",
        f"MODALIAS={modalias}",
    ]
    return "\n".join(lines)


def add_nodes(folder: Folder, machine: Mapping[str, Any]) -> None:
    """sys/devices/system/node."""
    where = "sys/devices/system/node"
    folder.opaque.add(where)
    nodes: CpuIds = tuple(entry["node"] for entry in machine["numa"])
    for name in ("online", "possible", "has_cpu", "has_memory", "has_normal_memory"):
        folder.write(f"{where}/{name}", cpulist(nodes))
    for entry in machine["numa"]:
        here, cpus = f"{where}/node{entry['node']}", expand(entry["cpus"])
        folder.write_all(
            here,
            {
                "cpulist": cpulist(cpus),
                "cpumap": cpumask(cpus, cpu_count(machine)),
                "distance": " ".join(str(distance) for distance in entry["distance"]),
                "meminfo": _meminfo(entry["node"], entry["memory_mib"] * 1024),
                "numastat": "numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\nlocal_node 0\nother_node 0",
            },
        )


def add_frequencies(folder: Folder, machine: Mapping[str, Any]) -> None:
    """sys/devices/system/cpu/cpufreq, one policy a NUMA node, as after a boot; virtual machines have none."""
    where = "sys/devices/system/cpu/cpufreq"
    folder.opaque.add(where)
    folder.empty.add(where)
    for entry in machine["numa"] if machine["platform"] == "bare_metal" else ():
        cpus = " ".join(str(number) for number in expand(entry["cpus"]))
        folder.write_all(
            f"{where}/policy{cpus.split(maxsplit=1)[0]}",
            {
                "affected_cpus": cpus,
                "related_cpus": cpus,
                "scaling_driver": "intel_pstate" if machine["cpu"]["vendor"] == "GenuineIntel" else "acpi-cpufreq",
                "scaling_available_governors": "performance powersave",
                "scaling_governor": "powersave",
            },
        )


_IN_USE = (
    *("MemUsed", "SwapCached", "Active", "Inactive", "Active(anon)", "Inactive(anon)", "Active(file)"),
    *("Inactive(file)", "Unevictable", "Mlocked", "Dirty", "Writeback", "FilePages", "Mapped", "AnonPages", "Shmem"),
    *("KernelStack", "PageTables", "KReclaimable", "Slab", "SReclaimable", "SUnreclaim", "AnonHugePages"),
)


def _meminfo(node: int, total_kib: int) -> str:
    # Engines on CPUs read the file caches too, and fail where a line is missing.
    sizes = {"MemTotal": total_kib, "MemFree": total_kib, **dict.fromkeys(_IN_USE, 0)}
    lines = [f"Node {node} {name + ':':<15} {size:>8} kB" for name, size in sizes.items()]
    lines += [f"Node {node} {'HugePages_' + name + ':':<16} {0:>5}" for name in ("Total", "Free", "Surp")]
    return "\n".join(lines)
