"""What cannot work among the packages and files of a release set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..findings import Findings
from .packages import packages_of
from .schema import PARTS
from .versions import branch_of, built_for_cuda, has_modules, holds, is_open, numbers

_EXACT = ("driver", "fabric_manager")
_CUDA_PARTS = ("cuda", "cudnn", "nccl")


def check_packages(release: Mapping[str, Any], where: str, findings: Findings) -> None:
    """Add what is wrong with packages: their versions, CUDA, branch, modules, distributions, and what has none."""
    twice: dict[tuple[str, str], str] = {}
    for index, group in enumerate(release["packages"]):
        spot, part = f"{where}.packages[{index}]", group["part"]
        other = ", ".join(name for name in group["distributions"] if name not in release["distributions"])
        if other:
            why = f"the set is not for {other}."
            findings.error(
                "package-distribution", f"{spot}.distributions", why, "Add it to distributions, or take it out."
            )
        bare = ", ".join(name for name in group["distributions"] if not _version(release, part, name))
        if bare:
            why = f"{part} has no version on {bare}."
            findings.error("packages-without-part", spot, why, f"Write {part}, or take its packages out.")
        for package in group["versions"]:
            here = f"{spot}.versions.{package}"
            for name in group["distributions"]:
                before = twice.setdefault((name, package), here)
                if before != here:
                    why = f"{name} gets {package} from {before.rpartition('.versions')[0]} as well."
                    findings.error("package-twice", here, why, "Take one of them out.")
            _check_package(release, group, package, here, findings)
    for part in PARTS:
        wanted = [name for name in release["distributions"] if _version(release, part, name)]
        none = ", ".join(name for name in wanted if not packages_of(release, part, name))
        if none:
            why = f"{part} has a version and no packages on {none}."
            fix = f"Name them with their source, take {none} out of distributions, or write {part}: null."
            findings.error("part-without-packages", f"{where}.packages", why, fix)
    _check_modules(release, where, findings)


def check_artefacts(release: Mapping[str, Any], where: str, findings: Findings) -> None:
    """Add what is wrong with files that are known by hash."""
    seen: dict[str, int] = {}
    for index, item in enumerate(release["artefacts"]):
        spot = f"{where}.artefacts[{index}].file"
        version = None if item["part"] == "rdma_core" else release[item["part"]]
        if version and version not in item["file"]:
            why = f"{item['file']} is not of {item['part']} {version}."
            findings.error("artefact-version", spot, why, "Name the file of that version, with its hash.")
        if item["file"] in seen:
            why = f"{item['file']} is also artefacts[{seen[item['file']]}]."
            findings.error("artefact-twice", spot, why, "Take one of them out.")
        seen.setdefault(item["file"], index)


def _version(release: Mapping[str, Any], part: str, distribution: str) -> Any:
    return release["rdma_core"].get(distribution) if part == "rdma_core" else release[part]


def _check_package(
    release: Mapping[str, Any], group: Mapping[str, Any], package: str, spot: str, findings: Findings
) -> None:
    part, exact = group["part"], group["versions"][package]
    for version in dict.fromkeys(_version(release, part, name) for name in group["distributions"]):
        if version and not holds(exact, version, part in _EXACT):
            why = f"{package} {exact} is not of {part} {version}."
            findings.error("package-version", spot, why, f"Write the package of {version}.")
    if group["source"] != "distribution" and "ubuntu" in exact:
        for name in [name for name in group["distributions"] if not name.startswith("ubuntu")]:
            why = f"{exact} is Ubuntu's, not {name}'s."
            findings.error("package-distribution", spot, why, f"Write the version of {name}.")
    branch = branch_of(package) if part in _EXACT else ""
    if branch and release["driver_branch"] and branch != release["driver_branch"]:
        why = f"{package} is of branch {branch}, the driver of {release['driver_branch']}."
        findings.error("driver-branch", spot, why, f"Name the package of branch {release['driver_branch']}.")
    if part in _CUDA_PARTS and release["cuda"]:
        _check_cuda(release["cuda"], package, exact, spot, findings)


def _check_cuda(cuda: str, package: str, exact: str, spot: str, findings: Findings) -> None:
    toolkit, built = numbers(cuda), built_for_cuda(package, exact)
    if built and built[0] != toolkit[0]:
        why = f"{package} {exact} is built for CUDA {built[0]}, the toolkit is {cuda}."
        findings.error("package-cuda", spot, why, f"Name the package that is built for CUDA {toolkit[0]}.")
    elif built > toolkit[: len(built)]:
        why = f"{package} {exact} is built for CUDA {built[0]}.{built[1]}, the toolkit is {cuda}."
        findings.warning("nccl-newer", spot, why, f"Choose one that is built for {toolkit[0]}.{toolkit[1]} or older.")


def _check_modules(release: Mapping[str, Any], where: str, findings: Findings) -> None:
    flavour, spot = release["kernel_modules"], f"{where}.kernel_modules"
    wrong: dict[str, list[str]] = {}
    bare = []
    for name in release["distributions"] if release["driver"] and flavour else []:
        packages = packages_of(release, "driver", name)
        opened = [package for package in packages if is_open(package)]
        closed = [package for package in packages if has_modules(package) and not is_open(package)]
        for package in closed if flavour == "open" else opened:
            wrong.setdefault(package, []).append(name)
        if flavour == "open" and packages and not opened:
            bare.append(name)
    for package, names in wrong.items():
        why = f"{package} on {', '.join(names)} is not of the {flavour} modules."
        findings.error("module-flavour", spot, why, "Make packages and kernel_modules agree.")
    if bare and not wrong:
        why = f"no package on {', '.join(bare)} brings the open modules."
        findings.error("module-flavour", spot, why, "Name the one that does (its name says open).")
