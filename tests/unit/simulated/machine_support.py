"""Readers that know nothing of the builder: PCI configuration space, and what NCCL makes of sysfs."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).resolve().parents[3]
BDF = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
NAMES = ["h20-8", "h20-3e-8", "h100-sxm-8", "h200-8", "h100-nvl-8", "rtx5090-1", "h100-x4-vm"]
IDS = ("class", "vendor", "device", "subsystem_vendor", "subsystem_device")
SPEEDS = {1: "2.5", 2: "5.0", 3: "8.0", 4: "16.0", 5: "32.0", 6: "64.0"}


def profile_of(name: str) -> dict[str, Any]:
    """A profile of the library, as written."""
    data: dict[str, Any] = yaml.safe_load((REPO / f"files/hardware/{name}.yml").read_text())
    return data


@dataclass
class Config:
    """What lspci would print of a `config` file."""

    ids: tuple[str, str, str]
    revision: str
    bridge: bool
    buses: tuple[int, int, int]
    subsystem: tuple[str, str] = ("", "")
    port_type: int | None = None
    most: tuple[str, int] = ("", 0)
    now: tuple[str, int] = ("", 0)
    extended: dict[int, bytes] = field(default_factory=dict)


def read_config(path: Path) -> Config:
    """Walk header, capabilities and extended capabilities, as the specification says."""
    raw = path.read_bytes()
    vendor, device = struct.unpack_from("<HH", raw)
    code = int.from_bytes(raw[0x09:0x0C], "little")
    bridge = raw[0x0E] & 0x7F == 1
    ids = (f"0x{vendor:04x}", f"0x{device:04x}", f"0x{code:06x}")
    found = Config(ids, f"0x{raw[8]:02x}", bridge, (raw[0x18], raw[0x19], raw[0x1A]))
    if not bridge:
        found.subsystem = _pair(raw, 0x2C)
    here = raw[0x34] if raw[0x06] & 0x10 else 0
    while here:
        if raw[here] == 0x0D:
            found.subsystem = _pair(raw, here + 4)
        elif raw[here] == 0x10:
            (flags,) = struct.unpack_from("<H", raw, here + 0x02)
            (cap,) = struct.unpack_from("<I", raw, here + 0x0C)
            (status,) = struct.unpack_from("<H", raw, here + 0x12)
            found.port_type = flags >> 4 & 0xF
            found.most = (f"{SPEEDS[cap & 0xF]} GT/s PCIe", cap >> 4 & 0x3F)
            found.now = (f"{SPEEDS[status & 0xF]} GT/s PCIe", status >> 4 & 0x3F)
        here = raw[here + 1]
    here = 0x100 if len(raw) > 256 else 0
    while here and (header := int.from_bytes(raw[here : here + 4], "little")):
        found.extended[header & 0xFFFF] = raw[here : here + 8]
        here = header >> 20
    return found


def _pair(raw: bytes, at: int) -> tuple[str, str]:
    first, second = struct.unpack_from("<HH", raw, at)
    return f"0x{first:04x}", f"0x{second:04x}"


def text(path: Path) -> str:
    """A file as a tool reads it; the reading's error where it is not there."""
    try:
        return path.read_text().rstrip("\n")
    except FileNotFoundError:
        return "!FileNotFoundError"


def nccl_chain(root: Path, bdf: str) -> list[dict[str, str]]:
    """The `pci` elements NCCL makes from sysfs for a device, itself first; the last holds `numa_node` too."""
    node = Path(os.path.realpath(root / "sys/class/pci_bus" / bdf[:7] / "../.." / bdf))
    chain = []
    while True:
        above = node.parent
        speeds = [text(place / "max_link_speed") for place in (node, above)]
        widths = [text(place / "max_link_width") for place in (node, above)]
        known = [speed for speed in speeds if not speed.startswith("!")]
        chain.append(
            {
                "busid": node.name,
                **{
                    name: text(node / name)
                    for name in ("class", "vendor", "device", "subsystem_vendor", "subsystem_device")
                },
                "link_speed": min(known, key=lambda speed: float(speed.split()[0]), default=""),
                "link_width": str(min(0 if width.startswith("!") else int(width) for width in widths)),
            }
        )
        if not BDF.fullmatch(above.name) or not BDF.fullmatch(above.parent.name):
            break
        node = above.parent
    chain[-1]["numa_node"] = text(node / "numa_node")
    return chain
