"""Whether IOMMU and ACS send what GPUs and adapters say to each other the long way. Read, never set."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from ..preflight.findings import Finding, finding

_PCI = "sys/bus/pci/devices"
_NVIDIA = "0x10de"
_DISPLAY = "0x03"
_EXTENDED = 0x100
_CAPABILITIES = 64  # more than fit, so that a broken chain ends
_ACS = 0x0D
_REDIRECTS = 0x04 | 0x08  # of requests, of completions
_SHOWN = 4


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""


def our_devices(root: Path) -> list[Path]:
    """Folders in sysfs of GPUs and RDMA adapters, links resolved, in the order of their addresses."""
    gpus = [
        entry
        for entry in (root / _PCI).glob("*")
        if _text(entry / "vendor") == _NVIDIA and _text(entry / "class").startswith(_DISPLAY)
    ]
    adapters = [entry / "device" for entry in (root / "sys/class/infiniband").glob("*") if (entry / "device").exists()]
    return sorted({entry.resolve() for entry in [*gpus, *adapters]}, key=lambda path: path.name)


def acs_control(config: bytes) -> int:
    """The ACS control register in a configuration space; 0 where there is none, or the extended part was not read."""
    at = _EXTENDED
    for _ in range(_CAPABILITIES):
        if at < _EXTENDED or at + 8 > len(config):
            break
        header, _can, control = struct.unpack_from("<IHH", config, at)
        if header & 0xFFFF == _ACS:
            return int(control)
        at = header >> 20
    return 0


def _bridges(device: Path) -> Iterator[Path]:
    parent = device.parent
    while (parent / "config").is_file():
        yield parent
        parent = parent.parent


def _named(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def isolation_findings(root: Path) -> list[Finding]:
    """Report translated DMA and redirected peer traffic of our devices, each with the boot parameter that mends it.

    In a virtual machine both belong to the machine below it, and nothing is said.
    """
    if " hypervisor" in _text(root / "proc/cpuinfo"):
        return []
    devices = our_devices(root)
    found = []
    translated = [device for device in devices if _text(device / "iommu_group/type").startswith("DMA")]
    if translated:
        found.append(
            finding(
                "warning",
                "iommu-translates",
                f"PCI {_named([device.name for device in translated])}",
                "the IOMMU translates every access of these devices, which slows RDMA and GPU peer traffic",
                "add iommu=pt to GRUB_CMDLINE_LINUX in /etc/default/grub, update-grub, reboot the drained host",
            )
        )
    bridges = {bridge for device in devices for bridge in _bridges(device)}
    redirecting = sorted(
        bridge.name for bridge in bridges if acs_control((bridge / "config").read_bytes()) & _REDIRECTS
    )
    if redirecting:
        found.append(
            finding(
                "warning",
                "acs-redirects",
                f"PCI bridge {_named(redirecting)}",
                "ACS sends what GPUs and adapters below it say to each other up to the CPU and back",
                f"turn ACS off in the firmware, or add 'pci=disable_acs_redir={';'.join(redirecting)}' (quoted) to "
                "GRUB_CMDLINE_LINUX in /etc/default/grub, update-grub, reboot the drained host",
            )
        )
    return found
