"""Processes of a unit: who belongs, who is first, and that nobody else is signalled."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rackserve.watch.processes import describe, end, main_of, processes_of, read_process, unit_of, wait_for_loss

UNIT = "vllm-m-0.service"
V1 = "12:pids:/lab/x\n1:name=systemd:/system.slice/{unit}\n0::/elsewhere\n"
V2 = "0::/system.slice/{unit}/child\n"


def add(proc: Path, pid: int, unit: str = UNIT, **given: object) -> None:
    """A process as /proc shows it."""
    shown = {"name": "python3", "state": "S", "parent": 1, "started": pid, "session": pid, "cgroup": V2, **given}
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    (folder / "cgroup").write_text(str(shown["cgroup"]).format(unit=unit))
    family = f"{shown['parent']} 0 {shown['session']}"
    words = f"{shown['state']} {family} 0 0 0 0 0 0 0 150 50 0 0 20 0 1 0 {shown['started']} 0"
    (folder / "stat").write_text(f"{pid} ({shown['name']}) {words}\n")


@pytest.mark.parametrize("cgroup", [V1, V2])
def test_processes_of_a_unit_with_the_main_one_first(tmp_path: Path, cgroup: str) -> None:
    add(tmp_path, 30, name="VLLM::Worker) x", parent=20, state="T", cgroup=cgroup)
    add(tmp_path, 20, name="VLLM::EngineCor", parent=40, cgroup=cgroup)
    add(tmp_path, 40, cgroup=cgroup)
    add(tmp_path, 50, unit="vllm-m-1.service", cgroup=cgroup)
    (tmp_path / "60").mkdir()
    (tmp_path / "self").mkdir()
    found = processes_of(tmp_path, UNIT, os.getuid())
    assert [(one.pid, one.name, one.state) for one in found] == [
        (40, "python3", "S"), (20, "VLLM::EngineCor", "S"), (30, "VLLM::Worker) x", "T"),
    ]  # fmt: skip
    assert found[0].cpu_s == 200 / os.sysconf("SC_CLK_TCK")
    assert describe(found[2:]) == "VLLM::Worker) x 30 (T, 2 s of CPU)"
    assert processes_of(tmp_path, UNIT, os.getuid() + 1) == []


def test_what_a_main_process_left_behind_is_not_the_main_process(tmp_path: Path) -> None:
    add(tmp_path, 40)
    add(tmp_path, 50, parent=40, session=40)
    found = processes_of(tmp_path, UNIT, os.getuid())
    assert main_of(found) == found[0]
    add(tmp_path, 50, parent=1, session=40)
    assert main_of(processes_of(tmp_path, UNIT, os.getuid())[1:]) is None


def test_nobody_names_a_process_into_a_unit() -> None:
    assert unit_of("0::/user.slice/user-7.slice/user@7.service/app.slice/vllm-m-0.service\n") == "user@7.service"
    assert unit_of("0::/\n") == unit_of("") == ""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["/bin/sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_what_is_ended_is_looked_at_again(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    add(tmp_path, sleeper.pid)
    before = read_process(tmp_path, sleeper.pid, UNIT, os.getuid())
    assert before is not None
    add(tmp_path, sleeper.pid, started=99)
    assert end([before], UNIT, os.getuid(), tmp_path) == []
    add(tmp_path, sleeper.pid, unit="other.service")
    assert end([before], UNIT, os.getuid(), tmp_path) == []
    assert sleeper.poll() is None
    add(tmp_path, sleeper.pid)
    assert end([before], UNIT, os.getuid(), tmp_path) == [sleeper.pid]
    assert sleeper.wait(5) == -9
    assert end([before], UNIT, os.getuid(), tmp_path) == []


def test_a_loss_is_seen_at_once(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    add(tmp_path, sleeper.pid)
    watched = processes_of(tmp_path, UNIT, os.getuid())
    began = time.monotonic()
    assert wait_for_loss(watched, 0.2) is None
    assert wait_for_loss([], 0.1) is None
    assert 0.3 <= time.monotonic() - began < 5
    sleeper.kill()
    assert wait_for_loss(watched, 30) == watched[0]
    assert time.monotonic() - began < 10
