"""What was found, for people and for node_exporter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .check import FAIL, SEVERITIES, UNKNOWN

_RANKS = {"critical": 0, "warning": 1, "unknown": 2, "info": 3}


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]) - 1)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows]


def lines(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table for a terminal: findings of all hosts with their fix below, then what could not be read, then the sum."""
    rows: list[list[str]] = []
    fixes: list[str] = []
    for host, result in results.items():
        for finding in result["findings"]:
            cause = finding["caused_by"]
            seen = f"{finding['seen']} (because of {cause})" if cause else finding["seen"]
            rows.append([host, finding["severity"], finding["id"], finding["subject"], seen])
            fixes.append("" if cause else f"    {finding['why']} Fix: {finding['fix']}")
    told: list[str] = []
    if rows:
        table = _aligned([["host", "severity", "check", "on", "seen"], *rows])
        told.append(table[0])
        for row, fix in zip(table[1:], fixes):
            told += [row, fix] if fix else [row]
    told += _unknown(results)
    return [*told, *_sums(results)]


def _unknown(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each reason, with the checks that it keeps from saying anything."""
    found: dict[tuple[str, str], list[str]] = {}
    for host, result in results.items():
        for entry in result["unknown"]:
            why = f"because of {entry['caused_by']}: {entry['why']}" if entry["caused_by"] else entry["why"]
            found.setdefault((host, why), []).append(entry["id"])
    return [f"{host}  unknown  {', '.join(names)}: {why}" for (host, why), names in found.items()]


def _sums(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = []
    for host, result in results.items():
        states = [check["status"] for check in result["checks"]]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        found.append(f"{host}: {result['status']} ({counts}; {result['wall_s']:.2f} s)")
    return found


def costs(result: Mapping[str, Any]) -> list[str]:
    """What each check cost, for a terminal."""
    rows = [
        [check["id"], check["status"], f"{check['wall_ms']:.1f}", f"{check['cpu_ms']:.1f}"]
        for check in result["checks"]
    ]
    return _aligned([["check", "status", "wall ms", "CPU ms"], *rows])


def _label(value: Any) -> str:
    return str(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", " ")


def _family(name: str, kind: str, text: str, samples: Iterable[str]) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *samples]


def textfile(result: Mapping[str, Any], now_s: float) -> str:
    """The metrics of one run in the format of node_exporter's textfile collector."""
    checks, findings = result["checks"], result["findings"]
    state = {check["id"]: check["status"] for check in checks}
    told: list[str] = []
    told += _family(
        "rackserve_health_check", "gauge", "1 for the status that a check has: pass, fail, unknown or skipped.",
        (f'rackserve_health_check{{check="{name}",status="{status}"}} 1' for name, status in state.items()),
    )  # fmt: skip
    seen: dict[tuple[str, ...], int] = {}
    for finding in findings:
        key = tuple(_label(finding[name]) for name in ("id", "severity", "subject", "caused_by"))
        seen[key] = seen.get(key, 0) + 1
    told += _family(
        "rackserve_health_finding", "gauge", "Findings by check, severity, subject and cause.",
        (
            f'rackserve_health_finding{{check="{name}",severity="{severity}",'
            f'subject="{subject}",caused_by="{cause}"}} {count}'
            for (name, severity, subject, cause), count in seen.items()
        ),
    )  # fmt: skip
    numbers = {name: sum(finding["severity"] == name for finding in findings) for name in SEVERITIES}
    numbers[UNKNOWN] = sum(check["status"] == UNKNOWN for check in checks)
    told += _family(
        "rackserve_health_findings", "gauge", "How many findings of a severity, and checks that could not read.",
        (f'rackserve_health_findings{{severity="{name}"}} {count}' for name, count in numbers.items()),
    )  # fmt: skip
    failed = sum(check["status"] == FAIL for check in checks)
    for name, text, value in (
        ("rackserve_health_failed_checks", "Checks that found something.", failed),
        ("rackserve_health_exit_code", "0 fine, 1 warning, 2 critical, 3 unknown.", result["exit_code"]),
        ("rackserve_health_wall_seconds", "What the run took.", result["wall_s"]),
        ("rackserve_health_last_run_timestamp_seconds", "When it ended.", int(now_s)),
    ):
        told += _family(name, "gauge", text, [f"{name} {value}"])
    return "\n".join(told) + "\n"


def order_hosts(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Hosts, the worst first."""
    return sorted(results, key=lambda host: (_RANKS.get(results[host]["status"], len(_RANKS)), host))
