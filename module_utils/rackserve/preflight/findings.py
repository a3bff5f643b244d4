"""One shape for everything a check has to say: severity, code, where, why, fix."""

from __future__ import annotations

from typing import Any

Finding = dict[str, Any]
SEVERITIES = ("error", "warning", "note")


def finding(severity: str, code: str, where: str, why: str, fix: str) -> Finding:
    """Build a finding; every value is one line of text. Raises ValueError for a severity nobody reads."""
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity!r} is none of {', '.join(SEVERITIES)}")
    return {"severity": severity, "code": code, "where": where, "why": why, "fix": fix}


def error_lines(findings: list[Finding]) -> list[str]:
    """Return the error findings as one line each: `code: where: why; fix`."""
    return [f"{f['code']}: {f['where']}: {f['why']}; {f['fix']}" for f in findings if f["severity"] == "error"]
