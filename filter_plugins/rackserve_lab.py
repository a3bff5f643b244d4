"""Filters of the lab; the logic is in module_utils/rackserve/lab."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from rackserve.lab.build import with_binds, with_light_nodes
from rackserve.lab.spec import LabError


def lab_host_list(
    addresses: dict[str, str],
    extra: int,
    subnet: str,
    machines: dict[str, str] | None = None,
    extra_machine: str = "",
) -> list[dict[str, str]]:
    """Hosts the inventory names, {name: address}, and `extra` light ones beside them, each with its machine, if any."""
    profiles = plain(machines or {})
    named = [
        {"name": name, "address": address, **({"machine": profiles[name]} if profiles.get(name) else {})}
        for name, address in plain(addresses).items()
    ]
    try:
        return with_light_nodes(named, int(extra), str(subnet), str(extra_machine))
    except LabError as error:
        raise AnsibleFilterError(str(error)) from error


def lab_host_binds(
    listed: list[dict[str, str]], machines: dict[str, str], mirror: str, mirror_host: str
) -> list[dict[str, Any]]:
    """Listed hosts with the folders they see; `machines` are folders by profile."""
    try:
        return with_binds(plain(listed), plain(machines), str(mirror), str(mirror_host))
    except LabError as error:
        raise AnsibleFilterError(str(error)) from error


def lab_host_python_file(module: str) -> str:
    """The file of a Python module of the controller's environment."""
    found = importlib.util.find_spec(module)
    if found is None or not found.origin:
        raise AnsibleFilterError(f"Python module {module} is not in the controller's environment; run `make venv`")
    return found.origin


def plain(value: Any) -> Any:
    """The same without Ansible's own types."""
    return json.loads(json.dumps(value))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {
            "lab_host_list": lab_host_list,
            "lab_host_binds": lab_host_binds,
            "lab_host_python_file": lab_host_python_file,
        }
