"""The program: one supervisor for each group that this host takes part in."""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from ..watch.processes import Process, end, main_of, processes_of, read_process, wait_for_loss
from ..watch.program import VITAL, Files, active_state, attend, notify, say
from .judge import Answer, Group, Look, Memory, Patience, Vector, judge
from .members import Ear, Mouth, Peer

_WARNING = "<4>"
# How long a group may be incomplete before the journal says what it is waiting for, and again.
_TELL_S = 60.0
# How often all processes are read, and how long a unit that lost one of its own may take to end by itself.
_SCAN_S = 5.0
_HURT_S = 2.0


class Kept:
    """The vector a host is joined to, in a file that ends with the boot."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.joined: Vector | None = None

    def read(self, units: Sequence[str]) -> Vector | None:
        """What was kept of these units; None where there is nothing."""
        try:
            kept = json.loads(self.path.read_text("utf-8"))
            self.joined = {unit: str(kept[unit]) for unit in units if unit in kept} or None
        except (OSError, ValueError, TypeError):
            self.joined = None
        return self.joined

    def write(self, joined: Vector | None) -> None:
        """Keep it. Raises OSError where that is not possible."""
        if joined == self.joined:
            return
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(joined), "utf-8")
        part.replace(self.path)
        self.joined = joined


class Units:
    """This host's units of one group, {label: unit}: which invocation of each runs."""

    def __init__(self, names: Mapping[str, str], proc: Path = Path("/proc")) -> None:
        self.names, self.proc, self.uid = dict(names), proc, os.getuid()
        # Tells invocations of two boots apart.
        self.boot = (proc / "sys/kernel/random/boot_id").read_text("utf-8").strip()
        self.mains: dict[str, Process] = {}
        self.vital: dict[str, list[Process]] = {}
        self.hurt: dict[str, tuple[Process, float]] = {}
        self.scanned_at_s = 0.0

    def look(self) -> dict[str, str | None]:
        """{label: invocation, None where its main process is not there}."""
        found: dict[str, str | None] = {}
        if time.monotonic() - self.scanned_at_s >= _SCAN_S:
            self.mains.clear()
            self.scanned_at_s = time.monotonic()
        for label, unit in self.names.items():
            main = self._main(unit)
            found[label] = f"{main.pid}.{main.started}.{self.boot}" if main else None
        return found

    def _main(self, unit: str) -> Process | None:
        """The known main process while it lives: reading all of /proc every second is not free."""
        known = self.mains.pop(unit, None)
        main = read_process(self.proc, known.pid, unit, self.uid) if known else None
        if main is None or known is None or main.started != known.started or main.state == "Z":
            processes = [one for one in processes_of(self.proc, unit, self.uid) if one.state != "Z"]
            main = main_of(processes)
            self.vital[unit] = [one for one in processes if one != main and one.name.startswith(VITAL)]
        if main is not None:
            self.mains[unit] = main
        return main

    def watched(self) -> list[Process]:
        """Processes without which a unit is nothing."""
        return [*self.mains.values(), *(one for found in self.vital.values() for one in found)]

    def lose(self, lost: Process, now_s: float) -> None:
        """One of them ended: the next look reads all anew; its unit may end by itself, and say why."""
        for unit, found in self.vital.items():
            if lost in found and unit in self.mains:
                found.remove(lost)
                self.hurt.setdefault(unit, (self.mains[unit], now_s))
        self.mains.clear()

    def crippled(self, now_s: float, state: Callable[[str], str] = active_state) -> list[str]:
        """Labels of units that lost a process, go on all the same, and are not being stopped."""
        found = []
        for label, unit in self.names.items():
            main, since_s = self.hurt.get(unit, (None, now_s))
            if main is not None and now_s - since_s >= _HURT_S:
                del self.hurt[unit]
                again = self.mains.get(unit)
                if again is not None and again.started == main.started and state(unit) == "active":
                    found.append(label)
        return found

    def end(self, label: str) -> int:
        """Kill everything of a unit; how many processes that were."""
        unit = self.names[label]
        return len(end(processes_of(self.proc, unit, self.uid), unit, self.uid, self.proc))


class Supervisor:
    """One group on this host."""

    def __init__(self, given: Mapping[str, Any], patience: Patience, kept: Path, proc: Path = Path("/proc")) -> None:
        peers = [Peer(peer["member"], peer["address"], tuple(peer["units"])) for peer in given["peers"]]
        own = {str(label): str(unit) for label, unit in given["own"].items()}
        self.member, self.patience = str(given["member"]), patience
        self.group = Group(given["name"], tuple(own), {peer.member: peer.units for peer in peers})
        self.units, self.kept = Units(own, proc), Kept(kept / f"{self.group.name}.json")
        self.ears = [Ear(self.group.name, peer, int(given["port"]), patience.interval_s) for peer in peers]
        self.memory = Memory(joined=self.kept.read(self.group.units))
        self.mouth = Mouth(given["address"], int(given["port"]))
        self.waits, self.waits_since_s, self.seen_at_s = "", 0.0, time.monotonic()

    def round(self, now_s: float) -> None:
        """One look, and what follows. Raises OSError when what is joined cannot be written down."""
        own = self.units.look()
        heard = {ear.peer.member: ear.heard for ear in self.ears if ear.heard is not None}
        before = self.memory.joined
        self.memory, verdict = judge(self.group, self.memory, Look(now_s, own, heard), self.patience)
        # Ended first and forgotten then: an agent that stops between the two finds the rest.
        ended = {unit: self.units.end(unit) for unit in verdict.end}
        self.kept.write(self.memory.joined)
        self.mouth.say(self.member, self.group.name, Answer(own, self.memory.joined))
        if verdict.why and any(ended.values()):
            what = ", ".join(f"{unit} ({count} processes)" for unit, count in ended.items() if count)
            say(f"{_WARNING}{self.group.name}: {verdict.why}; ended {what}, systemd starts it again")
        if before is None and self.memory.joined is not None:
            say(f"{self.group.name}: all {len(self.group.units)} parts are up and joined")
        for label in self.units.crippled(now_s):
            if self.memory.joined is not None:
                count = self.units.end(label)
                say(f"{_WARNING}{self.group.name}: {label} lost a process; ended its other {count} processes")
        self._tell(verdict.waits, now_s)
        self.seen_at_s = time.monotonic()

    def _tell(self, waits: str, now_s: float) -> None:
        if not waits or not self.waits:
            self.waits_since_s = now_s
        self.waits = waits
        if waits and now_s - self.waits_since_s >= _TELL_S:
            self.waits_since_s = now_s
            say(f"{_WARNING}{self.group.name}: not joined for {_TELL_S:.0f} s, it waits for {waits}")

    def run(self) -> None:
        """Look for ever; at once where a main process of this host ends. An error is noticed by the silence."""
        for ear in self.ears:
            threading.Thread(target=ear.run, daemon=True).start()
        self.mouth.start()
        while True:
            self.round(time.monotonic())
            lost = wait_for_loss(self.units.watched(), self.patience.interval_s)
            if lost is not None:
                self.units.lose(lost, time.monotonic())


def main(words: Sequence[str] | None = None) -> int:
    """Supervise every group of the configuration; return when what we run on has changed."""
    parser = argparse.ArgumentParser(prog="group", description="End what is left of a group that lost a part.")
    parser.add_argument("--config", type=Path, required=True, help="groups and patience, as JSON")
    path = parser.parse_args(words).config
    given = json.loads(path.read_text("utf-8"))
    patience = Patience(float(given["interval_s"]), float(given["lost_s"]))
    files = Files([path, *(Path(name) for name in given["files"])])
    kept = Path(os.environ.get("RUNTIME_DIRECTORY", "/run"))
    supervisors = [Supervisor(group, patience, kept) for group in given["groups"]]
    for one in supervisors:
        threading.Thread(target=one.run, name=one.group.name, daemon=True).start()
    notify("READY=1")
    say(f"supervises {', '.join(one.group.name for one in supervisors)}")
    return attend(
        lambda: [one.seen_at_s for one in supervisors], files, given["unit"], (patience.interval_s, patience.lost_s)
    )
