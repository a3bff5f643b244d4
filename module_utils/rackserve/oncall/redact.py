"""Take secrets out of text: the values that are known, and whatever looks like one."""

from __future__ import annotations

import re
from collections.abc import Iterable

GONE = "(removed)"
SHORTEST = 8
_PATTERNS = (
    # A key from its first line to its last, or to the end where it was cut off.
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), GONE),
    (re.compile(r"(?i)(authorization\W{1,4}(?:bearer|basic)\s+|\bbearer\s+)[\w.~+/=-]{6,}"), rf"\1{GONE}"),
    (re.compile(r"\b(?:sk-|hf_|ghp_|github_pat_|glpat-|xox[abp]-|AKIA)[\w-]{8,}"), GONE),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), GONE),
    (re.compile(r"(://[^/\s:@]{1,64}:)[^/\s@]{1,256}@"), rf"\1{GONE}@"),
    (
        re.compile(
            r"(?i)([\w.-]*(?:passw(?:or)?d|secret|api[_-]?key|access[_-]?key|token(?!s|iz))"
            r"[\w.-]*[\"']?\s*[=:]\s*)([\"']?)(?![\"']?(?:\(removed\)|null|none|true|false|\{)[\"']?\b)[^\s\"',;]{4,}"
        ),
        rf"\1\2{GONE}",
    ),
    (re.compile(r"(?i)(--(?:api-key|token|password)[= ])\S+"), rf"\1{GONE}"),
)


def known_values(texts: Iterable[str]) -> list[str]:
    """The values, one a line, that are long enough to be secrets; the longest first."""
    found = {line.strip().strip("\"'") for text in texts for line in text.splitlines()}
    return sorted((value for value in found if len(value) >= SHORTEST), key=len, reverse=True)


def redact(text: str, values: Iterable[str] = ()) -> str:
    """The text without the values and without what looks like a secret."""
    for value in values:
        text = text.replace(value, GONE)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
