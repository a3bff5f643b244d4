"""Rules over texts: each names its cause first, and none speaks up at a text that is merely close."""

from __future__ import annotations

import pytest
from log_texts import NEAR, POSITIVE, XIDS, Text
from rackserve.diagnose.case import ANY, FINE, KINDS, TROUBLED, Case, Host, Source
from rackserve.diagnose.catalogue import BY_ID, RULES
from rackserve.diagnose.rank import diagnose, find


def case(text: Text, kind: str = "", state: str = TROUBLED) -> Case:
    source = Source("node2", "journal/x.log", kind or text.kind, text.text, "vllm-a-0.service", state)
    return Case([Host("node2", [source])])


def label(text: Text) -> str:
    return f"{text.first or 'not-' + '-'.join(text.never[:2])}"


@pytest.mark.parametrize("text", POSITIVE, ids=label)
def test_a_text_names_its_cause_first(text: Text) -> None:
    causes = diagnose(case(text), RULES)
    assert [one["cause"] for one in causes][:1] == [text.first]
    assert causes[0]["evidence"][0]["line"] >= 1
    assert "<host>" not in causes[0]["run"]


@pytest.mark.parametrize("text", POSITIVE, ids=label)
def test_the_same_in_a_bare_log_file(text: Text) -> None:
    """Nobody knows there what wrote it."""
    assert [one["cause"] for one in diagnose(case(text, ANY), RULES)][:1] == [text.first]


@pytest.mark.parametrize("text", POSITIVE, ids=label)
def test_what_serves_is_no_cause(text: Text) -> None:
    """Old complaints of a unit that works are kept, and are no evidence."""
    assert diagnose(case(text, state=FINE), RULES) == []


@pytest.mark.parametrize("text", NEAR, ids=label)
def test_a_text_that_is_close_is_no_cause(text: Text) -> None:
    for kind in (text.kind, ANY):
        found = {one.rule.id for one in find(case(text, kind), RULES)}
        assert not found & set(text.never)
    assert set(text.never) <= set(BY_ID)


def test_every_rule_over_texts_is_tried_both_ways() -> None:
    """A rule is tried by a text or by a reading (test_rules_readings)."""
    named = {text.first for text in POSITIVE}
    refused = {name for text in NEAR for name in text.never}
    plain = {name for name in named if not name.startswith("xid-")}
    assert plain <= refused, sorted(plain - refused)
    assert {f"xid-{number}" for number in XIDS} | {"xid-other"} == {one for one in BY_ID if one.startswith("xid-")}
    assert {text.kind for text in POSITIVE} <= set(KINDS)


@pytest.mark.parametrize("number", XIDS)
def test_an_xid_is_not_taken_for_another(number: int) -> None:
    text = next(one for one in POSITIVE if one.first == f"xid-{number}")
    assert {one.rule.id for one in find(case(text), RULES) if one.rule.id.startswith("xid-")} == {f"xid-{number}"}
