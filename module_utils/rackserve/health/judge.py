"""Run checks over one look at a host, and rank what they find: causes first, each with what follows from it."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .check import (
    CRITICAL,
    FAIL,
    HOST,
    INFO,
    PASS,
    SEVERITIES,
    SKIPPED,
    UNKNOWN,
    WARNING,
    Check,
    NotHere,
    Problem,
    Unreadable,
)
from .look import Look

EXIT_CODES = {PASS: 0, INFO: 0, WARNING: 1, CRITICAL: 2, UNKNOWN: 3}
_MS = 1000.0


class Outcome(NamedTuple):
    """What one check came to; times are what it took with all that it was the first to read."""

    check: Check
    status: str
    problems: list[Problem]
    said: str
    wall_ms: float
    cpu_ms: float


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def run_check(check: Check, look: Look) -> Outcome:
    """Run one check. What it cannot read is `unknown`, whatever else it finds is kept."""
    look.unread.clear()
    wall_s, cpu_s = time.perf_counter(), _cpu_s()
    problems: list[Problem] = []
    status, said = PASS, ""
    try:
        problems = check.judge(look)
    except NotHere as reason:
        status, said = SKIPPED, str(reason)
    except Unreadable as reason:
        status, said = UNKNOWN, str(reason)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        # A reading of an unexpected form must not take the other checks with it.
        status, said = UNKNOWN, f"its source has an unexpected form: {type(error).__name__}: {error}"
    if status == PASS and look.unread:
        status, said = UNKNOWN, "; ".join(dict.fromkeys(look.unread))
    if problems:
        status = FAIL
    spent = (time.perf_counter() - wall_s) * _MS, (_cpu_s() - cpu_s) * _MS
    return Outcome(check, status, problems, said, round(spent[0], 2), round(spent[1], 2))


def _touch(subject: str, other: str) -> bool:
    """Whether two subjects are the same thing, or part of it."""
    return (
        HOST in (subject, other)
        or subject == other
        or subject.split("/", maxsplit=1)[0] == other.split("/", maxsplit=1)[0]
    )


def _causes(outcomes: Sequence[Outcome]) -> dict[tuple[str, int], str]:
    """(check, number of its problem) to the check that explains it, from all failed checks."""
    failed = {outcome.check.id: outcome.problems for outcome in outcomes if outcome.problems}
    found: dict[tuple[str, int], str] = {}
    for outcome in outcomes:
        for number, problem in enumerate(outcome.problems):
            for cause in (*problem.caused_by, *outcome.check.caused_by):
                if cause != outcome.check.id and any(
                    _touch(problem.subject, one.subject) for one in failed.get(cause, ())
                ):
                    found[outcome.check.id, number] = cause
                    break
    return {key: _first_cause(cause, found, failed) for key, cause in found.items()}


def _first_cause(cause: str, causes: Mapping[tuple[str, int], str], failed: Mapping[str, list[Problem]]) -> str:
    """The check at the beginning: a cause that is all explained by another one is only on the way."""
    passed = {cause}
    while True:
        above = [causes.get((cause, number), "") for number in range(len(failed[cause]))]
        if not all(above) or above[0] in passed:
            return cause
        cause = above[0]
        passed.add(cause)


def _fix(check: Check, problem: Problem) -> str:
    values = {
        "{subject}": problem.subject,
        "{gpu}": re.sub(r"^GPU (\d+)$", r"\1", problem.subject),
        "{hca}": problem.subject.split("/")[0],
    }
    fix = problem.fix or check.fix
    for name, value in values.items():
        fix = fix.replace(name, value)
    return fix


def rank(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Findings, worst first, what others explain after all that stands for itself."""
    causes = _causes(outcomes)
    found = []
    for order, outcome in enumerate(outcomes):
        check = outcome.check
        for number, problem in enumerate(outcome.problems):
            finding = {
                "id": check.id,
                "severity": problem.severity or check.severity,
                "subject": problem.subject,
                "seen": problem.seen,
                "threshold": check.threshold,
                "source": check.source,
                "why": check.why,
                "fix": _fix(check, problem),
                "caused_by": causes.get((check.id, number), ""),
            }
            key = (bool(finding["caused_by"]), -SEVERITIES.index(finding["severity"]), order, number)
            found.append((key, finding))
    return [finding for _, finding in sorted(found, key=lambda entry: entry[0])]


def worst(findings: Iterable[Mapping[str, Any]], unknown: bool) -> str:
    """pass, info, warning, critical; unknown where nothing worse than info was found and something was not readable."""
    levels = [SEVERITIES.index(finding["severity"]) for finding in findings]
    level = SEVERITIES[max(levels)] if levels else PASS
    return UNKNOWN if unknown and level in (PASS, INFO) else level


def check_host(look: Look, checks: Sequence[Check]) -> dict[str, Any]:
    """Run the checks. Returns {status, exit_code, findings, unknown, checks, measured, wall_s}.

    exit_code: 0 nothing or info, 1 warning, 2 critical, 3 something could not be read.
    """
    start_s = time.perf_counter()
    outcomes = [run_check(check, look) for check in checks]
    findings = rank(outcomes)
    broken = {finding["id"]: finding["caused_by"] or finding["id"] for finding in reversed(findings)}
    unknown = []
    for outcome in outcomes:
        # A failed check may still have a part that it could not read.
        if outcome.status == UNKNOWN or (outcome.status == FAIL and outcome.said):
            cause = next((broken[name] for name in outcome.check.caused_by if name in broken), "")
            unknown.append({"id": outcome.check.id, "why": outcome.said, "caused_by": cause})
    status = worst(findings, bool(unknown))
    return {
        "status": status,
        "exit_code": EXIT_CODES[status],
        "findings": findings,
        "unknown": unknown,
        "checks": [
            {
                "id": one.check.id, "status": one.status, "said": one.said, "severity": one.check.severity,
                "wall_ms": one.wall_ms, "cpu_ms": one.cpu_ms,
            }
            for one in outcomes
        ],
        "measured": dict(look.measured),
        "wall_s": round(time.perf_counter() - start_s, 3),
    }  # fmt: skip
