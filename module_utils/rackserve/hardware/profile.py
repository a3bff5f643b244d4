"""A hardware profile: what the plan reads, and the machine that the lab simulates, checked against each other."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ..plan.description import HARDWARE
from ..plan.findings import Findings, as_dict
from ..plan.schema import validate
from .provenance import Problem, check_provenance
from .schema import LINK_ENDS, MACHINE, NODE
from .tree import Device, cpu_count, devices, expand

GPU_CLASS = "0x03"
NVSWITCH_CLASS = "0x0680"
_STATE_WORD = re.compile(r"[a-z0-9_]+")


class ProfileError(Exception):
    """A profile is wrong; the text is one line for each problem."""


def load(profile: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The profile with its machine's defaults filled in; raises ProfileError with every problem, one a line."""
    problems, full = _check(profile, where)
    if problems:
        raise ProfileError("\n".join(problems))
    return full


def problems(profile: Mapping[str, Any], where: str) -> list[str]:
    """Everything that is wrong with a profile, one line each: where, what, how to fix it."""
    return _check(profile, where)[0]


def _check(profile: Mapping[str, Any], where: str) -> tuple[list[str], dict[str, Any]]:
    findings = Findings()
    planned = validate(HARDWARE, dict(profile), where, findings)
    if as_dict(planned).get("machine") is None:
        return _lines(findings), planned
    machine = copy.deepcopy(validate(MACHINE, planned["machine"], f"{where}.machine", findings))
    if isinstance(planned["machine"], Mapping):
        machine["pcie"] = _nodes(machine["pcie"], f"{where}.machine.pcie", machine["devices"], findings)
        for spot, part in _gpu_parts(machine):
            ends = as_dict(as_dict(part).get("nvlink")).get("to")
            validate(LINK_ENDS, ends, f"{where}.machine.{spot}.nvlink.to", findings)
    found = [(f"machine.{spot}", text) for spot, text in _check_gpus(machine)]
    full = {**planned, "machine": machine}
    if not findings.items and not found:
        found += _check_tree(full) + _check_attached(full) + _check_plan(full)
    found += check_provenance(profile)
    return [*_lines(findings), *(f"{where}: {spot} {text}." for spot, text in found)], full


def _lines(findings: Findings) -> list[str]:
    return [f"{item['why']} {item['fix']}" for item in findings.sorted()]


def _nodes(nodes: Any, where: str, kinds: Mapping[str, Any], findings: Findings) -> list[dict[str, Any]]:
    checked = []
    for index, given in enumerate(nodes):
        spot = f"{where}[{index}]"
        node = validate(NODE, given if given is not None else "", spot, findings)
        if node["device"] and node["device"] not in kinds:
            why = f'{spot}: there is no kind "{node["device"]}" in machine.devices.'
            findings.error("unknown-device", spot, why, f"Known: {', '.join(kinds)}.")
        checked.append({**node, "below": _nodes(node["below"], f"{spot}.below", kinds, findings)})
    return checked


def _gpu_parts(machine: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [("gpu", machine["gpu"]), *((f"gpus.{index}", gpu) for index, gpu in enumerate(machine["gpus"]))]


def _check_gpus(machine: Mapping[str, Any]) -> Iterator[Problem]:
    for spot, part in _gpu_parts(machine):
        if not isinstance(part, Mapping):
            yield spot, "must be an object; write keys of the GPU's state"
            continue
        yield from _check_state(spot, part)
        if spot != "gpu" and not isinstance(part.get("at"), str):
            yield spot, "has no address; add `at`"


def _check_state(spot: str, part: Mapping[str, Any]) -> Iterator[Problem]:
    for key, value in part.items():
        here = f"{spot}.{key}"
        if not _STATE_WORD.fullmatch(str(key)):
            yield here, "is no word of the state (a-z, 0-9, _); rename it"
        elif isinstance(value, Mapping):
            yield from _check_state(here, value)
        elif value is None or isinstance(value, float):
            yield here, "must be text, a whole number, true, false or a list; change it"


def _check_tree(profile: Mapping[str, Any]) -> list[Problem]:
    machine = profile["machine"]
    tree = devices(machine)
    found: list[Problem] = []
    for at, times in Counter(device.at for device in tree).items():
        if times > 1:
            found.append(("machine.pcie", f"has {at} {times} times; give each device its own address"))
    known = {-1, *(entry["node"] for entry in machine["numa"])}
    for device in tree:
        if device.numa_node not in known:
            found.append(("machine.pcie", f"puts {device.at} on NUMA node {device.numa_node}; add it to machine.numa"))
        found += [("machine.pcie", text) for text in _check_bridge(device)]
    unused = set(machine["devices"]) - {device.name for device in tree}
    found += [(f"machine.devices.{kind}", "is nowhere in the tree; remove it") for kind in sorted(unused)]
    return found + _check_numa(machine)


def _check_bridge(device: Device) -> Iterator[str]:
    if device.below and not device.is_bridge:
        yield f"puts devices below {device.at}, which is no bridge; move them"
    buses = {at.rsplit(":", 1)[0] for at in device.below}
    if len(buses) > 1:
        yield f"has devices of buses {', '.join(sorted(buses))} directly below {device.at}; one bridge has one bus"
    if buses and min(buses) <= device.bus:
        yield f"gives {device.at} the bus {min(buses)} below it; buses below a bridge have higher numbers"


def _check_numa(machine: Mapping[str, Any]) -> list[Problem]:
    cpus = sorted(cpu for entry in machine["numa"] for cpu in expand(entry["cpus"]))
    found: list[Problem] = []
    if cpus != list(range(cpu_count(machine))):
        text = f"does not hold each of the {cpu_count(machine)} CPUs once; make numa and cpu agree"
        found.append(("machine.numa", text))
    if [entry["node"] for entry in machine["numa"]] != list(range(len(machine["numa"]))):
        found.append(("machine.numa", "must list nodes 0, 1, … in order; renumber them"))
    if any(len(entry["distance"]) != len(machine["numa"]) for entry in machine["numa"]):
        found.append(("machine.numa", "needs a distance to every node; add the missing ones"))
    return found


def _check_attached(profile: Mapping[str, Any]) -> list[Problem]:
    """What hangs on the tree stands there as what it is, and nothing else of its class does."""
    machine = profile["machine"]
    tree = {device.at: device for device in devices(machine)}
    found: list[Problem] = []
    for part, prefixes in (("gpus", (GPU_CLASS,)), ("hcas", ("0x02",)), ("ethernets", ("0x02",)), ("disks", ("0x01",))):
        for index, entry in enumerate(machine[part]):
            found += _check_place(f"machine.{part}.{index}", entry["at"], tree, prefixes)
    for index, at in enumerate(machine["nvswitches"]):
        found += _check_place(f"machine.nvswitches.{index}", at, tree, (NVSWITCH_CLASS,))
    listed = {gpu["at"] for gpu in machine["gpus"]}
    for device in tree.values():
        if device.kind["class"].startswith(GPU_CLASS) and device.kind["vendor"] == "0x10de" and device.at not in listed:
            found.append(("machine.pcie", f"has a GPU at {device.at} that machine.gpus does not list; add it"))
    ends = [entry["at"] for part in ("gpus", "hcas", "ethernets", "disks") for entry in machine[part]]
    names = [entry["netdev"] for part in ("hcas", "ethernets") for entry in machine[part]]
    names += [entry["name"] for part in ("hcas", "disks") for entry in machine[part]]
    for word, times in Counter([*ends, *machine["nvswitches"], *names]).items():
        if times > 1:
            found.append(("machine", f"uses {word} {times} times; addresses and names are unique"))
    found += list(_check_links(machine, tree))
    if machine["platform"] == "virtual" and machine["nvswitches"]:
        found.append(("machine.nvswitches", "must be empty on a virtual machine, which does not see them; remove them"))
    return found


def _check_links(machine: Mapping[str, Any], tree: Mapping[str, Device]) -> Iterator[Problem]:
    """NVLinks of each GPU end somewhere, all of them."""
    shared = as_dict(machine["gpu"].get("nvlink"))
    for index, gpu in enumerate(machine["gpus"]):
        nvlink = {**shared, **as_dict(gpu.get("nvlink"))}
        spot = f"machine.gpus.{index}.nvlink"
        ends = nvlink.get("to") or []
        if ends and sum(end["links"] for end in ends) != nvlink.get("count"):
            yield spot, f"has ends for {sum(end['links'] for end in ends)} of {nvlink.get('count')} links; correct `to`"
        for at in sorted({end["at"] for end in ends} - set(tree)):
            yield spot, f"ends at {at}, which is not in machine.pcie; correct `to`"
        if nvlink.get("count") and not ends and "remote" not in nvlink:
            yield spot, "does not say where links end; add `to` or `remote`"


def _check_place(spot: str, at: str, tree: Mapping[str, Device], classes: tuple[str, ...]) -> list[Problem]:
    if at not in tree:
        return [(spot, f"is at {at}, which is not in machine.pcie; add it there")]
    seen = tree[at].kind["class"]
    if not seen.startswith(classes):
        return [(spot, f"is at {at}, a device of class {seen}; its class begins with {classes[0]}")]
    return []


def _check_plan(profile: Mapping[str, Any]) -> list[Problem]:
    """What the plan computes with is what the machine has."""
    machine = profile["machine"]
    gpu = machine["gpu"]
    rates = {float(port["rate"].split(maxsplit=1)[0]) for hca in machine["hcas"] for port in hca["ports"]}
    pairs: list[tuple[str, Any, str, Any]] = [
        ("slots", profile["slots"], "machine.gpus", len(machine["gpus"])),
        ("gpu", profile["gpu"], "machine.gpu.name", gpu.get("name")),
        ("memory_mib", profile["memory_mib"], "machine.gpu.memory", _mib(as_dict(gpu.get("memory")))),
        ("power_limit_w", profile["power_limit_w"], "machine.gpu.power.limit_mw", _watts(as_dict(gpu.get("power")))),
        ("hcas", profile["hcas"], "machine.hcas", len(machine["hcas"])),
        ("rate_gbps", {float(profile["rate_gbps"])} if profile["hcas"] else set(), "machine.hcas' rate", rates),
    ]
    if profile["fabric_manager"] is not None:
        pairs.append(("fabric_manager", profile["fabric_manager"], "machine.nvswitches", bool(machine["nvswitches"])))
    found = [
        (key, f"is {planned}, but {spot} gives {seen}; make them agree")
        for key, planned, spot, seen in pairs
        if planned != seen
    ]
    memory_mib = sum(entry["memory_mib"] for entry in machine["numa"])
    if memory_mib > profile["host_memory_mib"]:
        text = f"is {profile['host_memory_mib']}, less than the {memory_mib} of machine.numa; make them agree"
        found.append(("host_memory_mib", text))
    return found


def _mib(memory: Mapping[str, Any]) -> int:
    return _whole(memory.get("total_bytes")) // 2**20


def _watts(power: Mapping[str, Any]) -> float:
    return _whole(power.get("limit_mw")) / 1000


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0
