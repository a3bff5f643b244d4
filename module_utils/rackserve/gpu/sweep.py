"""End what our own service left behind on GPUs, and nobody else's: named, proven to be ours, held by a pidfd."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from ..driver.service import gpu_users
from ..health.host_tools import tools_for
from ..watch.processes import read_process, unit_of

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]

LEFT, SERVING, FOREIGN, UNKNOWN = "left behind", "serving", "foreign", "unknown"
ENDED, KILLED, SURVIVED = "ended", "killed", "survived"
# What systemd says of a unit whose processes it has given up.
_INACTIVE = ("inactive", "failed")
_POLL_S = 0.1


class SweepError(Exception):
    """Nothing can be told apart; one line: what, where, how to fix."""


class Holder(NamedTuple):
    """A process on a GPU; ``started`` in clock ticks since boot tells it from a later one with its number."""

    pid: int
    name: str
    uid: int
    unit: str
    started: int
    verdict: str
    why: str


def holders(root: Path, pids: Iterable[int], uid: int, units: Iterable[str], states: Mapping[str, str]) -> list[Holder]:
    """Every process with its verdict. Only one of our user, in a unit of ours that is inactive, is left behind."""
    found = []
    for pid in sorted(set(pids)):
        folder = root / "proc" / str(pid)
        try:
            unit = unit_of((folder / "cgroup").read_text("utf-8", "replace"))
            owner = folder.stat().st_uid
        except OSError:
            continue  # it ended meanwhile
        process = read_process(root / "proc", pid, unit, owner)
        if process is None:
            continue
        verdict, why = _judge(owner, uid, unit, set(units), states)
        found.append(Holder(pid, process.name, owner, unit, process.started, verdict, why))
    return found


def _judge(owner: int, uid: int, unit: str, units: set[str], states: Mapping[str, str]) -> tuple[str, str]:
    if owner != uid:
        return FOREIGN, f"it runs as user {owner}: stop it yourself, rackserve signals only processes of its own user"
    if unit not in units:
        return FOREIGN, f"it belongs to {unit or 'no unit'}, which the plan does not know: stop it yourself"
    state = states.get(unit, "")
    if state in _INACTIVE:
        return LEFT, f"{unit} is {state}"
    if not state:
        return UNKNOWN, f"systemd does not say what {unit} does: look at systemctl status {unit}"
    return SERVING, f"{unit} is {state}"


def unit_states(run: Run, units: Sequence[str]) -> dict[str, str]:
    """{unit: systemd's ActiveState}. Raises SweepError where systemd does not answer: nothing is known then."""
    if not units:
        return {}
    code, out, err = run(["systemctl", "show", "--property=Id,ActiveState", *units])
    if code:
        raise SweepError(f"systemctl show: {' '.join(err.split()) or f'exit status {code}'}; nothing is signalled")
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.split("\n\n")]
    return {block["Id"]: block.get("ActiveState", "") for block in blocks if block.get("Id")}


def on_gpus(root: Path) -> set[int]:
    """Processes on GPUs: those that NVML lists, and those with a device open, which a sick driver does not hide."""
    found = {pid for pid, _ in gpu_users(root)}
    for gpu in tools_for(root).driver().gpus:
        found.update(int(use[0]) for use in gpu.values.get("processes") or [])
    return found


class Waits(NamedTuple):
    """Seconds after SIGTERM, and after SIGKILL."""

    term_s: float = 30.0
    kill_s: float = 10.0


def end_all(
    left: Sequence[Holder],
    proc: Path,
    waits: Waits,
    still_left: Callable[[Holder], bool],
    signaller: Callable[[Holder, Path], Signaller] | None = None,
) -> list[dict[str, Any]]:
    """SIGTERM to all, SIGKILL to those that are there after ``term_s``. Each is looked at again before each signal."""
    with contextlib.ExitStack() as stack:
        held = [(one, stack.enter_context((signaller or Signaller)(one, proc))) for one in left]
        meant = [(one, process) for one, process in held if still_left(one)]
        for _, process in meant:
            process.send(signal.SIGTERM)
        _wait([process for _, process in meant], waits.term_s)
        killed = [(one, process) for one, process in meant if process.alive() and still_left(one)]
        for _, process in killed:
            process.send(signal.SIGKILL)
        _wait([process for _, process in killed], waits.kill_s)
        return [_outcome(one, process, meant, killed) for one, process in held]


def _outcome(
    one: Holder,
    process: Signaller,
    meant: Sequence[tuple[Holder, Signaller]],
    killed: Sequence[tuple[Holder, Signaller]],
) -> dict[str, Any]:
    if (one, process) not in meant:
        return {**shown(one), "verdict": SERVING, "outcome": "", "why": f"{one.unit} was started meanwhile"}
    if process.alive():
        why = "it hangs in the kernel, or its unit was started meanwhile: look at it, reset the GPU or reboot"
        return {**shown(one), "outcome": SURVIVED, "why": why}
    return {**shown(one), "outcome": KILLED if (one, process) in killed else ENDED}


def _wait(processes: Sequence[Signaller], limit_s: float) -> None:
    until_s = time.monotonic() + limit_s
    while any(process.alive() for process in processes) and time.monotonic() < until_s:
        time.sleep(_POLL_S)


class Signaller:
    """One process, held by a pidfd where the kernel has them: a recycled number is another process and gets nothing."""

    def __init__(self, holder: Holder, proc: Path) -> None:
        self.holder, self.proc = holder, proc
        self.handle = -1
        with contextlib.suppress(OSError, AttributeError):
            self.handle = os.pidfd_open(holder.pid)

    def __enter__(self) -> Signaller:
        return self

    def __exit__(self, *_: object) -> None:
        if self.handle >= 0:
            os.close(self.handle)

    def same(self) -> bool:
        """Whether the number still is this process: same start, same user, same unit."""
        seen = read_process(self.proc, self.holder.pid, self.holder.unit, self.holder.uid)
        return seen is not None and seen.started == self.holder.started and seen.state != "Z"

    def alive(self) -> bool:
        """Whether it is still there; a zombie holds no GPU."""
        if self.handle >= 0 and select.select([self.handle], [], [], 0)[0]:
            return False
        return self.same()

    def send(self, number: signal.Signals) -> None:
        """Signal it, and nobody else; one that is gone gets nothing."""
        if not self.same():
            return
        with contextlib.suppress(ProcessLookupError):
            if self.handle >= 0:
                signal.pidfd_send_signal(self.handle, number)
            else:
                os.kill(self.holder.pid, number)


def shown(one: Holder) -> dict[str, Any]:
    """A holder as plain data."""
    return {"pid": one.pid, "name": one.name, "uid": one.uid, "unit": one.unit, "verdict": one.verdict, "why": one.why}


def sweep(
    root: Path, run: Run, uid: int, units: Sequence[str], waits: Waits, *, check: bool, pids: set[int] | None = None
) -> dict[str, Any]:
    """Look at every process on the host's GPUs and end what was left behind; `check` only lists.

    Returns {changed, processes, survived}. Raises SweepError.
    """
    found = holders(root, on_gpus(root) if pids is None else pids, uid, units, unit_states(run, units))
    left = [one for one in found if one.verdict == LEFT]

    def still_left(one: Holder) -> bool:
        # A unit that was started meanwhile has taken its control group over.
        return unit_states(run, [one.unit]).get(one.unit) in _INACTIVE

    outcomes = {} if check else {row["pid"]: row for row in end_all(left, root / "proc", waits, still_left)}
    rows = [outcomes.get(one.pid, {**shown(one), "outcome": ""}) for one in found]
    survived = [row["pid"] for row in rows if row["outcome"] == SURVIVED]
    return {"changed": bool(left), "processes": rows, "survived": survived}


def lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The processes for a terminal: what was done first."""
    told = sorted(rows, key=lambda row: (not row["outcome"], row["verdict"], row["pid"]))
    return [f"process {row['pid']} ({row['name']}): {row['outcome'] or row['verdict']}: {row['why']}" for row in told]
