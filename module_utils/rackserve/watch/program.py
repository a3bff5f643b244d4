"""The program: rounds over the engines of a host, and what follows from them."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from .client import Client, Engine
from .judge import Look, Memory, Patience, judge, read_figure
from .processes import Process, describe, end, processes_of, wait_for_loss

_HOUR_S = 3600.0
# How vLLM names the processes without which an engine cannot answer; the kernel keeps 15 characters.
VITAL = ("VLLM::EngineCor", "VLLM::Worker")
_WARNING, _ERROR = "<4>", "<3>"
# A unit that was written anew while its program ran is started anew by it, once it has had this long.
_STARTED_ANEW_S = 60.0


class Budget:
    """How often an engine was ended within the last hour; kept in a file that ends with the boot."""

    def __init__(self, path: Path, most: int, clock: Callable[[], float]) -> None:
        self.path, self.most, self.clock = path, most, clock

    def used(self) -> list[float]:
        """Moments within the last hour."""
        try:
            kept = [float(moment) for moment in json.loads(self.path.read_text("utf-8"))]
        except (OSError, ValueError, TypeError):
            return []
        return [moment for moment in kept if self.clock() - moment < _HOUR_S]

    def take(self) -> int:
        """The number of this restart within the hour; 0 when there were enough. Raises OSError when not writable."""
        used = self.used()
        if len(used) >= self.most:
            return 0
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps([*used, self.clock()]), "utf-8")
        part.replace(self.path)
        return len(used) + 1


def look_at(client: Client, processes: list[Process], now_s: float) -> Look:
    """One look at an engine through its client and its processes."""
    text = client.metrics() if processes else None
    figure, asleep = (None, False) if text is None else read_figure(text)
    answered, waiting_s = client.state()
    excused = "asleep" if asleep else "traced" if any(process.state == "t" for process in processes) else ""
    main = processes[0] if processes else None
    generation = f"{main.pid}.{main.started}" if main else ""
    return Look(now_s, generation, figure, answered, waiting_s, main.cpu_s if main else -1.0, excused)


class Watch:
    """The watch over one engine."""

    def __init__(self, patience: Patience, client: Client, budget: Budget, proc: Path = Path("/proc")) -> None:
        self.engine, self.patience, self.client, self.budget = client.engine, patience, client, budget
        self.proc, self.memory, self.given_up = proc, Memory(), ""
        self.processes: list[Process] = []
        self.seen_at_s = time.monotonic()

    def round(self, now_s: float) -> None:
        """One look, and what follows from it. Raises OSError when a restart cannot be written down."""
        uid, unit = os.getuid(), self.engine.unit
        processes = self.processes = processes_of(self.proc, unit, uid)
        look = look_at(self.client, processes, now_s)
        self.memory, verdict = judge(self.memory, look, self.patience)
        self.seen_at_s = time.monotonic()
        if verdict.ask:
            self.client.ask()
        if not verdict.hung or self.given_up == look.generation:
            return
        head = f"{unit} hangs: {verdict.hung}; {describe(processes)}"
        number = self.budget.take()
        if not number:
            self.given_up = look.generation
            fix = f"look at its journal, then: systemctl kill -s KILL {unit}"
            say(f"{_ERROR}{head}; ended {self.patience.restarts} times within an hour, so it is left: {fix}")
            return
        pids = end(processes, unit, uid, self.proc)
        which = f"{number} of {self.patience.restarts} within an hour"
        say(f"{_WARNING}{head}; ended {len(pids)} processes, systemd starts it again ({which})")

    def lose(self, lost: Process, state: Callable[[str], str]) -> None:
        """End what is left of an engine that lost a process: until vLLM does, it answers requests with errors.

        Left alone: one that is being stopped or never computed, since then it says itself what is wrong.
        """
        unit, main = self.engine.unit, self.processes[0]
        left = processes_of(self.proc, unit, os.getuid())
        if self.memory.proven and main.pid in [one.pid for one in left] and state(unit) == "active":
            done = end(left, unit, os.getuid(), self.proc)
            what = f"{unit} lost {lost.name} ({lost.pid})"
            say(f"{_WARNING}{what}; ended its other {len(done)} processes, systemd starts it again")

    def run(self) -> None:
        """Look for ever. A thread that ends on an error is noticed by its silence."""
        while True:
            vital = [one for one in self.processes[1:] if one.name.startswith(VITAL)]
            lost = wait_for_loss(vital, self.patience.interval_s)
            if lost is not None:
                self.lose(lost, active_state)
            self.round(time.monotonic())


def active_state(unit: str) -> str:
    """What systemd says of a unit; empty when it says nothing."""
    asked = ["systemctl", "show", "--property=ActiveState", "--value", unit]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=10)
    return done.stdout.strip()


class Files:
    """What this process was started from; when that differs, it ends and systemd starts it on what is there now."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.first = self.last = self.stamp()

    def stamp(self) -> str:
        """One digest over contents, or over dates where contents are not ours to read."""
        total = hashlib.sha256()
        for path in self.paths:
            try:
                total.update(path.read_bytes())
            except PermissionError:
                seen = path.stat()
                total.update(f"{seen.st_ino} {seen.st_mtime_ns}".encode())
            except OSError:
                total.update(b"-")
        return total.hexdigest()

    def settled_change(self) -> bool:
        """Whether they differ from the first look, and have done so twice the same."""
        before, self.last = self.last, self.stamp()
        return self.first != self.last == before


def say(line: str) -> None:
    """Write a line to the journal; it may begin with a level as in <4>."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def notify(text: str) -> None:
    """Tell systemd; nothing where it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(text.encode(), f"\0{address[1:]}" if address.startswith("@") else address)


def key_of(credentials: Path, name: str) -> str:
    """The engine's key: its credential is the environment file that its unit reads. Raises OSError."""
    return (credentials / name).read_text("utf-8").partition("=")[2].strip()


def attend(seen_at_s: Callable[[], Sequence[float]], files: Files, unit: str, times_s: tuple[float, float]) -> int:
    """Tell systemd while all threads give signs of life; return 0 when what the program runs on has changed.

    ``seen_at_s``: each thread's last sign, monotonic; ``unit``: digest of the unit as it was written; ``times_s``:
    between two looks, and of silence that is still life.
    """
    interval_s, silent_s = times_s
    stale, started_s = unit != os.environ.get("RACKSERVE_UNIT"), time.monotonic()
    while True:
        time.sleep(interval_s)
        now_s = time.monotonic()
        if all(now_s - seen < silent_s for seen in seen_at_s()):
            notify("WATCHDOG=1")
        if files.settled_change() or (stale and now_s - started_s > _STARTED_ANEW_S):
            say("what this program runs on has changed: it ends, systemd starts it again")
            return 0


def main(words: Sequence[str] | None = None) -> int:
    """Watch every engine of the configuration; return when what we run on has changed or a watch has stopped."""
    parser = argparse.ArgumentParser(prog="engine-watch", description="End engines that hang.")
    parser.add_argument("--config", type=Path, required=True, help="engines and patience, as JSON")
    path = parser.parse_args(words).config
    given = json.loads(path.read_text("utf-8"))
    patience = Patience(float(given["interval_s"]), float(given["hang_s"]), int(given["restarts"]))
    files = Files([path, *(Path(name) for name in given["files"])])
    credentials = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"))
    kept = Path(os.environ.get("RUNTIME_DIRECTORY", "/run"))
    watches = []
    for engine in (Engine(**entry) for entry in given["engines"]):
        client = Client(engine, key_of(credentials, engine.name), patience.hang_s)
        budget = Budget(
            kept / f"{engine.name}.json", patience.restarts, lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
        )
        watches.append(Watch(patience, client, budget))
    for watch in watches:
        threading.Thread(target=watch.run, name=watch.engine.name, daemon=True).start()
    notify("READY=1")
    say(f"watches {', '.join(watch.engine.unit for watch in watches)}: {patience.hang_s:g} s")
    return attend(
        lambda: [watch.seen_at_s for watch in watches], files, given["unit"], (patience.interval_s, patience.late_s)
    )
