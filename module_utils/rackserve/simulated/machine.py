"""From a hardware profile to a machine: the folder with its state, sysfs and proc that a lab host gets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..hardware.profile import ProfileError, load
from ..hardware.tree import Device, cpu_count, cpulist, devices, expand, generation, local_cpus, nvml_address
from .adapters import add_adapters
from .folder import Folder
from .pci import add_devices, add_frequencies, add_nodes
from .state import format_state

_UUID = "GPU-51300000-0000-0000-0000-{:012d}"
_TAB = 8
_LINK_ERRORS = ("crc_flit", "crc_data", "replay", "recovery")


def machine_folder(name: str, profile: Mapping[str, Any]) -> Folder:
    """Everything the machine of a profile shows. Raises ProfileError when the profile is wrong."""
    machine = load(profile, f"hardware profile {name}")["machine"]
    if machine is None:
        raise ProfileError(f"hardware profile {name} has no machine to simulate; add `machine` (docs/hardware.md)")
    tree = devices(machine)
    folder = Folder()
    folder.write("state", format_state(gpu_state(machine, tree)).encode("ascii"))
    folder.write("profile.json", json.dumps({"name": name, "simulated": True, **profile}, indent=1, sort_keys=True))
    add_devices(folder, machine, tree)
    add_nodes(folder, machine)
    add_frequencies(folder, machine)
    add_adapters(folder, machine, {device.at: device for device in tree})
    folder.write("proc/cpuinfo", cpuinfo(machine))
    return folder


def path_of(folder: Folder, name: str, machines: Path) -> Path:
    """Where a machine lies among others; the content's digest is part of the name."""
    return machines / f"{name}-{folder.digest()}"


def build(name: str, profile: Mapping[str, Any], machines: Path) -> tuple[Path, bool]:
    """Write the machine below ``machines`` unless it is there; return its path and whether it was written."""
    folder = machine_folder(name, profile)
    path = path_of(folder, name, machines)
    if path.is_dir():
        return path, False
    machines.mkdir(parents=True, exist_ok=True)
    folder.save(path)
    return path, True


def gpu_state(machine: Mapping[str, Any], tree: list[Device]) -> dict[str, str]:
    """The state of healthy hardware: each GPU's keys, and how many GPUs and NVSwitches there are."""
    places = {device.at: device for device in tree}
    values = {"gpu.count": str(len(machine["gpus"])), "nvswitch.count": str(len(machine["nvswitches"]))}
    for index, at in enumerate(machine["nvswitches"]):
        values[f"nvswitch.{index}.pci.bus_id"] = nvml_address(at)
    for index, gpu in enumerate(machine["gpus"]):
        own = {key: value for key, value in gpu.items() if key != "at"}
        keys = _merge(_merge(_derived(machine, places[gpu["at"]], index), machine["gpu"]), own)
        keys["nvlink"] = _links(keys.get("nvlink", {}))
        values.update((f"gpu.{index}.{key}", value) for key, value in _flat(keys))
    return values


def _derived(machine: Mapping[str, Any], device: Device, index: int) -> dict[str, Any]:
    """What the tree says of a GPU."""
    kind = device.kind
    keys: dict[str, Any] = {
        "uuid": _UUID.format(index),
        "minor_number": index,
        "pci": {
            "bus_id": nvml_address(device.at),
            "class": kind["class"],
            "device_id": _pair(kind["device"], kind["vendor"]),
            "subsystem_id": _pair(kind["subsystem_device"], kind["subsystem_vendor"]),
        },
        "numa_node": device.numa_node,
        "cpu_affinity": cpulist(local_cpus(machine, device.numa_node)),
    }
    if machine["platform"] == "bare_metal":
        keys["board_id"] = device.bus_number << 8
    if kind["max_speed"]:
        above = device.parents[-1].kind if device.parents else kind
        most = min(generation(kind["max_speed"]), generation(above["max_speed"] or kind["max_speed"]))
        keys["pcie"] = {
            "device_max_gen": generation(kind["max_speed"]),
            "max_gen": most,
            "gen": generation(device.current_speed or kind["max_speed"]),
            "max_width": min(kind["max_width"], above["max_width"] or kind["max_width"]),
            "width": device.current_width,
        }
    return keys


def _pair(device: str, vendor: str) -> str:
    return f"0x{device[2:].upper()}{vendor[2:].upper()}"


def _links(nvlink: Mapping[str, Any]) -> dict[str, Any]:
    """NVLinks one by one; `to` says in order how many go where, else all go to `remote`."""
    given = {key: value for key, value in nvlink.items() if key != "to"}
    ends = [nvml_address(part["at"]) for part in nvlink.get("to") or [] for _ in range(part["links"])]
    for number in range(int(nvlink.get("count", 0))):
        link: dict[str, Any] = {"state": 1, "errors": dict.fromkeys(_LINK_ERRORS, 0)}
        if ends:
            link["remote"] = ends[number]
        given[str(number)] = _merge(link, nvlink.get(str(number), {}))
    return given


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, part in value.items():
        if isinstance(part, Mapping):
            yield from _flat(part, f"{prefix}{key}.")
        elif isinstance(part, list):
            yield f"{prefix}{key}", ",".join(_text(item) for item in part)
        else:
            yield f"{prefix}{key}", _text(part)


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def cpuinfo(machine: Mapping[str, Any]) -> str:
    """A whole /proc/cpuinfo, for tools that take a root."""
    cpu = machine["cpu"]
    cores, threads = cpu["cores_per_socket"], cpu["threads_per_core"]
    node_of = {number: entry["node"] for entry in machine["numa"] for number in expand(entry["cpus"])}
    blocks, seen = [], dict.fromkeys(range(cpu["sockets"]), 0)
    per_socket = max(1, len(machine["numa"]) // cpu["sockets"])
    for number in range(cpu_count(machine)):
        socket = node_of[number] // per_socket
        core = seen[socket] % cores
        seen[socket] += 1
        lines = {
            "processor": number,
            "vendor_id": cpu["vendor"],
            "cpu family": cpu["family"],
            "model": cpu["model"],
            "model name": cpu["model_name"],
            "stepping": cpu["stepping"],
            "cpu MHz": f"{cpu['mhz']}.000",
            "physical id": socket,
            "siblings": cores * threads,
            "core id": core,
            "cpu cores": cores,
            **({"flags": cpu["flags"]} if cpu["flags"] else {}),
        }
        blocks.append("".join(f"{name}{_tabs(name)}: {value}\n" for name, value in lines.items()))
    return "\n".join(blocks)


def _tabs(name: str) -> str:
    return "\t" if len(name) >= _TAB else "\t\t"
