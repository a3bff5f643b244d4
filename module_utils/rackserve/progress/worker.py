"""The process that does a background job: takes the job's lock, works, leaves the result."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from .report import Report

LOCK, REQUEST, STATE, RESULT, LOG = "lock", "request.json", "state.json", "result.json", "log"
_TRIES, _PAUSE_S = 50, 0.1


def take_lock(path: Path, tries: int = 1, pause_s: float = _PAUSE_S) -> TextIO | None:
    """The open, locked file, or None while another process holds it. Closing it, or dying, gives the lock back."""
    handle = path.open("a", encoding="utf-8")
    for left in range(tries, 0, -1):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if left > 1:
                time.sleep(pause_s)
        else:
            return handle
    handle.close()
    return None


def write_json(path: Path, content: Any) -> None:
    """Write JSON that only its owner can read, whole or not at all."""
    part = path.with_name(path.name + ".part")
    with open(os.open(str(part), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:  # noqa: PTH123 - a mode from the start
        json.dump(content, handle)
    part.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, None when there is no file or no object in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def work_on(folder: Path) -> None:
    """Do what the request in ``folder`` says, unless somebody does already; failure is a result too."""
    # Who looks whether the job runs holds the lock for a moment.
    lock = take_lock(folder / LOCK, _TRIES)
    request = read_json(folder / REQUEST)
    if lock is None or request is None or (folder / RESULT).exists():
        return
    with lock:
        report = Report(folder / STATE)
        module, _colon, name = request["work"].partition(":")
        try:
            with report.kept():
                answer = {"result": getattr(import_module(module), name)(request["payload"], report)}
        except Exception as error:  # whatever it is, the one who asked must learn it
            traceback.print_exc()
            known = type(error).__module__ != "builtins" or isinstance(error, OSError)
            answer = {"error": str(error) if known else f"{type(error).__name__}: {error}"}
        report.end()
        write_json(folder / RESULT, {**answer, "step_s": report.step_s})


def main(arguments: Sequence[str] = ()) -> None:
    """Command line: the job's folder."""
    work_on(Path((arguments or sys.argv[1:])[0]))
