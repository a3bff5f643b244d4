"""A simulated H20 host of the lab's plan that is healthy, and health's look at it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from driver_support import built
from faults_support import FABRIC_MANAGER, REPO, VERSION, SimulatedHost, disk_of_its_own
from rackserve.health.catalogue import chosen
from rackserve.health.expect import expectations
from rackserve.health.host_tools import ask_driver
from rackserve.health.judge import check_host
from rackserve.health.look import Clock, Driver, Look, Tools, Volume
from rackserve.simulated.machine import machine_folder
from rackserve.simulated.state import State

GIB = 2**30
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max open files            1048576              1048576              files
Max locked memory         unlimited            unlimited            bytes
"""
ENGINE_PID = 4100


def plan() -> dict[str, Any]:
    """The lab's plan, as its golden file has it."""
    found: dict[str, Any] = json.loads((REPO / "tests/golden/lab/plan.json").read_text("utf-8"))
    return found


def lab_expectations(host: str = "node1") -> dict[str, Any]:
    """What the lab's plan says of a host, with the governor that host_baseline sets."""
    whole = plan()
    return {**expectations(whole["slices"][host], whole["hardware"]), "governor": "performance"}


class HealthHost(SimulatedHost):
    """The host. ``now_s`` is what its clock says."""

    def __init__(self, folder: Path) -> None:
        profile = yaml.safe_load((REPO / "files/hardware/h20-8.yml").read_text("utf-8"))
        machine_folder("h20-8", profile).save(folder / "h20-8")
        super().__init__(folder / "root", folder / "h20-8")
        self.driver_folder = built(VERSION)
        self.expect = lab_expectations()
        self.down: set[str] = set()
        self.clock = Clock(True, 0.0)
        self.now_s = time.time()
        self.prepare()

    def prepare(self) -> None:
        """What a booted host has beside the simulated hardware."""
        self.write("proc/1/mounts", "/dev/nvme0n1p1 / ext4 rw,relatime 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n")
        self.write("proc/meminfo", "MemTotal: 1056964608 kB\nMemFree: 900000000 kB\nMemAvailable: 950000000 kB\n")
        self.write("proc/sys/kernel/random/boot_id", "11111111-2222\n")
        self.write("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
        self.write(f"proc/{ENGINE_PID}/limits", LIMITS)
        for policy in (self.root / "sys/devices/system/cpu/cpufreq").glob("policy*"):
            (policy / "scaling_governor").write_text("performance\n")
        State(self.root).set_volatile({f"gpu.{index}.persistence_mode": "1" for index in range(8)})

    def mend(self) -> None:
        """Take every fault off, and what a test changed."""
        self.clear("all")
        self.write("dev/kmsg", "")
        self.down.clear()
        self.clock = Clock(True, 0.0)
        self.now_s = time.time()
        for port in (self.root / "sys/class/infiniband").glob("*/ports/*"):
            for counter in [*port.glob("counters/*"), *port.glob("hw_counters/*")]:
                if counter.name != "lifespan":
                    counter.write_text("0\n")
        for changes in (self.root / "sys/class/net").glob("*/carrier_changes"):
            changes.write_text("2\n")

    def disk_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        disk_of_its_own(self, monkeypatch)

    def run(self, words: list[str]) -> tuple[int, str, str]:
        """The commands that health asks a host."""
        units = [word for word in words if word.endswith(".service")]
        if words[:2] == ["systemctl", "show"] and any("Id,LoadState" in word for word in words):
            return 0, "\n".join(self._unit(name) for name in units), ""
        if words[0] == "systemctl":
            return self.systemd(words)
        if words[:2] == ["ldconfig", "-p"]:
            return 0, "\tlibnvidia-ml.so.1 (libc6,x86-64) => /usr/lib/libnvidia-ml.so.1\n", ""
        if words[1:] == ["--version"] and words[0] in ("nvidia-persistenced", "nv-fabricmanager"):
            return 0, f"{words[0]}: version {VERSION}\n", ""
        return 127, "", f"{words[0]}: not installed"

    def _unit(self, name: str) -> str:
        known = name in (FABRIC_MANAGER, "nvidia-persistenced.service")
        active = name in self.systemd.active if known else name not in self.down
        pid = ENGINE_PID if name.startswith("vllm-") and active else 0
        state = "active" if active else "inactive"
        sub = "running" if active else "dead"
        loaded = f"Id={name}\nLoadState=loaded\nActiveState={state}\nSubState={sub}\n"
        return f"{loaded}UnitFileState=enabled\nMainPID={pid}\nNeedDaemonReload=no\nNRestarts=0\n"

    def ask(self) -> Driver:
        """NVML in this process."""
        return ask_driver(str(self.driver_folder / "libnvidia-ml.so.1"))

    def volume(self, path: Path) -> Volume:
        size, free = 1000 * GIB, 700 * GIB
        if path == self.root / "dev/shm":
            fill = sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else 0
            size, free = 1024 * 2**20, 1024 * 2**20 - fill * 480
        return Volume(size, free, 10_000_000, 9_000_000)

    def tools(self, **other: Any) -> Tools:
        given = {
            "run": self.run, "driver": self.ask, "volume": self.volume, "clock": lambda: self.clock,
            "now_s": lambda: self.now_s,
        }  # fmt: skip
        return Tools(**{**given, **other})

    def look(
        self, kept: Mapping[str, Any] | None = None, expect: Mapping[str, Any] | None = None, **other: Any
    ) -> Look:
        return Look(self.root, self.expect if expect is None else expect, self.tools(**other), kept)

    def check(self, kept: Mapping[str, Any] | None = None, only: Sequence[str] = (), **other: Any) -> dict[str, Any]:
        """A fast run, with `kept` for the next one."""
        look = self.look(kept, **other)
        result = check_host(look, chosen(only=only))
        return {**result, "kept": look.counters.kept()}

    def grow(self, path: str, by: int) -> None:
        """A counter that grew."""
        self.write(path, f"{int(self.read(path)) + by}\n")


def process_of(host: HealthHost, pid: int, name: str, cgroup: str) -> None:
    """What /proc says of a process."""
    host.write(f"proc/{pid}/cgroup", f"0::{cgroup}\n")
    host.write(f"proc/{pid}/cmdline", f"{name}\0")
    host.write(f"proc/{pid}/comm", f"{name}\n")
    host.write(f"proc/{pid}/status", f"Name:\t{name}\nUid:\t65534\t65534\t65534\t65534\n")
