"""A simulated H20 host below a temporary folder: its overlays, its driver, its systemd, its reboot."""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from rackserve.simulated import faults, kernel_log, running
from rackserve.simulated.catalogue import Fault, load
from rackserve.simulated.machine import machine_folder
from rackserve.simulated.state import HARDWARE, PERSISTENT, VOLATILE, State

REPO = Path(__file__).resolve().parents[3]
VERSION = "580.65.06"
FABRIC_MANAGER = "nvidia-fabricmanager.service"
PERSISTENCED = "nvidia-persistenced.service"
# What happened is not undone: log, its number, events. Locks stay.
HISTORY = {f"{VOLATILE}/events", f"{VOLATILE}/kmsg-seq", "dev/kmsg"}


@lru_cache
def catalogue() -> dict[str, Fault]:
    return load(yaml.safe_load((REPO / "files/simulated/faults.yml").read_text("utf-8")))


def h20_hardware(path: Path) -> Path:
    """The machine of h20-8: its whole state, and of sysfs what faults touch, so that a test copies little."""
    profile = yaml.safe_load((REPO / "files/hardware/h20-8.yml").read_text("utf-8"))
    folder = machine_folder("h20-8", profile)
    port = "state|phys_state|rate|link_layer|s?m?_?lid|gids/[0-3]|gid_attrs/.*"
    counters = "counters/(link_.*|symbol_error|port_rcv_errors|port_xmit_discards)|hw_counters/(local_ack|packet_seq).*"
    net = "net/.*/(operstate|carrier|carrier_changes|speed|mtu)"
    disk = "nvme/nvme0/(state|nvme0n1/ro)"
    gpus = "|".join(re.escape(part["at"]) for part in profile["machine"]["gpus"] + profile["machine"]["hcas"])
    kept = re.compile(
        rf"state|sys/devices/pci.*/(({gpus})/config|current_link_\w+"
        rf"|infiniband/.*/(fw_ver|ports/1/({port}|{counters}))|{net}|{disk})"
    )
    folder.files = {name: content for name, content in folder.files.items() if kept.fullmatch(name)}
    folder.links = {
        name: goal
        for name, goal in folder.links.items()
        if re.match(r"sys/(class/(inf|net|nvme)|block|bus|.*/dev)", name)
    }
    folder.save(path)
    return path


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here pulls the plug."""
    monkeypatch.setattr("os.fsync", lambda _handle: None)


def disk_of_its_own(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/shm with 66 MiB; everything else is on the root file system."""
    shm = host.root / "dev/shm"
    shm.mkdir(exist_ok=True)
    monkeypatch.setattr(running, "device", lambda folder: 2 if folder.is_relative_to(shm) else 1)
    monkeypatch.setattr(running, "free_mib", lambda folder: 66 - sum(f.stat().st_size >> 20 for f in folder.iterdir()))


class Systemd:
    """Units of a host, answered as systemctl and systemd-run do."""

    def __init__(self, host: SimulatedHost) -> None:
        self.host = host
        self.masked: set[str] = set()
        self.masked_until_reboot: set[str] = set()
        self.active: dict[str, str] = {}
        self.calls: list[list[str]] = []

    def boot(self) -> None:
        self.active.clear()
        self.masked_until_reboot.clear()
        self._start(FABRIC_MANAGER)
        self._start(PERSISTENCED)

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        self.calls.append(command)
        if command[0] == "systemd-run":
            unit = next(word for word in command if word.startswith("--unit=")).partition("=")[2]
            assert unit not in self.active, f"{unit} already exists"
            self.active[unit] = self.pid(unit)
            return 0, "", ""
        assert command[0] == "systemctl", command
        verb, unit = command[1], command[-1]
        if verb == "show":
            return 0, self._show(command[2:-1], unit), ""
        if verb == "start" and unit in self.masked | self.masked_until_reboot:
            return 1, "", f"Failed to start {unit}: Unit {unit} is masked.\n"
        {"stop": self._stop, "start": self._start, "mask": self._mask, "unmask": self._unmask}[verb](
            unit, *command[2:-1]
        )
        return 0, "", ""

    @staticmethod
    def pid(unit: str) -> str:
        return str(1000 + zlib.crc32(unit.encode()) % 30000)

    def changing(self) -> list[list[str]]:
        return [call for call in self.calls if call[:2] != ["systemctl", "show"]]

    def _show(self, options: list[str], unit: str) -> str:
        installed = unit == PERSISTENCED or (unit == FABRIC_MANAGER and self.host.has_fabric_manager)
        known = unit in self.active or installed
        masked = unit in self.masked | self.masked_until_reboot
        values = {
            "LoadState": "masked" if masked else "loaded" if known else "not-found",
            "ActiveState": "active" if unit in self.active else "inactive",
            "MainPID": self.active.get(unit, "0"),
        }
        if options[0] == "-P":
            return values[options[1]] + "\n"
        return "".join(f"{key}={value}\n" for key, value in values.items())

    def _stop(self, unit: str) -> None:
        self.active.pop(unit, None)
        if unit == FABRIC_MANAGER:
            State(self.host.root).set_volatile({"fabric_manager.version": None})

    def _start(self, unit: str) -> None:
        if unit == PERSISTENCED:
            self.active[unit] = "690"
        if unit == FABRIC_MANAGER and self.host.has_fabric_manager and unit not in self.masked:
            self.active[unit] = "700"
            state = State(self.host.root)
            keys = {f"gpu.{index}.fabric.state": "3" for index in range(8)}
            state.set_volatile({"fabric_manager.version": VERSION, **keys})

    def _mask(self, unit: str, *options: str) -> None:
        (self.masked_until_reboot if "--runtime" in options else self.masked).add(unit)
        assert "--now" in options
        self._stop(unit)

    def _unmask(self, unit: str, *options: str) -> None:
        (self.masked_until_reboot if "--runtime" in options else self.masked).discard(unit)


class SimulatedHost:
    """One host. `hardware` is the machine's folder, shared between hosts."""

    def __init__(self, root: Path, hardware: Path, driver: bool = True) -> None:
        self.root = root
        self.hardware = hardware
        self.driver = driver
        self.has_fabric_manager = True
        self.systemd = Systemd(self)
        (root / HARDWARE).parent.mkdir(parents=True)
        (root / HARDWARE).symlink_to(hardware)
        for name in ("devices", "class", "module", "bus"):
            (root / PERSISTENT / "sys" / name).mkdir(parents=True)
        self.boot()

    def boot(self) -> None:
        """What is volatile goes; the overlays are mounted, the driver is loaded, Fabric Manager starts."""
        shutil.rmtree(self.root / VOLATILE, ignore_errors=True)
        self._mount()
        self.write("dev/kmsg", "")
        if self.driver:
            State(self.root).set_volatile({"module.version": VERSION})
            self.write("sys/module/nvidia/version", f"{VERSION}\n")
            line = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {VERSION}  Release Build  (simulated)\n"
            self.write("proc/driver/nvidia/version", f"{line}GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n")
            self.systemd.boot()

    def _mount(self) -> None:
        """What the overlays show without their volatile layer, of which only sys/module/nvidia is left over here."""
        live = self.root / "sys"
        if not live.exists():
            shutil.copytree(self.hardware / "sys", live, symlinks=True)
        for lower in (path for path in (self.hardware / "sys").rglob("*") if path.is_file() and not path.is_symlink()):
            name = lower.relative_to(self.hardware)
            kept = self.root / PERSISTENT / name
            content = (kept if kept.exists() else lower).read_bytes()
            if not (self.root / name).exists() or (self.root / name).read_bytes() != content:
                (self.root / name).write_bytes(content)

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def read(self, path: str) -> str:
        return (self.root / path).read_text().strip()

    def state(self, key: str) -> str | None:
        return State(self.root).get(key)

    def inject(self, name: str, check: bool = False, **parameters: Any) -> dict[str, Any]:
        return faults.inject(self.root, self.systemd, catalogue(), name, parameters, check=check)

    def clear(self, name: str, check: bool = False, **parameters: Any) -> dict[str, Any]:
        return faults.clear(self.root, self.systemd, catalogue(), name, parameters, check=check)

    def active(self) -> list[str]:
        return [one["fault"] for one in faults.active(self.root, catalogue())]

    def log(self) -> list[str]:
        return (self.root / "dev/kmsg").read_text().splitlines()

    def tree(self) -> Mapping[str, Any]:
        """Every file's mode and content, every link's target, and what runs."""
        found: dict[str, Any] = {"units": (sorted(self.systemd.active.items()), sorted(self.systemd.masked))}
        for path in self.root.rglob("*"):
            name = str(path.relative_to(self.root))
            if path.is_symlink():
                found[name] = (0, str(path.readlink()).encode())
            elif path.is_file() and name not in HISTORY and path.suffix != ".lock":
                found[name] = (path.stat().st_mode, path.read_bytes())
        # A state file that became empty stays: nobody else's values were in it.
        return {name: value for name, value in found.items() if value[1:] != (b"",) or not name.endswith("/state")}


class Hosts:
    """Hosts for tests: the last one again where a test left it as it was, else a new one."""

    def __init__(self, hardware: Path, folders: pytest.TempPathFactory) -> None:
        self.hardware = hardware
        self.folders = folders
        self.last: SimulatedHost | None = None
        self.healthy: Mapping[str, Any] = {}

    def fresh(self) -> SimulatedHost:
        host = self.last
        if host is not None:
            for path in HISTORY:
                (host.root / path).unlink(missing_ok=True)
            host.write("dev/kmsg", "")
            host.systemd.calls.clear()
        if host is None or host.tree() != self.healthy:
            host = SimulatedHost(self.folders.mktemp("host") / "root", self.hardware)
            self.healthy = host.tree()
        self.last = host
        return host


def problems(host: SimulatedHost, reading: Mapping[str, Any]) -> list[str]:
    """Where the host does not show what a reading says; readings that only a booted host can show are not judged."""
    found = []
    if reading["state"] and host.state(reading["state"]) != reading["state_reading"]:
        found.append(f"state {reading['state']} is {host.state(reading['state'])}, not {reading['state_reading']}")
    source, where, wanted = reading["source"], reading["where"], reading["reading"]
    if source in ("sysfs", "procfs"):
        found += _file_problems(host.root / where, source, wanted, reading["bytes"])
    elif source == "kernel-log" and not any(wanted in line and kernel_log.MARK in line for line in host.log()):
        found.append(f"no line with {wanted}")
    elif source == "systemd":
        _, out, _ = host.systemd(where.split())
        found += [f"{where}: {out.strip()}"] if out.strip() != wanted else []
    return found


def _file_problems(path: Path, source: str, wanted: str, count: int) -> list[str]:
    if wanted == "no such file":
        return [f"{path} is there"] if path.exists() else []
    if not path.is_file():
        return [f"no {path}"]
    content = path.read_bytes()
    text = content[:count].hex(" ") if count else content.decode().strip()
    fits = text.isdigit() if wanted == "grows" else wanted in text if source == "procfs" else text == wanted
    return [] if fits else [f"{path}: {text}, not {wanted}"]
