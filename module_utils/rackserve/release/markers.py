"""Environment markers of a lock (PEP 508): whether a line of it is meant for CPython on Linux x86_64."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from .host import ReleaseError

_TOKEN = re.compile(r"\s*(?:(\(|\)|<=|>=|==|!=|<|>|not in\b|in\b|and\b|or\b)|([a-z_]+)|'([^']*)'|\"([^\"]*)\")")
_VERSIONS = ("python_version", "python_full_version")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
# Of a release of Python that is named by two numbers, the newest.
_PATCH = "999"


def environment(python: str) -> dict[str, str]:
    """What markers ask for, of CPython `python` ("3.11") on Linux x86_64."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.{_PATCH}",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "extra": "",
    }


def holds(marker: str, known: Mapping[str, str]) -> bool:
    """Whether `marker` is true where `known` is so. Raises ReleaseError for one that cannot be read."""
    tokens, at = [], 0
    while marker[at:].strip():
        found = _TOKEN.match(marker, at)
        if found is None:
            raise ReleaseError(f"the lock has a marker that cannot be read: {marker}")
        tokens.append(found)
        at = found.end()
    reader = _Reader(marker, tokens, known)
    value = reader.either()
    if tokens:
        raise reader.unreadable()
    return value


class _Reader:
    """Takes tokens from the front, by the grammar: or, and, comparison or parenthesis."""

    def __init__(self, marker: str, tokens: list[re.Match[str]], known: Mapping[str, str]) -> None:
        self.marker, self.tokens, self.known = marker, tokens, known

    def unreadable(self) -> ReleaseError:
        return ReleaseError(f"the lock has a marker that cannot be read: {self.marker}")

    def _take(self, *words: str) -> bool:
        if self.tokens and self.tokens[0].group(1) in words:
            self.tokens.pop(0)
            return True
        return False

    def either(self) -> bool:
        value = self._both()
        while self._take("or"):
            value = self._both() or value
        return value

    def _both(self) -> bool:
        value = self._one()
        while self._take("and"):
            value = self._one() and value
        return value

    def _one(self) -> bool:
        if self._take("("):
            value = self.either()
            if not self._take(")"):
                raise self.unreadable()
            return value
        left, is_version = self._operand()
        if not self.tokens or not self.tokens[0].group(1):
            raise self.unreadable()
        how = self.tokens.pop(0).group(1)
        right, other = self._operand()
        if how in ("in", "not in"):
            return (left in right) == (how == "in")
        if how not in _COMPARE:
            raise self.unreadable()
        if is_version or other:
            return _COMPARE[how](self._numbers(left), self._numbers(right))
        return _COMPARE[how](left, right)

    def _operand(self) -> tuple[str, bool]:
        """(its text, whether it is a version)."""
        if not self.tokens or self.tokens[0].group(1):
            raise self.unreadable()
        _, name, single, double = self.tokens.pop(0).groups()
        if name is None:
            return single if single is not None else double, False
        if name not in self.known:
            raise self.unreadable()
        return self.known[name], name in _VERSIONS

    def _numbers(self, version: str) -> tuple[int, ...]:
        try:
            numbers = [int(part) for part in version.split(".")]
        except ValueError:
            raise self.unreadable() from None
        return tuple([*numbers, 0, 0][:3])
