"""The guard: whoever holds a GPU is named, what nobody holds is reported, and nothing is ever signalled."""

from __future__ import annotations

import ast
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_support import ARGUMENTS, MIB, UNIT, Reader, add_process, gpu
from rackserve.gpu import guard
from rackserve.gpu.guard import Request, decide, main, unit_of

ME = pwd.getpwuid(os.getuid()).pw_name
REQUEST = Request(UNIT, [0], 90042)


def lines(request: Request, reader: Reader, proc: Path) -> list[str]:
    return decide(request, lambda: reader, proc)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real process that is called trainer."""
    program = tmp_path / "trainer"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    process = subprocess.Popen([str(program), "60"])
    yield process
    process.kill()
    process.wait()


def test_free_gpus_let_the_engine_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(ARGUMENTS, lambda: Reader(gpu()), tmp_path) == 0
    said = capsys.readouterr()
    assert said.out == f"{UNIT} may start: GPU 0 free, 90042 MiB demanded of each\n"
    assert said.err == ""


def test_a_foreign_process_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_process(tmp_path, 4242, "/opt/conda/bin/trainer", "/user.slice/user-1000.slice/session-3.scope")
    reader = Reader(gpu(0, 30004, ((4242, 30000),)), gpu(1))
    assert main(ARGUMENTS, lambda: reader, tmp_path) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"{UNIT}: GPU 0 (GPU-0000-0) is held by process 4242 (trainer) of user {ME}, 30000 MiB, unit session-3.scope: "
        "stop it yourself, rackserve never signals a process that is not its own\n"
    )


def test_a_real_foreign_process_is_named_and_lives_on(sleeper: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 5
    while "trainer" not in Path(f"/proc/{sleeper.pid}/cmdline").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    found = lines(REQUEST, Reader(gpu(0, 504, ((sleeper.pid, 500),))), Path("/proc"))
    assert len(found) == 1
    assert f"process {sleeper.pid} (trainer) of user {ME}, 500 MiB" in found[0]
    assert sleeper.poll() is None


def test_every_gpu_and_every_process_gets_its_line(tmp_path: Path) -> None:
    for pid in (10, 11, 12):
        add_process(tmp_path, pid)
    reader = Reader(gpu(0, 3, ((10, 1), (11, 2))), gpu(1), gpu(2, 9, ((12, 9),)))
    found = lines(Request(UNIT, [0, 1, 2], 90042), reader, tmp_path)
    assert [line.split(" of user")[0].split("GPU ", 1)[1] for line in found] == [
        "0 (GPU-0000-0) is held by process 10 (python3)",
        "0 (GPU-0000-0) is held by process 11 (python3)",
        "2 (GPU-0000-2) is held by process 12 (python3)",
    ]


def test_gpus_of_others_are_not_looked_at(tmp_path: Path) -> None:
    add_process(tmp_path, 10)
    assert lines(Request(UNIT, [1], 90042), Reader(gpu(0, 500, ((10, 500),)), gpu(1)), tmp_path) == []


def test_a_process_whose_memory_the_driver_does_not_tell_is_foreign(tmp_path: Path) -> None:
    add_process(tmp_path, 10)
    found = lines(REQUEST, Reader(gpu(0, 30000, ((10, None),))), tmp_path)
    assert len(found) == 1
    assert "an unknown amount of memory" in found[0]


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("/system.slice/vllm-x-0.service", "vllm-x-0.service"),
        ("/system.slice/vllm-x-0.service/worker", "vllm-x-0.service"),
        ("/system.slice/system-a.slice/a@1.service", "a@1.service"),
        ("/system.slice/docker-0123.scope", "docker-0123.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/vllm-x-0.service", "user@1000.service"),
        ("/kubepods/burstable/pod1/vllm-x-0.service", ""),
        ("/../../other", ""),
        ("/", ""),
        ("", ""),
    ],
)
def test_the_unit_is_the_systems(cgroup: str, unit: str) -> None:
    assert unit_of(cgroup) == unit


def test_nobody_becomes_one_of_us_by_a_name(tmp_path: Path) -> None:
    inside = f"/user.slice/user-1000.slice/user@1000.service/app.slice/{UNIT}"
    add_process(tmp_path, 10, UNIT, inside)
    found = lines(REQUEST, Reader(gpu(0, 5, ((10, 5),))), tmp_path)
    assert len(found) == 1
    assert "unit user@1000.service" in found[0]


def test_outside_of_units_the_control_group_is_named(tmp_path: Path) -> None:
    add_process(tmp_path, 10, cgroup="/kubepods/pod1")
    add_process(tmp_path, 11, groups="")
    found = lines(REQUEST, Reader(gpu(0, 5, ((10, 5), (11, 0)))), tmp_path)
    assert "control group /kubepods/pod1:" in found[0]
    assert "control group unknown:" in found[1]


def test_old_control_groups_are_read_too(tmp_path: Path) -> None:
    add_process(tmp_path, 10, groups=f"12:devices:/x\n1:name=systemd:/system.slice/{UNIT}\n0::/\n")
    assert lines(REQUEST, Reader(gpu(0, 5, ((10, 5),))), tmp_path) == []


def test_own_and_allowed_units_may_be_there_and_their_memory_counts(tmp_path: Path) -> None:
    add_process(tmp_path, 10, cgroup=f"/system.slice/{UNIT}")
    add_process(tmp_path, 11, cgroup="/system.slice/vllm-y-0.service")
    both = Reader(gpu(0, 12000, ((10, 6000), (11, 6000))))
    assert "(python3)" in lines(Request(UNIT, [0], 1000), both, tmp_path)[0]
    shared = Request(UNIT, [0], 1000, ["vllm-y-0.service"])
    assert lines(shared, both, tmp_path) == []
    (found,) = lines(shared._replace(needed_mib=90042), both, tmp_path)
    assert "85271 of 97871 MiB are free, the engine demands 90042 MiB when it starts: held by process 10" in found
    assert "unit vllm-y-0.service: lower gpu_memory_utilization" in found


@pytest.mark.parametrize(("name", "refused"), [("dcgm", 0), ("nv-hostengine", 0), ("nv-host", 1), ("", 1)])
def test_named_processes_are_let_be(name: str, refused: int, tmp_path: Path) -> None:
    add_process(tmp_path, 10, "/usr/bin/nv-hostengine", "/system.slice/nvidia-dcgm.service", comm="dcgm")
    request = Request(UNIT, [0], 90042, ignored_names=[name] if name else [])
    assert len(lines(request, Reader(gpu(0, 5, ((10, 5),))), tmp_path)) == refused


def test_names_and_users_that_are_not_there_are_shown_as_far_as_known(tmp_path: Path) -> None:
    add_process(tmp_path, 10, cmdline=b"", comm="kworker", uid=4000000)
    add_process(tmp_path, 11, cmdline=b"", comm="")
    add_process(tmp_path, 12, cmdline=b"\x1b[31mred\nline\0")
    found = lines(REQUEST, Reader(gpu(0, 5, ((10, 5), (11, 0), (12, 0)))), tmp_path)
    assert "process 10 (kworker) of user 4000000" in found[0]
    assert "process 11 (?)" in found[1]
    assert "process 12 (?[31mred?line)" in found[2]


def test_a_process_that_proc_does_not_know(tmp_path: Path) -> None:
    (found,) = lines(REQUEST, Reader(gpu(0, 500, ((99, 500),))), tmp_path)
    assert "process 99, which has no entry in /proc" in found


def test_memory_that_no_process_owns(tmp_path: Path) -> None:
    (found,) = lines(REQUEST, Reader(gpu(0, 67584)), tmp_path)
    assert f"{UNIT}: GPU 0 (GPU-0000-0): 67584 MiB are allocated that no process owns (67584 MiB used in all)" in found
    assert "fuser -v /dev/nvidia*" in found and "the operator's decision" in found


@pytest.mark.parametrize(("used_mib", "refused"), [(0, 0), (4, 0), (512, 0), (513, 1)])
def test_a_little_may_belong_to_nobody(used_mib: int, refused: int, tmp_path: Path) -> None:
    assert len(lines(Request(UNIT, [0], 0), Reader(gpu(0, used_mib)), tmp_path)) == refused


def test_the_drivers_own_share_is_not_an_orphan(tmp_path: Path) -> None:
    assert lines(Request(UNIT, [0], 90000), Reader(gpu(0, 2, reserved_mib=5000)), tmp_path) == []


@pytest.mark.parametrize(
    ("needed_mib", "changed", "fix"),
    [
        (97268, {}, "look with nvidia-smi -q -i 0"),
        (97272, {}, "correct its memory_mib"),
        (90042, {"total_mib": 81559}, "correct its memory_mib"),
    ],
)
def test_less_free_than_the_engine_demands(needed_mib: int, changed: dict[str, int], fix: str, tmp_path: Path) -> None:
    (found,) = lines(Request(UNIT, [0], needed_mib), Reader(gpu(0, 4, **changed)), tmp_path)
    assert f"MiB are free, the engine demands {needed_mib} MiB when it starts" in found
    assert fix in found


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (guard.GPU_IS_LOST, "fell off the bus"),
        (guard.RESET_REQUIRED, "--gpu-reset"),
        (guard.NO_PERMISSION, "DeviceAllow="),
        (999, "journalctl -k"),
    ],
)
def test_a_gpu_that_does_not_answer(code: int, fix: str, tmp_path: Path) -> None:
    (found,) = lines(Request(UNIT, [0, 1], 90042), Reader(gpu(), code), tmp_path)
    assert found.startswith(f"{UNIT}: GPU 1 cannot be asked (code {code}): ")
    assert fix in found


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (guard.DRIVER_NOT_LOADED, "modprobe nvidia"),
        (guard.LIBRARY_NOT_FOUND, "install the driver's packages"),
        (guard.VERSION_MISMATCH, "cat /proc/driver/nvidia/version"),
        (guard.NO_PYNVML, "build and install the release again"),
    ],
)
def test_a_driver_that_is_not_there(code: int, fix: str, tmp_path: Path) -> None:
    def refuse() -> Reader:
        raise guard.NvmlError(code, f"code {code}")

    (found,) = decide(Request(UNIT, [0, 1]), refuse, tmp_path)
    assert found.startswith(f"{UNIT}: GPU 0,1 cannot be asked (code {code}): ")
    assert fix in found


def test_fewer_gpus_than_planned(tmp_path: Path) -> None:
    (found,) = lines(Request(UNIT, [1, 2], 90042), Reader(gpu(), gpu(1)), tmp_path)
    assert found.startswith(f"{UNIT}: the plan gives it GPU 2, NVML shows 2 from 0 on: ")


def test_memory_on_its_way_back_is_waited_for(tmp_path: Path) -> None:
    readers = iter([Reader(gpu(0, 70000)), Reader(gpu(0, 70000)), Reader(gpu())])
    slept: list[float] = []
    assert decide(REQUEST, lambda: next(readers), tmp_path, 10, slept.append) == []
    assert slept == [1.0, 1.0]


def test_waiting_ends(tmp_path: Path) -> None:
    slept: list[float] = []
    assert len(decide(REQUEST, lambda: Reader(gpu(0, 70000)), tmp_path, 3, slept.append)) == 1
    assert len(slept) == 3


def test_nobody_waits_for_a_foreign_process(tmp_path: Path) -> None:
    add_process(tmp_path, 10)
    slept: list[float] = []
    reader = Reader(gpu(0, 70000, ((10, 60000),)))
    assert len(decide(REQUEST, lambda: reader, tmp_path, 10, slept.append)) == 2
    assert slept == []


def test_simulated_gpus_are_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS, "--simulated"], lambda: Reader(gpu(0, 70000)), tmp_path) == 1
    assert f"{UNIT}: simulated GPU 0 (GPU-0000-0): 70000 MiB" in capsys.readouterr().err


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_process(tmp_path, 10, "agent")
    add_process(tmp_path, 11, cgroup="/system.slice/b.service")
    reader = Reader(gpu(0, 800, ((10, 50), (11, 50))))
    words = [*ARGUMENTS, "--ignore-process", "agent", "--allow-unit", "a.service", "--allow-unit", "b.service"]
    assert main(words, lambda: reader, tmp_path) == 1
    assert main([*words, "--tolerance-mib", "700"], lambda: reader, tmp_path) == 0
    with pytest.raises(SystemExit, match="2"):
        main(["--unit", UNIT, "--gpus", "GPU-1"], lambda: reader, tmp_path)
    assert "write indices like 0,1" in capsys.readouterr().err


def test_it_runs_by_itself_and_says_what_it_lacks(tmp_path: Path) -> None:
    """As on a host: one file, no package around it, an interpreter without pynvml."""
    alone = tmp_path / "guard"
    shutil.copy(guard.__file__, alone)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(alone), *ARGUMENTS], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        f"{UNIT}: GPU 0 cannot be asked (No module named 'pynvml'): this interpreter has no pynvml"
    )


def test_it_can_signal_nothing() -> None:
    """No name in it could end, stop or reset anything."""
    tree = ast.parse(Path(guard.__file__).read_text())
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {
        "kill",
        "killpg",
        "pidfd_send_signal",
        "signal",
        "subprocess",
        "os",
        "system",
        "Popen",
        "write_text",
    }
    assert guard.unowned_mib(gpu(0, 1, ((1, 2),))) == 0
    assert gpu().total_bytes == 97871 * MIB
