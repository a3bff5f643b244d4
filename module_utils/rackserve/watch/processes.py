"""The processes of an engine's unit: read from /proc, ended by pidfd, and nobody else's."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_TICKS_S = float(os.sysconf("SC_CLK_TCK"))


class Process(NamedTuple):
    """A process of a unit, as /proc shows it; `started` in clock ticks since boot, `session` the pid of its leader."""

    pid: int
    name: str
    state: str
    parent: int
    cpu_s: float
    started: int
    session: int


def unit_of(cgroup: str) -> str:
    """The system's unit in the text of /proc/<pid>/cgroup: the first part that is no slice, as systemd reads it."""
    paths = {
        name: path for _, name, path in (line.split(":", 2) for line in cgroup.splitlines() if line.count(":") > 1)
    }
    parts = (paths.get("name=systemd") or paths.get("", "")).split("/")
    return next((part for part in parts if part and not part.endswith(".slice")), "")


def read_process(proc: Path, pid: int, unit: str, uid: int) -> Process | None:
    """A process of `unit` that runs as `uid`; None where this one is not, or is gone."""
    folder = proc / str(pid)
    try:
        if unit_of((folder / "cgroup").read_text("utf-8", "replace")) != unit or folder.stat().st_uid != uid:
            return None
        text = (folder / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    words = text.rpartition(")")[2].split()
    name = text.partition("(")[2].rpartition(")")[0]
    cpu_s = (int(words[11]) + int(words[12])) / _TICKS_S
    return Process(pid, name, words[0], int(words[1]), cpu_s, int(words[19]), int(words[3]))


def processes_of(proc: Path, unit: str, uid: int) -> list[Process]:
    """The processes of a unit, its main process first: the oldest that systemd itself started."""
    pids = [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()]
    found = [process for process in (read_process(proc, pid, unit, uid) for pid in pids) if process is not None]
    return sorted(found, key=lambda process: (process.parent != 1, process.started, process.pid))


def main_of(processes: Iterable[Process]) -> Process | None:
    """The main process of a unit: systemd gave it a session of its own, so what it left behind is not taken for it."""
    return next((one for one in processes if one.parent == 1 and one.session == one.pid), None)


def end(processes: Iterable[Process], unit: str, uid: int, proc: Path = Path("/proc")) -> list[int]:
    """Kill these processes, the main one first so that clients see a closed connection and no error; pids that were.

    Each is held by a pidfd and looked at again before the signal: a recycled pid is another process.
    """
    done = []
    for process in processes:
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(process.pid)
            try:
                again = read_process(proc, process.pid, unit, uid)
                if again is not None and again.started == process.started:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    done.append(process.pid)
            finally:
                os.close(handle)
    return done


def describe(processes: Iterable[Process]) -> str:
    """Processes as words: what a person looks at afterwards."""
    return ", ".join(f"{one.name} {one.pid} ({one.state}, {one.cpu_s:.0f} s of CPU)" for one in processes)


def wait_for_loss(processes: Iterable[Process], timeout_s: float) -> Process | None:
    """The first of these processes that ends within ``timeout_s`` seconds; None when none does."""
    poller = select.poll()
    held: dict[int, Process] = {}
    try:
        for process in processes:
            with contextlib.suppress(OSError):
                handle = os.pidfd_open(process.pid)
                held[handle] = process
                poller.register(handle, select.POLLIN)
        return next((held[handle] for handle, _event in poller.poll(timeout_s * 1000)), None)
    finally:
        for handle in held:
            os.close(handle)
