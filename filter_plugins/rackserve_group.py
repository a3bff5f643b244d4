"""Filters of group supervision: shims over module_utils/rackserve/group."""

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

from rackserve.group.settings import GroupError, group_settings, member_addresses  # noqa: E402 - needs the path above


def _addresses(hosts: Any) -> dict[str, str]:
    return {host["name"]: host["address"] for host in json.loads(json.dumps(hosts))}


def group_agent_settings(
    groups: Any, host: str, hosts: Any, ray: Any = None, *, patience: Any, files: Any, unit: str
) -> str:
    """The agent's configuration; ``patience`` is [seconds between looks, seconds until a member counts as lost]."""
    mine, cluster, (interval_s, lost_s), paths = json.loads(json.dumps([groups, ray, patience, files]))
    try:
        seconds = (float(interval_s), float(lost_s))
        known = _addresses(hosts)
        return group_settings(str(host), mine, cluster, known, patience=seconds, files=paths, unit=str(unit))
    except GroupError as problem:
        raise AnsibleFilterError(str(problem)) from problem


def group_addresses(groups: Any, hosts: Any) -> list[str]:
    """Addresses of all members of these groups."""
    return member_addresses(json.loads(json.dumps(groups)), _addresses(hosts))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {"group_agent_settings": group_agent_settings, "group_addresses": group_addresses}
