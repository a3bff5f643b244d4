"""Before a driver is taken away or a host rebooted: who uses it, what boots, what is signed, what updates by itself."""

from __future__ import annotations

import os

import pytest
from driver_host import HELD, NEWER, VERSION, DriverHost
from rackserve.driver.boot import BLACKLIST, SIGNING_KEYS, boot_kernels

UNITS = ["vllm-x-0.service", "vllm-x-1.service"]
OLD, NEW = "6.1.0-9-amd64", "6.1.0-31-amd64"
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def test_a_driver_in_service_is_not_changed(host: DriverHost) -> None:
    assert host.lines(upgrade=True, units=UNITS) == []
    host.active.append(UNITS[1])
    assert host.lines(upgrade=True, units=UNITS) == [
        "driver-in-service: driver: vllm-x-1.service runs; a driver changes only on a drained host; "
        "run playbooks/upgrade-driver.yml"
    ]


def test_processes_that_have_a_gpu_open_are_named_and_the_driver_s_own_are_none(host: DriverHost) -> None:
    host.process(11, "/usr/bin/nvidia-persistenced", ("/dev/nvidiactl",))
    host.process(12, "/usr/bin/nv-fabricmanager", ("/dev/nvidiactl",))
    host.process(400, "/usr/bin/python3", ("/dev/null", "/dev/nvidia0"))
    host.process(401, "/usr/bin/sleep", ("/dev/null",))
    assert host.lines(upgrade=True, units=UNITS) == [
        "driver-in-use: process 400: process 400 (python3) has a GPU open; stop it yourself, then run this again"
    ]


def kernels(host: DriverHost, *built: str, version: str = VERSION, signer: str = "") -> None:
    """Two kernels are installed; those of `built` have a module of that version and signer."""
    for kernel in (OLD, NEW):
        host.write(f"/boot/vmlinuz-{kernel}", "")
    for kernel in built:
        host.write(f"/lib/modules/{kernel}/updates/dkms/nvidia.ko.xz", "")
    host.answer("modinfo -F version", out=f"{version}\n")
    host.answer("modinfo -F signer", out=f"{signer}\n")


def test_a_reboot_needs_a_module_for_the_kernel_that_boots(host: DriverHost) -> None:
    kernels(host, OLD)
    assert host.lines(boot=True) == [
        f"no-module-for-kernel: kernel {NEW}: it may be the one that boots, and has no module of driver {VERSION}; "
        f"apt-get install linux-headers-{NEW}; dkms autoinstall -k {NEW}"
    ]
    kernels(host, NEW)
    assert host.lines(boot=True) == []


def test_the_module_must_be_the_release_s(host: DriverHost) -> None:
    kernels(host, NEW, version=NEWER)
    assert host.lines(boot=True) == [
        f"no-module-for-kernel: kernel {NEW}: its module is of driver {NEWER}, the release says {VERSION}; "
        f"dkms install nvidia/{VERSION} -k {NEW}"
    ]


def test_where_grub_is_told_another_rule_every_kernel_needs_one(host: DriverHost) -> None:
    kernels(host, NEW)
    host.write("/etc/default/grub", "GRUB_DEFAULT=0\n")
    assert boot_kernels(host.root) == [NEW]
    host.write("/etc/default/grub.d/50-site.cfg", 'GRUB_DEFAULT="saved"\n')
    assert boot_kernels(host.root) == [OLD, NEW]
    assert host.lines(boot=True)[0].startswith(f"no-module-for-kernel: kernel {OLD}: ")


def test_without_kernels_of_its_own_the_running_one_boots(host: DriverHost) -> None:
    host.write("/proc/sys/kernel/osrelease", "6.1.148\n")
    assert boot_kernels(host.root) == ["6.1.148"]


@pytest.mark.parametrize(
    ("signer", "enrolled", "line"),
    [
        ("", False, f"secure-boot-key: kernel {NEW}: Secure Boot is on and the module is not signed; let dkms sign it"),
        ("DKMS module signing key", False, f"secure-boot-key: kernel {NEW}: Secure Boot is on and the key of DKMS"),
        ("DKMS module signing key", True, ""),
        ("Canonical Ltd. Kernel Module Signing", False, ""),
    ],
)
def test_secure_boot_needs_an_enrolled_key(signer: str, enrolled: bool, line: str, host: DriverHost) -> None:
    kernels(host, NEW, signer=signer)
    host.answer("mokutil --sb-state", out="SecureBoot enabled\n")
    host.write(SIGNING_KEYS[0], "key")
    host.answer(f"mokutil --test-key {SIGNING_KEYS[0]}", 1, f"it is {'already' if enrolled else 'not'} enrolled\n")
    found = host.lines(boot=True)
    assert len(found) == bool(line) and all(one.startswith(line) for one in found)


@pytest.mark.parametrize(("last", "refused"), [(b"\x01", True), (b"\x00", False), (b"", False)])
def test_without_mokutil_the_firmware_s_variable_counts(last: bytes, refused: bool, host: DriverHost) -> None:
    kernels(host, NEW, signer="DKMS module signing key")
    host.write(SECURE_BOOT, "").write_bytes(b"\x06\x00\x00\x00" + last)
    found = host.lines(boot=True)
    assert bool(found) is refused
    assert not refused or f"mokutil --import {SIGNING_KEYS[0]}" in found[0]


def test_secure_boot_that_is_off_asks_for_no_key(host: DriverHost) -> None:
    kernels(host, NEW)
    host.answer("mokutil --sb-state", out="SecureBoot disabled\n")
    assert host.lines(boot=True) == []


def test_nouveau_and_an_initramfs_that_may_load_it_are_seen(host: DriverHost) -> None:
    kernels(host, NEW)
    assert host.check()["nouveau"] is False and host.check()["initramfs_older"] == []
    host.write("/sys/module/nouveau/initstate", "live\n")
    image, blacklist = host.write(f"/boot/initrd.img-{NEW}", ""), host.write(BLACKLIST, "blacklist nouveau\n")
    os.utime(image, (100, 100))
    assert host.check()["nouveau"] is True and host.check()["initramfs_older"] == [NEW]
    os.utime(blacklist, (50, 50))
    assert host.check()["initramfs_older"] == []


@pytest.mark.parametrize(
    ("files", "noted"),
    [
        ({"20auto-upgrades": 'APT::Periodic::Unattended-Upgrade "1";\n'}, True),
        ({"20auto-upgrades": 'APT::Periodic::Unattended-Upgrade "1";\n', "99-site": "# none\n"}, True),
        (
            {
                "20auto-upgrades": 'APT::Periodic::Unattended-Upgrade "1";\n',
                "99-site": 'APT::Periodic::Unattended-Upgrade "0";\n',
            },
            False,
        ),
        ({}, False),
    ],
)
def test_updates_that_run_by_themselves_are_noted_and_left_alone(
    files: dict[str, str], noted: bool, host: DriverHost
) -> None:
    for name, text in files.items():
        host.write(f"/etc/apt/apt.conf.d/{name}", text)
    assert host.check()["findings"] == []
    host.packages({**HELD, "unattended-upgrades": "2.9.1"})
    found = host.check()["findings"]
    assert [(item["severity"], item["code"]) for item in found] == [("note", "unattended-upgrades")] * noted
    assert all((host.root / f"etc/apt/apt.conf.d/{name}").read_text() == text for name, text in files.items())


RUNFILE = {
    "source": "runfile",
    "packages": {},
    "repository": None,
    "fabric_manager": False,
    "runfile": {"path": "files/x.run", "file": "x.run", "sha256": "0" * 64},
}


def test_a_runfile_runs_where_nothing_is_and_never_beside_packages(host: DriverHost) -> None:
    assert host.lines(RUNFILE) == [
        f"runfile-with-packages: package {', '.join(sorted(HELD))}: packages of a driver are installed; "
        "a runfile would mix with them; remove them from the drained host, or say driver: release"
    ]
    host.packages({})
    host.answer("ldconfig -p", out="")
    seen = host.check(RUNFILE)
    assert (seen["findings"], seen["run_runfile"], seen["install"]) == ([], True, [])


def test_a_runfile_s_driver_is_replaced_by_the_operation_alone(host: DriverHost) -> None:
    host.packages({})
    assert host.lines(RUNFILE) == [] and not host.check(RUNFILE)["run_runfile"]
    assert host.lines(RUNFILE, prove=True) == []
    host.library(NEWER)
    assert host.lines(RUNFILE)[0].startswith(
        f"driver-differs: runfile: driver {NEWER} installed, release says {VERSION}"
    )
    seen = host.check(RUNFILE, upgrade=True)
    assert seen["run_runfile"] and len(seen["reasons"]) == 1


def test_packages_never_go_beside_a_runfile_s_driver(host: DriverHost) -> None:
    host.write("/usr/bin/nvidia-uninstall", "")
    assert host.lines()[0].startswith("runfile-installed: /usr/bin/nvidia-uninstall: ")
