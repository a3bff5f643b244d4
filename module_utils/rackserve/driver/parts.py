"""The parts of a running driver that must be one version, and the one that is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..converge.host import Host, Run
from ..preflight.findings import Finding, finding
from .host import Nvml, loaded_module, module_text

UPGRADE = "run playbooks/upgrade-driver.yml, which drains the host first"
PERSISTENCED = "nvidia-persistenced"
FABRIC_MANAGER = "nv-fabricmanager"
UNITS = {PERSISTENCED: "nvidia-persistenced.service", FABRIC_MANAGER: "nvidia-fabricmanager.service"}
LIBRARY = "libnvidia-ml.so.1"
# Which of the release's packages brings a part: names of Debian, Ubuntu.
_BRINGS = {
    LIBRARY: re.compile(r"libnvidia-ml1\Z|libnvidia-compute"),
    PERSISTENCED: re.compile(r"nvidia-persistenced|nvidia-compute-utils"),
    FABRIC_MANAGER: re.compile(r"nvidia-fabricmanager"),
}
_PROGRAM_VERSION = re.compile(r"version\W*(?:is\W*)?(\d{3,}(?:\.\d+)+)")
_CACHED = re.compile(rf"\s*{re.escape(LIBRARY)} \((\S*)\) => (/\S+)")
_IN_NAME = re.compile(r"\.so\.(\d{3,}(?:\.\d+)+)\Z")
_LINK_LIMIT = 8


class Parts(NamedTuple):
    """Versions of the parts, as the host has them now; empty where a part is not there or does not say."""

    module: str
    library: str
    library_path: str
    persistenced: str
    fabric_manager: str


def agrees(said: str, version: str) -> bool:
    """Whether a version is `version`; NVML's own message gives only the first two numbers."""
    return said == version or (said.count(".") == 1 and version.startswith(f"{said}."))


def read_parts(root: Path, run: Run, driver: Mapping[str, Any], nvml: Nvml) -> Parts:
    """Ask each part for its version; the Fabric Manager only where the driver has one."""
    path, library = _library(Host(root, None), run)
    if not library or (nvml.problem and nvml.version and not agrees(nvml.version, library)):
        library = nvml.version
    return Parts(
        loaded_module(root),
        library,
        path,
        _program(run, PERSISTENCED),
        _program(run, FABRIC_MANAGER) if driver.get("fabric_manager") else "",
    )


def library_version(root: Path, run: Run) -> str:
    """Version of the installed NVML library by the name of its file; empty where there is none."""
    return _library(Host(root, None), run)[1]


def _library(host: Host, run: Run) -> tuple[str, str]:
    """Path of the library that programs are given, and the version in the name of the file it leads to."""
    _, out, _ = run(["ldconfig", "-p"])
    found = [match.groups() for match in map(_CACHED.match, out.splitlines()) if match]
    path = next((path for kind, path in found if "64" in kind), found[0][1] if found else "")
    end = path
    for _ in range(_LINK_LIMIT):
        place = host.at(end)
        if not end or not place.is_symlink():
            break
        end = str(Path(end).parent / place.readlink())
    version = _IN_NAME.search(end)
    return path, version.group(1) if version else ""


def _program(run: Run, name: str) -> str:
    _, out, err = run([name, "--version"])
    found = _PROGRAM_VERSION.search(f"{out}\n{err}")
    return found.group(1) if found else ""


def judge_parts(driver: Mapping[str, Any], parts: Parts, packages_differ: bool) -> list[Finding]:
    """One finding for each part that is not the release's version, with what mends it."""
    version, found = driver["version"], []
    seen = _in_words(driver, parts)
    if not agrees(parts.module, version):
        found.append(finding("error", "driver-mismatch", "kernel module nvidia", seen, UPGRADE))
    named = [(LIBRARY, parts.library), (PERSISTENCED, parts.persistenced)]
    if driver.get("fabric_manager"):
        named.append((FABRIC_MANAGER, parts.fabric_manager))
    for part, said in named:
        if (part == LIBRARY and not said) or agrees(said, version):
            continue  # a library that does not even say its version is driver-silent
        kind = "library" if part == LIBRARY else "program"
        fix = UPGRADE if packages_differ else _reinstall(part, parts, driver["packages"])
        found.append(finding("error", "driver-mismatch", f"{kind} {part}", seen, fix))
    return found


def _in_words(driver: Mapping[str, Any], parts: Parts) -> str:
    words = [f"module {parts.module}", f"NVML {parts.library or '?'}", f"persistenced {parts.persistenced or 'none'}"]
    if driver.get("fabric_manager"):
        words.append(f"Fabric Manager {parts.fabric_manager or 'none'}")
    return f"{', '.join(words)}; the release says {driver['version']}"


def _reinstall(part: str, parts: Parts, packages: Mapping[str, str]) -> str:
    package = next((f"{name}={packages[name]}" for name in sorted(packages) if _BRINGS[part].match(name)), "")
    if not package:
        return "remove what brought it, and run the runfile again"
    command = f"on the drained host: apt-get install --reinstall --allow-change-held-packages {package}"
    if part == LIBRARY:
        return f"dpkg -S {parts.library_path or LIBRARY} names who brought it; {command} && ldconfig"
    return f"{command} && systemctl restart {UNITS[part]}"


def judge_flavour(root: Path, driver: Mapping[str, Any]) -> list[Finding]:
    """Whether the loaded module is open or proprietary as the release says."""
    wanted = driver.get("kernel_modules")
    loaded = "open" if "Open Kernel Module" in module_text(root) else "proprietary"
    if not wanted or loaded == wanted:
        return []
    why = f"the {loaded} module is loaded, the release says {wanted}"
    fix = f"dkms status and dpkg -S nvidia.ko name who brought it; remove it, then {UPGRADE}"
    return [finding("error", "module-flavour", "kernel module nvidia", why, fix)]


def judge_processes(root: Path, run: Run, driver: Mapping[str, Any]) -> list[Finding]:
    """One finding for each daemon that runs on with a program that was replaced. ConvergeError: no systemd to ask."""
    host = Host(root, run)
    names = [UNITS[PERSISTENCED]] + ([UNITS[FABRIC_MANAGER]] if driver.get("fabric_manager") else [])
    host.load_units(names)
    found = []
    for name in names:
        unit = host.units[name]
        if unit.main_pid and _program_of(host, unit.main_pid).endswith(" (deleted)"):
            why = f"process {unit.main_pid} runs on with a program that was replaced"
            found.append(finding("error", "driver-service-old", name, why, UPGRADE))
    return found


def _program_of(host: Host, pid: int) -> str:
    try:
        return str(host.at(f"/proc/{pid}/exe").readlink())
    except OSError:
        return ""
