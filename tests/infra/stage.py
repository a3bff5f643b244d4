"""The stage of the fault scenarios: the lab under load, one of its engines as the victim, and proofs of recovery."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from conftest import LAB_HOSTS, STATE
from load import Client, Load, Record
from rackserve.completion.client import Endpoint
from rackserve.lab.hosts import processes_of
from scenarios import Outcome, Statuses, closing, record

Shell = Callable[[str, str], str]
# A worker of vLLM spins for a second after each message: more clients leave the lab's two cores no room for a start.
CLIENTS, PAUSE_S, TOKENS, LONG = 4, 2.0, 24, 1500
# Sent at once just before the fault, so that every engine has whole answers to give when it comes.
BURST, BURST_TOKENS, BURST_S = 8, 150, 0.4
BASELINE_S, DOWN_S, BACK_S = 4, 60, 300
PROCESSES = {"API server": "", "engine core": "VLLM::EngineCor", "worker": "VLLM::Worker"}
# Of the unit's control group, on machines with cgroup v1 and v2.
MEMBERS = (
    "group=$(systemctl show -P ControlGroup {unit}); for top in /sys/fs/cgroup/systemd /sys/fs/cgroup; do"
    " if [ -f $top$group/cgroup.procs ]; then cat $top$group/cgroup.procs; break; fi; done"
)


@dataclass
class Stage:
    """Everything a scenario needs; `victim` is an engine of the plan."""

    plan: dict[str, Any]
    shell: Shell
    endpoint: Endpoint
    victim: dict[str, Any]

    @property
    def slot(self) -> str:
        """The victim's server in the gateway."""
        return str(self.victim["gateway_target"]).rpartition("/")[2]

    @property
    def client(self) -> Client:
        """A client with the operator's key."""
        return Client(self.endpoint, self.victim["served_model_name"])

    def on_victim(self, line: str) -> str:
        """Run a shell line on the victim's host."""
        return self.shell(self.victim["host"], line).strip()

    def members(self) -> list[int]:
        """The processes of the victim's unit."""
        return [int(pid) for pid in self.on_victim(MEMBERS.format(unit=self.victim["unit"])).split()]

    def pid(self, process: str) -> int:
        """One process of the victim, by the name it has in PROCESSES."""
        if not PROCESSES[process]:
            return int(self.on_victim(f"systemctl show -P MainPID {self.victim['unit']}"))
        for pid in self.members():
            if self.on_victim(f"cat /proc/{pid}/comm") == PROCESSES[process]:
                return pid
        raise AssertionError(f"no {process} in {self.victim['unit']}")

    def strays(self, before: list[int]) -> list[str]:
        """Processes of the engines' user outside of units, and those of `before` that still live."""
        listed = self.on_victim("ps -u vllm -o pid=,comm=,cgroup= || true").splitlines()
        old = {str(pid) for pid in before}
        return [line for line in listed if ".service" not in line or line.split()[0] in old]

    def prove(self, within_s: float = BACK_S) -> None:
        """A whole answer by the victim itself, through the gateway; fails the test when none comes."""
        deadline = time.monotonic() + within_s
        while (answer := self.client.ask("plain", 8, server=self.slot)).error or answer.server != self.slot:
            assert time.monotonic() < deadline, f"{self.slot} does not answer: {answer}"
            time.sleep(1)


@dataclass
class Scene:
    """One fault under load: its clients' records, the gateway's view, and when it began; it was there by `struck_s`."""

    stage: Stage
    load: Load
    statuses: Statuses
    held: Record
    outcome: Outcome
    began_s: float = 0.0
    struck_s: float = 0.0
    before: list[int] = field(default_factory=list)
    burst: list[threading.Thread] = field(default_factory=list)
    everywhere: bool = False

    def down(self, said: dict[str, str]) -> bool:
        """Whether the gateway has taken the victim out."""
        return said.get(self.stage.slot, "UP") != "UP"

    def gone(self, said: dict[str, str]) -> bool:
        """Whether the gateway itself does not answer."""
        return not said

    def up(self, said: dict[str, str]) -> bool:
        """Whether the gateway gives the victim work."""
        return said.get(self.stage.slot) == "UP"

    def strike(self, inject: Callable[[], object]) -> None:
        """Let the fault happen now, with requests of both kinds in flight on every engine."""
        self.before = self.stage.members()
        burst = [
            threading.Thread(target=lambda: self.load.records.append(self.stage.client.ask("plain", BURST_TOKENS)))
            for _ in range(BURST)
        ]
        for thread in burst:
            thread.start()
        time.sleep(BURST_S)
        self.began_s = time.monotonic()
        inject()
        self.struck_s = time.monotonic()
        self.burst = burst

    def recover(self, within_s: float = BACK_S, help_it: Callable[[], object] | None = None) -> None:
        """Wait until the victim was taken out, is back, and proves it; `help_it` is what a person does meanwhile."""
        out = self.statuses.wait(self.down, self.began_s, DOWN_S)
        self.outcome.out_s = out - self.began_s
        if help_it is not None:
            help_it()
        back = self.statuses.wait(self.up, out, within_s)
        self.stage.prove()
        self.outcome.again_s = back - self.began_s

    def wait_for_burst(self) -> None:
        """Wait until the requests that were in flight when it began have ended."""
        for thread in self.burst:
            thread.join(self.stage.endpoint.timeout_s)

    def sort(self) -> None:
        """Sort what failed since the fault began: streams of the victim that had begun, and everything else."""
        mine = [item for item in [*self.load.records, self.held] if item.ended_s >= self.began_s]
        self.outcome.requests = len(mine)
        self.outcome.slowest_s = max(
            (item.took_s for item in mine if not item.error and item is not self.held), default=0
        )
        for item in mine:
            if item.error:
                begun = item.begun_s is not None
                late = begun and item.started_s > self.struck_s and not self.everywhere
                where = "" if self.everywhere else " there" if item.server == self.stage.slot else " elsewhere"
                what = f"stream begun{where}{' after the fault' if late else ''}" if begun else f"{item.kind} request"
                self.outcome.failed[what] = self.outcome.failed.get(what, 0) + 1

    def errors(self) -> list[str]:
        """The failures as words, for the message of a failing test."""
        words = []
        for item in [*self.load.records, self.held]:
            if item.error:
                when = f"{item.started_s - self.began_s:+.1f} to {item.ended_s - self.began_s:+.1f} s"
                words.append(f"{item.kind} {item.server or '?'} {when}, begun {item.begun_s is not None}: {item.error}")
        return words


@contextmanager
def scene(stage: Stage, fault: str, clients: int = CLIENTS, tokens: int = TOKENS, long: int = LONG) -> Iterator[Scene]:
    """The lab under load, with a stream of `long` tokens held on the victim; a good end is recorded."""
    gateway = stage.plan["gateway"]
    backend = str(stage.victim["gateway_target"]).partition("/")[0]
    ssh = ["/usr/bin/ssh", "-F", str(STATE / "ssh_config"), gateway["host"]]
    load = Load(stage.endpoint, stage.victim["served_model_name"], clients, PAUSE_S, tokens)
    held = Record("stream", time.monotonic())
    holder = threading.Thread(target=stage.client.ask, args=("stream", long, held, stage.slot), daemon=True)
    with closing(Statuses(ssh, gateway["stats_socket"], backend)) as statuses:
        with load:
            time.sleep(BASELINE_S)
            assert load.failures == [], "the lab was not healthy before the fault"
            holder.start()
            deadline = time.monotonic() + 60
            while held.token_s is None:
                assert time.monotonic() < deadline, f"the held stream did not begin: {held}"
                time.sleep(0.05)
            made = Scene(stage, load, statuses, held, Outcome(fault))
            yield made
            time.sleep(2)
        holder.join(stage.endpoint.timeout_s)
        made.wait_for_burst()
    made.sort()
    record(made.outcome)


def cut_run(run: subprocess.Popen[Any]) -> None:
    """SIGKILL a run and its workers, which have sessions of their own: as if the controller had lost its power."""
    for pid in reversed(processes_of(run.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run.wait()


def cut_power(host: str) -> None:
    """As if a plug were pulled: no packet leaves the host any more, and everything on it ends."""
    subprocess.run(["/usr/sbin/ip", "-n", "rslab", "link", "set", f"v-{host}", "down"], check=True)
    supervisor = int((LAB_HOSTS / host / "supervisor.pid").read_text())
    for pid in processes_of(supervisor):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def partition(host: str) -> Iterator[None]:
    """The switch forwards nothing from or to a host, which keeps its link and knows nothing of it."""
    port = ["/usr/sbin/bridge", "-n", "rslab", "link", "set", "dev", f"v-{host}", "state"]
    subprocess.run([*port, "0"], check=True)
    try:
        yield
    finally:
        subprocess.run([*port, "3"], check=True)


def give_power(host: str) -> None:
    """The link of a host that gets its power back; lab-up boots it."""
    subprocess.run(["/usr/sbin/ip", "-n", "rslab", "link", "set", f"v-{host}", "up"], check=True)
