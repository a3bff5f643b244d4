"""Loading and unloading the simulated kernel modules, and the daemons."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from driver_support import PERSISTENT, VERSION, VOLATILE, Host, built, wait_for

OTHER = "580.65.06"
KERNEL = platform.release()
MODULES = f"lib/modules/{KERNEL}/updates/dkms"


def made(root: Path, machine: Path) -> Host:
    """A host that has the driver installed and nothing loaded."""
    host = Host(root, machine)
    host.set({"module.version": None})
    install(host, VERSION)
    (root / "proc").mkdir()
    (root / "proc/devices").write_text("Character devices:\n  1 mem\n\nBlock devices:\n  8 sd\n")
    (root / "proc/modules").write_text("ext4 1 1 - Live 0x0\n")
    for name in ("modprobe", "rmmod"):
        (root / name).symlink_to(host.driver / "nvidia-modprobe")
    return host


def install(host: Host, version: str) -> None:
    (host.root / MODULES).mkdir(parents=True, exist_ok=True)
    for path in built(version).glob("*.ko"):
        (host.root / MODULES / path.name).write_bytes(path.read_bytes())


@pytest.fixture
def host(tmp_path: Path, machine: Callable[[str], Path]) -> Host:
    return made(tmp_path / "root", machine("h100-x4-vm"))


@pytest.fixture
def board(tmp_path: Path, machine: Callable[[str], Path]) -> Host:
    """With NVSwitches."""
    return made(tmp_path / "board", machine("h100-sxm-8"))


def modprobe(host: Host, *words: str) -> tuple[int, str]:
    done = host.run(host.root / "modprobe", *words)
    return done.returncode, done.stderr


def text(host: Host, path: str) -> str:
    return (host.root / path).read_text()


def test_modinfo() -> None:
    data = (built() / "nvidia-uvm.ko").read_bytes()
    for part in (
        f"version={VERSION}",
        "description=simulated",
        "license=Dual MIT/GPL",
        "depends=nvidia",
        f"vermagic={KERNEL} ",
    ):
        assert part.encode() in data
    assert b"name=nvidia_uvm\0" in data
    assert b"depends=\0" in (built() / "nvidia.ko").read_bytes()


def test_loading_shows_what_the_kernel_would(host: Host) -> None:
    assert host.smi("-L").returncode == 9
    assert modprobe(host, "nvidia-uvm") == (0, "")
    assert host.state()["module.version"] == VERSION
    assert host.state()["module.nvidia_uvm"] == "1"
    assert host.smi("-L").returncode == 0
    assert f"x86_64  {VERSION}  Release Build  (simulated)" in text(host, "proc/driver/nvidia/version")
    information = text(host, "proc/driver/nvidia/gpus/0000:00:07.0/information")
    assert "Device Minor: \t 1\n" in information
    assert "GPU UUID: \t GPU-00000000-0000-0000-0000-000000000002\n" in information
    assert text(host, "proc/devices").splitlines()[:4] == [
        "Character devices:",
        "195 nvidia",
        "195 nvidiactl",
        "508 nvidia-uvm",
    ]
    assert "Block devices:" in text(host, "proc/devices")
    names = [line.split()[0] for line in text(host, "proc/modules").splitlines()]
    assert names == ["nvidia_uvm", "nvidia", "ext4"]
    assert "nvidia 14299136 1 nvidia_uvm, Live" in text(host, "proc/modules")
    assert text(host, "sys/module/nvidia/version") == f"{VERSION}\n"
    nodes = {path.name for path in (host.root / "dev").iterdir()}
    assert nodes == {"nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1", "nvidia2", "nvidia3"}


def test_loading_twice_is_nothing_new(host: Host) -> None:
    modprobe(host, "nvidia")
    before = text(host, "proc/devices"), text(host, "proc/modules"), host.state()
    assert modprobe(host, "nvidia") == (0, "")
    assert (text(host, "proc/devices"), text(host, "proc/modules"), host.state()) == before


def test_unloading_takes_all_away_and_resets_settings(host: Host) -> None:
    modprobe(host, "nvidia_uvm")
    host.smi("-pl", "500")
    host.smi("-lgc", "1410")
    assert modprobe(host, "-r", "nvidia_uvm", "nvidia") == (0, "")
    assert {key.split(".", 2)[-1] for key in host.state()} == {"ecc.current"}
    assert text(host, "proc/modules") == "ext4 1 1 - Live 0x0\n"
    assert text(host, "proc/devices") == "Character devices:\n  1 mem\n\nBlock devices:\n  8 sd\n"
    for path in ("proc/driver/nvidia", "sys/module/nvidia", "sys/module/nvidia_uvm", "dev/nvidia0", "dev/nvidiactl"):
        assert not (host.root / path).exists()


def test_module_parameters_are_shown(host: Host) -> None:
    (host.root / "etc/modprobe.d").mkdir(parents=True)
    (host.root / "etc/modprobe.d/nvidia.conf").write_text(
        "# a comment\noptions nvidia NVreg_EnableGpuFirmware=1 NVreg_RestrictProfilingToAdminUsers=0\n"
        "options other X=1\n"
    )
    modprobe(host, "nvidia")
    lines = text(host, "proc/driver/nvidia/params").splitlines()
    assert {"EnableGpuFirmware: 1", "RestrictProfilingToAdminUsers: 0", "NvLinkDisable: 0"} < set(lines)
    assert len([line for line in lines if line.startswith("EnableGpuFirmware:")]) == 1


def test_the_first_load_after_a_boot_makes_the_pending_ecc_mode_current(host: Host) -> None:
    host.set({"gpu.0.ecc.pending": "0"}, PERSISTENT)
    modprobe(host, "nvidia")
    modes = [["nvmlDeviceGetEccMode", 0], ["nvmlDeviceGetEccMode", 1]]
    assert host.ask(*modes) == [[0, 0], [1, 1]]
    host.ask(["nvmlDeviceSetEccMode", 1, 0])
    modprobe(host, "-r", "nvidia")
    modprobe(host, "nvidia")
    assert host.ask(*modes) == [[0, 0], [1, 0]]


def test_no_module_for_this_kernel(host: Host) -> None:
    (host.root / MODULES / "nvidia.ko").unlink()
    wanted = f"modprobe: FATAL: Module nvidia not found in directory /lib/modules/{KERNEL} (simulated)\n"
    assert modprobe(host, "nvidia") == (1, wanted)


def test_no_gpu_in_the_machine(host: Host) -> None:
    host.set({"gpu.count": "0"})
    wanted = "modprobe: ERROR: could not insert 'nvidia': No such device (simulated)\n"
    assert modprobe(host, "nvidia") == (1, wanted)


def test_modules_of_two_versions_do_not_go_together(host: Host) -> None:
    modprobe(host, "nvidia")
    install(host, OTHER)
    code, error = modprobe(host, "nvidia_uvm")
    assert code == 1
    assert f"it is of version {OTHER}, nvidia of {VERSION}" in error


def test_a_process_keeps_the_module_loaded(host: Host) -> None:
    modprobe(host, "nvidia")
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    host.set({"gpu.3.process.9": f"{process.pid} 1024"})
    refused = modprobe(host, "-r", "nvidia")
    process.kill()
    process.wait()
    wanted = f"modprobe: ERROR: Module nvidia is in use: process {process.pid} (gpu.3.process.9) (simulated)\n"
    assert refused == (1, wanted)
    assert modprobe(host, "-r", "nvidia") == (0, "")


def test_rmmod(host: Host) -> None:
    modprobe(host, "-a", "nvidia-uvm", "nvidia_peermem", "nvidia-modeset")
    rmmod = host.root / "rmmod"
    refused = host.run(rmmod, "nvidia")
    assert (refused.returncode, refused.stderr) == (
        1,
        "rmmod: ERROR: Module nvidia is in use by: nvidia_uvm,nvidia_modeset,nvidia_peermem (simulated)\n",
    )
    assert host.run(rmmod, "nvidia_peermem", "nvidia_modeset", "nvidia_uvm", "nvidia").returncode == 0
    absent = host.run(rmmod, "nvidia")
    assert (absent.returncode, absent.stderr) == (
        1,
        "rmmod: ERROR: Module nvidia is not currently loaded (simulated)\n",
    )
    assert modprobe(host, "-r", "nvidia") == (0, "")


@pytest.mark.parametrize("words", [("br_netfilter",), ("-q", "overlay", "x=1"), ("--show-depends", "tun"), ("-V",)])
def test_other_modules_are_the_real_programs_business(host: Host, words: tuple[str, ...]) -> None:
    real = host.root / "sbin/modprobe"
    real.parent.mkdir()
    real.write_text('#!/bin/sh\necho "real $*"\nexit 3\n')
    real.chmod(0o755)
    done = host.run(host.root / "modprobe", *words)
    assert (done.returncode, done.stdout) == (3, f"real {' '.join(words)}\n")


def test_nvidia_modprobe(host: Host) -> None:
    program = host.driver / "nvidia-modprobe"
    assert host.run(program, "-v").stdout == f"nvidia-modprobe:  version {VERSION} (simulated)\n"
    assert host.run(program, "-u", "-c0").returncode == 0
    assert host.state()["module.nvidia_uvm"] == "1"


def test_persistence_daemon_holds_the_mode_and_the_module(host: Host) -> None:
    modprobe(host, "nvidia")
    with host.running(host.driver / "nvidia-persistenced", "--foreground", "--user", "nvpd") as daemon:
        wait_for(lambda: host.state().get("gpu.3.persistence_mode") == "1", "persistence mode of GPU 3 is not on")
        refused = modprobe(host, "-r", "nvidia")
    assert refused == (1, "modprobe: ERROR: Module nvidia is in use: nvidia-persistenced (simulated)\n")
    assert daemon.returncode == 0
    assert [host.state()[f"gpu.{index}.persistence_mode"] for index in range(4)] == ["0"] * 4
    assert modprobe(host, "-r", "nvidia") == (0, "")


def test_persistence_daemon_in_the_background(host: Host) -> None:
    modprobe(host, "nvidia")
    started = host.run(host.driver / "nvidia-persistenced", "--user", "nvpd")
    pid_file = host.root / "run/nvidia-persistenced/nvidia-persistenced.pid"
    pid = int(pid_file.read_text())
    assert (started.returncode, host.state()["persistenced.pid"]) == (0, str(pid))
    assert host.state()["gpu.0.persistence_mode"] == "1"
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not pid_file.exists(), "the daemon did not end")
    assert "persistenced.pid" not in host.state()


def test_persistence_daemon_needs_the_module(host: Host) -> None:
    done = host.run(host.driver / "nvidia-persistenced")
    assert done.returncode == 1
    assert "the NVIDIA kernel module is not loaded; run modprobe nvidia (simulated)" in done.stderr


def test_fabric_manager_brings_the_gpus_into_the_fabric(board: Host) -> None:
    modprobe(board, "nvidia")
    before = board.get("fill:nvmlDeviceGetGpuFabricInfo:c_nvmlGpuFabricInfo_t")["state"]
    with board.running(board.driver / "nv-fabricmanager") as daemon:
        wait_for(lambda: board.state().get("fabric_manager.version") == VERSION, "the fabric manager has not started")
        during = board.get("fill:nvmlDeviceGetGpuFabricInfo:c_nvmlGpuFabricInfo_t", 7)
    assert (during["state"], during["status"], daemon.returncode) == (3, 0, 0)
    assert board.get("fill:nvmlDeviceGetGpuFabricInfo:c_nvmlGpuFabricInfo_t")["state"] == before
    assert not any("fabric" in key for key in board.state())


def test_fabric_manager_with_its_configuration(board: Host) -> None:
    modprobe(board, "nvidia")
    configuration = board.root / "fabricmanager.cfg"
    configuration.write_text("LOG_LEVEL=4\nLOG_FILE_NAME=/fabricmanager.log\nDAEMONIZE=1\n")
    started = board.run(board.driver / "nv-fabricmanager", "-c", configuration)
    pid_file = board.root / "run/nvidia-fabricmanager/nv-fabricmanager.pid"
    assert started.returncode == 0
    os.kill(int(pid_file.read_text()), signal.SIGTERM)
    wait_for(lambda: not pid_file.exists(), "the fabric manager did not end")
    assert "started (simulated)" in (board.root / "fabricmanager.log").read_text()


@pytest.mark.parametrize(
    ("loaded", "why"),
    [
        (None, "the NVIDIA kernel module is not loaded; run modprobe nvidia"),
        (OTHER, f"fabric manager version {VERSION} does not match the loaded driver version {OTHER}"),
    ],
    ids=["not loaded", "other version"],
)
def test_fabric_manager_refuses(board: Host, loaded: str | None, why: str) -> None:
    board.set({"module.version": loaded})
    done = board.run(board.driver / "nv-fabricmanager")
    assert done.returncode == 1
    assert why in done.stderr
    assert "fabric_manager.version" not in board.state()


def test_fabric_manager_refuses_a_machine_without_nvswitch(host: Host) -> None:
    modprobe(host, "nvidia")
    done = host.run(host.driver / "nv-fabricmanager")
    assert (done.returncode, "no NVSwitch device found" in done.stderr) == (1, True)


def test_fabric_manager_version(host: Host) -> None:
    done = host.run(host.driver / "nv-fabricmanager", "--version")
    assert done.stdout == f"Fabric Manager version is : {VERSION} (simulated)\n"


def test_a_boot_forgets_the_module(host: Host) -> None:
    modprobe(host, "nvidia")
    (host.root / VOLATILE / "state").unlink()
    assert host.smi("-L").returncode == 9
