"""A small driver to pack, and commands that record themselves."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml
from rackserve.simulated.debian import Result
from rackserve.simulated.packages import Recipe

REPO = Path(__file__).resolve().parents[3]
PRODUCTS = (
    "libnvidia-ml.so.1", "nv-fabricmanager", "nvidia-persistenced", "nvidia-modprobe", "nvidia.ko",
    "nvidia-modeset.ko", "nvidia-uvm.ko", "nvidia-peermem.ko", "libcudart.so", "libcudnn.so", "libnccl.so",
)  # fmt: skip
MAKEFILE = "all:\n" + "".join(
    f'\techo "{name} $(DRIVER_VERSION) $(CUDA_VERSION)" >$(OUT)/{name}\n' for name in PRODUCTS
)


def shipped() -> dict[str, Any]:
    """files/simulated/packages.yml."""
    data: dict[str, Any] = yaml.safe_load((REPO / "files/simulated/packages.yml").read_text("utf-8"))
    return data


def small(**changes: Any) -> dict[str, Any]:
    """A package set of one driver and two packages."""
    data = {
        "architecture": "amd64",
        "maintainer": "nobody <nobody@localhost>",
        "homepage": "https://example.org/",
        "drivers": [
            {"version": "1.2", "package_version": "1.2-1", "cuda": 13000, "epoch_s": 1700000000, "cites": ["seen"]},
            {"version": "1.3", "package_version": "1.3-1", "cuda": 13000, "epoch_s": 1700000001, "cites": ["seen"]},
        ],
        "packages": {
            "tool": {
                "summary": "a tool",
                "depends": ["libtool1 (= @package_version@)"],
                "cites": {"name": ["seen"]},
                "files": {"/usr/bin/tool": {"build": "nv-fabricmanager", "mode": "0755"}},
            },
            "keys": {
                "summary": "keys",
                "version": "1.0-1",
                "architecture": "all",
                "cites": {"name": ["seen"]},
                "files": {"/usr/share/keyrings/lab.gpg": {"keyring": True}},
            },
        },
        "sources": {"seen": "here"},
    }
    return {**data, **changes}


def driver_sources(folder: Path) -> Path:
    """Sources that build everything packages.yml names."""
    source = folder / "driver"
    (source / "nvidia_smi_simulated/__pycache__").mkdir(parents=True)
    (source / "Makefile").write_text(MAKEFILE)
    (source / "nvidia-smi").write_text("#!/usr/bin/python3\n")
    (source / "nvidia_smi_simulated/table.py").write_text("# a part\n")
    (source / "nvidia_smi_simulated/__pycache__/table.pyc").write_bytes(b"x")
    return source


def recipe(folder: Path, packages: dict[str, Any]) -> Recipe:
    (folder / "pynvml.py").write_text("# pynvml\n")
    source = folder / "driver"
    return Recipe(
        packages, source if source.is_dir() else driver_sources(folder), folder / "pynvml.py", folder / "keys"
    )


def run(command: list[str]) -> Result:
    """Run for real."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return done.returncode, done.stdout, done.stderr


class Pretended:
    """Answers as gpg, make and dpkg-deb would; `calls` keeps what was asked."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str]) -> Result:
        self.calls.append(command)
        if self.failing and self.failing in command:
            return 2, "", f"{self.failing} went\n  wrong\n"
        if command[0] == "make":
            words = dict(word.split("=", 1) for word in command if "=" in word)
            for name in PRODUCTS:
                (Path(words["OUT"]) / name).write_text(words["DRIVER_VERSION"])
        elif "--output" in command:
            Path(command[command.index("--output") + 1]).write_text("signed or exported")
        elif "--build" in command:
            Path(command[-1]).write_text("a package")
        return 0, "KEY\n" if "--armor" in command else "Package: x\n", ""
