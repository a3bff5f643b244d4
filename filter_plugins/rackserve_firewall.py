"""Filters over module_utils/rackserve/firewall: the rules of a host, and a connection that shares nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from rackserve.firewall.connection import fresh_ssh_argv
from rackserve.firewall.rules import FirewallError, build_rules


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def firewall_rules(inbound: Any, **options: Any) -> dict[str, Any]:
    """Return {mode, policy, flows, rules, digest} of the flows a host serves."""
    try:
        return build_rules(_plain(list(inbound)), **_plain(options))
    except FirewallError as exc:
        raise AnsibleFilterError(f"firewall: {exc}") from exc


def fresh_ssh_command(command: Any, connection: Any) -> list[str]:
    """Return the argument list that runs `command` over a new SSH connection."""
    try:
        return fresh_ssh_argv(_plain(dict(connection)), [str(word) for word in command])
    except FirewallError as exc:
        raise AnsibleFilterError(f"firewall: {exc}") from exc


class FilterModule:
    """Name the filters for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"firewall_rules": firewall_rules, "fresh_ssh_command": fresh_ssh_command}
