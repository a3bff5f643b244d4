"""Filters over module_utils/rackserve/simulated: the catalogue of faults for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from rackserve.simulated.catalogue import FaultError, find, load
from rackserve.simulated.document import active_table, seen_table, table


def fault_table(catalogue: Any) -> list[str]:
    """Return the lines of the table of all faults."""
    try:
        return table(load(json.loads(json.dumps(catalogue))))
    except FaultError as error:
        raise AnsibleFilterError(str(error)) from error


def fault_active_table(active: Any) -> list[str]:
    """Return the lines of the table of faults that are on, from {host: what simulated_fault returned as active}."""
    return active_table(json.loads(json.dumps(active)))


def fault_seen_table(seen: Any) -> list[str]:
    """Return the lines of the table of what simulated_fault returned as seen."""
    return seen_table(json.loads(json.dumps(seen)))


def fault_problem(name: Any, catalogue: Any, parameters: Any) -> str:
    """Return why a fault cannot be asked for on any host; empty when it can. V(all) stands for every fault."""
    try:
        loaded = load(json.loads(json.dumps(catalogue)))
        if str(name) != "all":
            find(loaded, str(name)).given(json.loads(json.dumps(parameters)))
    except FaultError as error:
        return str(error)
    return ""


class FilterModule:
    """Name the filters for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "fault_table": fault_table,
            "fault_active_table": fault_active_table,
            "fault_seen_table": fault_seen_table,
            "fault_problem": fault_problem,
        }
