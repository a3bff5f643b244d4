"""Filters over module_utils/rackserve/preflight: what is judged before any host is touched."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable

import yaml
from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from rackserve.preflight.findings import error_lines, warning_lines
from rackserve.preflight.host import settled
from rackserve.preflight.inputs import host_inputs
from rackserve.preflight.variables import check_secret_sources, check_secrets, check_variables

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_LOADER)  # noqa: S506 - _LOADER is a safe loader


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _made_by_tasks(node: Any) -> set[str]:
    """Return the names that tasks register, set or hand on; they are variables of the role while a run lasts."""
    names: set[str] = set()
    for part in node if isinstance(node, list) else [node] if isinstance(node, dict) else []:
        for key, value in part.items() if isinstance(part, dict) else []:
            if key in ("register", "loop_var") and isinstance(value, str):
                names.add(value)
            elif key in ("vars", "ansible.builtin.set_fact") and isinstance(value, dict):
                names |= {str(name) for name in value}
            else:
                names |= _made_by_tasks(value)
    return names


def known_variables(roles_dir: Path, asked: Iterable[str] | None = None) -> dict[str, set[str]]:
    """Return role to the variables it knows: defaults, vars, argument_specs, and what its tasks set.

    With `asked`, tasks are read only of roles whose prefix one of these names has that nothing else explains.
    """
    known: dict[str, set[str]] = {}
    for role in sorted(p for p in roles_dir.iterdir() if p.is_dir()):
        names: set[str] = set()
        for part in ("defaults/main.yml", "vars/main.yml"):
            path = role / part
            names |= set(_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else set()
        specs = role / "meta/argument_specs.yml"
        if specs.is_file():
            loaded = _load(specs.read_text(encoding="utf-8")) or {}
            for entry in (loaded.get("argument_specs") or {}).values():
                names |= set(entry.get("options") or {})
        if asked is None or any(name.startswith(f"{role.name}_") and name not in names for name in asked):
            for path in sorted(role.glob("tasks/*.yml")):
                names |= _made_by_tasks(_load(path.read_text(encoding="utf-8")))
        known[role.name] = names
    return known


def variable_names(hostvars: Any, hosts: Any) -> dict[str, list[str]]:
    """Return {host: names of the variables set for it}; no variable's value is read."""
    return {str(host): [str(name) for name in hostvars[host]] for host in hosts}


def preflight_variables(
    names: Any, roles_dir: str, *, plan: Any = None, secrets: Any = (), removed: Any = None, inventory: str = ""
) -> list[dict[str, Any]]:
    """Return findings over the variable names {host: [name]}, the names of the secrets the plan needs, and their files.

    `secrets` is a list of names or a dict, whose keys count. `inventory` is the folder of the site's inventory.
    """
    folder = Path(roles_dir)
    if not folder.is_dir():
        raise AnsibleFilterError(f"preflight: there are no roles in {roles_dir}; run it from the repository")
    plain = _plain(names)
    asked = {name for of_host in plain.values() for name in of_host}
    found = check_variables(plain, known_variables(folder, asked), _plain(dict(removed or {})))
    found += check_secret_sources(Path(inventory)) if inventory else []
    return found + (check_secrets(_plain(plan), [str(name) for name in secrets]) if plan else [])


def preflight_inputs(piece: Any, release_mib: int = 8192) -> dict[str, Any]:
    """Return what preflight asks of the host with this slice."""
    return host_inputs(_plain(dict(piece or {})), int(release_mib))


def settled_findings(report: Any, received_s: float, tolerance_s: float) -> list[dict[str, Any]]:
    """Return the findings of host_preflight's `report` that its time on the way does not explain."""
    return settled(_plain(dict(report)), float(received_s), float(tolerance_s))


def finding_errors(findings: Any) -> list[str]:
    """Return the error findings as one line each."""
    return error_lines(_plain(list(findings)))


def finding_warnings(findings: Any) -> list[str]:
    """Return the warning findings as one line each."""
    return warning_lines(_plain(list(findings)))


class FilterModule:
    """Name the filters for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "variable_names": variable_names,
            "preflight_variables": preflight_variables,
            "preflight_inputs": preflight_inputs,
            "settled_findings": settled_findings,
            "finding_errors": finding_errors,
            "finding_warnings": finding_warnings,
        }
