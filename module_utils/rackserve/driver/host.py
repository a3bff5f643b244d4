"""What a host has of NVIDIA's driver: packages, the loaded module, and what NVML says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from ..converge.dpkg import present
from ..converge.host import Host, Package, Run, one_line

RECORD_FILE = "/etc/rackserve/driver.json"
MODULE_FILE = "/proc/driver/nvidia/version"
NVML_QUERY = ["nvidia-smi", "--query-gpu=driver_version,count", "--format=csv,noheader"]
_MODULE_VERSION = re.compile(r"\s(\d{3,}(?:\.\d+){1,2})\s")
_LIBRARY_VERSION = re.compile(r"NVML library version:\s*(\d+(?:\.\d+)+)")
# A driver's package by its name, and by a version such as 535.247.01: nvidia-container-toolkit 1.17.8 is none.
_DRIVER_NAME = re.compile(r"nvidia|^cuda-drivers|^libcuda1|^libnvcuvid1|^libnvoptix1|^libxnvctrl0")
_DRIVER_VERSION = re.compile(r"(\d+:)?\d{3}\.\d{2,3}(\.\d{2})?([-+~].*)?\Z")


class Nvml(NamedTuple):
    """Answer of NVML: the driver's version and number of GPUs, or what it said in their place."""

    version: str
    gpus: int
    problem: str


def driver_packages(root: Path) -> dict[str, Package]:
    """Every package of a driver that dpkg has files of, whoever brought it."""
    return {
        name: package
        for name, package in Host(root, None).packages.items()
        if present(package) and _DRIVER_NAME.search(name) and _DRIVER_VERSION.match(package.version)
    }


def recorded_packages(root: Path) -> set[str]:
    """Names of the packages that an earlier run installed; empty where there is no record, or none that can be read."""
    try:
        return set(json.loads(Host(root, None).read_text(RECORD_FILE) or "{}").get("packages") or {})
    except (ValueError, AttributeError):
        return set()


def module_text(root: Path) -> str:
    """What the loaded kernel module says of itself; empty when there is none."""
    return Host(root, None).read_text(MODULE_FILE)


def loaded_module(root: Path) -> str:
    """Version of the loaded kernel module; empty when there is none."""
    found = _MODULE_VERSION.search(module_text(root))
    return found.group(1) if found else ""


def ask_nvml(run: Run) -> Nvml:
    """What nvidia-smi says, the one program of every driver that speaks NVML."""
    code, out, err = run(NVML_QUERY)
    rows = [[part.strip() for part in line.split(",")] for line in out.splitlines() if line.strip()]
    if code == 0 and rows and all(len(row) == len(rows[0]) and row[-1].isdigit() for row in rows):
        return Nvml(rows[0][0], int(rows[0][-1]), "")
    library = _LIBRARY_VERSION.search(f"{out}\n{err}")
    return Nvml(library.group(1) if library else "", 0, one_line(f"{out}\n{err}") or f"exit status {code}")
