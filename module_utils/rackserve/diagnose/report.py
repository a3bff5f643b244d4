"""Causes for people: short, ranked, each with its evidence and what to run next; and the list in docs/diagnose.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..health.document import put_between
from .case import Case
from .catalogue import FAMILIES

_MOST_SHOWN, _MOST_EVIDENCE, _COLUMNS = 10, 4, 220
BEGIN = "<!-- generated from module_utils/rackserve/diagnose: begin -->"
END = "<!-- generated: end -->"


def lines(case: Case, causes: Sequence[Mapping[str, Any]]) -> list[str]:
    """For a terminal."""
    told = _looked_at(case)
    if not causes:
        return [told, "No cause found: nothing that was collected points to a fault."]
    found = [told, f"{len(causes)} cause{'s' if len(causes) > 1 else ''}, the likeliest first:"]
    for number, one in enumerate(causes[:_MOST_SHOWN], 1):
        found += _cause(number, one)
    if len(causes) > _MOST_SHOWN:
        found.append(f"... and {len(causes) - _MOST_SHOWN} more: -e diagnose_output=<file> has all of them")
    return found


def _looked_at(case: Case) -> str:
    lost = [host.name for host in case.hosts.values() if host.lost]
    asked = len(case.hosts) - len(lost)
    texts = sum(len(host.sources) for host in case.hosts.values())
    told = f"Looked at {asked} host{'s' if asked != 1 else ''}, {texts} texts"
    return f"{told}; not readable: {', '.join(lost)}" if lost else told


def _cause(number: int, one: Mapping[str, Any]) -> list[str]:
    where = f"{one['host']} {one['unit']}".strip()
    head = f"{number}. {one['cause']} ({one['category']}, {one['impact']}, {one['confidence']:.2f}) on {where}"
    found = [head, f"   {one['says']}", f"   Why:  {one['why']}"]
    for line in one["evidence"][:_MOST_EVIDENCE]:
        at = f"{line['host']} {line['file']}{':' + str(line['line']) if line['line'] else ''}"
        found.append(f"   Seen: {at}: {line['text'][:_COLUMNS]}")
    found += [f"   Fix:  {one['fix']}", f"   Run:  {one['run']}"]
    if one["follows"]:
        names = [f"{each['cause']} ({each['host']})" for each in one["follows"]]
        found.append(f"   So:   {', '.join(dict.fromkeys(names))}")
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<inventory>", "&lt;inventory&gt;").replace("{", "*").replace("}", "*")


def section() -> str:
    """Tables of all causes, between the two marks."""
    rows = [BEGIN, ""]
    for family, rules in FAMILIES.items():
        rows += [f"### {family}", "", "| cause | category | impact | what it is | fix |", "|" + "---|" * 5]
        for rule in rules:
            says, fix = rule.says, rule.fix
            if rule.says == "{subject}: {seen}":
                says, fix = rule.why, "as the health report says ([health.md](health.md))"
            rows.append(f"| `{rule.id}` | {rule.category} | {rule.impact} | {_cell(says)} | {_cell(fix)} |")
        rows.append("")
    return "\n".join([*rows, END]) + "\n"


def document(text: str) -> str:
    """The text with the tables put in. Raises ValueError where it lacks a mark."""
    return put_between(text, BEGIN, END, section())
