"""tests/device/host_baseline_on_device.sh, on a tree that stands for a kernel."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "device/host_baseline_on_device.sh"
VALUES = {
    "proc/sys/vm/swappiness": "60",
    "proc/sys/net/core/somaxconn": "4096",
    "sys/kernel/mm/transparent_hugepage/enabled": "always",
}


def go(root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ROOT": str(root)}
    return subprocess.run(["/bin/sh", str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)


def test_it_applies_verifies_and_restores(tmp_path: Path) -> None:
    for path, value in VALUES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{value}\n")
    done = go(tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "'sysctl-net.core.somaxconn': '4097'" in done.stdout, "a value that was there already is not enough"
    assert done.stdout.count("ok     ") == 8 and "FAILED" not in done.stdout
    assert "this kernel has no /sys/devices/system/cpu/cpufreq" in done.stdout
    assert {path: (tmp_path / path).read_text().strip() for path in VALUES} == VALUES


def test_a_kernel_without_them_is_said(tmp_path: Path) -> None:
    done = go(tmp_path)
    assert done.returncode == 1 and "/proc/sys/vm/swappiness" in done.stderr
