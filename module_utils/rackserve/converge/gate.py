"""Which differences wait because their unit runs, and which units run on something other than what is wanted."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from .contents import Contents
from .document import Item
from .finding import Finding
from .host import Host

RUNNING_VARIABLE = "RACKSERVE_CONFIG_SHA256"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_UNIT_FILE = re.compile(r"/etc/systemd/system/([^/]+\.[a-z]+?)(?:\.d/[^/]+\.conf)?\Z")
_SHOWN_DIGITS = 12


class Gate(NamedTuple):
    """`held`: findings not to be written. `stale`, `inactive`, `not_judged`: lists of dicts, as converge returns."""

    held: list[Finding]
    stale: list[dict[str, str]]
    inactive: list[dict[str, str]]
    not_judged: list[dict[str, str]]


def unit_of_path(path: str) -> str | None:
    """The unit a path under /etc/systemd/system configures; None for others and for templates."""
    found = _UNIT_FILE.match(path)
    return found.group(1) if found and "@." not in found.group(1) else None


def units_to_show(items: list[Item]) -> list[str]:
    """Every unit the items name, gate on or configure, once each, in order of first mention."""
    names: dict[str, None] = {}
    for item in items:
        if item.kind == "unit":
            names[item.target] = None
        elif item.kind == "gpu":
            names.update(dict.fromkeys(item.spec["units"]))
        elif item.applied:
            for name in (item.spec.get("gated_by"), unit_of_path(item.target)):
                if name is not None and item.kind in ("file", "link", "absent"):
                    names[name] = None
    return list(names)


Reasons = dict[tuple[str, str], list[str]]


def judge_gates(
    items: list[Item], findings: list[Finding], contents: Contents, host: Host, apply_gated: Collection[str]
) -> Gate:
    """Split findings at the gate, and compare what runs with what is wanted."""
    held, reasons = _split(findings, host, apply_gated)
    inactive: list[dict[str, str]] = []
    not_judged: list[dict[str, str]] = []
    for item in items:
        if item.kind != "unit":
            continue
        unit = host.units.get(item.target)
        if unit is None:
            not_judged.append(_unjudged(item, "no systemd to ask under this root"))
        elif not unit.running:
            if item.spec["active"]:
                inactive.append({"unit": item.target, "role": item.role})
        elif item.spec["running_config"]:
            stale, unknown = _running(item, contents.digests.get(item.target), host)
            if stale:
                reasons.setdefault((item.target, item.role), []).append(stale)
            if unknown:
                not_judged.append(_unjudged(item, unknown))
    stale_units = [{"unit": unit, "role": role, "why": "; ".join(why)} for (unit, role), why in reasons.items()]
    return Gate(held, stale_units, inactive, not_judged)


def _split(findings: list[Finding], host: Host, apply_gated: Collection[str]) -> tuple[list[Finding], Reasons]:
    """What waits at the gate, and for each (unit, role) why it is stale."""
    held: list[Finding] = []
    waiting: Reasons = {}
    landing: Reasons = {}
    for finding in findings:
        if finding.item.kind == "gpu":
            users = _running_users(finding, host)
            held += [finding] if users else []
            for name in users:
                words = f"GPU {finding.item.target}: {finding.why}"
                waiting.setdefault((name, finding.item.role), []).append(words)
            continue
        name = finding.item.spec.get("gated_by") or ""
        unit = host.units.get(name)
        if unit is None or not unit.running or not finding.gates or finding.refusal:
            continue
        if name not in apply_gated:
            held.append(finding)
        group = landing if name in apply_gated else waiting
        group.setdefault((name, finding.item.role), []).append(finding.item.target)
    reasons: Reasons = {}
    for verb, group in (("waiting for the gate", waiting), ("written, not yet restarted", landing)):
        for key, paths in group.items():
            reasons.setdefault(key, []).append(f"{verb}: {', '.join(sorted(paths))}")
    return held, reasons


def _running_users(finding: Finding, host: Host) -> list[str]:
    """Running units on a GPU whose settings differ: clocks and power of what serves are not changed under it."""
    units = finding.item.spec["units"] if finding.gates else []
    return [name for name in units if name in host.units and host.units[name].running]


def _unjudged(item: Item, why: str) -> dict[str, str]:
    return {"role": item.role, "id": item.id, "why": why}


def _running(item: Item, wanted: str | None, host: Host) -> tuple[str, str]:
    """(why stale, why not judged) of a running unit's configuration; two empty strings where it is the wanted one."""
    if wanted is None:
        return "", "its configuration's digest needs secrets this run was not given"
    source = item.spec["running_config"]
    unit = host.units[item.target]
    if source == "environ":
        if not unit.main_pid:
            if unit.active == "active":
                return f"has no main process to read {RUNNING_VARIABLE} from", ""
            return "", f"{unit.active} ({unit.sub}) without a main process"
        environ = dict(
            entry.partition("=")[::2] for entry in host.read_text(f"/proc/{unit.main_pid}/environ").split("\0") if entry
        )
        present, where = environ.get(RUNNING_VARIABLE, ""), RUNNING_VARIABLE
    else:
        present, where = next(iter(host.read_text(source).split()), ""), source
    if present == wanted:
        return "", ""
    if not _SHA256.match(present):
        return f"runs no configuration recorded in {where}, wanted {wanted[:_SHOWN_DIGITS]}", ""
    return f"runs configuration {present[:_SHOWN_DIGITS]}, wanted {wanted[:_SHOWN_DIGITS]}", ""


def units_behind(held: list[Finding], host: Host) -> set[str]:
    """Units whose file systemd has not read, less those whose change waits at the gate."""
    waiting = {finding.item.spec.get("gated_by") for finding in held}
    return {name for name, unit in host.units.items() if unit.need_reload and name not in waiting}


def reload_findings(items: list[Item], findings: list[Finding], behind: set[str]) -> list[Finding]:
    """A finding for each unit of `behind`, on its own item or else on a file of it, unless that item differs anyway."""
    taken = {(finding.item.role, finding.item.id) for finding in findings}
    behind = set(behind)
    found: list[Finding] = []
    for item in sorted(items, key=lambda item: item.kind != "unit"):
        name = item.target if item.kind == "unit" else item.spec.get("gated_by") or unit_of_path(item.target)
        if item.applied and name in behind:
            behind.discard(name)
            if (item.role, item.id) not in taken:
                text = f"systemd has not read the present file of {name}"
                found.append(Finding(item, text, "not read\n", "read\n"))
    return found
