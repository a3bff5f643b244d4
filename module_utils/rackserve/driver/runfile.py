"""A driver from NVIDIA's runfile: the fallback where there can be no packages, never mixed with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..converge.host import Host, Run
from ..preflight.findings import Finding, finding
from .host import driver_packages
from .parts import UPGRADE, library_version

# The installer leaves this behind; no package brings it.
UNINSTALLER = "/usr/bin/nvidia-uninstall"


def check_runfile(root: Path, run: Run, driver: Mapping[str, Any]) -> tuple[list[Finding], bool]:
    """What forbids the runfile, or packages beside one; and whether the runfile has to be run."""
    there = Host(root, None).at(UNINSTALLER).exists()
    if driver.get("source") != "runfile":
        if not there:
            return [], False
        why = "a runfile installed a driver here; packages would mix with it"
        fix = "run nvidia-uninstall on the drained host, or say driver: runfile"
        return [finding("error", "runfile-installed", UNINSTALLER, why, fix)], False
    packages = sorted(driver_packages(root))
    if packages:
        why = "packages of a driver are installed; a runfile would mix with them"
        fix = "remove them from the drained host, or say driver: release"
        return [finding("error", "runfile-with-packages", f"package {', '.join(packages)}", why, fix)], False
    version = library_version(root, run)
    if version and version != driver["version"]:
        why = f"driver {version} installed, release says {driver['version']}"
        return [finding("error", "driver-differs", "runfile", why, UPGRADE)], True
    return [], not version
