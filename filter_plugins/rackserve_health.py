"""Filters over module_utils/rackserve/health: results of all hosts, compared with each other and told."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.health import fleet, ladder, report  # noqa: E402 - needs the path above


def health_results(hostvars: Any) -> dict[str, Any]:
    """Results of the hosts that were looked at, worst first, compared with each other."""
    seen = {str(name): hostvars[name].get("rackserve_health") for name in hostvars}
    plain = json.loads(
        json.dumps({name: dict(result) for name, result in seen.items() if result and "checks" in result})
    )
    results = fleet.with_fleet(plain)
    return {name: results[name] for name in report.order_hosts(results)}


def health_lines(results: Any) -> list[str]:
    """The table for a terminal."""
    return report.lines(results)


def health_refusal(results: Any, fail_on: str) -> str:
    """One line naming the hosts for which the run fails; empty where it does not."""
    try:
        return fleet.refusal(results, str(fail_on))
    except ValueError as problem:
        raise AnsibleFilterError(str(problem)) from None


def health_decisions(
    hostvars: Any, servers: Any, instances: Any, gateways: Any, most_out: Any = 1
) -> list[dict[str, Any]]:
    """What act-on-health does: a row a finding, at most one with another step than alert."""
    rows, planned, fronts = json.loads(json.dumps([list(servers), list(instances), list(gateways)]))
    results = health_results(hostvars)
    by_key = {f"{row['backend']}/{row['slot']}": row for row in rows}
    hosts = {*results, *(one["host"] for one in planned)}
    targets = {host: [key for key in ladder.targets_of(host, planned) if key in by_key] for host in hosts}
    units = {host: ladder.units_of(host, planned) for host in hosts}
    states, enabled = {}, {}
    for host in results:
        seen = json.loads(json.dumps(dict(hostvars[host].get("act_on_health_seen") or {})))
        states[host] = ladder.state_of(
            seen, [by_key[key] for key in targets[host]], ladder.barred(host, planned, fronts)
        )
        wanted = hostvars[host].get("act_on_health_steps") or {}
        enabled[host] = [str(name) for name, on in dict(wanted).items() if on]
    # Engines that the checks took out count too: a host that is down is out.
    away = {key for keys in targets.values() for key in keys if _is_out(by_key[key])}
    out = int(most_out)
    decisions = ladder.decide(
        results, states, enabled, targets=targets, units=units, away=away, most_out=out, now_s=time.time()
    )
    return [dict(decision._asdict()) for decision in decisions]


def _is_out(row: dict[str, Any]) -> bool:
    return row["admin"] != "ready" or not str(row["status"]).startswith(("UP", "no check"))


def health_decision_lines(decisions: Any) -> list[str]:
    """The decisions for a terminal."""
    return ladder.lines([ladder.Decision(**one) for one in json.loads(json.dumps(decisions))])


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {
            "health_results": health_results,
            "health_lines": health_lines,
            "health_refusal": health_refusal,
            "health_decisions": health_decisions,
            "health_decision_lines": health_decision_lines,
        }
