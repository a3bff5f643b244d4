"""Background work: started once, found again, never mistaken for finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rackserve.progress import job, worker
from rackserve.progress.job import Asked, JobError, Step, advance, code_of, job_folder, running
from rackserve.progress.report import Report, progress_of
from rackserve.progress.worker import read_json, take_lock, work_on, write_json
from rackserve.release.send import send_work

RSYNC = """#!/bin/sh
echo started >> "$GATE.log"
printf '\\r         65536  12%%    1.20MB/s    0:00:10'
printf '\\r        262144  50%%    1.20MB/s    0:00:10\\rnothing of ours\\n'
while [ ! -e "$GATE" ]; do sleep 0.02; done
cat "$GATE" >&2
[ ! -s "$GATE" ]
"""


class Bench:
    """A fake rsync that ends when told to, and the processes that were started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.gate, self.source = folder, folder / "gate", folder / "source"
        self.source.write_bytes(b"x" * 524288)
        self.processes: list[subprocess.Popen[bytes]] = []

    def payload(self, **changes: Any) -> dict[str, Any]:
        rest = {"target": str(self.folder / "target"), "files": [], "options": [], "rsync_path": "rsync", "rsh": "ssh"}
        return {"source": str(self.source), **rest, **changes}

    def spawn(self, command: Any, log: Path) -> subprocess.Popen[bytes]:
        self.processes.append(job.spawn_detached(command, log))
        return self.processes[-1]

    def ask(self, ticket: str, patience_s: float = 0.0, **changes: Any) -> Step:
        return advance(Asked(self.folder / "job", ticket, patience_s), send_work, self.payload(**changes), self.spawn)

    def open(self, complaint: str = "") -> None:
        self.gate.write_text(complaint)

    def starts(self) -> int:
        return (self.folder / "gate.log").read_text().count("started")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    tool = tmp_path / "bin/rsync"
    tool.parent.mkdir()
    tool.write_text(RSYNC)
    tool.chmod(0o755)
    made = Bench(tmp_path)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    monkeypatch.setenv("GATE", str(made.gate))
    yield made
    made.open()
    for process in made.processes:
        process.wait(timeout=60)


def until(true: Callable[[], bool]) -> None:
    """Wait for another process, bounded."""
    for _ in range(1200):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("another process did not get there")


def test_work_is_started_once_and_says_how_far_it_is(bench: Bench) -> None:
    first = bench.ask("run 1")
    assert (first.finished, first.result) == (False, {})
    until(lambda: bench.ask("run 1").progress["done"] > 0)
    told = bench.ask("run 1").progress
    assert (told["phase"], told["unit"], told["total"], told["finished"]) == ("sending", "B", 524288, False)
    assert told["done"] in (65536, 262144)
    bench.open()
    done = bench.ask("run 1", patience_s=60)
    assert (done.finished, done.result, done.progress) == (True, {"bytes": 524288}, {"finished": True})
    assert set(done.step_s) == {"sending"}
    assert bench.starts() == 1 and not (bench.folder / "job").exists()


def test_a_later_run_finds_the_work_of_a_killed_one(bench: Bench) -> None:
    bench.ask("run 1")
    assert bench.ask("run 2").finished is False
    bench.open()
    assert bench.ask("run 2", patience_s=60).finished is True
    assert bench.starts() == 1


def test_an_end_that_nobody_waited_for_counts_for_nothing(bench: Bench) -> None:
    bench.ask("run 1")
    bench.open("rsync: disk full")
    until(lambda: not running(bench.folder / "job"))
    bench.open()
    assert bench.ask("run 2", patience_s=60).result == {"bytes": 524288}
    assert bench.starts() == 2


def test_a_failure_is_one_line_and_leaves_no_job(bench: Bench) -> None:
    bench.open("rsync: write failed\n\nrsync: disk full\n")
    with pytest.raises(JobError, match=r"failed \(exit 1\): rsync: write failed \| rsync: disk full: run again"):
        bench.ask("run 1", patience_s=60)
    assert not (bench.folder / "job").exists()


def test_work_with_another_payload_is_waited_for(bench: Bench) -> None:
    bench.ask("run 1")
    until((bench.folder / "gate.log").exists)
    assert bench.ask("run 2", options=["--times"]).finished is False
    assert bench.starts() == 1
    bench.open()
    assert bench.ask("run 2", patience_s=60, options=["--times"]).finished is True
    assert bench.starts() == 2


def test_killed_work_is_said_to_be_and_starts_anew(bench: Bench) -> None:
    bench.ask("run 1")
    os.killpg(bench.processes[0].pid, signal.SIGKILL)
    bench.processes[0].wait(timeout=60)
    with pytest.raises(JobError, match=r"the work of job was killed \(it said nothing\): run again"):
        bench.ask("run 1", patience_s=60)
    bench.open()
    assert bench.ask("run 1", patience_s=60).finished is True


def test_a_worker_that_cannot_start_is_an_error(bench: Bench) -> None:
    def broken(_command: Any, log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(["/bin/sh", "-c", "echo no python here >&2; exit 3"], stderr=out)

    with pytest.raises(JobError, match=r"was killed \(no python here\)"):
        advance(Asked(bench.folder / "job", "1", 0), send_work, bench.payload(), broken)


def test_what_a_module_brings_along_is_kept_for_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "ansible_x_payload.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("ansible/module_utils/rackserve/progress/worker.py", "")
    monkeypatch.setattr(worker, "__file__", f"{archive}/ansible/module_utils/rackserve/progress/worker.py")
    monkeypatch.setattr(worker, "__name__", "ansible.module_utils.rackserve.progress.worker")
    folder = tmp_path / "job"
    folder.mkdir()
    assert code_of(folder) == (str(folder / "code.zip"), "ansible.module_utils.rackserve.progress.worker")
    assert (folder / "code.zip").read_bytes() == archive.read_bytes()


def test_where_systemd_runs_the_work_has_a_scope_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "systemd-run"
    tool.write_text('#!/bin/sh\necho "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(job.Path, "is_dir", lambda path: str(path) == "/run/systemd/system")
    folder = tmp_path / "install-r1"
    folder.mkdir()
    assert job.spawn_detached(["true", "x"], folder / "log").wait(timeout=60) == 0
    assert "--scope --quiet --collect" in (folder / "log").read_text()
    assert "--unit=rackserve-install-r1-" in (folder / "log").read_text()


def test_names_become_folders() -> None:
    assert job_folder("/run/x", "node1:a b/c") == Path("/run/x/node1_a_b_c")


def test_the_worker_does_nothing_twice(bench: Bench) -> None:
    work_on(bench.folder)
    assert not (bench.folder / "result.json").exists(), "there was no request"
    bench.open()
    write_json(bench.folder / "request.json", {"work": "rackserve.release.send:send_work", "payload": bench.payload()})
    work_on(bench.folder)
    assert read_json(bench.folder / "result.json")["result"] == {"bytes": 524288}
    assert (bench.folder / "result.json").stat().st_mode & 0o777 == 0o600
    work_on(bench.folder)
    assert bench.starts() == 1


def test_an_unforeseen_failure_names_its_type(bench: Bench) -> None:
    write_json(bench.folder / "request.json", {"work": "rackserve.release.send:send_work", "payload": {}})
    work_on(bench.folder)
    assert read_json(bench.folder / "result.json")["error"] == "KeyError: 'source'"


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    first = take_lock(tmp_path / "lock")
    assert first is not None and take_lock(tmp_path / "lock", tries=2, pause_s=0) is None
    first.close()
    assert take_lock(tmp_path / "lock") is not None


def test_a_report_keeps_the_times_of_its_phases(tmp_path: Path) -> None:
    now = [100.0]
    report = Report(tmp_path / "state.json", lambda: now[0])
    report.add(1)
    report.reach(1)
    report.phase("unpacking", 10, "B", start=2)
    now[0] += 3
    report.add(4)
    report.write()
    state = json.loads((tmp_path / "state.json").read_text())
    assert progress_of(state, 104.0) == {
        "phase": "unpacking", "done": 6, "total": 10, "unit": "B", "start": 2, "elapsed_s": 4.0, "finished": False,
    }  # fmt: skip
    report.add(1)
    with report.kept(every_s=0.001):
        until(lambda: json.loads((tmp_path / "state.json").read_text())["done"] == 7)
    report.phase("bytecode", 20, "s")
    now[0] += 5
    assert progress_of(json.loads((tmp_path / "state.json").read_text()), now[0])["done"] == 5.0
    report.end()
    report.end()
    assert report.step_s == {"unpacking": 3.0, "bytecode": 5.0}
    assert progress_of({}, 1.0)["phase"] == "starting"


def test_what_does_not_tell_is_sampled() -> None:
    report, asked = Report(), []
    report.phase("archive", 10, "B")

    def measure() -> float:
        asked.append(1)
        return 7

    with report.sampled(measure, every_s=0.001):
        until(lambda: bool(asked))
    assert report._state["done"] == 7
