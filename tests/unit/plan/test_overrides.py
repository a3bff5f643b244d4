"""Overrides are RFC 7386 merge patches, by name for deployments, and are always shown."""

from __future__ import annotations

from typing import Any

import pytest
from rackserve.plan.findings import Findings
from rackserve.plan.merge import apply_overrides

from .conftest import Compile, codes

# The examples of RFC 7386, appendix A, whose target is an object.
RFC_7386 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7386)
def test_merge_patch(target: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]) -> None:
    before = repr(target)
    assert apply_overrides(target, patch, Findings())[0] == result
    assert repr(target) == before


def test_every_change_is_listed_and_nothing_else(compiled: Compile) -> None:
    overrides = {"gateway": {"port": 9443, "tls": True, "spare_slots": None}, "take_over": ["x"]}
    assert compiled("lab", overrides=overrides)["overrides"] == [
        {"path": "cluster.gateway.port", "old": 8443, "new": 9443},
        {"path": "cluster.gateway.tls", "old": None, "new": True},
        {"path": "cluster.gateway.spare_slots", "old": 4, "new": None},
        {"path": "cluster.take_over", "old": None, "new": ["x"]},
    ]


def test_deployments_are_patched_by_name(compiled: Compile) -> None:
    plan = compiled("lab", overrides={"deployments": {"tiny-deepseek": {"replicas": 2}}})
    assert len(plan["instances"]) == 2
    assert plan["overrides"] == [{"path": "cluster.deployments[0].replicas", "old": 4, "new": 2}]


def test_null_removes_a_deployment_and_a_list_replaces_all(compiled: Compile) -> None:
    plan = compiled("lab", overrides={"deployments": {"tiny-deepseek": None}})
    assert plan["instances"] == []
    assert codes(plan, "warning") == ["no-deployments"]
    assert compiled("lab", overrides={"deployments": []})["instances"] == []


def test_unknown_deployment_and_wrong_types_are_errors(compiled: Compile) -> None:
    assert codes(compiled("lab", overrides={"deployments": {"tiny-deepsek": {}}})) == ["override-unknown-deployment"]
    assert codes(compiled("lab", overrides=["gateway"])) == ["bad-overrides"]
    assert "wrong-type" in codes(compiled("lab", overrides={"deployments": {"tiny-deepseek": 7}}))
    assert "wrong-type" in codes(compiled("lab", {"deployments": 7}, overrides={"deployments": {"x": {}}}))
