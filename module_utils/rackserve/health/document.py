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


def document(text: str) -> str:
    """The text with the table put in. Raises ValueError where it lacks a mark."""
    head, begin, rest = text.partition(f"{BEGIN}\n")
    _, end, tail = rest.partition(f"{END}\n")
    if not begin or not end:
        raise ValueError(f"the document lacks one of the lines {BEGIN} and {END}")
    return head + section() + tail
