"""What the timer rackserve-verify-weights found when it read all weights last."""

from __future__ import annotations

import json
import time

from .check import CRITICAL, HOST, Check, NotHere, Problem, Unreadable
from .look import Look

REPORT = "var/lib/rackserve-weights/report.json"
_MANY = 3


def _weights(look: Look) -> list[Problem]:
    path = look.root / REPORT
    if not path.is_file():
        raise NotHere("no weights were read by the timer yet")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        days = (time.time() - float(report["checked_at"])) / 86400
        found = []
        for row in report["models"]:
            names = [str(one["file"]) for one in row["problems"]]
            if names:
                more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
                seen = f"damaged when read {days:.0f} days ago: {', '.join(names[:_MANY])}{more}"
                found.append(Problem(str(row["path"]) or HOST, seen))
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise Unreadable(f"/{REPORT} is no report ({type(problem).__name__}): remove it") from problem
    return found


CHECKS = (
    Check(
        "weights-damaged",
        CRITICAL,
        "a file that is not what was proven",
        "own: sha256 of every file, by the timer rackserve-verify-weights",
        "The next start loads it, or is refused; answers may be wrong without an error.",
        "run playbooks/repair-weights.yml, which fetches that file alone from another host",
        _weights,
    ),
)
