"""The proof of a driver against the compiled simulated one, as the lab's releases and profile want it."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from driver_support import REPO, Host, built, wait_for
from rackserve.driver.check import Asked, check_driver
from rackserve.preflight.findings import error_lines

PLANNED: dict[str, Any] = json.loads((REPO / "tests/golden/lab/plan.json").read_text())["driver"]
OLD, NEW = "580.65.06", "580.95.05"
MODULES = f"lib/modules/{platform.release()}/updates/dkms"
LIBRARY = "usr/lib/x86_64-linux-gnu"
PARTS = ("module", "packages", "nv-fabricmanager", "nvidia-persistenced", "library")


def wanted(version: str) -> dict[str, Any]:
    """The plan's driver as the lab's other release has it."""
    return {**PLANNED, "version": version, "packages": dict.fromkeys(PLANNED["packages"], f"{version}-1")}


class Lab:
    """A lab host; each part of its driver has a version of its own."""

    def __init__(self, root: Path, machine: Path) -> None:
        self.host = Host(root, machine, OLD)
        self.root = root
        self.host.set({"module.version": None})
        for path, text in (("proc/devices", "Character devices:\n\nBlock devices:\n"), ("proc/modules", "")):
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_text(text)
        self.programs: dict[str, Path] = {}
        self.install(OLD, *PARTS[1:])
        self.load(OLD)

    def install(self, version: str, *parts: str) -> None:
        """Bring packages (dpkg's record of them) and what they carry."""
        for part in parts:
            self.programs[part] = built(version) / part
        if "packages" in parts:
            names = PLANNED["packages"]
            rows = [f"Package: {name}\nStatus: hold ok installed\nVersion: {version}-1\n\n" for name in names]
            (self.root / "var/lib/dpkg").mkdir(parents=True, exist_ok=True)
            (self.root / "var/lib/dpkg/status").write_text("".join(rows))
            (self.root / MODULES).mkdir(parents=True, exist_ok=True)
            for path in built(version).glob("*.ko"):
                (self.root / MODULES / path.name).write_bytes(path.read_bytes())
        if "library" in parts:
            self.host.environment["LD_LIBRARY_PATH"] = str(built(version))
            link = self.root / LIBRARY / "libnvidia-ml.so.1"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(f"libnvidia-ml.so.{version}")

    def modprobe(self, *words: str) -> None:
        program = self.root / "modprobe"
        program.unlink(missing_ok=True)
        program.symlink_to(built(OLD) / "nvidia-modprobe")
        done = self.host.run(program, *words)
        assert done.returncode == 0, done.stderr

    def load(self, version: str) -> None:
        for path in built(version).glob("*.ko"):
            (self.root / MODULES / path.name).write_bytes(path.read_bytes())
        self.modprobe("-r", "nvidia")
        self.modprobe("nvidia")

    @contextmanager
    def fabric(self, version: str) -> Iterator[None]:
        """While the Fabric Manager runs."""
        with self.host.running(built(version) / "nv-fabricmanager"):
            wait_for(lambda: self.host.state().get("fabric_manager.version") == version, "no fabric manager")
            yield

    def run(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "nvidia-smi":
            done = self.host.smi(*argv[1:])
        elif argv[0] in self.programs:
            done = self.host.run(self.programs[argv[0]], *argv[1:])
        elif argv == ["ldconfig", "-p"]:
            return 0, f"\tlibnvidia-ml.so.1 (libc6,x86-64) => /{LIBRARY}/libnvidia-ml.so.1\n", ""
        else:
            assert argv[:2] == ["systemctl", "show"]
            return 0, "\n\n".join("ActiveState=active\nMainPID=0" for _ in argv[4:]), ""
        return done.returncode, done.stdout, done.stderr

    def said(self, version: str, **asked: Any) -> list[str]:
        found = check_driver(self.root, self.run, wanted(version), Asked(prove=True, **asked))
        return error_lines(found["findings"])


@pytest.fixture
def lab(tmp_path: Path, machine: Callable[[str], Path]) -> Lab:
    return Lab(tmp_path / "root", machine("h20-8"))


def test_up_and_back_leaves_all_five_parts_equal(lab: Lab) -> None:
    for version in (OLD, NEW, OLD):
        lab.install(version, *PARTS[1:])
        lab.load(version)
        with lab.fabric(version):
            assert lab.said(version) == []
            other = OLD if version == NEW else NEW
            assert lab.said(other)[0].startswith(f"driver-differs: package {', '.join(PLANNED['packages'])}: ")


@pytest.mark.parametrize("part", PARTS)
def test_a_wrong_mix_names_the_odd_one(part: str, lab: Lab) -> None:
    where = {
        "module": "driver-mismatch: kernel module nvidia",
        "packages": f"driver-differs: package {', '.join(PLANNED['packages'])}",
        "library": "driver-mismatch: library libnvidia-ml.so.1",
    }
    if part == "module":
        lab.load(NEW)
    else:
        lab.install(NEW, part)
    (line,) = (line for line in lab.said(OLD) if line.startswith("driver-"))
    assert line.startswith(f"{where.get(part, f'driver-mismatch: program {part}')}: ")


def test_the_profile_s_gpus_are_there_and_one_link_less_is_seen(lab: Lab) -> None:
    with lab.fabric(OLD):
        assert lab.said(OLD) == []
        lab.host.set({"gpu.3.nvlink.7.state": "0"})
        assert lab.said(OLD)[0].startswith("nvlink-count: GPU 3: 17 NVLinks are active, the hardware profile says 18")


def test_without_a_fabric_manager_no_gpu_is_registered(lab: Lab) -> None:
    (line,) = lab.said(OLD)
    assert line.startswith("fabric-state: GPU 0,1,2,3,4,5,6,7: not registered with the NVLink fabric: ")


def test_a_module_of_the_other_release_is_a_reason_to_upgrade(lab: Lab) -> None:
    lab.load(NEW)
    seen = check_driver(lab.root, lab.run, wanted(OLD), Asked(prove=True, upgrade=True))
    assert (error_lines(seen["findings"]), seen["install"], seen["modules"]) == ([], [], ["nvidia"])
    assert [line.split(": ")[1] for line in seen["reasons"]] == ["kernel module nvidia"]
