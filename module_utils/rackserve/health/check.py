"""What a check is, and what it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, NamedTuple

if TYPE_CHECKING:
    from .look import Look

INFO, WARNING, CRITICAL = "info", "warning", "critical"
SEVERITIES = (INFO, WARNING, CRITICAL)
FAST, DEEP = "fast", "deep"
PASS, FAIL, UNKNOWN, SKIPPED = "pass", "fail", "unknown", "skipped"
HOST = "host"


class Unreadable(Exception):
    """A source cannot be read, so nothing can be said; the text is one line: what, and how to make it readable."""


class NotHere(Exception):
    """The check has no meaning on this host; the text is one line: why."""


class Problem(NamedTuple):
    """What one check found on one thing.

    ``subject`` is `host`, `GPU 3`, `mlx5_0/1`, a unit, a path. ``severity`` and ``fix`` are the check's own unless
    given; ``caused_by`` are more checks that explain it.
    """

    subject: str
    seen: str
    severity: str = ""
    fix: str = ""
    caused_by: tuple[str, ...] = ()


class Check(NamedTuple):
    """One entry of the catalogue. ``fix`` may name {subject}, {gpu}, {hca}; ``caused_by``: checks that explain it."""

    id: str
    severity: str
    threshold: str
    source: str
    why: str
    fix: str
    judge: Callable[[Look], list[Problem]]
    caused_by: tuple[str, ...] = ()
    level: str = FAST
