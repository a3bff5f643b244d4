"""A small declarative schema: fields, a validator that reports findings, and the table for the documentation."""

from __future__ import annotations

import copy
import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Callable

from .findings import Findings, did_you_mean, show

_SCALARS = (str, int, float, bool)
_PLACEHOLDERS = ("{secret:", "{config_sha256}")
_KIND_NAMES = {
    "text": "text",
    "whole": "a whole number",
    "number": "a number",
    "amount": "a whole number or a word",
    "flag": "true or false",
    "list": "a list",
    "object": "an object",
    "map": "an object",
    "names": "a name or a list of names",
    "argument": "text, a number, true, false, a list, an object or null",
    "setting": "text or a number",
}


@dataclass(frozen=True)
class Field:
    """One value of a description.

    ``kind`` is a key of ``_KIND_NAMES``; ``low``/``high`` bound numbers (inclusive) and, for lists, ``low`` is the
    least number of items; ``keys`` are an object's fields, ``item`` a list's or map's; ``pattern`` must match the
    whole text (or every key of a map). A ``secret`` field's value is never repeated in a message.
    """

    kind: str
    doc: str
    required: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    pattern_means: str = ""
    low: float | None = None
    high: float | None = None
    item: Field | None = None
    keys: Mapping[str, Field] | None = None
    nullable: bool = False
    secret: bool = False

    def empty(self) -> Any:
        """A value of the right type for code that goes on after a finding."""
        if self.default is not None:
            return copy.deepcopy(self.default)
        if self.nullable or self.kind in ("argument", "names"):
            return None
        if self.kind == "object":
            return {key: field.empty() for key, field in (self.keys or {}).items()}
        blanks: dict[str, Any] = {"text": "", "setting": "", "flag": False, "list": [], "map": {}}
        return blanks.get(self.kind, int(self.low or 0))


def validate(field: Field, value: Any, where: str, findings: Findings) -> Any:
    """Return ``value`` in the field's type with defaults filled in; whatever is wrong becomes an error finding."""
    if value is None:
        if field.nullable or field.kind == "argument":
            return None
        if field.required:
            findings.error("missing-key", where, f"{where} is required: {field.doc}", "Add it.")
            return field.empty()
        # An absent object still gets its fields' defaults, and its required fields still count.
        return _object(field, {}, where, findings) if field.kind == "object" else field.empty()
    return _CHECKS[field.kind](field, value, where, findings)


def _wrong_type(field: Field, value: Any, where: str, findings: Findings) -> Any:
    seen = type(value).__name__ if field.secret else show(value)
    fix = field.doc
    if field.kind == "text" and isinstance(value, bool):
        fix = "YAML reads yes, no, on, off, true and false as booleans: write the text in quotes."
    elif field.kind == "text" and isinstance(value, (int, float, datetime.date)) and not field.secret:
        fix = f"Write it in quotes: {show(str(value))}."
        if isinstance(value, float) and re.fullmatch(r"\d+\.[1-9]", str(value)):
            fix = f"Write it in quotes: {show(str(value))}, or {show(str(value) + '0')}: YAML makes one number of both."
    findings.error("wrong-type", where, f"{where} must be {_KIND_NAMES[field.kind]}, not {seen}.", fix)
    return field.empty()


def _bad_text(text: str) -> str:
    if not text.isprintable():
        return "contains a control character or a line break"
    if any(mark in text for mark in _PLACEHOLDERS):
        return "contains a placeholder that is filled in only later, on hosts"
    return ""


def _text(field: Field, value: Any, where: str, findings: Findings) -> Any:
    if not isinstance(value, str):
        return _wrong_type(field, value, where, findings)
    bad = _bad_text(value)
    seen = "its value" if field.secret else show(value)
    if bad:
        findings.error("bad-text", where, f"{where} {bad}.", "Write it as one plain line.")
    elif field.choices and value not in field.choices:
        fix = did_you_mean(value, field.choices, "Use one of: " + ", ".join(field.choices) + ".")
        findings.error("bad-choice", where, f"{where} is {seen}; known: {', '.join(field.choices)}.", fix)
    elif field.pattern and not re.fullmatch(field.pattern, value):
        findings.error("bad-name", where, f"{where}: {seen} is not {field.pattern_means}.", field.doc)
    else:
        return value
    return field.empty()


def _number(field: Field, value: Any, where: str, findings: Findings) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _wrong_type(field, value, where, findings)
    if field.kind == "whole" and isinstance(value, float):
        return _wrong_type(field, value, where, findings)
    low = -math.inf if field.low is None else field.low
    high = math.inf if field.high is None else field.high
    if not low <= value <= high or (isinstance(value, float) and not math.isfinite(value)):
        span = f"from {low:g} to {high:g}" if field.high is not None else f"at least {low:g}"
        findings.error("out-of-range", where, f"{where} is {show(value)}; it must be {span}.", field.doc)
        return field.empty()
    return value


def _amount(field: Field, value: Any, where: str, findings: Findings) -> Any:
    """A whole number, or one of the field's words."""
    if isinstance(value, str):
        return value if value in field.choices else _text(field, value, where, findings)
    if isinstance(value, float):
        return _wrong_type(field, value, where, findings)
    return _number(field, value, where, findings)


def _flag(field: Field, value: Any, where: str, findings: Findings) -> Any:
    return value if isinstance(value, bool) else _wrong_type(field, value, where, findings)


def _list(field: Field, value: Any, where: str, findings: Findings) -> Any:
    if not isinstance(value, list):
        return _wrong_type(field, value, where, findings)
    if len(value) < (field.low or 0):
        findings.error("too-few", where, f"{where} must not be empty.", field.doc)
    if field.item is None:
        return value
    items = []
    for index, item in enumerate(value):
        spot = f"{where}[{index}]"
        checked = validate(_required(field.item), item, spot, findings)
        if field.item.kind == "object" or not findings.broken(spot):
            items.append(checked)
    return items


def _required(field: Field) -> Field:
    return replace(field, required=True)


def _object(field: Field, value: Any, where: str, findings: Findings) -> Any:
    if not isinstance(value, dict):
        return _wrong_type(field, value, where, findings)
    known = field.keys or {}
    for key in value:
        if key not in known:
            fix = did_you_mean(key, known, "Known here: " + ", ".join(known) + ".")
            findings.error("unknown-key", f"{where}.{key}", f'{where} has no key "{key}".', fix)
    return {key: validate(part, value.get(key), f"{where}.{key}", findings) for key, part in known.items()}


def _map(field: Field, value: Any, where: str, findings: Findings) -> Any:
    if not isinstance(value, dict):
        return _wrong_type(field, value, where, findings)
    result: dict[str, Any] = {}
    for key, item in value.items():
        spot = f"{where}.{key}"
        if not isinstance(key, str) or not re.fullmatch(field.pattern, key):
            findings.error("bad-name", spot, f"{where}: {show(key)} is not {field.pattern_means}.", field.doc)
            continue
        checked = validate(field.item or Field("argument", ""), item, spot, findings)
        if not findings.broken(spot):
            result[key] = checked
    return result


def _names(field: Field, value: Any, where: str, findings: Findings) -> Any:
    many = isinstance(value, list) and bool(value)
    if isinstance(value, str) or (many and all(isinstance(item, str) for item in value)):
        return value
    return _wrong_type(field, value, where, findings)


def _argument(field: Field, value: Any, where: str, findings: Findings) -> Any:
    if isinstance(value, str) and _bad_text(value):
        findings.error("bad-text", where, f"{where} {_bad_text(value)}.", "Write it as one plain line.")
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return _wrong_type(field, value, where, findings)
    if isinstance(value, list) and not all(isinstance(item, _SCALARS) and not _bad_text(str(item)) for item in value):
        return _wrong_type(field, value, where, findings)
    if isinstance(value, (*_SCALARS, list, dict)):
        return value
    return _wrong_type(field, value, where, findings)


def _setting(field: Field, value: Any, where: str, findings: Findings) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return _wrong_type(field, type(value).__name__, where, findings)
    text = str(value)
    if _bad_text(text):
        findings.error("bad-text", where, f"{where} {_bad_text(text)}.", "Write it as one plain line.")
        return ""
    return text


_CHECKS: dict[str, Callable[[Field, Any, str, Findings], Any]] = {
    "text": _text,
    "whole": _number,
    "number": _number,
    "amount": _amount,
    "flag": _flag,
    "list": _list,
    "object": _object,
    "map": _map,
    "names": _names,
    "argument": _argument,
    "setting": _setting,
}


def table(field: Field, where: str) -> list[str]:
    """Markdown rows ``| key | type | default | meaning |`` of every field below ``where``, depth first."""
    rows: list[str] = []
    for key, part in (field.keys or {}).items():
        spot = f"{where}.{key}"
        rows.append(f"| `{spot}` | {_describe(part)} | {_default(part)} | {part.doc} |")
        inner = part.item if part.kind == "list" and part.item and part.item.keys else part
        rows += table(inner, spot + ("[]" if inner is not part else ""))
    return rows


def _describe(field: Field) -> str:
    text = _KIND_NAMES[field.kind]
    if field.kind == "amount":
        text = f"{field.low or 0:g} to {field.high or 0:g} \\| " + " \\| ".join(field.choices)
    elif field.choices:
        text = " \\| ".join(field.choices)
    elif field.pattern_means and field.kind == "text":
        text = field.pattern_means
    elif field.high is not None:
        text += f", {field.low or 0:g} to {field.high:g}"
    elif field.kind == "list" and field.item and not field.item.keys:
        text = "a list of " + (field.item.pattern_means or _KIND_NAMES[field.item.kind])
    return text


def _default(field: Field) -> str:
    if field.required:
        return "**required**"
    if field.kind == "object" and not field.nullable:
        return "-"
    value = field.empty()
    return "-" if value is None else f"`{show(value)}`"
