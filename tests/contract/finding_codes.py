"""Every code that a finding of ours can carry, read from the sources: what runbooks must explain."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from contract_support import REPO

CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")
SEVERITIES = {"error", "warning", "note"}
CORE = REPO / "module_utils/rackserve"
# Findings of these are a catalogue of their own (checks) or not told to people (names of things of the lab).
ELSEWHERE = ("health/", "simulated/", "lab/")
MAKERS = re.compile(r"(error|warning|note|add|refuse|complain|finding|_\w*|[a-z]\w*finding)")


def _words(node: ast.Call) -> Iterator[str]:
    """String arguments that may be the code: the first one, or the one after the severity."""
    texts = [part.value if isinstance(part, ast.Constant) else None for part in node.args[:3]]
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not CODE.fullmatch(text):
            continue
        if place == 0 or (place == 1 and (texts[0] in SEVERITIES or texts[0] is None)):
            yield text


def _name(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def codes_of(path: Path) -> set[str]:
    """Codes that one file gives to findings."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and (_name(node) in SEVERITIES | {"add", "finding", "_known", "_finding"}):
            found.update(_words(node))
    return found


def all_codes() -> dict[str, str]:
    """{code: the first file that gives it}."""
    found: dict[str, str] = {}
    for path in sorted(CORE.rglob("*.py")):
        name = str(path.relative_to(CORE))
        if not name.startswith(ELSEWHERE):
            for code in codes_of(path):
                found.setdefault(code, name)
    return found
