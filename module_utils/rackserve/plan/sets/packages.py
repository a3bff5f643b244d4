"""Which packages a distribution gets of a set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def packages_of(release: Mapping[str, Any], part: str, distribution: str) -> dict[str, str]:
    """Name to exact version of a part's packages on a distribution, sorted by name; empty where the set names none."""
    found: dict[str, str] = {}
    for group in release["packages"]:
        if group["part"] == part and distribution in group["distributions"]:
            found.update(group["versions"])
    return dict(sorted(found.items()))


def same_everywhere(release: Mapping[str, Any], parts: tuple[str, ...]) -> bool:
    """Whether all the set's distributions get the same packages of these parts."""
    each = [[packages_of(release, part, name) for part in parts] for name in release["distributions"]]
    return all(one == each[0] for one in each)
