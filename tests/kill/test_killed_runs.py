"""A run killed at any moment: the next run ends in the state of an undisturbed one.

RACKSERVE_KILL_INSTALLS, RACKSERVE_KILL_CHANGES   how many of each (1 and 1)
RACKSERVE_KILL_NODES, RACKSERVE_KILL_NET          light nodes (1), second octet of their addresses (78)
RACKSERVE_KILL_SPOTS=1                            also at the tasks that are worst to be cut off at
RACKSERVE_KILL_SEED                               of the moments; printed
RACKSERVE_KILL_REAL=1                             on the main lab with its real engines in place of light nodes
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import real_lab
import runs
import states
from light_lab import LightLab

INSTALLS = int(os.environ.get("RACKSERVE_KILL_INSTALLS", "1"))
CHANGES = int(os.environ.get("RACKSERVE_KILL_CHANGES", "1"))
NODES = int(os.environ.get("RACKSERVE_KILL_NODES", "1"))
SEED = int(os.environ.get("RACKSERVE_KILL_SEED", str(time.time_ns() % 100_000)))
NET = int(os.environ.get("RACKSERVE_KILL_NET", "78"))
REAL = os.environ.get("RACKSERVE_KILL_REAL") == "1"
REPORT = Path(__file__).resolve().parents[2] / "build/kills.json"


@dataclass
class Reference:
    """A lab, the states that undisturbed runs reach, and how long those runs take, s."""

    lab: runs.Lab
    wanted: dict[str, states.State] = field(default_factory=dict)
    install_s: float = 0.0
    change_s: float = 0.0
    present: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def note(self, **row: Any) -> None:
        """Add a row to the report, on disk at once."""
        self.rows.append(row)
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        head = {"seed": SEED, "hosts": self.lab.hosts, "install_s": self.install_s, "change_s": self.change_s}
        REPORT.write_text(json.dumps({**head, "kills": self.rows}, indent=1) + "\n")


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    """A lab on which an install and a change ran undisturbed. It is in state B afterwards."""
    sys.stdout.write(f"\nRACKSERVE_KILL_SEED={SEED}\n")
    with real_lab.RealLab() if REAL else LightLab(NODES, NET) as lab:
        found = Reference(lab)
        lab.fresh()
        install = runs.reach(lab, "A")
        found.install_s, found.wanted["A"] = install.took_s, states.read(lab)
        change = runs.reach(lab, "B")
        found.change_s, found.wanted["B"] = change.took_s, states.read(lab)
        found.present = "B"
        yield found
        if REAL:
            runs.reach(lab, "A")


@dataclass(frozen=True)
class Case:
    """A run to cut off: what it leads to, when, how long it takes undisturbed, and what brings the lab to its start."""

    kind: str
    state: str
    moment: runs.Moment
    whole_s: float
    prepare: Callable[[], None]


def kill(reference: Reference, case: Case, log: Path) -> tuple[str, float]:
    """Cut the run off; once more, at the same share of it, where it was faster than the reference and ended before."""
    moment = case.moment
    for _ in range(4):
        case.prepare()
        reference.present = ""
        during, after_s = runs.cut_off(reference.lab, case.state, moment, log)
        if during:
            return during, after_s
        if not moment.task:
            moment = runs.Moment(case.moment.after_s / case.whole_s * after_s)
    pytest.fail(f"the run ended by itself before {moment}, nothing was killed:\n{runs.tail(log.read_text())}")


def prove(reference: Reference, case: Case, tmp_path: Path) -> None:
    """Cut a run off, do what an operator does next, compare."""
    lab, state = reference.lab, case.state
    during, after_s = kill(reference, case, tmp_path / "killed.log")
    row: dict[str, Any] = {"kind": case.kind, "to": state, "moment_s": round(after_s, 1), "during": during, "ok": False}
    refusal = runs.lease_refusal(lab)
    row["lease"] = "left" if refusal else "none"
    try:
        steps = runs.reach(lab, state)
        row.update(then=steps.said, took_s=round(steps.took_s, 1))
        found = states.read(lab)
        row["differences"] = states.differences(reference.wanted[state], found)
    except AssertionError as error:
        row["failure"] = str(error)[:2000]
        raise
    else:
        row["ok"] = not row["differences"]
    finally:
        reference.note(**row)
    assert not refusal or "-e break_lock=" in refusal, refusal
    assert row["differences"] == [], f"killed after {after_s:.1f} s ({during}):\n" + "\n".join(row["differences"][:40])
    reference.present = state


@pytest.mark.parametrize("number", range(CHANGES))
def test_a_killed_change_is_finished_by_the_next_run(number: int, reference: Reference, tmp_path: Path) -> None:
    """Back and forth between two states of engines, gateway, firewall and kernel."""
    before, state = ("B", "A") if number % 2 == 0 else ("A", "B")
    moment_s = runs.moments(CHANGES, reference.change_s, SEED)[number]

    def prepare() -> None:
        if reference.present != before:
            runs.reach(reference.lab, before)

    prove(reference, Case("change", state, runs.Moment(moment_s), reference.change_s, prepare), tmp_path)


@pytest.mark.asked_by("RACKSERVE_KILL_SPOTS", "1")
@pytest.mark.parametrize("task", runs.WORST_TASKS)
def test_a_change_killed_at_a_task_is_finished_by_the_next_run(task: str, reference: Reference, tmp_path: Path) -> None:
    """As soon as a task begins at which a half-done change is most awkward."""
    state = "A" if reference.present == "B" else "B"

    def prepare() -> None:
        if reference.present not in ("A", "B"):
            runs.reach(reference.lab, "A")

    prove(reference, Case("task", state, runs.Moment(task=task), reference.change_s, prepare), tmp_path)


@pytest.mark.parametrize("number", range(INSTALLS))
def test_a_killed_install_is_finished_by_the_next_run(number: int, reference: Reference, tmp_path: Path) -> None:
    """From bare hosts."""
    moment_s = runs.moments(INSTALLS, reference.install_s, SEED)[number]

    def prepare() -> None:
        if reference.present != "A" and REAL:
            runs.reach(reference.lab, "A")
        reference.lab.fresh()

    prove(reference, Case("install", "A", runs.Moment(moment_s), reference.install_s, prepare), tmp_path)
