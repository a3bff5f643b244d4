"""A made-up host: dpkg's records, a loaded module, programs that answer, and what the release wants of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rackserve.driver.check import Asked, check_driver
from rackserve.preflight.findings import error_lines

VERSION, NEWER = "580.65.06", "580.95.05"
WANTED: dict[str, Any] = {
    "version": VERSION,
    "kernel_modules": "open",
    "source": "packages",
    "packages": {
        "libnvidia-ml1": f"{VERSION}-1",
        "nvidia-fabricmanager": f"{VERSION}-1",
        "nvidia-open": f"{VERSION}-1",
        "nvidia-persistenced": f"{VERSION}-1",
    },
    "repository": {"uri": "http://mirror/", "key": "key.asc", "suite": "./"},
    "runfile": None,
    "fabric_manager": True,
    "gpus": 2,
    "expect": {"model": "NVIDIA H20", "memory_mib": 97871, "nvlinks": 2, "fabric": True},
}
HELD = {name: f"{version} hold" for name, version in WANTED["packages"].items()}
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (simulated)\nGCC version: none\n"
PROPRIETARY = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Mon Jul 28\n"
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: {}\n"
LIBRARY_FOLDER = "/usr/lib/x86_64-linux-gnu"
LINKS = "GPU {}: NVIDIA H20 (UUID: GPU-{})\n\t Link 0: 26.562 GB/s\n\t Link 1: {}\n"


def paragraph(name: str, state: str) -> str:
    """dpkg's record of `version [wanted [present]]`."""
    version, wanted, present = [*state.split(), *("install", "installed")[len(state.split()) - 1 :]]
    return f"Package: {name}\nStatus: {wanted} ok {present}\nVersion: {version}\n\n"


class DriverHost:
    """Everything of the wanted driver runs; a test changes what it is about. `answers`: argv (joined) to an answer."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.pids = {"nvidia-persistenced.service": 11, "nvidia-fabricmanager.service": 12}
        self.active: list[str] = list(self.pids)
        gpus = "".join(f"{index}, NVIDIA H20, 97871\n" for index in (0, 1))
        self.answers: dict[str, tuple[int, str, str]] = {
            "nvidia-smi --query-gpu=driver_version,count": (0, f"{VERSION}, 2\n" * 2, ""),
            "nvidia-smi --query-gpu=index,name": (0, gpus, ""),
            "nvidia-smi --query-gpu=index,fabric": (0, "0, Completed, Success\n1, Completed, Success\n", ""),
            "nvidia-smi nvlink": (0, "".join(LINKS.format(i, i, "26.562 GB/s") for i in (0, 1)), ""),
            "nvidia-persistenced --version": (0, f"nvidia-persistenced:  version {VERSION}\n", ""),
            "nv-fabricmanager --version": (0, f"Fabric Manager version is : {VERSION}\n", ""),
            "ldconfig -p": (0, f"\tlibnvidia-ml.so.1 (libc6,x86-64) => {LIBRARY_FOLDER}/libnvidia-ml.so.1\n", ""),
        }
        self.packages(HELD)
        self.module(VERSION)
        self.library(VERSION)

    def write(self, path: str, text: str) -> Path:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def packages(self, states: dict[str, str]) -> None:
        """All packages of the host: {name: "version [wanted [present]]"}."""
        self.write("/var/lib/dpkg/status", "".join(map(paragraph, states, states.values())))

    def module(self, version: str, text: str = OPEN) -> None:
        """Load a module; "" unloads it."""
        self.write("/proc/driver/nvidia/version", text.format(version) if version else "")
        for name in ("nvidia_uvm", "nvidia"):
            if version:
                self.write(f"/sys/module/{name}/initstate", "live\n")
            else:
                (self.root / f"sys/module/{name}/initstate").unlink(missing_ok=True)

    def library(self, version: str) -> None:
        folder = self.root / LIBRARY_FOLDER.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / "libnvidia-ml.so.1"
        link.unlink(missing_ok=True)
        link.symlink_to(f"libnvidia-ml.so.{version}")

    def answer(self, command: str, code: int = 0, out: str = "", err: str = "") -> None:
        """What a command says that starts with these words."""
        self.answers = {
            command: (code, out, err),
            **{key: said for key, said in self.answers.items() if key != command},
        }

    def process(self, pid: int, program: str, files: tuple[str, ...] = ()) -> None:
        """A process of a program (with ` (deleted)` where it was replaced) that has files open."""
        folder = self.root / f"proc/{pid}"
        (folder / "fd").mkdir(parents=True)
        (folder / "exe").symlink_to(program)
        (folder / "comm").write_text(f"{Path(program.split(' ', maxsplit=1)[0]).name[:15]}\n")
        for number, path in enumerate(files):
            (folder / "fd" / str(number)).symlink_to(path)

    def run(self, argv: list[str]) -> tuple[int, str, str]:
        line = " ".join(argv)
        self.asked.append(line)
        if argv[:2] == ["systemctl", "show"]:
            return 0, "\n\n".join(map(self._unit, argv[4:])), ""
        return next(
            (said for start, said in self.answers.items() if line.startswith(start)), (127, "", "not installed")
        )

    def _unit(self, name: str) -> str:
        state = "active" if name in self.active else "inactive"
        return f"Id={name}\nActiveState={state}\nMainPID={self.pids.get(name, 0)}"

    def check(self, driver: dict[str, Any] | None = None, **asked: Any) -> dict[str, Any]:
        return check_driver(self.root, self.run, {**WANTED, **(driver or {})}, Asked(**asked))

    def lines(self, driver: dict[str, Any] | None = None, **asked: Any) -> list[str]:
        """The error findings as people read them."""
        found = error_lines(self.check(driver, **asked)["findings"])
        assert not any("\n" in line for line in found)
        return found


def release(version: str) -> dict[str, Any]:
    """The same driver in another version."""
    return {**WANTED, "version": version, "packages": dict.fromkeys(WANTED["packages"], f"{version}-1")}
