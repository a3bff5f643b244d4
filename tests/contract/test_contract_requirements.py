"""docs/requirements.md: every requirement of the client's documents once, and what became of it."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from contract_support import REPO

PAGE = REPO / "docs/requirements.md"
ASKED = {"A": 28, "B": 39, "C": 22, "D": 23, "E": 122}  # requirements of each document
STATUSES = ("built", "corrected", "refused", "planned")
MILESTONES = ("operations", "monitoring", "load tests", "capacity planner", "phase gates")
SHORTEST_REASON = 10

LINES = PAGE.read_text("utf-8").splitlines()
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in LINES if re.match(r"\| [A-E]\d+ \|", line)
]


def paths(text: str) -> list[str]:
    return re.findall(r"`([a-z_]+/[\w./-]+)`", text)


def reason(text: str) -> str:
    """What a row says beside its paths."""
    return re.sub(r"`[a-z_]+/[\w./-]+`|[·.]", "", text).strip()


def test_every_requirement_stands_there_once_and_in_order() -> None:
    assert [row[0] for row in ROWS] == [f"{letter}{n}" for letter, all_ in ASKED.items() for n in range(1, all_ + 1)]


def test_the_counts_are_those_of_the_rows() -> None:
    for letter, all_ in ASKED.items():
        found = Counter(row[2] for row in ROWS if row[0].startswith(letter))
        cells = " | ".join(str(found[status]) for status in STATUSES)
        assert f"| {letter} | {cells} | {all_} |" in LINES
    found = Counter(row[2] for row in ROWS)
    assert f"| all | {' | '.join(str(found[status]) for status in STATUSES)} | {len(ROWS)} |" in LINES


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_shows_what_its_status_asks_for(row: list[str]) -> None:
    _, asked, status, text = row
    named = paths(text)
    assert asked
    assert status in STATUSES
    assert [path for path in named if not (REPO / path).exists()] == []
    if status == "built":
        assert [path for path in named if not path.startswith(("tests/", "docs/"))], "where is it?"
        assert [path for path in named if path.startswith("tests/")], "what tests it?"
    else:
        assert len(reason(text)) >= SHORTEST_REASON, "why?"
    if status == "corrected":
        assert named, "what is there in its place?"
    if status == "planned":
        assert text.lower().startswith(MILESTONES), "which milestone?"
