"""On the controller: hosts compared with each other, and one table of all."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from .judge import EXIT_CODES, worst

LEAST_HOSTS = 3
BELOW_MEDIAN = 0.1
FAIL_ON = ("info", "warning", "critical", "never")
_CHECKS = {"all_reduce_gbytes_s": ("deep-all-reduce", "GB/s"), "ib_write_gbits_s": ("deep-ib-write", "Gb/s")}


def with_fleet(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Results by host, with a finding for each measurement more than 10 % below the median of at least 3 hosts."""
    values: dict[str, dict[str, float]] = {}
    for host, result in results.items():
        for name, value in (result.get("measured") or {}).items():
            values.setdefault(name, {})[host] = float(value)
    found = {host: {**result, "findings": list(result.get("findings") or [])} for host, result in results.items()}
    for name, by_host in values.items():
        kind, _, subject = name.partition("/")
        if len(by_host) < LEAST_HOSTS or kind not in _CHECKS:
            continue
        (check_id, unit), median = _CHECKS[kind], statistics.median(by_host.values())
        for host, value in by_host.items():
            told = {(finding["id"], finding["subject"]) for finding in found[host]["findings"]}
            if value < median * (1 - BELOW_MEDIAN) and (check_id, subject or "host") not in told:
                from .catalogue import BY_ID  # noqa: PLC0415 - all checks; every run loads this file, few need them

                check = BY_ID[check_id]
                found[host]["findings"].append(
                    {
                        "id": check_id, "severity": check.severity, "subject": subject or "host",
                        "seen": f"{value:g} {unit}, the median of {len(by_host)} hosts is {median:g}",
                        "threshold": check.threshold, "source": check.source, "why": check.why,
                        "fix": check.fix.replace("{hca}", subject.split("/")[0]), "caused_by": "",
                    }
                )  # fmt: skip
    for result in found.values():
        result["status"] = worst(result["findings"], bool(result.get("unknown")))
        result["exit_code"] = EXIT_CODES[result["status"]]
    return found


def refusal(results: Mapping[str, Mapping[str, Any]], fail_on: str) -> str:
    """One line naming the hosts that are at least as bad as ``fail_on``; unknown counts as critical.

    Raises ValueError for a word that is none of info, warning, critical, never.
    """
    if fail_on not in FAIL_ON:
        raise ValueError(f"health_fail_on is {fail_on!r}; give one of {', '.join(FAIL_ON)}")
    rank = {"pass": -1, **{name: place for place, name in enumerate(FAIL_ON[:3])}}
    least = FAIL_ON.index(fail_on)
    bad = [host for host, one in results.items() if fail_on != "never" and _rank(rank, one["status"]) >= least]
    told = "; ".join(f"{host}: {results[host]['status']}" for host in bad)
    return f"not healthy: {told}; the table above has what is wrong and the fix" if bad else ""


def _rank(rank: Mapping[str, int], status: str) -> int:
    return rank.get(status, rank["critical"])
