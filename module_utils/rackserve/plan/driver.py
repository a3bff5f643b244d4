"""Which GPU driver hosts get, and from where."""

from __future__ import annotations

from typing import Any

from ..driver.version import upstream
from .findings import Findings, as_dict


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
    packages = _packages(release, fabric_manager, f"files/releases/{described['release']}.yml", findings)
    if not packages:
        return None
    return {
        "version": version,
        "packages": {name: packages[name] for name in sorted(packages)},
        "fabric_manager": fabric_manager,
        "gpus": hardware["slots"],
        "repository": repository,
    }


def _packages(release: dict[str, Any], fabric_manager: bool, where: str, findings: Findings) -> dict[str, str]:
    """Packages by name with their exact versions; empty, with an error finding, where they do not fit the release."""
    version = release["driver"]
    wanted = [("driver_packages", version)]
    wanted += [("fabric_manager_packages", release["fabric_manager"])] if fabric_manager else []
    packages: dict[str, str] = {}
    for field, part in wanted:
        spot, known = f"{where}.{field}", len(findings.items)
        if not release[field]:
            findings.error("driver-packages-unknown", spot, "it names no package.", "Name each with its version.")
        if part != version:
            why = f"Fabric Manager {part} does not work with driver {version}."
            findings.error("fabric-manager-differs", f"{where}.fabric_manager", why, "Write the driver's version.")
        for name, exact in release[field].items():
            if upstream(exact) != version:
                why = f"{name} {exact} is not of driver {version}."
                findings.error("driver-package-version", f"{spot}.{name}", why, "Write the driver's version.")
        if len(findings.items) > known:
            return {}
        packages.update(release[field])
    return packages
