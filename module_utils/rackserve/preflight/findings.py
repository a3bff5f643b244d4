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


def warning_lines(findings: list[Finding]) -> list[str]:
    """Return the warning findings as one line each: `code: where: why; fix`."""
    return [f"{f['code']}: {f['where']}: {f['why']}; {f['fix']}" for f in findings if f["severity"] == "warning"]


def as_block(message: Any) -> Any:
    """Return text that YAML shows as it is, one line a finding; anything but text and lists of text as it came.

    The line break at the end is what makes it a block. It is not shown.
    """
    if isinstance(message, list) and message and all(isinstance(line, str) for line in message):
        message = "\n".join(message)
    return f"{message}\n" if isinstance(message, str) and message else message
