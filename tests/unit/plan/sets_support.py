"""Changed release sets, as the plan compiler sees them."""

from __future__ import annotations

import copy
import json
from typing import Any

from rackserve.plan import Library, compile_plan

from .conftest import load_site, put


def changed_set(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A copy of a set with dotted paths put to values, after ``swap`` of texts and ``drop`` of parts' packages."""
    text = json.dumps(base)
    for old, new in change.get("swap", {}).items():
        text = text.replace(old, new)
    data: dict[str, Any] = json.loads(text)
    data["packages"] = [group for group in data["packages"] if group["part"] not in change.get("drop", [])]
    only = change.get("only")
    if only:
        data["packages"] = [group for group in data["packages"] if only in group["distributions"]]
        for group in data["packages"]:
            group["distributions"] = [only]
        data.update(distributions=[only], rdma_core={only: data["rdma_core"][only]})
    for path, value in change.get("put", {}).items():
        put(data, path, value)
    return data


def plan_with(library: Library, release: Any, site: str, name: str, patch: dict[str, Any] | None = None) -> Any:
    """The plan of a sample whose release is this set."""
    cluster, groups, addresses = copy.deepcopy(load_site(site))
    for path, value in (patch or {}).items():
        put(cluster, path, value)
    books = Library(**{**library.__dict__, "releases": {name: release}})
    return compile_plan(cluster, groups, addresses, books)
