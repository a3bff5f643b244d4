"""What changed between two observed topologies of a host, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..preflight.findings import Finding, finding
from . import sysfs
from .parser import Element

_RESEAT = "look at the card, its riser and cable, compare lspci -vv (LnkCap, LnkSta); then record anew"
_MOVED = "if that was meant, the new record stands; otherwise somebody swapped cards or the BIOS renumbered them"
_LOST = "lspci and journalctl -k name what is left of it; drain the host before it serves again"


@dataclass(frozen=True)
class _Device:
    """A device and the names of what is above it, the CPU first."""

    element: Element
    above: tuple[str, ...]

    @property
    def at(self) -> str:
        return self.above[-1] if self.above else ""


def drift(before: Element, now: Element) -> list[Finding]:
    """Findings of what differs, worst first; attributes that say nothing about hardware are passed over."""
    old, new = _Index(before), _Index(now)
    found = [
        *_things("gpu", "GPU", old.gpus, new.gpus),
        *_things("nic", "adapter", old.nets, new.nets),
        *_links(old.pci, new.pci),
        *_nvlinks(old.gpus, new.gpus),
        *_nets(old.nets, new.nets),
        *_cpus(old.cpus, new.cpus),
    ]
    return sorted(found, key=lambda item: ("error", "warning", "note").index(item["severity"]))


def drift_lines(findings: list[Finding]) -> list[str]:
    """One line each: `code: where: why; fix`."""
    return [f"{item['code']}: {item['where']}: {item['why']}; {item['fix']}" for item in findings]


class _Index:
    def __init__(self, root: Element) -> None:
        self.gpus: dict[str, _Device] = {}
        self.nets: dict[str, _Device] = {}
        self.pci: dict[str, _Device] = {}
        self.cpus: dict[str, _Device] = {}
        self._walk(root, ())

    def _walk(self, element: Element, above: tuple[str, ...]) -> None:
        given = element.attributes
        shelf: tuple[dict[str, _Device], str] | None = {
            "gpu": (self.gpus, given.get("dev", "?")),
            "net": (self.nets, f"{given.get('name', '?')}:{given.get('port', '?')}"),
            "pci": (self.pci, given.get("busid", "?")),
            "cpu": (self.cpus, given.get("numaid", "?")),
        }.get(element.name)
        if shelf:
            shelf[0][shelf[1]] = _Device(element, above)
        step = {"pci": "busid", "cpu": "numaid"}.get(element.name)
        inside = (*above, given.get(step, "?")) if step else above
        for child in element.children:
            self._walk(child, inside)


def _things(code: str, kind: str, old: Mapping[str, _Device], new: Mapping[str, _Device]) -> Iterator[Finding]:
    for name in old:
        where = f"{kind} {name}"
        if name not in new:
            yield finding("error", f"{code}-gone", where, f"it was at {old[name].at} and is no longer there", _LOST)
        elif old[name].at != new[name].at:
            why = f"it moved from {old[name].at} to {new[name].at}"
            yield finding("warning", f"{code}-moved", where, why, _MOVED)
        elif old[name].above != new[name].above:
            why = f"what is above it was {' > '.join(old[name].above)} and is {' > '.join(new[name].above)}"
            yield finding("warning", f"{code}-rewired", where, why, _MOVED)
    for name in new:
        if name not in old:
            yield finding("note", f"{code}-new", f"{kind} {name}", f"it is new, at {new[name].at}", "nothing to do")


def _links(old: Mapping[str, _Device], new: Mapping[str, _Device]) -> Iterator[Finding]:
    for busid in old:
        if busid not in new:
            continue
        before, now = (index[busid].element.attributes for index in (old, new))
        where = f"PCI device {busid}"
        lanes = [_number(given.get("link_width")) for given in (before, now)]
        if lanes[0] != lanes[1]:
            why = f"its link had {lanes[0]} lanes and has {lanes[1]}"
            yield _worse_or_better(("link-narrower", "link-wider"), where, why, _RESEAT, lanes[1] < lanes[0])
        speeds = [given.get("link_speed", "") for given in (before, now)]
        rates = [sysfs.speed_gts(speed) for speed in speeds]
        if speeds[0] != speeds[1]:
            why = f"its link was of {speeds[0] or 'unknown speed'} and is of {speeds[1] or 'unknown speed'}"
            yield _worse_or_better(("link-slower", "link-faster"), where, why, _RESEAT, rates[1] < rates[0])
        ids = [" ".join(given.get(name, "?") for name in sysfs.IDS) for given in (before, now)]
        if ids[0] != ids[1]:
            yield finding("warning", "card-differs", where, f"its ids were {ids[0]} and are {ids[1]}", _MOVED)


def _nvlinks(old: Mapping[str, _Device], new: Mapping[str, _Device]) -> Iterator[Finding]:
    for name in old:
        if name not in new:
            continue
        counts = [
            sum(_number(link.attributes.get("count")) for link in index[name].element.children if link.name == "nvlink")
            for index in (old, new)
        ]
        if counts[0] != counts[1]:
            why = f"it had {counts[0]} active NVLinks and has {counts[1]}"
            fix = "nvidia-smi nvlink -s names the links; journalctl -k for Xid 74; look at Fabric Manager"
            yield _worse_or_better(("nvlinks-fewer", "nvlinks-more"), f"GPU {name}", why, fix, counts[1] < counts[0])


def _nets(old: Mapping[str, _Device], new: Mapping[str, _Device]) -> Iterator[Finding]:
    for name in old:
        if name not in new:
            continue
        before, now = (index[name].element.attributes for index in (old, new))
        rates = [_number(given.get("speed")) for given in (before, now)]
        if rates[0] != rates[1]:
            why = f"it ran at {rates[0] / 1000:g} Gb/s and runs at {rates[1] / 1000:g}"
            fix = "look at the cable and the switch port"
            yield _worse_or_better(("nic-slower", "nic-faster"), f"adapter {name}", why, fix, rates[1] < rates[0])
        if before.get("gdr") == "1" and now.get("gdr") == "0":
            why = "it no longer reaches the memory of GPUs"
            fix = "modprobe nvidia-peermem, or open kernel modules of the driver for DMA-BUF"
            yield finding("warning", "gdr-lost", f"adapter {name}", why, fix)


def _cpus(old: Mapping[str, _Device], new: Mapping[str, _Device]) -> Iterator[Finding]:
    for node in old:
        if node not in new:
            continue
        before, now = (index[node].element.attributes for index in (old, new))
        for key in ("affinity", "vendor", "familyid", "modelid"):
            if before.get(key) != now.get(key):
                why = f"its {key} was {before.get(key, 'unknown')} and is {now.get(key, 'unknown')}"
                yield finding("warning", "cpu-differs", f"NUMA node {node}", why, _MOVED)


def _worse_or_better(codes: tuple[str, str], where: str, why: str, fix: str, is_worse: bool) -> Finding:
    if is_worse:
        return finding("error", codes[0], where, why, fix)
    return finding("note", codes[1], where, why, "nothing to do")


def _number(text: Any) -> int:
    return int(text) if str(text).isdigit() else 0
