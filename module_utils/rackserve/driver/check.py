"""What stands in the way of the wanted driver, what is still to do, and whether what runs is that driver."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..converge.host import Host, Package, Run
from ..preflight.findings import Finding, finding
from .host import UNFINISHED, Nvml, ask_nvml, driver_packages, loaded_module, present
from .version import upstream

_UNTOUCHED = "packages change only on a drained host; issue upgrade-release (planned)"


def check_driver(
    root: Path, run: Run, driver: Mapping[str, Any], take_over: Collection[str] = (), prove: bool = False
) -> dict[str, Any]:
    """Compare a host with `driver` {version, packages: {name: version}, gpus}; nothing is changed.

    take_over: foreign things the site gives up, `package:<name>` and `hold:<name>`. prove: ask the running driver, too.

    Returns {findings, install: [name=version], hold: [name], remove: [name], unfinished, change_holds, module_version,
    nvml_version, gpus}; an error finding means that nothing may be installed (and with `prove`, that it does not run).
    """
    known = Host(root, None).packages
    wanted = dict(driver["packages"])
    module = loaded_module(root)
    findings = _other_versions(driver["version"], wanted, known)
    foreign = _foreign(root, wanted, known)
    remove = sorted(name for name in foreign if f"package:{name}" in take_over)
    findings += [_conflict(name, foreign[name], driver["version"]) for name in sorted(set(foreign) - set(remove))]
    if remove and module:
        why = f"module {module} is loaded, so {', '.join(remove)} cannot be taken away"
        findings.append(finding("error", "driver-in-use", "kernel module nvidia", why, "drain the host and unload it"))
    held = [name for name in wanted if _held(known.get(name)) and not present(known.get(name))]
    for name in sorted(name for name in held if f"hold:{name}" not in take_over):
        why = f"somebody holds it uninstalled; driver {driver['version']} needs it"
        fix = f"apt-mark unhold {name}, or name hold:{name} in cluster.take_over"
        findings.append(finding("error", "driver-foreign-hold", f"package {name}", why, fix))
    result: dict[str, Any] = {
        "install": [f"{name}={wanted[name]}" for name in sorted(wanted) if not _installed(known.get(name))],
        "hold": [name for name in sorted(wanted) if not _held(known.get(name)) or name in held],
        "remove": remove,
        "unfinished": any(name in wanted and package.present in UNFINISHED for name, package in known.items()),
        "change_holds": bool(held),
        "module_version": module,
        "nvml_version": "",
        "gpus": 0,
    }
    if prove:
        nvml = ask_nvml(run)
        findings += _running(driver, module, nvml)
        result.update(nvml_version=nvml.version, gpus=nvml.gpus)
    return {"findings": findings, **result}


def _held(package: Package | None) -> bool:
    return package is not None and package.wanted == "hold"


def _installed(package: Package | None) -> bool:
    return package is not None and package.present == "installed"


def _other_versions(version: str, wanted: Mapping[str, str], known: Mapping[str, Package]) -> list[Finding]:
    """One finding for each version of our packages that is not the wanted one."""
    others: dict[str, list[str]] = {}
    for name in sorted(wanted):
        package = known.get(name)
        if package is not None and present(package) and package.version != wanted[name]:
            others.setdefault(package.version, []).append(name)
    return [
        finding(
            "error",
            "driver-differs",
            f"package {', '.join(names)}",
            f"driver {other if upstream(other) == version else upstream(other)} installed, release says {version}",
            _UNTOUCHED,
        )
        for other, names in others.items()
    ]


def _foreign(root: Path, wanted: Mapping[str, str], known: Mapping[str, Package]) -> dict[str, Package]:
    """Packages of a driver that is neither the wanted one nor the one our packages are of."""
    ours = {upstream(version) for version in wanted.values()}
    ours |= {upstream(known[name].version) for name in wanted if name in known and present(known[name])}
    return {
        name: package
        for name, package in driver_packages(root).items()
        if name not in wanted and upstream(package.version) not in ours
    }


def _conflict(name: str, package: Package, version: str) -> Finding:
    held = ", held" if _held(package) else ""
    why = f"driver {upstream(package.version)} is installed by somebody else{held}; the release says {version}"
    fix = f"remove it from the drained host, or name package:{name} in cluster.take_over"
    return finding("error", "driver-conflict", f"package {name}", why, fix)


def _running(driver: Mapping[str, Any], module: str, nvml: Nvml) -> list[Finding]:
    """Whether loaded module and NVML are the release's; the one that is not is named."""
    version = driver["version"]
    if not module:
        why = f"driver {version} is installed and no module is loaded"
        fix = "modprobe nvidia; journalctl -k and dkms status say why it does not load"
        return [finding("error", "driver-not-loaded", "kernel module nvidia", why, fix)]
    seen = f"module {module}, NVML {nvml.version or '?'}, packages and release {version}"
    if module != version:
        fix = "reboot the drained host, or unload the old module there"
        return [finding("error", "driver-mismatch", "kernel module nvidia", seen, fix)]
    if nvml.version and nvml.version != version:
        fix = "ldconfig -p | grep libnvidia-ml shows which library comes first; remove the foreign one"
        return [finding("error", "driver-mismatch", "library libnvidia-ml.so.1", seen, fix)]
    if nvml.problem:
        fix = "journalctl -k shows what the module says (NVRM)"
        return [finding("error", "driver-silent", "nvidia-smi", f"{seen}; it says: {nvml.problem}", fix)]
    if nvml.gpus != driver["gpus"]:
        why = f"NVML lists {nvml.gpus} GPUs, the hardware profile says {driver['gpus']}"
        fix = "nvidia-smi -L, lspci -d 10de: and journalctl -k (NVRM: Xid) name the one that is gone"
        return [finding("error", "gpu-count", "nvidia-smi", why, fix)]
    return []
