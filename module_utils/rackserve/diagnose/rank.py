"""From hits to ranked causes: what one cause explains is told below it, and not beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .case import ELSEWHERE, Case, Line
from .rule import DEGRADED, DOWN, NOTICE, Hit, Rule

_WEIGHTS = {DOWN: 1.0, DEGRADED: 0.8, NOTICE: 0.5}
_MOST_EVIDENCE = 8


class Finding(NamedTuple):
    """Hits of one rule on one host and unit."""

    rule: Rule
    host: str
    unit: str
    about: str
    confidence: float
    lines: Sequence[Line]
    values: Mapping[str, str]

    @property
    def score(self) -> float:
        """By which causes are ordered."""
        return self.confidence * _WEIGHTS[self.rule.impact]


class _Filled(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return f"<{name}>"


def filled(text: str, finding: Finding) -> str:
    """A text of a rule with the finding's values."""
    host = finding.about or finding.host
    known = {**finding.values, "host": host if host != ELSEWHERE else "<host>", "unit": finding.unit or "<unit>"}
    return text.format_map(_Filled(known))


def find(case: Case, rules: Iterable[Rule]) -> list[Finding]:
    """What holds, one finding a rule, host and unit."""
    found: dict[tuple[str, str, str, str], Finding] = {}
    for rule in rules:
        for hit in rule.look(case):
            key = (rule.id, hit.host, hit.unit, hit.about)
            found[key] = _joined(found.get(key), rule, hit)
    return _merged(found)


def _merged(found: Mapping[tuple[str, str, str, str], Finding]) -> list[Finding]:
    """A cause that was seen on a unit, and once more without one, is one cause."""
    kept = dict(found)
    for (cause, host, unit, about), one in found.items():
        named = [key for key in kept if key[:2] == (cause, host) and key[2] and key[3] == about]
        if not unit and named:
            other = kept[named[0]]
            kept[named[0]] = _joined(other, one.rule, Hit(host, one.lines, "", one.values, about, one.confidence))
            del kept[(cause, host, unit, about)]
    return list(kept.values())


def _joined(known: Finding | None, rule: Rule, hit: Hit) -> Finding:
    confidence = hit.confidence or rule.confidence
    if known is None:
        return Finding(rule, hit.host, hit.unit, hit.about, confidence, list(hit.lines), hit.values)
    lines = [*known.lines, *(line for line in hit.lines if line not in known.lines)][:_MOST_EVIDENCE]
    # Seen in two places: surer, never sure.
    surer = min(0.99, 1 - (1 - known.confidence) * (1 - confidence / 2))
    return known._replace(lines=lines, confidence=round(surer, 2), values={**hit.values, **known.values})


def _related(cause: Finding, symptom: Finding) -> bool:
    """Whether they are about the same engine or host; a symptom of the whole service belongs to every host."""
    if symptom.rule.id == "gateway-no-server":
        return True
    if "hosts" in cause.values:
        return (symptom.about or symptom.host) in cause.values["hosts"].split()
    if symptom.about or cause.about:
        return (cause.about or cause.host) == (symptom.about or symptom.host)
    if cause.host != symptom.host:
        return False
    return not (cause.unit and symptom.unit) or cause.unit == symptom.unit


def explain(findings: Sequence[Finding]) -> list[tuple[Finding, list[Finding]]]:
    """(cause, what follows from it), the likeliest and worst first."""
    by: dict[int, int] = {}
    for place, symptom in enumerate(findings):
        causes = [
            other for other, cause in enumerate(findings)
            if other != place and symptom.rule.id in cause.rule.hides and _related(cause, symptom)
        ]  # fmt: skip
        if causes:
            by[place] = max(causes, key=lambda other: findings[other].score)
    follows: dict[int, list[Finding]] = {}
    for place in by:
        follows.setdefault(_root(place, by), []).append(findings[place])
    roots = [place for place in range(len(findings)) if place not in by]
    roots.sort(key=lambda place: (-findings[place].score, -len(follows.get(place, [])), place))
    return [(findings[place], follows.get(place, [])) for place in roots]


def _root(place: int, by: Mapping[int, int]) -> int:
    while place in by:
        place = by[place]
    return place


def diagnose(case: Case, rules: Iterable[Rule], inventory: str = "") -> list[dict[str, Any]]:
    """Ranked causes as plain data."""
    told = []
    for cause, follows in explain(find(case, rules)):
        run = filled(cause.rule.run, cause)
        below = sorted({(one.rule.id, one.about or one.host, one.unit) for one in follows})
        told.append(
            {
                "cause": cause.rule.id,
                "category": cause.rule.category,
                "impact": cause.rule.impact,
                "confidence": cause.confidence,
                "host": cause.about or cause.host,
                "unit": cause.unit,
                "says": filled(cause.rule.says, cause),
                "why": filled(cause.rule.why, cause),
                "evidence": [
                    {"host": line.host, "file": line.where, "line": line.number, "text": line.text[:400]}
                    for line in cause.lines[:_MOST_EVIDENCE]
                ],
                "fix": filled(cause.rule.fix, cause),
                "run": run.replace("<inventory>", inventory) if inventory else run,
                "follows": [dict(zip(("cause", "host", "unit"), each)) for each in below],
            }
        )
    return told
