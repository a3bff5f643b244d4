"""What stands in the way of the wanted driver, what is still to do, and whether what runs is that driver."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..converge.dpkg import UNFINISHED, held
from ..converge.host import Host, Package, Run
from ..preflight.findings import Finding, error_lines, finding
from . import boot, packages, service
from .hardware import judge_hardware
from .host import ask_nvml, loaded_module
from .parts import UPGRADE, judge_flavour, judge_parts, judge_processes, read_parts
from .runfile import check_runfile

# What upgrade-driver is for: its reasons, not obstacles to it.
_MENDED = ("driver-differs", "driver-not-loaded", "driver-service-old")
_MODULE = "kernel module nvidia"


class Asked(NamedTuple):
    """What is asked of a host beside its packages.

    take_over: foreign things the site gives up, `package:<name>` and `hold:<name>`. prove: ask the running driver, too.
    upgrade: another version of ours is a reason to work, not an error. units: engines that must not run.
    boot: judge whether the host may be rebooted.
    """

    take_over: Collection[str] = ()
    prove: bool = False
    upgrade: bool = False
    units: Sequence[str] = ()
    boot: bool = False


PACKAGES_ONLY = Asked()


def check_driver(root: Path, run: Run, driver: Mapping[str, Any], asked: Asked = PACKAGES_ONLY) -> dict[str, Any]:
    """Compare a host with `driver` (the plan's); nothing is changed. Raises ConvergeError where it cannot be read.

    Returns {findings, reasons, install: [name=version], hold: [name], remove: [name], replaced: [name], unfinished,
    change_holds, run_runfile, modules: [name], nouveau, initramfs_older: [kernel], module_version, nvml_version, gpus}.
    An error finding means that nothing may be changed (with `prove`, that the driver does not run; with `boot`, that
    the host may not be rebooted); `reasons` are why upgrade-driver has work.
    """
    known, module = Host(root, None).packages, loaded_module(root)
    wanted, version = dict(driver["packages"]), driver["version"]
    state = packages.compare(root, version, wanted, asked.take_over)
    runfile, run_runfile = check_runfile(root, run, driver)
    findings = state.findings + runfile
    if state.remove and module and not asked.upgrade:
        why = f"module {module} is loaded, so {', '.join(state.remove)} cannot be taken away"
        findings.append(finding("error", "driver-in-use", _MODULE, why, "drain the host and unload it"))
    findings += service.check_serving(root, run, asked.units) + service.check_unattended(root)
    result: dict[str, Any] = {
        "install": packages.to_install(wanted, known, asked.upgrade) + (state.extra if asked.upgrade else []),
        "hold": [name for name in sorted(wanted) if not held(known.get(name)) or name in state.held],
        "remove": state.remove,
        "replaced": state.replaced if asked.upgrade else [],
        "unfinished": any(name in wanted and package.present in UNFINISHED for name, package in known.items()),
        "change_holds": bool(state.held),
        "run_runfile": run_runfile,
        "modules": service.loaded_modules(root),
        "nouveau": boot.nouveau_loaded(root),
        "initramfs_older": boot.initramfs_older(root),
        "module_version": module,
        "nvml_version": "",
        "gpus": 0,
    }
    if asked.prove:
        nvml = ask_nvml(run)
        findings += _running(root, run, driver, known, not asked.upgrade)
        result.update(nvml_version=nvml.version, gpus=nvml.gpus)
    if asked.boot:
        findings += boot.check_boot(root, run, version)
    reasons = _reasons(findings) if asked.upgrade else []
    if reasons:
        findings = [item for item in findings if not _mended(item) and item["code"] != "driver-mismatch"]
    return {"findings": findings, "reasons": error_lines(reasons), **result}


def _reasons(findings: Sequence[Finding]) -> list[Finding]:
    return [item for item in findings if _mended(item)]


def _mended(item: Finding) -> bool:
    return item["code"] in _MENDED or (item["code"] == "driver-mismatch" and item["fix"] == UPGRADE)


def _running(
    root: Path, run: Run, driver: Mapping[str, Any], known: Mapping[str, Package], with_hardware: bool
) -> list[Finding]:
    """Whether module, library, daemons and GPUs are what the release and the profile say; what is not is named."""
    version, nvml = driver["version"], ask_nvml(run)
    parts = read_parts(root, run, driver, nvml)
    if not parts.module:
        why = f"driver {version} is installed and no module is loaded"
        fix = "modprobe nvidia; journalctl -k and dkms status say why it does not load"
        return [finding("error", "driver-not-loaded", _MODULE, why, fix)]
    found = judge_parts(driver, parts, packages.differ(driver["packages"], known))
    found += judge_flavour(root, driver) + judge_processes(root, run, driver)
    if found:
        return found
    if nvml.problem:
        seen = f"module and NVML are {version}; it says: {nvml.problem}"
        fix = "journalctl -k shows what the module says (NVRM)"
        return [finding("error", "driver-silent", "nvidia-smi", seen, fix)]
    return judge_hardware(run, driver, nvml) if with_hardware else []
