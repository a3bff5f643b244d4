"""Filters for playbooks: shims over module_utils/rackserve/plan."""

from __future__ import annotations

import ipaddress
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

REPO = Path(__file__).resolve().parents[1]
if str(REPO / "module_utils") not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, str(REPO / "module_utils"))

from rackserve.plan import (  # noqa: E402 - needs the path above
    LibraryError,
    compile_plan,
    load_library,
    plan_errors,
    plan_tables,
)

_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SAFE_LOADER):  # type: ignore[misc, valid-type]
    """A safe loader that refuses a key that stands twice: YAML would take the last one and say nothing."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """The mapping; raises ConstructorError, with the line, where a key stands for the second time."""
        seen: set[str] = set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'the key "{key.value}" stands twice', key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_PLANNED_GROUPS = ("gpu", "gateway", "monitoring")


def plain(value: Any) -> Any:
    """Ansible's tagged and lazy values as plain data."""
    return json.loads(json.dumps(value, default=str))


def cluster_plan(
    cluster: Any, groups: Mapping[str, Any], hostvars: Mapping[str, Any], overrides: Any = None, root: str | None = None
) -> dict[str, Any]:
    """Compile the plan from the description, the inventory's groups and the hosts' literal ``ansible_host``.

    ``root`` is the repository (its ``files/`` is the library). Of ``hostvars`` only ``ansible_host`` and
    ``inventory_dir`` of hosts in the groups gpu, gateway and monitoring are read. Raises AnsibleFilterError when the
    library cannot be read.
    """
    plain_groups = plain(dict(groups))
    addresses, sources = {}, {}
    for host in dict.fromkeys(host for group in _PLANNED_GROUPS for host in plain_groups.get(group, [])):
        variables = hostvars[host]
        address = variables.get("ansible_host", host)
        sources[host] = plain(variables.get("inventory_dir"))
        if address != host or _is_address(host):
            addresses[host] = plain(address)
    trace = os.environ.get("RACKSERVE_COMPILE_TRACE")
    if trace:
        with Path(trace).open("a", encoding="utf-8") as stream:
            stream.write(f"compile pid={os.getpid()}\n")
    try:
        library = load_library(Path(root) if root else REPO, _parse)
    except LibraryError as problem:
        raise AnsibleFilterError(f"cluster_plan cannot read the library: {problem}") from problem
    return compile_plan(plain(cluster), plain_groups, addresses, library, plain(overrides), sources=sources)


def _parse(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a safe loader


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def tables(plan: Any) -> list[str]:
    """The plan's tables for people, as lines."""
    return plan_tables(plain(plan))


def errors(plan: Any) -> list[str]:
    """The plan's error findings, one line each."""
    return plan_errors(plain(plan))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Filters by name."""
        return {
            "cluster_plan": cluster_plan,
            "plan_tables": tables,
            "plan_errors": errors,
        }
