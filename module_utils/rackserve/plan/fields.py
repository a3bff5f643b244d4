"""The kinds of fields that descriptions are made of."""

from __future__ import annotations

from .schema import Field

NAME = "[a-z][a-z0-9-]{0,30}"
NAME_MEANS = "a name (a-z, 0-9, -; starts with a letter; at most 31)"
FILE_ID = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"
PATH = r"/(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9._/@+=-]*"
PATH_MEANS = "an absolute path (letters, digits and ._/@+=-, no ..)"


def name(doc: str) -> Field:
    """A name that may stand in a unit's."""
    return Field("text", doc, pattern=NAME, pattern_means=NAME_MEANS, required=True)


def path(doc: str, default: str | None = None) -> Field:
    """An absolute path."""
    return Field("text", doc, pattern=PATH, pattern_means=PATH_MEANS, default=default, nullable=default is None)


def file_id(doc: str) -> Field:
    """A file of the library."""
    return Field("text", doc, required=True, pattern=FILE_ID, pattern_means="a file's name without .yml")


def whole(doc: str, default: int | None, low: int, high: int, required: bool = False) -> Field:
    """A whole number between bounds."""
    return Field("whole", doc, default=default, low=low, high=high, required=required)
