"""The catalogue for people: the table in docs/health.md."""

from __future__ import annotations

from .catalogue import CHECKS
from .costs import COSTS

BEGIN = "<!-- generated from module_utils/rackserve/health: begin -->"
END = "<!-- generated: end -->"


def _cell(text: str) -> str:
    return (
        text.replace("|", "\\|").replace("{subject}", "*it*").replace("{gpu}", "*index*").replace("{hca}", "*adapter*")
    )


def section() -> str:
    """The table, between the two marks."""
    rows = [BEGIN, "", "| check | severity | threshold | source | why | fix | cost, wall / CPU ms |", "|" + "---|" * 7]
    for check in CHECKS:
        cost = COSTS.get(check.id)
        spent = f"{cost[0]:g} / {cost[1]:g}" if cost else "minutes"
        words = (f"`{check.id}`", check.severity, check.threshold, check.source, check.why, check.fix, spent)
        rows.append(f"| {' | '.join(map(_cell, words))} |")
    return "\n".join([*rows, "", END]) + "\n"


def put_between(text: str, begin: str, end: str, section: str) -> str:
    """The text with ``section`` in place of what stands from mark to mark. Raises ValueError where it lacks a mark."""
    head, first, rest = text.partition(f"{begin}\n")
    _, last, tail = rest.partition(f"{end}\n")
    if not first or not last:
        raise ValueError(f"the document lacks one of the lines {begin} and {end}")
    return head + section + tail


def document(text: str) -> str:
    """The text with the table put in. Raises ValueError where it lacks a mark."""
    return put_between(text, BEGIN, END, section())
