"""Sample inventories as the compiler sees them, and the switch that rewrites golden plans."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rackserve.plan import Library, compile_plan, load_library

REPO = Path(__file__).resolve().parents[3]
Site = tuple[dict[str, Any], dict[str, list[str]], dict[str, str]]


def load_site(name: str) -> Site:
    """(cluster, groups, addresses) of inventories/<name>, read without Ansible."""
    folder = REPO / "inventories" / name
    groups: dict[str, list[str]] = {}
    addresses: dict[str, str] = {}
    for group, part in yaml.safe_load((folder / "hosts.yml").read_text())["all"]["children"].items():
        groups[group] = list(part["hosts"])
        for host, variables in part["hosts"].items():
            if "ansible_host" in (variables or {}):
                addresses[host] = variables["ansible_host"]
    cluster = yaml.safe_load((folder / "group_vars/all/cluster.yml").read_text())["cluster"]
    return cluster, groups, addresses


def codes(plan: dict[str, Any], severity: str = "error") -> list[str]:
    return [item["code"] for item in plan["findings"] if item["severity"] == severity]


@pytest.fixture(scope="session")
def library() -> Library:
    return load_library(REPO, yaml.safe_load)


Compile = Callable[..., dict[str, Any]]


@pytest.fixture
def compiled(library: Library) -> Compile:
    """compiled(name, patch={dotted path: value}, groups=..., addresses=...): the plan of a changed sample."""

    def run(name: str = "lab", patch: dict[str, Any] | None = None, **inventory: Any) -> dict[str, Any]:
        cluster, groups, addresses = copy.deepcopy(load_site(name))
        for path, value in (patch or {}).items():
            put(cluster, path, value)
        groups = {**groups, **inventory.get("groups", {})}
        addresses = {**addresses, **inventory.get("addresses", {})}
        return compile_plan(cluster, groups, addresses, library, inventory.get("overrides"))

    return run


def put(data: Any, path: str, value: Any) -> None:
    """Set a dotted path (numbers index lists)."""
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        data = data[part] if isinstance(data, list) else data.setdefault(part, {})
    data[last] = value
