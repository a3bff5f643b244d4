"""The fields of a profile's `machine`: the host that the lab simulates."""

from __future__ import annotations

from ..plan.schema import Field

_ADDRESS = Field(
    "text",
    "A PCI address as sysfs writes it, like 0000:18:00.0.",
    required=True,
    pattern=r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]",
    pattern_means="a PCI address (dddd:bb:dd.f, lower case)",
)
_SPEEDS = tuple(f"{rate} GT/s PCIe" for rate in ("2.5", "5.0", "8.0", "16.0", "32.0", "64.0"))
_GUID = r"([0-9a-f]{4}:){3}[0-9a-f]{4}"
_CPULIST = r"\d+(-\d+)?(,\d+(-\d+)?)*"


def _text(doc: str, nullable: bool = False) -> Field:
    return Field("text", doc, required=not nullable, nullable=nullable)


def _name(doc: str) -> Field:
    means = "a name (letters, digits, _ and -; at most 31)"
    return Field("text", doc, required=True, pattern=r"[A-Za-z][A-Za-z0-9_-]{0,30}", pattern_means=means)


def _matching(doc: str, pattern: str, means: str) -> Field:
    return Field("text", doc, required=True, pattern=pattern, pattern_means=means)


def _hex(doc: str, digits: int) -> Field:
    return _matching(doc, f"0x[0-9a-f]{{{digits}}}", f"0x and {digits} lower-case hexadecimal digits")


def _whole(doc: str, low: int = 0, high: int = 2**53, default: int | None = None) -> Field:
    return Field("whole", doc, required=default is None, default=default, low=low, high=high)


def _kinds(doc: str, *choices: str, default: str | None = None) -> Field:
    return Field("text", doc, required=default is None, default=default, choices=choices)


NODE = Field(
    "object",
    "A device of the PCIe tree.",
    keys={
        "at": _ADDRESS,
        "device": _text("Its kind: a key of `devices`."),
        "numa_node": Field("whole", "NUMA node; default: its parent's.", nullable=True, low=-1, high=255),
        "current_speed": Field("text", "Speed now; default: what both ends can.", nullable=True, choices=_SPEEDS),
        "current_width": Field("whole", "Lanes now; default: what both ends can.", nullable=True, low=1, high=32),
        "below": Field("list", "Devices behind this bridge."),
    },
)

LINK_ENDS = Field(
    "list",
    "Where the NVLinks of a GPU end, in order.",
    item=Field("object", "", keys={"at": _ADDRESS, "links": _whole("Links that end there.", 1, 64)}),
)

_DEVICE = Field(
    "object",
    "A kind of PCI device.",
    keys={
        "vendor": _hex("Vendor.", 4),
        "device": _hex("Device.", 4),
        "subsystem_vendor": _hex("Subsystem's vendor.", 4),
        "subsystem_device": _hex("Subsystem.", 4),
        "class": _hex("Class.", 6),
        "revision": _hex("Revision.", 2),
        "port": Field(
            "text",
            "What it is on the bus, when it is not a plain endpoint.",
            nullable=True,
            choices=("root_port", "upstream", "downstream"),
        ),
        "max_speed": Field("text", "Fastest link; none: not a PCIe device.", nullable=True, choices=_SPEEDS),
        "max_width": Field("whole", "Most lanes.", nullable=True, low=1, high=32),
        "driver": _text("Kernel driver that is bound when the host boots.", nullable=True),
    },
)

_GID = Field(
    "object",
    "An entry of a port's GID table.",
    keys={
        "gid": _matching("The GID.", r"([0-9a-f]{4}:){7}[0-9a-f]{4}", "eight groups of four hexadecimal digits"),
        "type": _kinds("Its type.", "IB/RoCE v1", "RoCE v2"),
        "ndev": _text("Network interface it belongs to.", nullable=True),
    },
)

_PORT = Field(
    "object",
    "A port of an adapter.",
    keys={
        "rate": _matching("Rate.", r"\d+(\.\d)? Gb/sec \(\d+X [A-Z0-9]+\)", "a rate like 200 Gb/sec (4X HDR)"),
        "link_layer": _kinds("Link layer.", "InfiniBand", "Ethernet"),
        "state": _kinds("Logical state.", "DOWN", "INIT", "ARMED", "ACTIVE", default="ACTIVE"),
        "phys_state": _kinds("Physical state.", "Disabled", "Polling", "LinkUp", default="LinkUp"),
        "lid": _whole("Its address in the subnet.", 0, 65535, 0),
        "sm_lid": _whole("Address of the subnet manager.", 0, 65535, 0),
        "gids": Field("list", "GID table; the rest is empty.", low=1, item=_GID),
    },
)

_HCA = Field(
    "object",
    "A host channel adapter.",
    keys={
        "name": _name("Name, like mlx5_0."),
        "at": _ADDRESS,
        "netdev": _name("Its network interface."),
        "driver": _kinds("Kernel driver.", "mlx5_core", default="mlx5_core"),
        "fw_ver": _text("Firmware."),
        "hca_type": _text("Type, like MT4129."),
        "board_id": _text("Board, like MT_0000000838."),
        "node_guid": _matching("GUID; also the image's.", _GUID, "four groups of four hexadecimal digits"),
        "mtu": _whole("MTU of the interface.", 68, 65520),
        "ports": Field("list", "Ports, the first is number 1.", required=True, low=1, item=_PORT),
    },
)

_ETHERNET = Field(
    "object",
    "A network adapter that is not for the fabric.",
    keys={
        "netdev": _name("Its network interface."),
        "at": _ADDRESS,
        "address": _matching("MAC address.", r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "a MAC address in lower case"),
        "speed_mbps": _whole("Speed, Mb/s.", 1, 10**6),
        "mtu": _whole("MTU.", 68, 65520, 1500),
    },
)

_DISK = Field(
    "object",
    "An NVMe disk with one namespace.",
    keys={
        "name": _matching("Controller, like nvme0.", r"nvme\d+", "nvme and a number"),
        "at": _ADDRESS,
        "model": _text("Model."),
        "serial": _text("Serial number."),
        "firmware": _text("Firmware."),
        "size_bytes": _whole("Size.", 512),
    },
)

_NUMA = Field(
    "object",
    "A NUMA node.",
    keys={
        "node": _whole("Its number.", 0, 255),
        "cpus": _matching("Its CPUs.", _CPULIST, "a list of CPUs like 0-47,96-143"),
        "memory_mib": _whole("Its memory.", 1),
        "distance": Field("list", "Distance to every node.", required=True, low=1, item=_whole("A distance.", 10, 255)),
    },
)

_CPU = Field(
    "object",
    "The processors.",
    required=True,
    keys={
        "vendor": _kinds("Vendor as /proc/cpuinfo has it.", "GenuineIntel", "AuthenticAMD"),
        "family": _whole("Family.", 1, 255),
        "model": _whole("Model.", 0, 255),
        "stepping": _whole("Stepping.", 0, 255, 0),
        "model_name": _text("Name."),
        "mhz": _whole("Clock, MHz.", 1, 10000),
        "flags": _text("Feature flags, as many as are known.", nullable=True),
        "sockets": _whole("Sockets.", 1, 16),
        "cores_per_socket": _whole("Cores of one.", 1, 1024),
        "threads_per_core": _whole("Threads of a core.", 1, 8),
    },
)

_DEVICES = Field(
    "map", "Kinds of PCI devices.", pattern=r"[a-z][a-z0-9_]*", pattern_means="a kind (a-z, 0-9, _)", item=_DEVICE
)

MACHINE = Field(
    "object",
    "The machine.",
    required=True,
    keys={
        "platform": _kinds("Virtual machines do not see the NVSwitches.", "bare_metal", "virtual"),
        "cpu": _CPU,
        "numa": Field("list", "NUMA nodes.", required=True, low=1, item=_NUMA),
        "gpu": Field("argument", "What all GPUs share, in the words of the state."),
        "gpus": Field("list", "Each GPU: `at` and what differs.", required=True, low=1, item=Field("argument", "")),
        "nvswitches": Field("list", "Addresses of NVSwitches.", item=_ADDRESS),
        "devices": _DEVICES,
        "pcie": Field("list", "The PCIe tree.", required=True, low=1),
        "modules": Field("list", "Kernel modules the host has loaded.", item=_name("A module.")),
        "hcas": Field("list", "Host channel adapters.", item=_HCA),
        "ethernets": Field("list", "Other network adapters.", item=_ETHERNET),
        "disks": Field("list", "NVMe disks.", item=_DISK),
    },
)
