"""Corners of the validator."""

from __future__ import annotations

from typing import Any

import pytest
from rackserve.plan.findings import Findings, as_dict, did_you_mean, looks_like_secret, show
from rackserve.plan.schema import Field, table, validate


def judged(field: Field, value: Any) -> tuple[Any, list[str]]:
    findings = Findings()
    return validate(field, value, "x", findings), [item["code"] for item in findings.items]


@pytest.mark.parametrize(
    ("field", "value", "result", "found"),
    [
        (Field("whole", "", low=1), 0, 1, ["out-of-range"]),
        (Field("whole", "", low=1), 1.5, 1, ["wrong-type"]),
        (Field("whole", "", default=3), None, 3, []),
        (Field("number", "", low=0), float("inf"), 0, ["out-of-range"]),
        (Field("text", "", nullable=True), None, None, []),
        (Field("text", ""), "a\x00b", "", ["bad-text"]),
        (Field("text", ""), True, "", ["wrong-type"]),
        (Field("flag", ""), "yes", False, ["wrong-type"]),
        (Field("list", ""), "a", [], ["wrong-type"]),
        (Field("list", ""), [1, "a"], [1, "a"], []),
        (Field("list", "", item=Field("text", "")), ["a", None, 1], ["a"], ["missing-key", "wrong-type"]),
        (Field("object", "", keys={"a": Field("whole", "", default=2)}), None, {"a": 2}, []),
        (Field("object", "", keys={"a": Field("whole", "", required=True)}), None, {"a": 0}, ["missing-key"]),
        (Field("map", "", pattern="[a-z]+", pattern_means="w"), {"a": 1, "B": 2, 3: 4}, {"a": 1}, ["bad-name"] * 2),
        (Field("map", ""), [], {}, ["wrong-type"]),
        (Field("argument", ""), "a\nb", None, ["bad-text"]),
        (Field("argument", ""), float("nan"), None, ["wrong-type"]),
        (Field("argument", ""), [["nested"]], None, ["wrong-type"]),
        (Field("argument", ""), {1}, None, ["wrong-type"]),
        (Field("argument", ""), None, None, []),
        (Field("setting", ""), 1.5, "1.5", []),
        (Field("setting", ""), None, "", []),
        (Field("names", ""), [], None, ["wrong-type"]),
    ],
)
def test_values(field: Field, value: Any, result: Any, found: list[str]) -> None:
    assert judged(field, value) == (result, found)


def test_secret_values_are_not_repeated() -> None:
    field = Field(
        "list", "", item=Field("text", "", pattern="[a-z]+", pattern_means="a name", secret=True), secret=True
    )
    findings = Findings()
    validate(field, ["s3cr3t", 12345678], "keys", findings)
    validate(field, "s3cr3t", "keys", findings)
    assert len(findings.items) == 3
    assert "s3cr3t" not in str(findings.items) and "12345678" not in str(findings.items)


def test_table_describes_types_and_defaults() -> None:
    field = Field("object", "", keys={"a": Field("whole", "An a.", low=1, high=9, default=2), "b": Field("flag", "B.")})
    assert table(field, "t") == [
        "| `t.a` | a whole number, 1 to 9 | `2` | An a. |",
        "| `t.b` | true or false | `false` | B. |",
    ]


def test_findings_are_kept_once_ordered_and_on_one_line() -> None:
    findings = Findings()
    findings.note("n", "a", "why\nmore", "fix")
    findings.error("e", "a.b", "why", "fix")
    findings.error("e", "a.b", "why", "fix")
    assert [item["code"] for item in findings.sorted()] == ["e", "n"]
    assert findings.sorted()[1]["why"] == "why?more"
    assert findings.broken("a") and findings.broken("a.b") and not findings.broken("a.") and not findings.broken("b")


def test_helpers() -> None:
    assert did_you_mean("replcias", ["replicas"], "no") == 'Did you mean "replicas"?'
    assert did_you_mean("zzz", ["replicas"], "no") == "no"
    assert show("sk-123") == "(hidden)" and len(show("a" * 100)) == 60
    assert not looks_like_secret(7) and not looks_like_secret("operator") and looks_like_secret("hf_x")
    assert as_dict([]) == {}
