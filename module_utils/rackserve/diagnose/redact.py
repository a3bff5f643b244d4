"""Secrets out of texts: those that are known, and what looks like one. On the host, and again on the controller."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

MARK = "[redacted]"
# Shorter ones would tear texts apart; a secret that short is none.
SHORTEST = 6
_PEM_LINE = 40
# Files of ours that hold secrets: never collected, but read to know what must not leave the host.
SECRET_FILES = (
    "etc/rackserve/*/*.secret.env", "etc/rackserve/gateway/keys.map", "etc/rackserve/gateway/engine-key.map",
    "etc/rackserve/gateway/tls.pem", "etc/rackserve/ray/token",
)  # fmt: skip
_MOST_BYTES = 1 << 16

_NAME = (
    r"(?:[\w.-]{0,80}(?:api[_-]?key|secret|token|passw(?:or)?d|passphrase|credentials?|private[_-]?key|access[_-]?key))"
)
_HARMLESS = r"(?!\s|\[redacted|(?:null|none|true|false|yes|no)\b|[\d.]{1,12}(?:[\s,;)}\]'\"]|$)|/|<|\{secret:|\$\{?\w)"
_PATTERNS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (
        re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*-----|\Z)", re.DOTALL),
        f"-----PRIVATE KEY {MARK}-----",
    ),
    (re.compile(r"(?i)(\b(?:bearer|basic)\s+)(?=[\w+/.~=-]{8,})(?=\S*[\d_+/=-]|\S{20,})[\w+/.~=-]+"), rf"\1{MARK}"),
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:\w+\s+)?)(?!\[redacted)[\w+/.~=-]{6,}(?!\s*\[redacted)"),
     rf"\1{MARK}"),
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]{0,15}://[^\s/:@]*:)[^\s/@]+@"), rf"\1{MARK}@"),
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]{0,15}://)(?=[^\s/:@]{16,}@)[^\s/:@]+@"), rf"\1{MARK}@"),
    (re.compile(r"(?i)([?&](?:[\w-]*(?:token|key|sig|signature|secret|password|credential))=)[^&\s'\"]+"),
     rf"\1{MARK}"),
    # One line of JSON, YAML, an environment or a configuration, and arguments: --api-key X, --api-key=X.
    (re.compile(rf"(?i)(--{_NAME}(?:\s+|=)['\"]?){_HARMLESS}(?!-)[^\s'\"]+"), rf"\1{MARK}"),
    (re.compile(rf"(?i)(\b{_NAME}['\"]?\s*[=:]\s*['\"]?){_HARMLESS}[^\s'\",;}}]+"), rf"\1{MARK}"),
    (re.compile(r"\bhf_[A-Za-z0-9]{20,}|\bsk-[\w-]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"), MARK),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b|\bxox[abposr]-[\w-]{10,}|\bglpat-[\w-]{16,}|\bnvapi-[\w-]{20,}"), MARK),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{4,}"), MARK),
)  # fmt: skip


def spellings(value: str) -> set[str]:
    """How a secret may stand in a text: whole, each line of a key, as in JSON, in a URL, in base64."""
    value = value.strip()
    lines = [line.strip() for line in value.splitlines()] if "\n" in value else [value]
    if "PRIVATE KEY" in value:
        # What is before it, a certificate, is no secret; its own armour is none either.
        private = value[value.index("PRIVATE KEY") :].splitlines()[1:]
        lines = [line.strip() for line in private if len(line.strip()) >= _PEM_LINE and "-----" not in line]
    found = {line for line in lines if len(line) >= SHORTEST}
    for line in list(found):
        found |= {json.dumps(line)[1:-1], quote(line, safe=""), base64.b64encode(line.encode()).decode().rstrip("=")}
    return {one for one in found if len(one) >= SHORTEST}


class Redactor:
    """Takes secrets out of texts; ``count`` says how many places. Made of {name: value}; the names are not shown."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = sorted({one for value in known for one in spellings(value)}, key=lambda one: (-len(one), one))
        self.count = 0

    def text(self, text: str) -> str:
        """A text without secrets."""
        for word in self._known:
            if word in text:
                self.count += text.count(word)
                text = text.replace(word, MARK)
        for pattern, instead in _PATTERNS:
            text, times = pattern.subn(instead, text)
            self.count += times
        return text

    def deep(self, thing: Any) -> Any:
        """The same of everything in plain data: keys too, and the value of a key that names a secret."""
        if isinstance(thing, str):
            return self.text(thing)
        if isinstance(thing, Mapping):
            return {self.text(str(key)): self._value(str(key), value) for key, value in thing.items()}
        if isinstance(thing, (list, tuple)):
            return [self.deep(one) for one in thing]
        return thing

    def _value(self, key: str, value: Any) -> Any:
        if isinstance(value, str) and value and not value.startswith("/") and _SECRET_KEY.fullmatch(key):
            self.count += value != MARK
            return MARK
        return self.deep(value)


_SECRET_KEY = re.compile(_NAME, re.IGNORECASE)


def known_here(root: Path) -> list[str]:
    """Secrets that our own files on this host hold."""
    found = []
    for pattern in SECRET_FILES:
        for path in sorted(root.glob(pattern)):
            try:
                with path.open("rb") as stream:
                    text = stream.read(_MOST_BYTES).decode("utf-8", "replace")
            except OSError:
                continue
            found += _values(path.name, text)
    return found


def _values(name: str, text: str) -> list[str]:
    if name.endswith(".env"):
        pairs = (line.partition("=") for line in text.splitlines() if not line.lstrip().startswith("#"))
        return [value.strip().strip("'\"") for _, _, value in pairs if value.strip()]
    if name == "keys.map":
        return [line.split()[0] for line in text.splitlines() if line.split() and not line.startswith("#")]
    if name == "engine-key.map":
        return [line.split()[-1] for line in text.splitlines() if line.split() and not line.startswith("#")]
    return [text]
