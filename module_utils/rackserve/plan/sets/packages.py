"""Which packages a distribution gets of a set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..findings import Findings
from .schema import PARTS


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


def chosen_distribution(
    described: str | None, release: Mapping[str, Any], parts: tuple[str, ...], findings: Findings
) -> str:
    """The distribution whose packages are installed; "", with an error finding, where the description does not say."""
    names, where = release["distributions"], "cluster.distribution"
    if findings.broken(where):
        return ""
    if described and described not in names:
        why = f"the release is not for {described}."
        findings.error("distribution-unfit", where, why, f"It is for {', '.join(names)}.")
        return ""
    if not described and not same_everywhere(release, parts):
        why = f"the release installs different packages on {', '.join(names)}."
        findings.error("distribution-missing", where, why, "Say which one the hosts run.")
        return ""
    return str(described or names[0])


def all_packages(release: Mapping[str, Any], distribution: str) -> dict[str, str]:
    """Name to exact version of every part's packages; `distribution` "": the only one, or all get the same.

    Raises ValueError, one line, for a distribution that the set is not for, or where one has to be named.
    """
    known = ", ".join(release["distributions"])
    whole = {"packages": [], **release}
    if distribution and distribution not in release["distributions"]:
        raise ValueError(f"the release is not for {distribution}; it is for {known}")
    if not distribution and not same_everywhere(whole, PARTS):
        raise ValueError(f"the release's packages differ between {known}; set cluster.distribution")
    found: dict[str, str] = {}
    for part in PARTS:
        found.update(packages_of(whole, part, distribution or release["distributions"][0]))
    return dict(sorted(found.items()))
