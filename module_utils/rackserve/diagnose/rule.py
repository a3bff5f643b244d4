"""What a rule is, and what it finds. Rules are data and pure functions; each family has a file of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Callable, NamedTuple

from .case import ENGINE, KERNEL, Case, Line, Source

# How bad: nothing is served there; it is served worse, or soon not; somebody should know.
DOWN, DEGRADED, NOTICE = "down", "degraded", "notice"
IMPACTS = (DOWN, DEGRADED, NOTICE)
CATEGORIES = (
    "reachability", "hardware", "kernel", "driver", "fabric", "network", "storage", "memory", "configuration",
    "release", "weights", "permissions", "process", "ray", "gateway", "operation", "time",
)  # fmt: skip

# Seen wherever an engine does not run, whatever the reason; a rule that knows the reason hides them.
UNIT_SYMPTOMS = (
    "unit-crash-loop", "unit-start-limit", "unit-failed", "unit-killed", "unit-start-timeout", "unit-stopped",
    "unit-assert", "engine-core-died", "engine-ready-timeout", "engine-hung", "engine-errors",
    "engine-loading",
)  # fmt: skip
SERVICE_SYMPTOMS = ("gateway-server-down", "gateway-no-server", "engine-watch-ended")
ENGINE_SYMPTOMS = UNIT_SYMPTOMS + SERVICE_SYMPTOMS

PLAY = "ansible-playbook -i <inventory> playbooks/"
SITE = PLAY + "site.yml"
ROLL = PLAY + "roll-serving.yml --limit {host},gateway"
HEALTH = PLAY + "check-health.yml --limit {host}"


class Hit(NamedTuple):
    """A rule holds. ``unit`` narrows it down; ``about`` is another host that the cause may lie on; ``confidence`` 0
    takes the rule's own. A value `hosts` names the hosts that it explains something of, instead of its own."""

    host: str
    lines: Sequence[Line]
    unit: str = ""
    values: Mapping[str, str] = {}
    about: str = ""
    confidence: float = 0.0


class Rule(NamedTuple):
    """One cause. ``says``, ``fix`` and ``run`` may name {host}, {unit} and values of the hit; ``hides``: causes that
    follow from this one. ``run`` is safe: it changes nothing, or it is a gated operation of ours."""

    id: str
    category: str
    impact: str
    confidence: float
    says: str
    why: str
    fix: str
    run: str
    look: Callable[[Case], Iterable[Hit]]
    hides: tuple[str, ...] = ()


MOST_LINES = 3


def said(
    *patterns: str, kinds: Sequence[str] = (ENGINE,), unless: str = "", flags: int = 0
) -> Callable[[Case], Iterator[Hit]]:
    """Looks for lines that match one of the patterns and not ``unless``; a hit a text, its first lines and its last.

    Named groups of the first line are the hit's values.
    """
    wanted = [re.compile(pattern, flags) for pattern in patterns]
    refused = re.compile(unless, flags) if unless else None

    def look(case: Case) -> Iterator[Hit]:
        for source in case.sources(kinds):
            lines, values = _matching(source, wanted, refused)
            if lines:
                kept = lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], lines[-1]]
                yield Hit(source.host, kept, source.unit, values)

    return look


def _matching(
    source: Source, wanted: Sequence[re.Pattern[str]], refused: re.Pattern[str] | None
) -> tuple[list[Line], dict[str, str]]:
    lines: list[Line] = []
    values: dict[str, str] = {}
    # Over the whole text first: nearly all rules end here, and texts may be long.
    present = [pattern for pattern in wanted if pattern.search(source.text)]
    if not present:
        return lines, values
    for line in source.lines():
        found = next((match for match in (pattern.search(line.text) for pattern in present) if match), None)
        if found and not (refused and refused.search(line.text)):
            lines.append(line)
            for name, value in found.groupdict().items():
                if value is not None:
                    values.setdefault(name, value.strip())
    return lines, values


def kernel(*patterns: str, unless: str = "") -> Callable[[Case], Iterator[Hit]]:
    """The same in the kernel log."""
    return said(*patterns, kinds=(KERNEL,), unless=unless)


def either(*looks: Callable[[Case], Iterable[Hit]]) -> Callable[[Case], Iterator[Hit]]:
    """Hits of all of them: a cause that is seen in a text as well as in a reading."""

    def look(case: Case) -> Iterator[Hit]:
        for one in looks:
            yield from one(case)

    return look


def healed(check: str, look: Callable[[Case], Iterable[Hit]]) -> Callable[[Case], Iterator[Hit]]:
    """Without hosts whose health report says that the check passes: the lines are of before it was mended."""

    def fresh(case: Case) -> Iterator[Hit]:
        for hit in look(case):
            checks = case.hosts[hit.host].reading("health", {}).get("checks") or []
            if {"id": check, "status": "pass"} not in [
                {"id": one.get("id"), "status": one.get("status")} for one in checks
            ]:
                yield hit

    return fresh
