"""Long work that outlives the one who started it, and that the next one who asks for it finds again.

A job is a folder. Its worker, a process of its own in a transient systemd scope, holds the lock there as long as it
lives, so whether it runs is never a guess. ``advance`` starts it or finds it, waits for a while and says how far it is.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from . import worker
from .report import FINISHED, Report, progress_of
from .worker import LOCK, LOG, REQUEST, RESULT, STATE, read_json, take_lock, write_json

HOST_JOBS = "/run/rackserve/jobs"
_TICKET = "ticket"
_PAUSE_S = 0.25
_START_S = 30.0
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from {name} import main; main()"

Work = Callable[[dict[str, Any], Report], dict[str, Any]]
"""Does the work of a payload (plain data) and returns its result (plain data); a module-level function."""
Spawn = Callable[[Sequence[str], Path], "subprocess.Popen[bytes]"]


class JobError(Exception):
    """The work failed or was killed; the text is one line: what, where, how to fix."""


class Step(NamedTuple):
    """``result`` is there when ``finished``; ``progress`` is what a module returns, ``step_s`` seconds by phase."""

    finished: bool
    result: dict[str, Any]
    progress: dict[str, Any]
    step_s: dict[str, float]


class Asked(NamedTuple):
    """Which job: its folder, and a ``ticket`` that is the same for all calls of one task and new in each run.

    An end that nobody of this run waited for counts for nothing: the state of the host decides what is done anew.
    """

    folder: Path
    ticket: str
    patience_s: float


def job_folder(state_dir: str, name: str) -> Path:
    """Where the job ``name`` lives; letters that a file or a unit cannot have become underscores."""
    return Path(state_dir) / re.sub(r"[^\w.-]", "_", name)


def code_of(folder: Path) -> tuple[str, str]:
    """(what to put on sys.path, the worker's module name there).

    A module runs from an archive that goes away with it, so the archive is copied into the job's folder.
    """
    here = Path(worker.__file__)
    for parent in here.parents:
        if zipfile.is_zipfile(str(parent)):
            copy = folder / "code.zip"
            shutil.copyfile(str(parent), str(copy))
            return str(copy), worker.__name__
    name = worker.__name__[worker.__name__.index("rackserve.") :]
    return str(here.parents[name.count(".")]), name


def spawn_detached(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start ``command`` so that it outlives this session: in a scope of its own where systemd runs."""
    scope: list[str] = []
    if Path("/run/systemd/system").is_dir() and shutil.which("systemd-run"):
        unit = f"rackserve-{log.parent.name}-{time.monotonic_ns()}"
        scope = ["systemd-run", "--scope", "--quiet", "--collect", "--slice=system.slice", f"--unit={unit}"]
    with log.open("ab") as out:
        return subprocess.Popen(
            [*scope, *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            start_new_session=True,
        )


def running(folder: Path) -> bool:
    """Whether a worker holds the job's lock."""
    lock = take_lock(folder / LOCK)
    if lock is None:
        return True
    lock.close()
    return False


def _start(asked: Asked, request: dict[str, Any], spawn: Spawn) -> None:
    folder = asked.folder
    for name in (RESULT, STATE, LOG):
        if (folder / name).exists():
            (folder / name).unlink()
    path, name = code_of(folder)
    package = name.rpartition(".progress.")[0]
    module = request["work"].partition("rackserve.")[2]
    write_json(folder / REQUEST, {**request, "work": f"{package}.{module}"})
    write_json(folder / _TICKET, {"ticket": asked.ticket, "request": request})
    process = spawn([sys.executable, "-c", _START.format(name=name), path, str(folder)], folder / LOG)
    given_up = time.monotonic() + _START_S
    while not (folder / RESULT).exists() and not running(folder):
        if process.poll() is not None and not (folder / RESULT).exists():
            raise JobError(_killed(folder))
        if time.monotonic() > given_up:
            raise JobError(f"the work of {folder.name} did not start within {_START_S:g} s: see {folder / LOG}")
        time.sleep(_PAUSE_S / 5)


def _killed(folder: Path) -> str:
    """The line for work that ended without a word."""
    log = folder / LOG
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return f"the work of {folder.name} was killed ({said[-1] if said else 'it said nothing'}): run again"


def advance(asked: Asked, work: Work, payload: dict[str, Any], spawn: Spawn = spawn_detached) -> Step:
    """Start the work or find it running, wait up to ``patience_s`` seconds for its end, say how far it is.

    Work that runs with another payload is waited for, then ours begins. Raises JobError.
    """
    folder = asked.folder
    request = {"work": f"{work.__module__}:{work.__name__}", "payload": json.loads(json.dumps(payload))}
    ticket = {"ticket": asked.ticket, "request": request}
    given_up = time.monotonic() + asked.patience_s
    while True:
        # Workers of a killed controller may poll on; when one of them takes the result, the folder is gone.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        noted = read_json(folder / _TICKET) or {}
        ours = noted == ticket
        if running(folder):
            if not ours and noted.get("request") == request:
                write_json(folder / _TICKET, ticket)
        elif not ours:
            _start(asked, request, spawn)
        else:
            return _end(folder)
        if time.monotonic() >= given_up:
            state = read_json(folder / STATE) or {}
            return Step(False, {}, progress_of(state, time.monotonic()), {})
        time.sleep(_PAUSE_S)


def _end(folder: Path) -> Step:
    """Take the result and clear the job away."""
    outcome = read_json(folder / RESULT)
    killed = _killed(folder) if outcome is None else ""
    shutil.rmtree(str(folder))
    if outcome is None:
        raise JobError(killed)
    if "error" in outcome:
        raise JobError(str(outcome["error"]))
    return Step(True, outcome["result"], FINISHED, outcome["step_s"])
