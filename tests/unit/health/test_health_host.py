"""Checks of the host itself, where a container or an image looks like a fault and is none."""

from __future__ import annotations

import pytest
from health_support import ENGINE_PID, LIMITS, HealthHost

BOUNDED = LIMITS.replace("unlimited            unlimited", "8388608              8388608  ")
UNBOUNDED_SET, BOUNDED_SET = "000001ffffffffff", "000001fffeffffff"


@pytest.mark.parametrize(
    ("kind", "found"), [("squashfs", False), ("iso9660", False), ("erofs", False), ("ext4", True), ("", True)]
)
def test_a_disk_that_holds_an_image_is_read_only_by_design(host: HealthHost, kind: str, found: bool) -> None:
    host.write("sys/block/vdb/ro", "1\n")
    host.write("sys/block/vdb/size", "2048\n")
    mounts = "/dev/nvme0n1p1 / ext4 rw,relatime 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n"
    host.write("proc/1/mounts", mounts + (f"/dev/vdb1 /opt/image {kind} ro 0 0\n" if kind else ""))
    try:
        subjects = [each["subject"] for each in host.check(only=["disk-read-only"])["findings"]]
    finally:
        for name in ("ro", "size"):
            (host.root / "sys/block/vdb" / name).unlink()
        (host.root / "sys/block/vdb").rmdir()
        host.write("proc/1/mounts", mounts)
    assert subjects == (["vdb"] if found else [])


@pytest.mark.parametrize(
    ("capable", "first_process", "severity"),
    [(BOUNDED_SET, BOUNDED, "info"), (UNBOUNDED_SET, BOUNDED, "warning"), (BOUNDED_SET, LIMITS, "warning")],
)
def test_an_engine_has_at_most_the_limits_of_its_host(
    host: HealthHost, capable: str, first_process: str, severity: str
) -> None:
    host.write("proc/1/status", f"CapBnd:\t{capable}\n")
    host.write("proc/1/limits", first_process)
    host.write(f"proc/{ENGINE_PID}/limits", BOUNDED)
    try:
        (finding,) = host.check(only=["engine-limits"])["findings"]
    finally:
        host.write(f"proc/{ENGINE_PID}/limits", LIMITS)
        for name in ("status", "limits"):
            (host.root / "proc/1" / name).unlink()
    assert finding["severity"] == severity
    assert ("CAP_SYS_RESOURCE" in finding["seen"]) is (severity == "info")
