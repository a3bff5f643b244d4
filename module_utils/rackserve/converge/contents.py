"""File contents as they will stand on the host: secrets filled in, gated files marked with their digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from .document import Item
from .errors import DocumentError

CONFIG_SHA256 = "{config_sha256}"
_SECRET = re.compile(r"\{secret:([A-Za-z0-9_.-]+)\}")
_SPLIT = re.compile(r"(\{secret:[A-Za-z0-9_.-]+\}|\{config_sha256\})")
_SHORTEST_REDACTED_LINE = 4

Key = tuple[str, str]


class Content(NamedTuple):
    """Wanted bytes of one file. `literals` replaces `data` where the secrets are unknown: text between unknowns."""

    data: bytes
    secret: bool
    literals: tuple[bytes, ...] | None = None

    def matches(self, present: bytes) -> bool:
        """Whether bytes on the host are the wanted ones, whatever the secrets unknown to this run are."""
        if self.literals is None:
            return present == self.data
        first, *middle, last = self.literals
        if not present.startswith(first) or not present.endswith(last):
            return False
        here, end = len(first), len(present) - len(last)
        for literal in middle:
            # An unknown stands for at least one byte.
            here = present.find(literal, here + 1, end)
            if here < 0:
                return False
            here += len(literal)
        return here < end


class Contents(NamedTuple):
    """Contents by (role, item id), and the digest of each gating unit's files (None: not known without secrets)."""

    files: dict[Key, Content]
    digests: dict[str, str | None]


def without_lines(data: bytes, expression: str | None) -> bytes:
    """`data` less the lines in which `expression` is found; `data` itself where there is no expression."""
    if not expression:
        return data
    pattern = re.compile(expression)
    lines = data.decode("utf-8", "replace").splitlines(keepends=True)
    return "".join(line for line in lines if not pattern.search(line)).encode()


def config_digest(files: list[tuple[str, str, bytes]]) -> str:
    """sha256 over (path, item id, content) of a unit's gated files, sorted by path, each with its length."""
    digest = hashlib.sha256()
    for _path, item_id, data in sorted(files):
        digest.update(f"{item_id}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def secret_names(documents: list[dict[str, object]]) -> set[str]:
    """Names that the documents' contents mention as ``{secret:name}``."""
    found: set[str] = set()
    for document in documents:
        items = document.get("items")
        for item in items if isinstance(items, list) else []:
            found.update(_SECRET.findall(str(item.get("content", ""))))
    return found


def resolve_contents(items: list[Item], secrets: Mapping[str, str] | None) -> Contents:
    """Fill in secrets, then digests. `secrets` None: unknown here, so such files are compared around them.

    Raises DocumentError for a secret that is missing or misspelt, and for a digest placeholder without a gate.
    """
    pieces: dict[Key, list[str]] = {}
    gated: dict[str, list[tuple[str, str, bytes]]] = {}
    unknown: set[str] = set()
    for item in items:
        unit = item.spec.get("gated_by")
        if item.kind == "link" and unit:
            gated.setdefault(unit, []).append((item.target, item.id, item.spec["target"].encode()))
        if "content" not in item.spec:
            if unit:
                gated.setdefault(unit, [])
            continue
        words = _SPLIT.split(item.spec["content"])
        _check_placeholders(item, words, secrets)
        pieces[(item.role, item.id)] = words
        if unit:
            if secrets is None and any(_SECRET.fullmatch(word) for word in words):
                unknown.add(unit)
            text = "".join(_fill(word, secrets or {}, CONFIG_SHA256) for word in words)
            data = without_lines(text.encode(), item.spec["hash_excludes"])
            gated.setdefault(unit, []).append((item.target, item.id, data))
    digests = {unit: None if unit in unknown else config_digest(files) for unit, files in gated.items()}
    files: dict[Key, Content] = {}
    for item in items:
        words = pieces.get((item.role, item.id), [])
        if "content" in item.spec:
            digest = digests.get(item.spec.get("gated_by") or "")
            files[(item.role, item.id)] = _content(words, secrets, digest)
    return Contents(files, digests)


def _check_placeholders(item: Item, words: list[str], secrets: Mapping[str, str] | None) -> None:
    where = f"role {item.role}, item {item.id}"
    for word in words:
        named = _SECRET.fullmatch(word)
        if named is None:
            if "{secret:" in word:
                raise DocumentError(f"{where}: content has a malformed secret; write {{secret:name}}")
            if word == CONFIG_SHA256 and not item.spec.get("gated_by"):
                raise DocumentError(f"{where}: content uses {CONFIG_SHA256} without gated_by; add gated_by: <unit>")
        elif secrets is not None and named.group(1) not in secrets:
            raise DocumentError(f"{where}: content names secret {named.group(1)}, which secrets does not hold; add it")


def _fill(word: str, secrets: Mapping[str, str], digest: str) -> str:
    named = _SECRET.fullmatch(word)
    if named:
        return secrets.get(named.group(1), "")
    return digest if word == CONFIG_SHA256 else word


def _content(words: list[str], secrets: Mapping[str, str] | None, digest: str | None) -> Content:
    secret = any(_SECRET.fullmatch(word) for word in words)
    data = "".join(_fill(word, secrets or {}, digest or "") for word in words).encode()
    holes = [
        (secrets is None and _SECRET.fullmatch(word) is not None) or (word == CONFIG_SHA256 and digest is None)
        for word in words
    ]
    if not any(holes):
        return Content(data, secret)
    literals = [""]
    for word, hole in zip(words, holes):
        if hole:
            literals.append("")
        else:
            literals[-1] += _fill(word, secrets or {}, digest or "")
    return Content(data, secret, tuple(literal.encode() for literal in literals))


def check_secrets(secrets: object) -> None:
    """Raise DocumentError, without showing a value, unless `secrets` is a dict of non-empty strings."""
    if not isinstance(secrets, dict):
        raise DocumentError("secrets: must be a dict of name: value")
    for name, value in secrets.items():
        if not isinstance(value, str) or not value:
            raise DocumentError(f"secrets: {name} must be a non-empty string")
        try:
            value.encode()
        except UnicodeError:
            raise DocumentError(f"secrets: {name} must be text that UTF-8 can write") from None


def redact(text: str, secrets: Mapping[str, str] | None) -> str:
    """`text` with every secret value, and every longer line of one, replaced by [secret]."""
    values = set((secrets or {}).values()) - {""}
    for value in tuple(values):
        values.update(line for line in value.splitlines() if len(line.strip()) >= _SHORTEST_REDACTED_LINE)
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "[secret]")
    return text
