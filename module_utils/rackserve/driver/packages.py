"""The driver's packages on a host: ours in the release's version, ours in another, and those of somebody else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from ..converge.dpkg import held, installed, present
from ..converge.host import Host, Package
from ..preflight.findings import Finding, finding
from .host import driver_packages, recorded_packages
from .parts import UPGRADE
from .version import upstream


class State(NamedTuple):
    """What a comparison found.

    remove: packages of another driver that the site gives up. held: ours that somebody else holds uninstalled.
    replaced: packages that an earlier release of ours brought and this one does not have. extra: packages that came
    with our old version as dependencies, as name=version.
    """

    findings: list[Finding]
    remove: list[str]
    held: list[str]
    replaced: list[str]
    extra: list[str]


def compare(root: Path, version: str, wanted: Mapping[str, str], take_over: Collection[str]) -> State:
    """Compare dpkg's records with `wanted` {name: version} of the driver `version`; nothing wanted, nothing said."""
    if not wanted:
        return State([], [], [], [], [])
    known = Host(root, None).packages
    recorded = recorded_packages(root) - set(wanted)
    ours = {name: known[name] for name in sorted({*wanted, *recorded}) if present(known.get(name))}
    versions = {upstream(one) for one in wanted.values()} | {upstream(one.version) for one in ours.values()}
    others = {name: one for name, one in driver_packages(root).items() if name not in ours}
    foreign = {name: one for name, one in others.items() if upstream(one.version) not in versions}
    remove = sorted(name for name in foreign if f"package:{name}" in take_over)
    held_away = [name for name in wanted if held(known.get(name)) and not present(known.get(name))]
    found = _other_versions(version, wanted, ours)
    found += [_conflict(name, foreign[name], version) for name in sorted(set(foreign) - set(remove))]
    for name in sorted(name for name in held_away if f"hold:{name}" not in take_over):
        why = f"somebody holds it uninstalled; driver {version} needs it"
        fix = f"apt-mark unhold {name}, or name hold:{name} in cluster.take_over"
        found.append(finding("error", "driver-foreign-hold", f"package {name}", why, fix))
    extra = [
        f"{name}={one.version.replace(upstream(one.version), version)}"
        for name, one in sorted(others.items())
        if name not in foreign and name not in wanted and upstream(one.version) != version
    ]
    return State(found, remove, held_away, sorted(set(ours) - set(wanted)), extra)


def to_install(wanted: Mapping[str, str], known: Mapping[str, Package], other_versions: bool) -> list[str]:
    """What is not installed, as name=version; with `other_versions` also what is in another one."""
    return [
        f"{name}={wanted[name]}"
        for name in sorted(wanted)
        if not installed(known.get(name)) or (other_versions and known[name].version != wanted[name])
    ]


def differ(wanted: Mapping[str, str], known: Mapping[str, Package]) -> bool:
    """Whether a package is missing or of another version."""
    return bool(to_install(wanted, known, True))


def _other_versions(version: str, wanted: Mapping[str, str], ours: Mapping[str, Package]) -> list[Finding]:
    """One finding for each version of our packages that is not the wanted one."""
    others: dict[str, list[str]] = {}
    for name, package in ours.items():
        if package.version != wanted.get(name):
            others.setdefault(package.version, []).append(name)
    return [
        finding(
            "error",
            "driver-differs",
            f"package {', '.join(names)}",
            f"driver {other if upstream(other) == version else upstream(other)} installed, release says {version}",
            UPGRADE,
        )
        for other, names in others.items()
    ]


def _conflict(name: str, package: Package, version: str) -> Finding:
    also = ", held" if held(package) else ""
    why = f"driver {upstream(package.version)} is installed by somebody else{also}; the release says {version}"
    fix = f"remove it from the drained host, or name package:{name} in cluster.take_over"
    return finding("error", "driver-conflict", f"package {name}", why, fix)
