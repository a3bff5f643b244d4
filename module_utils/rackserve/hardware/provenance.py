"""Where each value of a profile comes from: no value without a source, no source without a value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

UNVERIFIED = "unverified"
_NOT_VALUES = ("sources", "cites", "doc")
Problem = tuple[str, str]


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all values below one; numbers index lists. An empty list or object is a value."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from leaves(part, (*path, str(key)))
    elif isinstance(value, list) and value:
        for index, part in enumerate(value):
            yield from leaves(part, (*path, str(index)))
    else:
        yield path


def cite(cites: Mapping[str, str], path: tuple[str, ...]) -> str | None:
    """The source of a value: that of the longest prefix of its path."""
    for length in range(len(path), 0, -1):
        found = cites.get(".".join(path[:length]))
        if found is not None:
            return found
    return None


def values(profile: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Paths of the values that need a source."""
    return [path for key, part in profile.items() if key not in _NOT_VALUES for path in leaves(part, (str(key),))]


def check_provenance(profile: Mapping[str, Any]) -> list[Problem]:
    """(where, what and how to fix it) of each value without a source and of each source without a value."""
    sources, cites = profile.get("sources"), profile.get("cites")
    wrong = _not_texts("sources", sources) + _not_texts("cites", cites)
    if wrong or not isinstance(sources, Mapping) or not isinstance(cites, Mapping):
        return wrong
    paths = values(profile)
    used = {".".join(path[:length]) for path in paths for length in range(1, len(path) + 1)}
    found = [
        (".".join(path), f"has no source; add cites.{'.'.join(path)}") for path in paths if cite(cites, path) is None
    ]
    for where, source in cites.items():
        if where not in used:
            found.append((f"cites.{where}", "names no value of the profile; remove it"))
        if source != UNVERIFIED and source not in sources:
            found.append((f"cites.{where}", f'there is no source "{source}"; add it to sources or write {UNVERIFIED}'))
    unused = set(sources) - set(cites.values())
    return found + [(f"sources.{source}", "is cited nowhere; cite or remove it") for source in sorted(unused)]


def _not_texts(name: str, value: Any) -> list[Problem]:
    if not isinstance(value, Mapping):
        return [(name, "must be an object of texts; add it")]
    return [
        (f"{name}.{key}", "must be one text; write it in quotes")
        for key, text in value.items()
        if not isinstance(text, str) or not text.strip()
    ]
