"""The rules as a whole: ids, words, playbooks, what hides what; and how causes are ordered and told."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest
from diagnose_support import REPO, causes, changed, healthy_cluster
from rackserve.diagnose import report
from rackserve.diagnose.case import Case, Host, Line
from rackserve.diagnose.catalogue import BY_ID, RULES
from rackserve.diagnose.rank import diagnose
from rackserve.diagnose.rule import CATEGORIES, DOWN, IMPACTS, NOTICE, Hit, Rule

DOCUMENT = REPO / "docs/diagnose.md"


def rule(name: str, *hosts: str, hides: tuple[str, ...] = (), confidence: float = 0.9, impact: str = DOWN) -> Rule:
    hits = [Hit(host, [Line(host, "x.log", 1, f"{name} there")]) for host in hosts]
    return Rule(name, "process", impact, confidence, name, "w", "f {host}", "r {host}", lambda _case: hits, hides)


def test_there_are_enough_rules_and_each_has_all_it_needs() -> None:
    assert len(RULES) >= 40
    assert [name for name, count in Counter(one.id for one in RULES).items() if count > 1] == []
    for one in RULES:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", one.id)
        assert one.category in CATEGORIES
        assert one.impact in IMPACTS
        assert 0 < one.confidence < 1
        assert all((one.says, one.why, one.fix, one.run)), one.id
        for text in (one.says, one.why, one.fix, one.run):
            assert "\n" not in text
            list(string.Formatter().parse(text))


def test_what_a_rule_hides_is_a_rule_and_nothing_hides_itself_in_a_ring() -> None:
    for one in RULES:
        assert set(one.hides) <= set(BY_ID), (one.id, set(one.hides) - set(BY_ID))
    left = dict(BY_ID)
    while left:
        free = [name for name, one in left.items() if not set(one.hides) & set(left)]
        assert free, f"a ring among {sorted(left)}"
        for name in free:
            del left[name]


def test_commands_are_safe_and_name_playbooks_that_are_there() -> None:
    for one in RULES:
        assert one.run.startswith(
            ("ansible-playbook -i <inventory> ", "ssh ", "ssh-keygen -F", "ansible -i <inventory>")
        )
        assert not re.search(r"\b(rm|kill|reboot|mkfs|dd|systemctl (stop|restart|start))\b", one.run), one.id
        for name in re.findall(r"playbooks/([\w-]+\.yml)", f"{one.run} {one.fix} {one.why}"):
            assert (REPO / "playbooks" / name).is_file(), (one.id, name)


def test_the_document_lists_every_cause(request: pytest.FixtureRequest) -> None:
    """`pytest tests/unit/diagnose/test_rank.py --update-golden` writes it."""
    text = DOCUMENT.read_text("utf-8")
    if request.config.getoption("--update-golden"):
        DOCUMENT.write_text(report.document(text), "utf-8")
        text = DOCUMENT.read_text("utf-8")
    assert report.document(text) == text
    with pytest.raises(ValueError, match="lacks one of the lines"):
        report.document("nothing")


def test_a_cause_hides_what_follows_through_others_and_on_its_own_host_only() -> None:
    rules = (rule("end", "a", "b"), rule("middle", "a", hides=("end",)), rule("root", "a", hides=("middle",)))
    found = diagnose(Case([Host("a"), Host("b")]), rules)
    assert [(one["cause"], one["host"]) for one in found] == [("root", "a"), ("end", "b")]
    assert [each["cause"] for each in found[0]["follows"]] == ["end", "middle"]


def test_surer_and_worse_comes_first() -> None:
    rules = (rule("known", "a", impact=NOTICE, confidence=0.99), rule("guess", "a", confidence=0.6), rule("sure", "a"))
    assert [one["cause"] for one in diagnose(Case([Host("a")]), rules)] == ["sure", "guess", "known"]


def test_seen_twice_is_surer_and_never_sure() -> None:
    (one,) = diagnose(Case([Host("a")]), (rule("twice", "a", "a", "a", "a"),))
    assert 0.9 < one["confidence"] <= 0.99


def test_told_for_people() -> None:
    cluster = changed(healthy_cluster())
    assert report.lines(Case([Host("a")]), [])[-1].startswith("No cause found")
    cluster["node2"] = {"lost": "No route to host"}
    told = report.lines(Case([Host("node2", lost="x"), Host("gw")]), causes(cluster))
    assert told[0] == "Looked at 1 host, 0 texts; not readable: node2"
    assert told[2].startswith("1. host-unreachable (reachability, down, 0.96) on node2")
    assert any(line.startswith("   Seen: node2 ssh: No route") for line in told)
    assert any(line.startswith("   Run:  ssh node2") for line in told)
    many = report.lines(Case([Host("a")]), causes(cluster) * 12)
    assert "and 2 more" in many[-1]
    assert all(len(line) < 400 for line in many)


def test_texts_from_elsewhere_name_no_host_in_commands() -> None:
    (one,) = diagnose(Case([Host("input")]), (rule("x", "input"),), "inv")
    assert (one["fix"], one["run"]) == ("f <host>", "r <host>")
