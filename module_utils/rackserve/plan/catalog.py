"""The library: what `files/` knows of releases, hardware, models and profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from .findings import Findings, did_you_mean
from .schema import Field, validate


@dataclass(frozen=True)
class Library:
    """Loaded data by id (the file's name without .yml; a profile's key), not yet validated."""

    releases: Mapping[str, Any] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)
    profiles: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def take(self, shelf: str, key: str, schema: Field, where: str, findings: Findings) -> Any:
        """Return a validated entry of a shelf (a field of this class).

        None, with an error finding at ``where``, when there is no such entry or its file is wrong; and where there is
        an error finding already.
        """
        entries: Mapping[str, Any] = getattr(self, shelf)
        source = f"files/{shelf}.yml" if shelf == "profiles" else f"files/{shelf}/{key}.yml"
        if findings.broken(where):
            return None
        if key not in entries:
            known = sorted(entries)
            fix = did_you_mean(key, known, f"Known: {', '.join(known)}. Or add {source}.")
            findings.error(f"unknown-{_SINGULAR[shelf]}", where, f'{where}: there is no "{key}" ({source}).', fix)
            return None
        spot = f"{source}:{key}" if shelf == "profiles" else source
        entry = validate(schema, entries[key], spot, findings)
        return None if findings.broken(spot) else entry


class LibraryError(Exception):
    """A file of the library cannot be read; the text names it and says why."""


_SINGULAR = {
    "releases": "release",
    "hardware": "hardware",
    "models": "model",
    "profiles": "profile",
    "options": "options",
}


def load_library(root: Path, parse: Callable[[str], Any]) -> Library:
    """Read ``root``/files/{releases,hardware,models,options}/*.yml and files/profiles.yml.

    ``parse`` turns YAML text into data (the caller brings it: this package is standard library only). Raises
    LibraryError, which names the file, when one cannot be read or parsed.
    """

    def read(path: Path) -> Any:
        try:
            return parse(path.read_text("utf-8"))
        except Exception as problem:  # whatever the caller's parser raises
            raise LibraryError(f"{path.relative_to(root)}: {problem}") from problem

    def shelf(name: str) -> dict[str, Any]:
        return {path.stem: read(path) for path in sorted((root / "files" / name).glob("*.yml"))}

    profiles = read(root / "files" / "profiles.yml")
    return Library(
        shelf("releases"),
        shelf("hardware"),
        shelf("models"),
        profiles if isinstance(profiles, dict) else {},
        shelf("options"),
    )
