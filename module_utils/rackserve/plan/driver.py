"""Which GPU driver hosts get, and from where."""

from __future__ import annotations

from typing import Any

from .findings import Findings, as_dict
from .sets.packages import packages_of, same_everywhere


def build_driver(
    described: dict[str, Any], release: dict[str, Any] | None, hardware: dict[str, Any] | None, findings: Findings
) -> dict[str, Any] | None:
    """Return {version, packages: {name: version}, fabric_manager, gpus, repository} of the hosts with GPUs.

    None where the hardware has no GPU, the release names no driver, or the site brings its own; and, with an error
    finding, where nothing says where the packages come from or which they are.
    """
    if not release or not hardware or hardware["device"] != "cuda" or not release["driver"]:
        return None
    version = release["driver"]
    if described["driver"] == "preinstalled":
        why = f"the site brings the driver; nothing checks that it is {version}."
        findings.note("driver-preinstalled", "cluster.driver", why, "Leave it out to have the driver installed.")
        return None
    repository = described["repositories"]["nvidia"]
    if findings.broken("cluster.repositories") or findings.broken("cluster.driver"):
        return None
    if not repository:
        why = f"the release names driver {version}, and no repository brings it."
        fix = "Give repositories.nvidia its uri and key, or say driver: preinstalled."
        findings.error("driver-without-repository", "cluster.repositories.nvidia", why, fix)
        return None
    fabric_manager = hardware["fabric_manager"]
    if fabric_manager is None:
        fabric_manager = bool(as_dict(hardware["machine"]).get("nvswitches"))
    where = f"files/releases/{described['release']}.yml"
    parts = ("driver", "fabric_manager") if fabric_manager else ("driver",)
    distribution = distribution_of(described["distribution"], release, parts, findings)
    if fabric_manager and not release["fabric_manager"]:
        why = "the hardware has NVSwitches, and the release no Fabric Manager."
        findings.error("part-missing", f"{where}.fabric_manager", why, "Write the driver's version.")
    if not distribution or findings.broken(where):
        return None
    packages: dict[str, str] = {}
    for part in parts:
        packages.update(packages_of(release, part, distribution))
    return {
        "version": version,
        "packages": {name: packages[name] for name in sorted(packages)},
        "fabric_manager": fabric_manager,
        "gpus": hardware["slots"],
        "repository": repository,
    }


def distribution_of(described: str | None, release: dict[str, Any], parts: tuple[str, ...], findings: Findings) -> str:
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
