"""Filters over module_utils/rackserve/diagnose: what is asked of a host, and what all of them said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.diagnose import inputs  # noqa: E402 - needs the path above


def host_question(piece: Any, health: Any = None, skip: Any = ()) -> dict[str, Any]:
    """The plan's part for the module host_evidence, from a host's slice and what the site expects of its health."""
    given = json.loads(json.dumps([dict(piece or {}), None if health is None else dict(health), list(skip)]))
    return inputs.host_question(*given)


def diagnose_hosts(hostvars: Any, hosts: Any) -> dict[str, Any]:
    """What the playbook collected of these hosts, for the module diagnose_case."""
    from rackserve.diagnose.program import gather  # noqa: PLC0415 - its rules take 0.1 s; every run loads this file

    names = [str(name) for name in hosts]
    seen = {name: {key: hostvars[name].get(key) for key in KEPT} for name in names}
    return gather(json.loads(json.dumps(seen)), names)


KEPT = ("rackserve_evidence", "rackserve_evidence_failed")


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {"host_question": host_question, "diagnose_hosts": diagnose_hosts}
