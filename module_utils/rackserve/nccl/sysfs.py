"""What NCCL reads of PCI devices, NUMA nodes and CPUs, below `root`."""

from __future__ import annotations

import re
from pathlib import Path

from ..rdma.sysfs import inside, text

_BDF = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-9a-fA-F]")
_SPEED = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*GT/s")
_EXTENDED_FAMILY = 15
IDS = ("vendor", "device", "subsystem_vendor", "subsystem_device")


def real(root: Path, path: Path) -> Path | None:
    """realpath(3) as the host itself would see it, below `root`; None where there is nothing."""
    found = inside(root, f"/{path.relative_to(root)}")
    return found if found.exists() else None


def is_bdf(name: str) -> bool:
    """Whether a folder's name is that of a PCI device, dddd:bb:dd.f."""
    return bool(_BDF.fullmatch(name))


def bus_id(given: str) -> str:
    """NVML's form (00000000:07:00.0, FFFFFFFF:FF:FF.0) as NCCL writes it (0000:07:00.0, fffffff:ff:ff.0)."""
    domain, _, rest = given.strip().lower().partition(":")
    significant = domain.lstrip("0").rjust(4, "0")
    return f"{significant[-7:]}:{rest}"


def device_path(root: Path, busid: str) -> Path | None:
    """The real folder of a PCI device; None where it is not visible."""
    if not is_bdf(busid):
        return None
    by_bus = root / "sys/class/pci_bus" / busid[:7]
    found = real(root, root / "sys/bus/pci/devices" / busid)
    if found is None:
        bus = real(root, by_bus)
        found = real(root, bus.parent.parent / busid) if bus else None
    return found


def chain(path: Path) -> list[Path]:
    """The device and the bridges above it that NCCL keeps: every other one, up to the root complex."""
    kept = [path]
    while True:
        above = kept[-1].parent
        if not is_bdf(above.name) or not is_bdf(above.parent.name):
            return kept
        kept.append(above.parent)


def pci_attributes(path: Path, busid: str) -> dict[str, str]:
    """Attributes of a <pci> in NCCL's order."""
    found = {"busid": busid, "class": text(path / "class")}
    found.update({name: text(path / name) for name in IDS})
    found = {name: value for name, value in found.items() if value}
    own, above = text(path / "max_link_speed"), text(path.parent / "max_link_speed")
    found["link_speed"] = above if speed_gts(above) < speed_gts(own) else own
    found["link_width"] = str(min(_width(path / "max_link_width"), _width(path.parent / "max_link_width")))
    return found


def speed_gts(given: str) -> float:
    """GT/s of a text as sysfs has it; infinite where it says nothing."""
    match = _SPEED.match(given)
    return float(match[1]) if match else float("inf")


def _width(path: Path) -> int:
    digits = re.match(r"\d+", text(path))
    return int(digits[0]) if digits else 0


def current_width(path: Path) -> int:
    """Lanes in use now; 0 where that is unknown."""
    return _width(path / "current_link_width")


def numa_node(path: Path) -> str:
    """The NUMA node of a device, as sysfs has it; -1 where nothing says."""
    return text(path / "numa_node") or "-1"


def cpu_attributes(root: Path, numaid: str) -> dict[str, str]:
    """Attributes of a <cpu>: numaid, affinity, arch and, on x86, vendor, familyid and modelid as CPUID counts them."""
    found = {"numaid": numaid}
    affinity = text(root / "sys/devices/system/node" / f"node{numaid}" / "cpumap")
    if affinity:
        found["affinity"] = affinity
    info = _first_processor(root)
    if "vendor_id" in info:
        family, model = (int(info.get(name, "0") or 0) for name in ("cpu family", "model"))
        extended = family - _EXTENDED_FAMILY
        found["arch"] = "x86_64"
        found["vendor"] = info["vendor_id"]
        found["familyid"] = str(_EXTENDED_FAMILY + (extended << 4) if extended > 0 else family)
        found["modelid"] = str(model)
    elif "CPU implementer" in info:
        found["arch"] = "arm64"
    elif "POWER" in info.get("cpu", ""):
        found["arch"] = "ppc64"
    return found


def _first_processor(root: Path) -> dict[str, str]:
    lines = text(root / "proc/cpuinfo").split("\n\n", 1)[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs if key.strip()}


def switch_links(root: Path, busid: str) -> list[str]:
    """Switches that a Broadcom switch reaches directly, where its driver says so."""
    folder = root / "sys/kernel/pci_switch_link/virtual_switch_links" / busid
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
    return [name for name in names if is_bdf(name) and device_path(root, name)]
