"""What cannot work in a release set, found before a host is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..findings import Findings, as_dict
from .check_packages import check_artefacts, check_packages
from .known import (
    DISTRIBUTIONS,
    FIRST_FOR_CUDA,
    MAJOR_DRIVER,
    OPEN_FROM,
    OPEN_ONLY_FROM,
    RAY_OLDEST,
    RAY_PYTHON,
    TOOLKIT_DRIVER,
    TORCH_CUDA,
    VLLM,
)
from .versions import numbers, version_of

CODES = {
    "part-missing": "error: a part is missing that the engine or another part needs",
    "torch-pin": "error: vLLM pins another torch, exactly",
    "torch-cuda": "error: torch's wheels, the toolkit and `torch_cuda` are not of one CUDA",
    "python-range": "error: vLLM or Ray does not run on this Python",
    "python-not-there": "error: a distribution has no such Python to build the engine with",
    "ray-range": "error: this Ray is too old, or CPU engines cannot use it",
    "built-without-lock": "error: the set says `built` and has no lock",
    "driver-branch": "error: the driver, or a package's name, is of another branch",
    "driver-too-old": "error: no driver this old runs this CUDA",
    "fabric-manager-differs": "error: Fabric Manager is not the driver's version",
    "persistenced-differs": "error: nvidia-persistenced is not the driver's version",
    "module-flavour": "error: packages bring other kernel modules than `kernel_modules` says",
    "library-too-old": "error: cuDNN or NCCL is older than its first build for this CUDA",
    "package-cuda": "error: a package is built for another CUDA",
    "package-version": "error: a package's version is not the version of its part",
    "package-distribution": "error: a package is another distribution's, or for one the set is not for",
    "package-twice": "error: a distribution gets a package twice",
    "part-without-packages": "error: a part has a version and no packages on a distribution",
    "packages-without-part": "error: packages are named of a part that has no version",
    "artefact-version": "error: a file's name is of another version than its part",
    "artefact-twice": "error: a file is named twice",
    "open-modules-needed": "error: the hardware's GPUs work with the open kernel modules only",
    "open-modules-unfit": "error: the hardware's GPUs do not work with the open kernel modules",
    "toolkit-newer": "warning: the toolkit is newer than the driver and loses what needs the newer one",
    "nccl-newer": "warning: NCCL is built for a newer CUDA than the toolkit",
    "proprietary-modules": "warning: the open modules are what the hardware's GPUs should have",
    "version-not-known": "note: nothing is known of a version; its fit is not checked",
}
"""Every finding about a set beside those of its fields, as severity and meaning; `docs/releases.md` lists them."""


def check_set(release: Mapping[str, Any], where: str, findings: Findings) -> None:
    """Add what is wrong with a set whose fields are right; ``where`` is its file."""
    _check_engine(release, where, findings)
    _check_ray(release, where, findings)
    _check_driver(release, where, findings)
    _check_cuda(release, where, findings)
    check_packages(release, where, findings)
    check_artefacts(release, where, findings)


def check_modules(release: Mapping[str, Any], hardware: Mapping[str, Any], where: str, findings: Findings) -> None:
    """Add what is wrong with the set's kernel modules on the GPUs of a hardware profile that says which they are."""
    gpu = as_dict(as_dict(hardware["machine"]).get("gpu"))
    capability = gpu.get("compute_capability")
    if not release["driver"] or not isinstance(capability, str) or not numbers(capability):
        return
    seen, spot = f"{hardware['gpu']} (compute capability {capability})", f"{where}.kernel_modules"
    if release["kernel_modules"] == "open":
        if numbers(capability) < numbers(OPEN_FROM):
            why = f"{seen} is older than {OPEN_FROM}: the open modules do not drive it."
            findings.error("open-modules-unfit", spot, why, "Use a set with proprietary modules.")
    elif numbers(capability)[0] >= OPEN_ONLY_FROM:
        why = f"{seen} works with the open modules only."
        findings.error("open-modules-needed", spot, why, "Use a set with open modules.")
    elif numbers(capability) >= numbers(OPEN_FROM):
        why = f"NVIDIA recommends the open modules for {seen}."
        findings.warning("proprietary-modules", spot, why, "Use a set with open modules.")


def _check_engine(release: Mapping[str, Any], where: str, findings: Findings) -> None:
    python, vllm, torch = release["python"], version_of(release["vllm"] or ""), release["torch"]
    _need(release, ("python", "vllm"), where, "every engine needs it", findings)
    engine = VLLM.get(vllm)
    if release["device"] == "cuda":
        parts = ("torch_cuda",) if engine else ("torch", "torch_cuda")
        _need(release, parts, where, "an engine on GPUs needs it", findings)
    if release["built"] and not release["lock"]:
        findings.error("built-without-lock", f"{where}.lock", "nothing says what is built.", "Name it (make lock).")
    for name in release["distributions"] if release["built"] and python else []:
        if python not in DISTRIBUTIONS[name]:
            why = f"{name} brings Python {' and '.join(DISTRIBUTIONS[name])}; the engine's is built from it."
            findings.error("python-not-there", f"{where}.python", why, f"Change it, or take {name} out.")
    if engine is None:
        if vllm:
            _not_known(f"{where}.vllm", f"vLLM {vllm}", findings)
        return
    if torch != engine.torch:
        why = f"vLLM {vllm} pins torch {engine.torch} exactly, the set says {torch or 'none'}."
        findings.error("torch-pin", f"{where}.torch", why, f"Write {engine.torch}, or choose another vLLM.")
    if python and engine.python_from and not _within(python, engine.python_from, engine.python_below):
        why = f"vLLM {vllm} needs Python from {engine.python_from} to below {engine.python_below}, not {python}."
        findings.error("python-range", f"{where}.python", why, f'Write "{engine.python_from}" or a newer one.')


def _check_ray(release: Mapping[str, Any], where: str, findings: Findings) -> None:
    ray, python = release["ray"], release["python"]
    if not ray:
        return
    spot = f"{where}.ray"
    if release["device"] == "cpu":
        findings.error("ray-range", spot, "engines on CPUs have no Ray executor.", "Write null.")
    if numbers(ray) < numbers(RAY_OLDEST):
        why = f"Ray {ray} has no token that keeps strangers out; {RAY_OLDEST} is the first that has."
        findings.error("ray-range", spot, why, f"Write {RAY_OLDEST} or a newer one.")
    if python and numbers(python) < numbers(RAY_PYTHON):
        why = f"Ray needs Python {RAY_PYTHON} or newer, not {python}."
        findings.error("python-range", f"{where}.python", why, f'Write "{RAY_PYTHON}" or a newer one.')


def _check_driver(release: Mapping[str, Any], where: str, findings: Findings) -> None:
    driver, branch = release["driver"], release["driver_branch"]
    if not driver:
        for part in ("driver_branch", "kernel_modules", "fabric_manager", "persistenced"):
            if release[part]:
                why = f"{part} belongs to a driver, and driver is null."
                findings.error("part-missing", f"{where}.driver", why, f"Name the driver, or write {part}: null.")
        return
    _need(release, ("driver_branch", "kernel_modules", "persistenced"), where, "it belongs to the driver", findings)
    if branch and driver.partition(".")[0] != branch:
        why = f"driver {driver} is not of branch {branch}."
        findings.error("driver-branch", f"{where}.driver_branch", why, "Make them agree.")
    for part, name in (("fabric_manager", "Fabric Manager"), ("persistenced", "nvidia-persistenced")):
        if release[part] and release[part] != driver:
            why = f"{name} {release[part]} does not work with driver {driver}."
            findings.error(f"{part.replace('_', '-')}-differs", f"{where}.{part}", why, f"Write {driver}.")


def _check_cuda(release: Mapping[str, Any], where: str, findings: Findings) -> None:
    torch, torch_cuda, cuda, driver = (release[part] for part in ("torch", "torch_cuda", "cuda", "driver"))
    known = TORCH_CUDA.get(torch or "")
    if torch and torch_cuda and known is None:
        _not_known(f"{where}.torch", f"torch {torch}", findings)
    if torch_cuda and known and torch_cuda != known:
        why = f"wheels of torch {torch} are built for CUDA {known}, the set says {torch_cuda}."
        findings.error("torch-cuda", f"{where}.torch_cuda", why, f'Write "{known}".')
    if torch_cuda and cuda and numbers(torch_cuda)[0] != numbers(cuda)[0]:
        why = f"torch is built for CUDA {torch_cuda}; what is compiled with toolkit {cuda} does not load into it."
        findings.error("torch-cuda", f"{where}.cuda", why, f"Choose a toolkit of CUDA {numbers(torch_cuda)[0]}.")
    if cuda and cuda not in TOOLKIT_DRIVER:
        _not_known(f"{where}.cuda", f"CUDA toolkit {cuda}", findings)
    for part in ("cuda", "torch_cuda"):
        oldest = MAJOR_DRIVER.get(numbers(release[part])[0]) if release[part] else None
        if driver and oldest and numbers(driver) < numbers(oldest):
            why = f"CUDA {release[part]} needs driver {oldest} or newer, not {driver}."
            findings.error("driver-too-old", f"{where}.driver", why, f"Choose {oldest} or a newer one.")
            break
    else:
        made_with = TOOLKIT_DRIVER.get(cuda or "")
        if driver and made_with and numbers(driver) < numbers(made_with):
            why = f"toolkit {cuda} was made with driver {made_with}; with {driver} what needs the newer one fails."
            findings.warning("toolkit-newer", f"{where}.cuda", why, f"Choose driver {made_with} or an older toolkit.")
    _check_libraries(release, where, findings)


def _check_libraries(release: Mapping[str, Any], where: str, findings: Findings) -> None:
    cuda = release["cuda"]
    for part, name in (("cudnn", "cuDNN"), ("nccl", "NCCL")):
        version = release[part]
        if not version:
            continue
        if not cuda:
            why = f"{name} {version} needs a toolkit, and cuda is null."
            findings.error("part-missing", f"{where}.cuda", why, f"Name it, or write {part}: null.")
            continue
        first = FIRST_FOR_CUDA.get(numbers(cuda)[0], {}).get(part)
        if first and numbers(version) < numbers(first):
            why = f"{name} {version} was never built for CUDA {numbers(cuda)[0]}; {first} is the first."
            findings.error("library-too-old", f"{where}.{part}", why, f"Choose {first} or a newer one.")


def _need(release: Mapping[str, Any], parts: tuple[str, ...], where: str, reason: str, findings: Findings) -> None:
    for part in parts:
        if not release[part]:
            findings.error("part-missing", f"{where}.{part}", f"{part} is missing: {reason}.", "Write its value.")


def _within(version: str, low: str, below: str) -> bool:
    return numbers(low) <= numbers(version) < numbers(below)


def _not_known(spot: str, what: str, findings: Findings) -> None:
    fix = "Add it to module_utils/rackserve/plan/sets/known.py."
    findings.note("version-not-known", spot, f"nothing is known of {what}; its fit is not checked.", fix)
