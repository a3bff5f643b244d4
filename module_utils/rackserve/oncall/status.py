"""The answers of `fab status` as a table: every host, what serves, what is out, what is wrong."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .hosts import Host
from .script import sections
from .sweep import Answer

FULL_SHARE = 90
OLD_HEALTH_S = 600
_DF_COLUMNS, _STAMPS = 6, 2
_SAMPLE = re.compile(r'haproxy_server_(\w+)\{proxy="([^"]+)",server="([^"]+)"(?:,state="([^"]+)")?\} (\S+)')
_FINDING = re.compile(r'rackserve_health_finding\{check="([^"]+)",severity="([^"]+)",subject="([^"]*)",caused_by=""')
_VERDICTS = {"0": "ok", "1": "warning", "2": "critical", "3": "unknown"}


class Server(NamedTuple):
    """An engine as the gateway has it; ``state`` is HAProxy's word, ``drained_by`` the operation that took it out."""

    key: str
    address: str
    state: str
    in_flight: int
    queued: int
    drained_by: str


class Seen(NamedTuple):
    """One host's answer, read."""

    units: list[dict[str, str]]
    gpus: tuple[int, int]
    load: tuple[float, int]
    memory_free: int
    disk: tuple[str, int]
    health: str
    findings: list[str]
    servers: list[Server]
    lease: dict[str, Any]
    addresses: list[str]


def read(text: str) -> Seen:
    """Read what the status script printed. Raises ValueError where it did not come to its end."""
    parts = sections(text)
    if "end" not in parts:
        raise ValueError("the answer breaks off: the host's shell or disk is not well; look at it by its console")
    health, findings = _health(parts.get("health", []))
    return Seen(
        _units(parts.get("units", [])),
        _gpus(parts.get("gpus", [])),
        _load(parts.get("load", [])),
        _memory(parts.get("memory", [])),
        _disk(parts.get("disk", [])),
        health,
        findings,
        _servers(parts),
        _object(parts.get("lease", [])),
        " ".join(parts.get("addresses", [])).split(),
    )


def _object(lines: Sequence[str]) -> dict[str, Any]:
    try:
        found = json.loads("\n".join(lines) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _units(lines: Sequence[str]) -> list[dict[str, str]]:
    """The units that are meant to run: one that is switched off, as a removed replica is, is left out."""
    blocks = "\n".join(lines).split("\n\n")
    units = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks if block.strip()
    ]
    off = {"UnitFileState": "disabled", "ActiveState": "inactive"}
    return [unit for unit in units if not off.items() <= unit.items()]


def _gpus(lines: Sequence[str]) -> tuple[int, int]:
    numbers = [int(line) for line in lines if line.strip().isdigit()]
    return (numbers[0], numbers[1]) if len(numbers) > 1 else (0, 0)


def _load(lines: Sequence[str]) -> tuple[float, int]:
    try:
        return float(lines[0].split()[0]), int(lines[1])
    except (IndexError, ValueError):
        return 0.0, 0


def _memory(lines: Sequence[str]) -> int:
    """Share of memory that is available, percent; -1 where it is not told."""
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines if ":" in line}
    total = found.get("MemTotal", 0)
    return round(100 * found.get("MemAvailable", 0) / total) if total else -1


def _disk(lines: Sequence[str]) -> tuple[str, int]:
    """The fullest file system and how full it is, percent."""
    rows = [line.split(None, _DF_COLUMNS - 1) for line in lines]
    rows = [row for row in rows if len(row) == _DF_COLUMNS and row[4].rstrip("%").isdigit()]
    full = [(row[5], int(row[4].rstrip("%"))) for row in rows]
    return max(full, key=lambda one: one[1], default=("", -1))


def _health(lines: Sequence[str]) -> tuple[str, list[str]]:
    """The verdict of the host's own timer, and its findings that nothing else explains."""
    stamps = [int(line) for line in lines if line.isdigit()]
    if len(stamps) < _STAMPS:
        return "no timer", []
    code = next((line.split()[1] for line in lines if line.startswith("rackserve_health_exit_code")), "")
    verdict = _VERDICTS.get(code.partition(".")[0], "?")
    age_s = stamps[1] - stamps[0]
    told = verdict if age_s < OLD_HEALTH_S else f"{verdict}, {age_s // 60} min old"
    found = [match for match in map(_FINDING.match, lines) if match]
    return told, [f"{match[2]} {match[1]} on {match[3]}" for match in found]


def _servers(parts: Mapping[str, list[str]]) -> list[Server]:
    addresses: dict[str, str] = {}
    backend = ""
    for line in parts.get("servers", []):
        words = line.split()
        if words[0] in ("backend", "frontend"):
            backend = words[1]
        elif words[0] == "server" and not words[2].startswith("0.0.0.0:") and "track" in words:
            addresses[f"{backend}/{words[1]}"] = words[2]
    told: dict[str, dict[str, float]] = {}
    for match in map(_SAMPLE.match, parts.get("metrics", [])):
        if match:
            told.setdefault(f"{match[2]}/{match[3]}", {})[match[4] or match[1]] = float(match[5])
    notes = _object(parts.get("notes", []))
    found = []
    for key, address in addresses.items():
        now = told.get(key, {})
        state = next((name for name in ("MAINT", "DRAIN", "DOWN", "NOLB", "UP") if now.get(name)), "?")
        in_flight, queued = (int(now.get(name, 0)) for name in ("current_sessions", "current_queue"))
        found.append(Server(key, address, state, in_flight, queued, str(notes.get(key, ""))))
    return found


def broken_units(units: Sequence[Mapping[str, str]]) -> list[str]:
    """Units that should run and do not, or that were started again; a one-shot unit only where it failed.

    One whose own condition was not met when it was to start is not meant for this host. The engines' watch ends by
    itself when its files change, which is no news.
    """
    found = []
    for unit in units:
        name, state = unit.get("Id", "?"), unit.get("ActiveState", "?")
        once = unit.get("Type") == "oneshot" and unit.get("RemainAfterExit") != "yes"
        asked = unit.get("ConditionTimestampMonotonic", "0") not in ("", "0")
        skipped = asked and unit.get("ConditionResult") == "no"
        runs = state == "active" or (once and state == "activating") or ((once or skipped) and state == "inactive")
        if not runs:
            found.append(f"{name} {state} ({unit.get('SubState', '?')}, {unit.get('Result', '?')})")
        elif unit.get("NRestarts", "0") not in ("", "0") and name != "rackserve-engine-watch.service":
            found.append(f"{name} was started again {unit['NRestarts']} times")
    return found


def _serving(units: Sequence[Mapping[str, str]]) -> str:
    engines = [unit for unit in units if unit.get("Id", "").startswith("vllm-")]
    if not engines:
        return "-"
    return f"{sum(unit.get('ActiveState') == 'active' for unit in engines)}/{len(engines)}"


def table(hosts: Sequence[Host], answers: Mapping[str, Answer]) -> tuple[list[str], bool]:
    """The lines of `fab status`, and whether everything is as it should be."""
    seen: dict[str, Seen] = {}
    troubles: list[str] = []
    for name, answer in answers.items():
        try:
            if answer.problem:
                raise ValueError(answer.problem)
            seen[name] = read(answer.text)
        except ValueError as problem:
            troubles.append(f"{name}: {problem}")
    servers = [server for one in seen.values() for server in one.servers]
    rows = [["host", "engines", "in flight", "gateway", "GPUs", "load", "free memory", "fullest disk", "health"]]
    for host in hosts:
        if host.name in seen:
            rows.append(_row(host, seen[host.name], servers))
            troubles += [f"{host.name}: {line}" for line in _troubles(seen[host.name])]
        else:
            rows.append([host.name, "?", "", "no answer", "", "", "", "", ""])
    for server in servers:
        if server.state != "UP":
            who = f", drained by {server.drained_by}" if server.drained_by else ""
            troubles.append(f"{server.key} ({server.address}) is {server.state}{who}")
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines += _leases(seen)
    return lines + (["", *troubles] if troubles else []), not troubles


def _row(host: Host, seen: Seen, servers: Sequence[Server]) -> list[str]:
    # Engines may listen in another network than the one in which Ansible reaches the host.
    here = {host.address, *seen.addresses}
    mine = [server for server in servers if server.address.rpartition(":")[0] in here]
    states = sorted({server.state for server in mine})
    known, on_bus = seen.gpus
    place, full = seen.disk
    return [
        host.name,
        _serving(seen.units),
        str(sum(server.in_flight for server in mine)) if mine else "-",
        ",".join(states) or "-",
        f"{known}/{on_bus}" if on_bus or known else "-",
        f"{seen.load[0]:.1f}/{seen.load[1]}",
        f"{seen.memory_free} %" if seen.memory_free >= 0 else "?",
        f"{place} {full} %" if place else "?",
        seen.health,
    ]


def _troubles(seen: Seen) -> list[str]:
    found = broken_units(seen.units) + seen.findings
    known, on_bus = seen.gpus
    if known < on_bus:
        found.append(f"the driver has {known} of {on_bus} GPUs on the PCI bus")
    if seen.disk[1] >= FULL_SHARE:
        found.append(f"{seen.disk[0]} is {seen.disk[1]} % full")
    return found


def _leases(seen: Mapping[str, Seen]) -> list[str]:
    """Who changes the cluster now."""
    found = []
    for name, one in seen.items():
        if one.lease and float(one.lease.get("expires_at") or 0) > time.time():
            found.append(f"{name}: {one.lease.get('owner')} holds the lease for {one.lease.get('operation')}")
    return found
