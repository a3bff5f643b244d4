"""Which GPU driver hosts get, and from where."""

from __future__ import annotations

from typing import Any

from .findings import Findings, as_dict
from .sets.packages import chosen_distribution, packages_of


def build_driver(
    described: dict[str, Any], release: dict[str, Any] | None, hardware: dict[str, Any] | None, findings: Findings
) -> dict[str, Any] | None:
    """Return what hosts with GPUs get: version, packages {name: version} or a runfile, and what the driver must show.

    Keys: version, kernel_modules, source (packages, runfile), packages, repository, runfile {path, file, sha256},
    fabric_manager, gpus, expect {model, memory_mib, nvlinks, fabric}. None where the hardware has no GPU, the release
    names no driver, or the site brings its own; and, with an error finding, where something needed is not said.
    """
    if not release or not hardware or hardware["device"] != "cuda" or not release["driver"]:
        return None
    version = release["driver"]
    if described["driver"] == "preinstalled":
        why = f"the site brings the driver; nothing checks that it is {version}."
        findings.note("driver-preinstalled", "cluster.driver", why, "Leave it out to have the driver installed.")
        return None
    if any(findings.broken(f"cluster.{part}") for part in ("repositories", "driver", "driver_runfile")):
        return None
    machine = as_dict(hardware["machine"])
    fabric_manager = hardware["fabric_manager"]
    if fabric_manager is None:
        fabric_manager = bool(machine.get("nvswitches"))
    runfile = described["driver"] == "runfile"
    origin = (
        _runfile(described, release, fabric_manager, findings)
        if runfile
        else _packages(described, release, fabric_manager, findings)
    )
    if not origin or findings.broken(f"files/releases/{described['release']}.yml"):
        return None
    return {
        "version": version,
        "kernel_modules": release["kernel_modules"],
        **origin,
        "fabric_manager": fabric_manager,
        "gpus": hardware["slots"],
        "expect": {
            "model": hardware["gpu"],
            "memory_mib": hardware["memory_mib"],
            "nvlinks": as_dict(as_dict(machine.get("gpu")).get("nvlink")).get("count", 0),
            "fabric": fabric_manager,
        },
    }


def _packages(
    described: dict[str, Any], release: dict[str, Any], fabric_manager: bool, findings: Findings
) -> dict[str, Any] | None:
    repository = described["repositories"]["nvidia"]
    if described["driver_runfile"]:
        why = "a runfile is named, and packages are to be installed."
        findings.error("runfile-unused", "cluster.driver_runfile", why, "Say driver: runfile, or leave it out.")
    if not repository:
        why = f"the release names driver {release['driver']}, and no repository brings it."
        fix = "Give repositories.nvidia its uri and key, or say driver: preinstalled."
        findings.error("driver-without-repository", "cluster.repositories.nvidia", why, fix)
        return None
    parts = ("driver", "fabric_manager") if fabric_manager else ("driver",)
    distribution = chosen_distribution(described["distribution"], release, parts, findings)
    if fabric_manager and not release["fabric_manager"]:
        why = "the hardware has NVSwitches, and the release no Fabric Manager."
        where = f"files/releases/{described['release']}.yml.fabric_manager"
        findings.error("part-missing", where, why, "Write the driver's version.")
    if not distribution:
        return None
    packages: dict[str, str] = {}
    for part in parts:
        packages.update(packages_of(release, part, distribution))
    packages = {name: packages[name] for name in sorted(packages)}
    return {"source": "packages", "packages": packages, "repository": repository, "runfile": None}


def _runfile(
    described: dict[str, Any], release: dict[str, Any], fabric_manager: bool, findings: Findings
) -> dict[str, Any] | None:
    where, path = "cluster.driver_runfile", described["driver_runfile"]
    if fabric_manager:
        why = "the hardware has NVSwitches, and Fabric Manager comes as a package of the same version."
        findings.error("runfile-fabric-manager", "cluster.driver", why, "Say driver: release.")
        return None
    known = {item["file"]: item["sha256"] for item in release["artefacts"] if item["part"] == "driver"}
    runfiles = [name for name in sorted(known) if name.endswith(".run")]
    if not path or path.rpartition("/")[2] not in runfiles:
        why = f"{path or 'no file'} is named; the release knows the hash of {', '.join(runfiles) or 'no runfile'}."
        findings.error("runfile-unknown", where, why, "Name the file that the release has the hash of.")
        return None
    file = path.rpartition("/")[2]
    runfile = {"path": path, "file": file, "sha256": known[file]}
    why = "nothing pins or holds a driver from a runfile, and no unit keeps it loaded."
    findings.note("driver-runfile", "cluster.driver", why, "Use packages where there can be some.")
    return {"source": "runfile", "packages": {}, "repository": None, "runfile": runfile}
