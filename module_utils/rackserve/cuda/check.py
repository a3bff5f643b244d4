"""What stands in the way of the wanted toolkit, cuDNN and NCCL, what is to do, and whether what is there is one set."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..converge.dpkg import UNFINISHED, held, installed, present
from ..converge.host import Host, Package, Run
from ..driver.version import upstream
from ..preflight.findings import Finding, finding
from .link import LINK, TAKE_OVER, judge_link, toolkit_folder
from .readings import Reading, agrees, in_cache, linker_cache, read_part, toolkit_library
from .users import library_users

_TITLE = {"cuda": "CUDA toolkit", "cudnn": "cuDNN", "nccl": "NCCL"}
_CUDNN = re.compile(r"libcudnn(\d+)(?:-(?:dev|headers|static|samples))?(-cuda-\d+)?\Z")
_UNTOUCHED = "drain the host, stop its engines, then playbooks/site.yml --limit <host> -e cuda_change_versions=true"


def check_cuda(
    root: Path,
    run: Run,
    parts: Mapping[str, Mapping[str, Any]],
    *,
    take_over: Collection[str] = (),
    change: bool = False,
    prove: bool = False,
) -> dict[str, Any]:
    """Compare a host with `parts` {cuda|cudnn|nccl: {version, packages: {name: version}}}; nothing is changed.

    take_over: foreign things the site gives up, `package:<name>`, `hold:<name>`, `alternative:cuda`. change: installed
    packages of another version may be exchanged, unless a process has their libraries loaded. prove: files, packages
    and release are compared as well.

    Returns {findings, install: [name=version], hold: [name], remove: [name], unfinished, change_holds, commands (argv
    lists that set /usr/local/cuda), stale_cache, toolkits: [folder], link}; an error finding means that nothing may be
    installed (and with `prove`, that what is there is not the release's).
    """
    known = Host(root, None).packages
    wanted = {name: version for said in parts.values() for name, version in said["packages"].items()}
    others = [name for name in sorted(wanted) if present(known.get(name)) and known[name].version != wanted[name]]
    conflicts = [name for name in sorted(known) if present(known[name]) and _conflicts(name, wanted)]
    remove = [name for name in conflicts if f"package:{name}" in take_over]
    findings = [] if change else _other_versions(parts, known)
    findings += [_conflict(name, known[name], parts["cudnn"]["version"]) for name in conflicts if name not in remove]
    if (change and others) or remove:
        findings += _in_use(root)
    held_away = [name for name in sorted(wanted) if held(known.get(name)) and not present(known.get(name))]
    for name in [name for name in held_away if f"hold:{name}" not in take_over]:
        fix = f"apt-mark unhold {name}, or name hold:{name} in cluster.take_over"
        findings.append(finding("error", "cuda-foreign-hold", f"package {name}", "somebody holds it uninstalled", fix))
    install = [name for name in sorted(wanted) if not installed(known.get(name)) or name in others]
    names = sorted({*wanted, *_components(parts, known)})
    result: dict[str, Any] = {
        "install": [f"{name}={wanted[name]}" for name in install],
        "hold": [name for name in names if not held(known.get(name)) or name in install],
        "remove": remove,
        "unfinished": any(name in wanted and package.present in UNFINISHED for name, package in known.items()),
        "change_holds": bool(held_away) or (change and bool(others)),
        "commands": [],
        "stale_cache": False,
        "toolkits": sorted(f"/usr/local/{path.name}" for path in (root / "usr/local").glob("cuda-*") if path.is_dir()),
        "link": "",
    }
    cache = linker_cache(run)
    if "cuda" in parts:
        version = parts["cuda"]["version"]
        link = judge_link(root, version, take_over)
        if not link.ours:
            fix = f"to have it lead to {toolkit_folder(version)}, remove it if made by hand, else take over {TAKE_OVER}"
            findings.append(finding("note", "cuda-link", LINK, f"leads to {link.target} and is not ours", fix))
        result.update(link=link.target, commands=link.commands, stale_cache=not in_cache(root, version, cache))
    if prove:
        findings += _differences(root, parts, known, cache)
        if result["stale_cache"]:
            why = f"the dynamic linker does not find {toolkit_library(version)} of {toolkit_folder(version)}"
            findings.append(
                finding("error", "cuda-cache", "/etc/ld.so.cache", why, "ldconfig; ldconfig -p | grep cudart")
            )
    return {"findings": findings, **result}


def _conflicts(name: str, wanted: Mapping[str, str]) -> bool:
    """cuDNN of another CUDA or major version has the same files."""
    ours = {_build(one) for one in wanted} - {None}
    return bool(ours) and _build(name) is not None and _build(name) not in ours


def _build(name: str) -> tuple[str, str] | None:
    """("9", "-cuda-13") of libcudnn9-dev-cuda-13: which cuDNN for which CUDA; None of other packages."""
    found = _CUDNN.match(name)
    return (found.group(1), found.group(2) or "") if found else None


def _components(parts: Mapping[str, Mapping[str, Any]], known: Mapping[str, Package]) -> list[str]:
    """The installed parts of the toolkit, such as cuda-nvcc-13-0: apt would upgrade them without its meta package."""
    if "cuda" not in parts:
        return []
    suffix = "-" + "-".join(parts["cuda"]["version"].split(".")[:2])
    return [name for name, package in known.items() if name.endswith(suffix) and installed(package)]


def _other_versions(parts: Mapping[str, Mapping[str, Any]], known: Mapping[str, Package]) -> list[Finding]:
    found = []
    for part, said in parts.items():
        others: dict[str, list[str]] = {}
        for name in sorted(said["packages"]):
            package = known.get(name)
            if package is not None and present(package) and package.version != said["packages"][name]:
                others.setdefault(package.version, []).append(name)
        for version, names in others.items():
            other = version if agrees(upstream(version), said["version"]) else upstream(version)
            why = f"{_TITLE[part]} {other} installed, release says {said['version']}"
            found.append(finding("error", "cuda-differs", f"package {', '.join(names)}", why, _UNTOUCHED))
    return found


def _conflict(name: str, package: Package, version: str) -> Finding:
    why = f"cuDNN {upstream(package.version)} is installed by somebody else; the release says {version}"
    fix = f"remove it from the drained host, or name package:{name} in cluster.take_over"
    return finding("error", "cuda-conflict", f"package {name}", why, fix)


def _in_use(root: Path) -> list[Finding]:
    users = library_users(root)
    if not users:
        return []
    why = f"{', '.join(users)} has these libraries loaded"
    return [finding("error", "cuda-in-use", "processes", why, "end them, or drain the host; then run again")]


def _differences(
    root: Path, parts: Mapping[str, Mapping[str, Any]], known: Mapping[str, Package], cache: dict[str, str]
) -> list[Finding]:
    """One finding for each package or file that is not of the release's version; the rest agrees with it."""
    found = []
    for part, said in parts.items():
        version = said["version"]
        readings = read_part(root, part, version, cache)
        packages = [(name, known.get(name)) for name in sorted(said["packages"])]
        seen = [f"{one.kind} {one.version or 'missing'}" for one in readings]
        own = {upstream(package.version) for _, package in packages if package is not None and present(package)}
        all_seen = f"release {version}, packages {', '.join(sorted(own)) or 'missing'}, {', '.join(seen)}"
        for name, package in packages:
            if package is None or package.version != said["packages"][name] or not installed(package):
                fix = f"apt-get install --allow-change-held-packages {name}={said['packages'][name]}"
                found.append(finding("error", "cuda-mismatch", f"package {name}", all_seen, fix))
        for one in readings:
            if not agrees(one.version, version):
                found.append(finding("error", "cuda-mismatch", f"{one.kind} {one.path}", all_seen, _mend(part, one)))
    return found


def _mend(part: str, one: Reading) -> str:
    """The command for a file that is not what its package brought."""
    if one.kind == "library" and not one.path.startswith("/"):
        return f"ldconfig; ldconfig -p | grep {one.path}"
    if one.kind == "library" and not one.path.startswith(("/lib/", "/usr/lib/")):
        return f"remove the foreign {_TITLE[part]}, {one.path}, which comes before the package's; then ldconfig"
    owner = f"$(dpkg -S {one.path} | cut -d: -f1)"
    return f"apt-get install --reinstall --allow-change-held-packages {owner}"
