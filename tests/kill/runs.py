"""Runs that are cut off, and what brings a lab to a state after one: what an operator would do next."""

from __future__ import annotations

import json
import random
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

STALE = 2
# Where a change that is half done is most awkward: rules loaded and not kept, a drained or stopped engine, a new engine
# that gets no work yet, a gateway with new files and old configuration, a lease that nobody needs any more.
WORST_TASKS = (
    "firewall : Load | Load the rules with a way back",
    "firewall : Write the boot file and the digest of what is loaded",
    "vllm : Roll | Stop it",
    "vllm : Roll | Start it",
    "vllm : Roll | Give it work again",
    "load_balancer : Load the written configuration",
    "Release the lease",
)


class Lab(Protocol):
    """What a run needs of a lab: the light one and the main one have it."""

    prefix: str
    hosts: list[str]
    deployment: str
    management_cidr: str

    def fresh(self) -> None:
        """Bare hosts (of the main lab: one bare host)."""

    def playbook(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook to its end."""

    def ansible(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the ansible command."""

    def start(self, name: str, output: IO[Any], *arguments: str) -> subprocess.Popen[Any]:
        """Start a playbook."""

    def kill(self, run: subprocess.Popen[Any]) -> int:
        """SIGKILL all of it."""

    def shell(self, host: str, line: str, timeout_s: float = 60) -> str:
        """Run a line on a host."""


@dataclass
class Steps:
    """What happened on the way to a state, for the report."""

    took_s: float = 0.0
    said: list[str] = field(default_factory=list)


def variables(lab: Lab, state: str) -> list[str]:
    """Arguments for state "A", the description as it is, or "B": another engine argument, gateway, firewall, kernel."""
    if state == "A":
        return []
    overrides = {
        "deployments": {lab.deployment: {"engine_args": {"max_num_seqs": 16}}},
        "gateway": {"max_queue": 128},
        "network": {"management_cidrs": [lab.management_cidr, "192.0.2.0/24"]},
    }
    knobs = {"net.core.somaxconn": 8192, "net.ipv4.tcp_max_syn_backlog": 8192}
    return ["-e", json.dumps({"cluster_overrides": overrides, "host_baseline_knobs_override": knobs})]


def reach(lab: Lab, state: str) -> Steps:
    """Bring the lab to a state: site, and roll-serving where site says that it is needed. Fails the test otherwise."""
    started, steps = time.monotonic(), Steps()
    wanted = variables(lab, state)
    done = lab.playbook("site", *wanted)
    steps.said.append(f"site {done.returncode}")
    if done.returncode == STALE and "playbooks/roll-serving.yml" in done.stdout:
        rolled = lab.playbook("roll-serving", *wanted)
        steps.said.append(f"roll-serving {rolled.returncode}")
        assert rolled.returncode == 0, tail(rolled.stdout + rolled.stderr)
        done = lab.playbook("site", *wanted)
        steps.said.append(f"site {done.returncode}")
    assert done.returncode == 0, tail(done.stdout + done.stderr)
    steps.took_s = time.monotonic() - started
    return steps


def tail(text: str) -> str:
    """Failed tasks of a run's output, or its end."""
    lines = text.splitlines()
    wrong = [number for number, line in enumerate(lines) if line.startswith(("fatal:", "[ERROR]", "failed:"))]
    shown = sorted({near for number in wrong for near in range(max(0, number - 2), min(len(lines), number + 12))})
    return "\n".join(lines[number] for number in shown[-120:]) or "\n".join(lines[-60:])


@dataclass(frozen=True)
class Moment:
    """When to kill: so many seconds after the start, or with the begin of a task."""

    after_s: float = 0.0
    task: str = ""

    def __str__(self) -> str:
        return self.task or f"{self.after_s:.1f} s"

    def has_come(self, since_s: float, log: Path) -> bool:
        """Whether it is time."""
        if self.task:
            return any(f"{self.task}]" in line for line in log.read_text().splitlines() if line.startswith("TASK ["))
        return since_s >= self.after_s


def cut_off(lab: Lab, state: str, moment: Moment, log: Path) -> tuple[str, float]:
    """Start what `reach` runs and SIGKILL it at the moment: (the task that was under way, after how many seconds).

    No task, and the whole time it took, when it ended before.
    """
    wanted, started = variables(lab, state), time.monotonic()
    with log.open("w") as output:
        for name in ("site", "roll-serving"):
            run = lab.start(name, output, *wanted)
            while run.poll() is None:
                if moment.has_come(time.monotonic() - started, log):
                    lab.kill(run)
                    return f"{name}: {last_task(log)}", time.monotonic() - started
                time.sleep(0.02)
            if run.returncode != STALE:
                break
    return "", time.monotonic() - started


def last_task(log: Path) -> str:
    """The last play and task in a run's output."""
    tasks = [line.split("[", 1)[1].split("]")[0] for line in log.read_text().splitlines() if line.startswith("TASK [")]
    return tasks[-1] if tasks else "before the first task"


def moments(count: int, duration_s: float, seed: int) -> list[float]:
    """`count` random moments of a run, one in each of so many equal parts of it, in random order."""
    chooser = random.Random(seed)  # noqa: S311 - reproducible moments, no secret
    found = [(number + chooser.random()) * duration_s / count for number in range(count)]
    chooser.shuffle(found)
    return found


def lease_refusal(lab: Lab) -> str:
    """What another owner is told while the killed run's lease stands; "" where it left none."""
    gateway = lab.hosts[0]
    if "yes" not in lab.shell(gateway, "test -e /var/lib/rackserve/lease.json && echo yes || true"):
        return ""
    asked = lab.ansible(gateway, "-m", "lease", "-a", "owner=other@elsewhere operation=site", "--check")
    assert asked.returncode != 0, f"another owner got the lease of a killed run: {asked.stdout}"
    return asked.stdout
