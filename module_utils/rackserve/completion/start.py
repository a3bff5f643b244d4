"""How far an engine's start is, from what vLLM itself writes to its unit's journal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from ..progress.worker import read_json, write_json

Run = Callable[[Sequence[str]], str]
"""Runs a command and returns its standard output; a failing one gives ""."""

STARTS_DIR = "run/rackserve/starts"
REFUSED_S = 30
# What a server that cannot serve yet says; every other refusal is of one that could, and is no start under way.
_NOT_YET = (408, 425, 429, 502, 503, 504)
_BAD_REQUEST = 400
_LINES = 600
_SHARDS = re.compile(r"checkpoint shards:\s+\d+% Completed \| (\d+)/(\d+)")
_GRAPHS = re.compile(r"Capturing CUDA graphs[^|]*\|[^|]*\| (\d+)/(\d+)")
_SIZE = re.compile(r"Checkpoint size: ([0-9.]+) GiB")
# vLLM 0.32. The last one that was written says where the start is.
_STAGES = (
    ("", "importing vLLM"),
    ("non-default args", "reading the configuration"),
    ("Initializing a V1 LLM engine", "starting workers"),
    ("Starting to load model", "loading weights"),
    ("Loading weights took", "profiling memory"),
    (r"Dynamo bytecode transform|Compiling a graph|torch\.compile (took|takes)", "compiling"),
    ("Capturing CUDA graphs", "capturing CUDA graphs"),
    (r"init engine \(profile", "starting the API"),
    ("Application startup complete", "waiting for the first answer"),
)


class Stage(NamedTuple):
    """Where a start is: ``order`` grows on the way; ``done`` of ``total`` where the engine counts, in ``unit``."""

    order: int
    phase: str
    done: float = 0.0
    total: float | None = None
    unit: str = ""


class Started(NamedTuple):
    """A unit's stage and the seconds since its main process began."""

    stage: Stage
    elapsed_s: float


def stage_of(journal: str) -> Stage:
    """The stage that the journal of one start tells; progress bars in it may hold carriage returns."""
    order = max(number for number, (words, _phase) in enumerate(_STAGES) if re.search(words, journal))
    phase = _STAGES[order][1]
    if phase == "loading weights":
        shards, size = _last(_SHARDS, journal), _SIZE.findall(journal)
        if shards and size and float(size[-1]) >= 1:
            total = float(size[-1]) * (1 << 30)
            return Stage(order, phase, total * shards[0] / shards[1], total, "B")
        if shards:
            return Stage(order, phase, shards[0], shards[1], "shards")
    if phase == "capturing CUDA graphs":
        graphs = _last(_GRAPHS, journal)
        if graphs:
            return Stage(order, phase, graphs[0], graphs[1], "graphs")
    return Stage(order, phase)


def _last(pattern: re.Pattern[str], text: str) -> tuple[int, int] | None:
    """The last (done, total) that ``pattern`` finds, None when it finds none or a total of 0."""
    found = pattern.findall(text)
    return (int(found[-1][0]), int(found[-1][1])) if found and int(found[-1][1]) else None


def look(unit: str, run: Run, now: float) -> Started:
    """Where the present start of ``unit`` is; ``now`` is the monotonic clock in seconds, which systemd uses too."""
    shown = run(["systemctl", "show", "--property=InvocationID,ExecMainStartTimestampMonotonic", unit])
    values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    invocation, since_us = values.get("InvocationID", ""), values.get("ExecMainStartTimestampMonotonic", "0")
    journal = ""
    if invocation:
        match = f"_SYSTEMD_INVOCATION_ID={invocation}"
        journal = run(["journalctl", "--all", "--output=cat", "--no-pager", "--quiet", f"--lines={_LINES}", match])
    return Started(stage_of(journal), max(0.0, now - int(since_us) / 1e6) if int(since_us) else 0.0)


def usual_s(unit: str, root: Path) -> float | None:
    """Seconds that the start took last time since the host booted, None when there was none."""
    noted = read_json(root / STARTS_DIR / f"{unit}.json") or {}
    return float(noted["start_s"]) if "start_s" in noted else None


def note_starts(units: Sequence[str], run: Run, now: float, root: Path = Path("/"), longest_s: float = 3600) -> None:
    """Remember how long the starts of ``units``, proven now, took; what ran for ``longest_s`` did not just start."""
    folder = root / STARTS_DIR
    folder.mkdir(parents=True, exist_ok=True)
    for unit in units:
        took_s = look(unit, run, now).elapsed_s
        if 0 < took_s < longest_s:
            write_json(folder / f"{unit}.json", {"start_s": round(took_s, 1)})


def refuses(rows: Sequence[Mapping[str, Any]], now: float, root: Path = Path("/")) -> str:
    """Who has answered with errors for REFUSED_S, which no waiting heals; "" where nobody has.

    rows: of `check`. ``now`` is the monotonic clock in seconds. Since when is kept on the host: a wait is many calls.
    """
    path = root / STARTS_DIR / "refusals.json"
    known = read_json(path) or {}
    bad = {str(row["server"]) for row in rows if _refused(row["status"])}
    kept = {server: min(float(known.get(server, now)), now) for server in bad}
    late = [server for server, since in kept.items() if now - since >= REFUSED_S]
    if kept or known:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {server: since for server, since in kept.items() if server not in late})
    return f"{late[0]} has answered with errors for {REFUSED_S} s" if late else ""


def _refused(status: int | None) -> bool:
    return status is not None and status >= _BAD_REQUEST and status not in _NOT_YET


def start_progress(
    units: Sequence[str], answering: int, of: int, run: Run, now: float, *, root: Path = Path("/")
) -> dict[str, Any]:
    """The ``progress`` of a wait for ``units``: the one that is furthest behind, of ``of`` engines ``answering`` do.

    Where the engine counts, its count; else the seconds since its start and those of the last one; else only the phase.
    """
    found = [(look(unit, run, now), unit) for unit in units]
    if not found:
        told = {"phase": "waiting for answers", "done": answering, "total": of, "unit": "engines"}
        return {**told, "start": 0, "elapsed_s": 0, "finished": False}
    (stage, elapsed_s), unit = min(found, key=lambda one: (one[0].stage.order, one[0].stage.done))
    count = f"{answering} of {of} engines answer, " if of > 1 else ""
    told = {"phase": f"{count}{unit.partition('.')[0]} {stage.phase}", "start": 0, "elapsed_s": round(elapsed_s, 1)}
    usual = usual_s(unit, root)
    if stage.total:
        # Since when it counts is not known, so the first reading gives no rate.
        return {**told, "done": stage.done, "total": stage.total, "unit": stage.unit, "elapsed_s": 0, "finished": False}
    if usual:
        return {**told, "done": round(elapsed_s, 1), "total": usual, "unit": "s", "finished": False}
    return {**told, "done": 0, "total": None, "unit": "", "finished": False}
