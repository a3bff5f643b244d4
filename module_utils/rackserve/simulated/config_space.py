"""The configuration space of a PCI device, so that `lspci -vv` and `setpci` see what sysfs says."""

from __future__ import annotations

import struct

from ..hardware.tree import Device, generation

PLAIN_BYTES = 256
EXTENDED_BYTES = 4096

_SUBSYSTEM = 0x40
_EXPRESS = 0x50
_ACS = 0x100
_ENDPOINT = 0
_PORT_TYPES = {"root_port": 4, "upstream": 5, "downstream": 6}
# Source validation, translation blocking, request and completion redirect, upstream forwarding, direct translated.
_ACS_CAN = 0x5F


def config(device: Device, last_bus: int) -> bytes:
    """Its bytes; ``last_bus`` is the highest bus below it. Bridges have the extended space.

    Ports that route between devices (root and downstream ports) have an ACS capability with everything off, as on
    a host without IOMMU; an upstream port has none, as the specification wants.
    """
    kind = device.kind
    space = bytearray(EXTENDED_BYTES if device.is_bridge else PLAIN_BYTES)
    struct.pack_into("<HHHH", space, 0x00, _hex(kind["vendor"]), _hex(kind["device"]), 0x0406, 0)
    class_code = _hex(kind["class"])
    space[0x08:0x0C] = bytes([_hex(kind["revision"]), *class_code.to_bytes(3, "little")])
    capabilities = []
    if device.is_bridge:
        space[0x0E] = 1
        below = int(device.below[0][5:7], 16) if device.below else 0
        space[0x18:0x1B] = bytes([device.bus_number, below, last_bus if below else 0])
        struct.pack_into("<BBHHH", space, _SUBSYSTEM, 0x0D, 0, 0, *_subsystem(device))
        capabilities.append(_SUBSYSTEM)
    else:
        struct.pack_into("<HH", space, 0x2C, *_subsystem(device))
    if kind["max_speed"]:
        _express(space, device)
        capabilities.append(_EXPRESS)
    _chain(space, capabilities)
    if device.is_bridge and kind["port"] in ("root_port", "downstream"):
        struct.pack_into("<IHH", space, _ACS, 0x0001000D, _ACS_CAN, 0)
    return bytes(space)


def _subsystem(device: Device) -> tuple[int, int]:
    return _hex(device.kind["subsystem_vendor"]), _hex(device.kind["subsystem_device"])


def _express(space: bytearray, device: Device) -> None:
    most, lanes = generation(device.kind["max_speed"]), device.kind["max_width"] or 1
    speed, width = generation(device.current_speed or device.kind["max_speed"]), device.current_width or lanes
    port_type = _PORT_TYPES.get(device.kind["port"] or "", _ENDPOINT)
    struct.pack_into("<BBH", space, _EXPRESS, 0x10, 0, 2 | port_type << 4)
    struct.pack_into("<IHH", space, _EXPRESS + 0x0C, most | lanes << 4, 0, speed | width << 4)
    struct.pack_into("<IH", space, _EXPRESS + 0x2C, (2**most - 1) << 1, most)


def _chain(space: bytearray, capabilities: list[int]) -> None:
    if capabilities:
        space[0x06] |= 0x10
        space[0x34] = capabilities[0]
    for here, following in zip(capabilities, capabilities[1:]):
        space[here + 1] = following


def _hex(text: str) -> int:
    return int(text, 16)
