"""The filter shim: what it reads of hostvars, the trace, plain data, errors."""

from __future__ import annotations

import datetime
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import rackserve as shim_or_package
from ansible.errors import AnsibleFilterError

from .conftest import REPO, load_site


def load_shim() -> Any:
    """filter_plugins/rackserve.py, as Ansible loads it: by path (the package has the same name)."""
    spec = importlib.util.spec_from_file_location("filters_rackserve", REPO / "filter_plugins" / "rackserve.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FILTERS = load_shim().FilterModule().filters()


class Hostvars(dict[str, Any]):
    """Refuses to be materialised, as Ansible's must not be."""

    def __iter__(self) -> Any:
        raise AssertionError("hostvars must not be walked")


class Variables(dict[str, Any]):
    def get(self, key: str, default: Any = None) -> Any:
        assert key in ("ansible_host", "inventory_dir")
        return super().get(key, default)


def inputs(name: str = "lab") -> tuple[Any, Any, Any]:
    cluster, groups, addresses = load_site(name)
    return cluster, groups, Hostvars({host: Variables(ansible_host=ip) for host, ip in addresses.items()})


def test_the_package_is_not_shadowed() -> None:
    assert hasattr(shim_or_package, "__path__")


def test_filter_equals_the_golden_plan() -> None:
    plan = FILTERS["cluster_plan"](*inputs(), root=str(REPO))
    assert plan == json.loads((REPO / "tests/golden/lab/plan.json").read_text())
    assert FILTERS["cluster_plan"](*inputs()) == plan
    assert FILTERS["plan_errors"](plan) == []
    assert FILTERS["plan_tables"](plan)[0].startswith("cluster lab, release 2026.11-cpu")


def test_host_named_by_its_address_needs_no_variable() -> None:
    cluster, groups, hostvars = inputs()
    groups["gpu"][0] = "10.77.0.11"
    hostvars["10.77.0.11"] = Variables()
    hostvars["node2"] = Variables()
    plan = FILTERS["cluster_plan"](cluster, groups, hostvars)
    assert plan["slices"]["10.77.0.11"]["address"] == "10.77.0.11"
    assert [item["where"] for item in plan["findings"] if item["code"] == "missing-address"] == [
        "inventory.node2.ansible_host",
    ]


def test_merged_inventories_are_refused_and_named() -> None:
    cluster, groups, hostvars = inputs()
    for host, variables in hostvars.items():
        variables["inventory_dir"] = "/sites/a" if host in groups["gpu"] else "/sites/b"
    plan = FILTERS["cluster_plan"](cluster, groups, hostvars)
    assert FILTERS["plan_errors"](plan) == [
        "error [inventories-merged] inventory: hosts of 2 inventories are merged (/sites/a: node1, "
        "node2, node3, node4; /sites/b: gw). Give one -i: one inventory is one cluster."
    ]
    for variables in hostvars.values():
        variables["inventory_dir"] = "/sites/a"
    assert FILTERS["plan_errors"](FILTERS["cluster_plan"](cluster, groups, hostvars)) == []


def test_each_compile_is_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    monkeypatch.setenv("RACKSERVE_COMPILE_TRACE", str(trace))
    for count in (1, 2):
        FILTERS["cluster_plan"](*inputs())
        assert len(trace.read_text().splitlines()) == count


def test_dates_and_other_yaml_types_become_findings() -> None:
    cluster, groups, hostvars = inputs()
    cluster["release"] = datetime.date(2026, 11, 1)
    plan = FILTERS["cluster_plan"](cluster, groups, hostvars)
    assert plan["findings"][0]["code"] == "unknown-release"


def test_missing_and_broken_library_say_so(tmp_path: Path) -> None:
    with pytest.raises(AnsibleFilterError, match="cannot read the library"):
        FILTERS["cluster_plan"](*inputs(), root=str(tmp_path))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "profiles.yml").write_text("a: [")
    with pytest.raises(AnsibleFilterError, match="cannot read the library"):
        FILTERS["cluster_plan"](*inputs(), root=str(tmp_path))


def test_a_key_that_stands_twice_is_refused_with_its_file_and_line(tmp_path: Path) -> None:
    shutil.copytree(REPO / "files", tmp_path / "files", ignore=shutil.ignore_patterns("simulated"))
    path = tmp_path / "files/releases/2026.11.yml"
    path.write_text(path.read_text().replace("nccl: 2.27.7\n", "nccl: 2.27.7\nnccl: 2.28.9\n", 1))
    line = path.read_text().splitlines().index("nccl: 2.28.9") + 1
    with pytest.raises(AnsibleFilterError) as refused:
        FILTERS["cluster_plan"](*inputs(), root=str(tmp_path))
    text = " ".join(str(refused.value).split())
    assert text.startswith(
        'cluster_plan cannot read the library: files/releases/2026.11.yml: the key "nccl" stands twice'
    )
    assert f"line {line}" in text
