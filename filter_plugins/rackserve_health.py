"""Filters over module_utils/rackserve/health: results of all hosts, compared with each other and told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.health import fleet, report  # noqa: E402 - needs the path above


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


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {"health_results": health_results, "health_lines": health_lines, "health_refusal": health_refusal}
