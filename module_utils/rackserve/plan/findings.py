"""What the compiler has to say about a description: findings, never exceptions."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

SEVERITIES = ("error", "warning", "note")
_SECRET_PREFIX = re.compile(r"^(sk-|hf_|ghp_|Bearer |-----BEGIN)")
_LONG_TOKEN = re.compile(r"^[A-Za-z0-9+/=_.-]{20,}$")
_SHOWN_CHARACTERS = 60


class Findings:
    """A list of findings, each ``{severity, code, where, why, fix}`` (all text)."""

    def __init__(self) -> None:
        self.items: list[dict[str, str]] = []

    def add(self, severity: str, code: str, where: str, why: str, fix: str) -> None:
        """Append one finding; the same finding is kept once."""
        texts = {"where": where, "why": why, "fix": fix}
        item = {"severity": severity, "code": code, **{key: _one_line(text) for key, text in texts.items()}}
        if item not in self.items:
            self.items.append(item)

    def error(self, code: str, where: str, why: str, fix: str) -> None:
        """A description that must not reach a host."""
        self.add("error", code, where, why, fix)

    def warning(self, code: str, where: str, why: str, fix: str) -> None:
        """Legal, and probably not what the site wants."""
        self.add("warning", code, where, why, fix)

    def note(self, code: str, where: str, why: str, fix: str) -> None:
        """Worth knowing, nothing to do."""
        self.add("note", code, where, why, fix)

    def broken(self, where: str) -> bool:
        """True when an error stands at ``where`` or below it."""
        return any(
            f["severity"] == "error" and (f["where"] == where or f["where"].startswith((where + ".", where + "[")))
            for f in self.items
        )

    def keep_causes(self, *codes: str) -> None:
        """Where there is an error of ``codes``, drop everything else: it follows from that."""
        causes = [item for item in self.items if item["code"] in codes]
        self.items = causes[:1] or self.items

    def sorted(self) -> list[dict[str, str]]:
        """Errors first, then warnings, then notes; in the order they were found within each."""
        return sorted(self.items, key=lambda item: SEVERITIES.index(item["severity"]))


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def looks_like_secret(value: object) -> bool:
    """True for text that reads like a key or token rather than a name (long and mixed, or a known prefix)."""
    if not isinstance(value, str):
        return False
    if _SECRET_PREFIX.match(value):
        return True
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return bool(_LONG_TOKEN.match(value)) and mixed


def show(value: object) -> str:
    """The value as one short piece of JSON for a message; a value with a key's prefix is not repeated."""
    if isinstance(value, str) and _SECRET_PREFIX.match(value):
        return "(hidden)"
    text = json.dumps(value, default=str, sort_keys=False, skipkeys=True)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def did_you_mean(word: object, known: Iterable[str], otherwise: str) -> str:
    """``Did you mean "x"?`` when a known word is near, else ``otherwise``."""
    near = difflib.get_close_matches(str(word), sorted(known), n=1, cutoff=0.6)
    return f'Did you mean "{near[0]}"?' if near else otherwise


def as_dict(value: Any) -> dict[str, Any]:
    """The value when it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}
