"""What inactive units left on GPUs is ended, by number and start time; nobody else is signalled."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import gpu_process_sweep
import pytest
from rackserve.gpu import sweep as sweeping
from rackserve.gpu.sweep import FOREIGN, LEFT, SERVING, UNKNOWN, Signaller, SweepError, Waits, holders, lines, sweep
from rackserve.watch import processes

UNIT = "vllm-m-0.service"
WAITS = Waits(0.5, 5.0)
IGNORES = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"


def add(root: Path, pid: int, unit: str) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text(f"0::/system.slice/{unit}\n")
    (folder / "stat").write_text(f"{pid} (python3) S 1 0 {pid} 0 0 0 0 0 0 0 1 1 0 0 20 0 1 0 {pid * 10} 0\n")


def answer(states: dict[str, str]) -> sweeping.Run:
    def run(words: Sequence[str]) -> tuple[int, str, str]:
        assert words[:3] == ["systemctl", "show", "--property=Id,ActiveState"]
        return 0, "\n\n".join(f"Id={unit}\nActiveState={states[UNIT]}" for unit in words[3:] if unit in states), ""

    return run


def test_only_our_own_in_an_inactive_unit_is_left_behind(tmp_path: Path) -> None:
    for pid, unit in ((1, UNIT), (2, "vllm-m-1.service"), (3, "session-3.scope"), (4, "vllm-m-2.service")):
        add(tmp_path, pid, unit)
    me, units = os.getuid(), [UNIT, "vllm-m-1.service", "vllm-m-2.service"]
    states = {UNIT: "failed", "vllm-m-1.service": "deactivating"}
    found = holders(tmp_path, [4, 3, 2, 1, 99], me, units, states)
    assert [(one.pid, one.verdict) for one in found] == [(1, LEFT), (2, SERVING), (3, FOREIGN), (4, UNKNOWN)]
    assert [one.verdict for one in holders(tmp_path, [1], me + 1, units, states)] == [FOREIGN]


@pytest.fixture
def in_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of this machine are taken for those of our unit, wherever the test itself runs."""
    monkeypatch.setattr(sweeping, "unit_of", lambda _: UNIT)
    monkeypatch.setattr(processes, "unit_of", lambda _: UNIT)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", IGNORES], stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"on\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.usefixtures("in_unit")
def test_one_that_ignores_sigterm_is_killed(child: subprocess.Popen[bytes]) -> None:
    run = answer({UNIT: "inactive"})
    result = sweep(Path("/"), run, os.getuid(), [UNIT], WAITS, check=True, pids={child.pid})
    assert result["changed"] and result["processes"][0]["outcome"] == ""
    assert child.poll() is None
    result = sweep(Path("/"), run, os.getuid(), [UNIT], WAITS, check=False, pids={child.pid})
    assert (result["processes"][0]["outcome"], result["survived"]) == ("killed", [])
    assert child.wait(5) == -signal.SIGKILL
    again = sweep(Path("/"), run, os.getuid(), [UNIT], WAITS, check=False, pids={child.pid})
    assert again == {"changed": False, "processes": [], "survived": []}


@pytest.mark.usefixtures("in_unit")
def test_one_that_ends_is_not_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        result = sweep(Path("/"), answer({UNIT: "failed"}), os.getuid(), [UNIT], WAITS, check=False, pids={process.pid})
        assert result["processes"][0]["outcome"] == "ended"
    finally:
        process.kill()
        assert process.wait() == -signal.SIGTERM


@pytest.mark.usefixtures("in_unit")
def test_a_unit_that_was_started_meanwhile_keeps_its_processes(child: subprocess.Popen[bytes]) -> None:
    states = ["inactive", "activating"]

    def run(_: Sequence[str]) -> tuple[int, str, str]:
        return 0, f"Id={UNIT}\nActiveState={states.pop(0)}", ""

    result = sweep(Path("/"), run, os.getuid(), [UNIT], WAITS, check=False, pids={child.pid})
    row = result["processes"][0]
    assert (row["verdict"], row["outcome"], row["why"]) == (SERVING, "", f"{UNIT} was started meanwhile")
    assert child.poll() is None


@pytest.mark.usefixtures("in_unit")
@pytest.mark.parametrize("with_pidfd", [True, False])
def test_a_recycled_number_gets_no_signal(
    child: subprocess.Popen[bytes], with_pidfd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    (one,) = holders(Path("/"), [child.pid], os.getuid(), [UNIT], {UNIT: "inactive"})
    with Signaller(one._replace(started=one.started - 1), Path("/proc")) as process:
        assert process.handle < 0 or with_pidfd
        process.send(signal.SIGKILL)
        assert not process.alive()
    time.sleep(0.1)
    assert child.poll() is None
    with Signaller(one, Path("/proc")) as process:
        process.send(signal.SIGKILL)
    assert child.wait(5) == -signal.SIGKILL


def test_nothing_is_signalled_where_systemd_does_not_answer() -> None:
    with pytest.raises(SweepError, match="nothing is signalled"):
        sweep(Path("/"), lambda _: (1, "", "no bus"), 1, [UNIT], WAITS, check=False, pids=set())


def test_a_line_a_process_what_was_done_first() -> None:
    rows = [
        {"pid": 1, "name": "a", "verdict": FOREIGN, "outcome": "", "why": "x"},
        {"pid": 2, "name": "b", "verdict": LEFT, "outcome": "ended", "why": "y"},
    ]
    assert lines(rows) == ["process 2 (b): ended: y", "process 1 (a): foreign: x"]


def test_the_user_by_name() -> None:
    assert gpu_process_sweep.user_id(pwd.getpwuid(os.getuid()).pw_name) == os.getuid()
    assert gpu_process_sweep.user_id("nobody-has-this-name") == -1
