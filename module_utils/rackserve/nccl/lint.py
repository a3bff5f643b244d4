"""Whether NCCL can read a topology file, and what it would make of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .parser import Element, Refused, parse

LintFinding = dict[str, Any]
_BUS_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]")
_DECLARATION = re.compile(rb"\A\s*<\?xml.*?\?>", re.DOTALL)
_REQUIRED = {
    "cpu": ("numaid",),
    "pci": ("busid",),
    "nvlink": ("count", "tclass"),
    "c2c": ("bw", "count"),
    "net": ("name",),
}
# Attributes that NCCL takes from the file although it knows better: a wrong value stays.
_FROZEN = {
    "gpu": ("dev", "sm", "gdr"),
    "nvlink": ("count",),
    "net": ("speed", "gdr", "guid"),
}
_KNOWN = {
    "system": {"version", "name"},
    "cpu": {"numaid", "host_hash", "affinity", "arch", "vendor", "familyid", "modelid"},
    "pci": {"busid", "class", "vendor", "device", "subsystem_vendor", "subsystem_device", "link_speed", "link_width"},
    "gpu": {"dev", "sm", "rank", "gdr", "mlopart"},
    "nvlink": {"target", "count", "tclass"},
    "c2c": {"bw", "count"},
    "nic": set(),
    "net": {
        *("name", "dev", "latency", "speed", "port", "guid", "maxconn", "gdr"),
        *("coll", "net", "gin", "rma", "rail", "plane"),
    },
    "pcilink": {"target"},
}
_SLOWEST_NET_MBPS = 1000
_TWICE = 2
_LARGEST_AFFINITY_GROUPS = 28


def lint_file(path: Path) -> list[LintFinding]:
    """`lint` of a file. Raises OSError where it cannot be read."""
    return lint(path.read_bytes())


def lint(data: bytes | str) -> list[LintFinding]:
    """What is wrong with a topology file, as [{line, level, reason, fix}], in the order of the file.

    level `error`: NCCL refuses the file and every job with NCCL_TOPO_FILE stops when it begins; `warning`: NCCL reads
    it, and something in it does nothing or harm. No error finding: NCCL reads the file.
    """
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    findings: list[LintFinding] = []
    before = _DECLARATION.match(raw)
    try:
        parsed = parse(raw)
    except Refused as refused:
        findings.append(_found(refused.line, "error", refused.reason, refused.fix))
        if before and "declaration" in refused.reason:
            findings += _moved(lint(raw[before.end() :]), raw.count(b"\n", 0, before.end()))
        return findings
    findings += [_found(line, "warning", reason, fix) for line, reason, fix in parsed.ignored]
    findings += _judge(parsed.tops)
    return sorted(findings, key=lambda item: int(item["line"]))


def errors(findings: list[LintFinding]) -> list[str]:
    """The error findings as one line each."""
    return [f"line {item['line']}: {item['reason']}; {item['fix']}" for item in findings if item["level"] == "error"]


def _found(line: int, level: str, reason: str, fix: str) -> LintFinding:
    return {"line": line, "level": level, "reason": reason, "fix": fix}


def _moved(findings: list[LintFinding], lines: int) -> list[LintFinding]:
    """Findings of the rest of a file, which begins `lines` later; an empty rest is no finding of its own."""
    return [{**item, "line": item["line"] + lines} for item in findings]


def _judge(tops: list[Element]) -> Iterator[LintFinding]:
    if not tops:
        yield _found(1, "warning", "no <system> in it: NCCL detects everything by itself", "leave NCCL_TOPO_FILE unset")
        return
    for extra in tops[1:]:
        yield _found(extra.line, "warning", "a second <system> is not used", "delete it")
    seen: Counter[str] = Counter()
    for element, parent in _walk(tops[0], None):
        yield from _attributes(element)
        yield from _element(element, parent)
        bus = element.attributes.get("busid", "") if element.name == "pci" else ""
        seen[bus] += 1
        if bus and seen[bus] == _TWICE:
            yield _found(element.line, "warning", f"busid {bus} stands there twice", "write each device once")


def _walk(element: Element, parent: Element | None) -> Iterator[tuple[Element, Element | None]]:
    yield element, parent
    for child in element.children:
        yield from _walk(child, element)


def _attributes(element: Element) -> Iterator[LintFinding]:
    name, given = element.name, element.attributes
    for key in _REQUIRED.get(name, ()):
        if key not in given:
            why = f"<{name}> has no {key}; NCCL stops if the device is there"
            yield _found(element.line, "warning", why, f"add {key}")
    if name == "cpu" and "host_hash" in given:
        fix = "leave host_hash out; NCCL up to 2.26 takes it as it is, for any host"
        yield _found(element.line, "warning", "host_hash belongs to one boot of one host", fix)
    frozen = ", ".join(key for key in _FROZEN.get(name, ()) if key in given)
    if frozen:
        why = f"{frozen} of <{name}>: taken as written, not corrected when the device differs"
        yield _found(element.line, "warning", why, "leave it out; NCCL detects it")
    for key in sorted(set(given) - _KNOWN[name] - {"keep"}):
        yield _found(element.line, "warning", f"<{name}> has no attribute {key}; it is ignored", "delete it")


def _element(element: Element, parent: Element | None) -> Iterator[LintFinding]:
    name, given, line = element.name, element.attributes, element.line
    if name == "pci" and not _BUS_ID.fullmatch(given.get("busid", "0000:00:00.0")):
        why = f"busid {given['busid']} matches no device: NCCL compares dddd:bb:dd.f in lower case"
        yield _found(line, "warning", why, f"write {given['busid'].lower()[-12:]}")
    if name == "pci" and sum(child.name == "gpu" for child in element.children) > 1:
        why = "several GPUs at one bus id: each GPU is a PCI device of its own"
        yield _found(line, "warning", why, "write one <pci> for each GPU, with its own busid")
    if name == "nic" and not element.children:
        yield _found(line, "warning", "<nic> without <net> does nothing", "write <nic><net name=.../></nic>, or none")
    if name == "net" and given.get("speed", "").isdigit() and 0 < int(given["speed"]) < _SLOWEST_NET_MBPS:
        why = f"speed {given['speed']} is read as Mb/s"
        yield _found(line, "warning", why, f"write {int(given['speed']) * 1000} for {given['speed']} Gb/s")
    groups = given.get("affinity", "").split(",") if name == "cpu" else []
    if len(groups) > _LARGEST_AFFINITY_GROUPS:
        why = f"affinity of {len(groups)} groups; {_LARGEST_AFFINITY_GROUPS} fit"
        yield _found(line, "warning", why, "leave affinity out; NCCL detects it")
    if parent is not None and name == "pci" and parent.name == "cpu" and "class" not in given:
        yield _found(line, "warning", "<pci> without class counts as a switch", "add class")
