"""Run records on the gateway: one file a run, written when it begins, with each step, and when it ends.

A run that was killed leaves a record that is still open; the next run, which has the lease, marks it as cut off.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

BEGUN, DONE, FAILED, CUT_OFF, UNREADABLE = "begun", "done", "failed", "cut off", "unreadable"
UNFINISHED = (BEGUN, CUT_OFF, FAILED)
MOST_STEPS, MOST_LINES, MOST_CHARACTERS = 500, 50, 600
NEW_MACHINE = "new machine "
RELEASE_OPERATIONS = ("upgrade-release", "rollback-release")


class RecordError(Exception):
    """A record cannot be read or written; one line says which and why."""


class Run(NamedTuple):
    """What is known of a run when it begins. `wanted`: {host: lines on what shall change}; `details`: its subject."""

    operation: str
    who: str
    plan_hash: str
    cluster: str
    versions: dict[str, str]
    wanted: dict[str, list[str]]
    details: dict[str, Any]


def run_id(operation: str, now_s: float, salt: str) -> str:
    """A name that sorts by time: 20261126T152235Z-upgrade-release-1f2e."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now_s))}-{operation}-{salt}"


def _path(folder: Path, run: str) -> Path:
    if "/" in run or run.startswith("."):
        raise RecordError(f"{run!r} is not the name of a run")
    return folder / f"{run}.json"


def _short(text: str) -> str:
    words = " ".join(str(text).split())
    return words if len(words) <= MOST_CHARACTERS else words[: MOST_CHARACTERS - 1] + "…"


def _write(path: Path, record: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            json.dump(record, handle, sort_keys=True, ensure_ascii=False)
            handle.write("\n")
            handle.flush()
            os.fchmod(handle.fileno(), 0o640)
            os.fsync(handle.fileno())
        part.replace(path)
    except OSError as error:
        raise RecordError(f"cannot write the run record {path}: {error}") from error


def read(path: Path) -> dict[str, Any]:
    """One record; RecordError where the file is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {**record, "id": str(record["id"]), "state": str(record["state"]), "steps": list(record["steps"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"cannot read the run record {path}: {error}; look at it, then remove it") from error


def listed(folder: Path, most: int = 0) -> list[dict[str, Any]]:
    """Records, the newest first; one that cannot be read has the state `unreadable`. `most` 0: all of them."""
    paths = sorted(folder.glob("*.json"), reverse=True)
    found = []
    for path in paths[:most] if most else paths:
        try:
            found.append(read(path))
        except RecordError as error:
            found.append({"id": path.stem, "state": UNREADABLE, "steps": [], "cause": str(error)})
    return found


def unfinished(records: list[dict[str, Any]], operation: str, details: dict[str, Any]) -> str:
    """The run that a new one goes on with: the newest of this operation on this subject, where it did not succeed."""
    for record in records:
        if record.get("operation") == operation and _subject(record.get("details") or {}) == _subject(details):
            return record["id"] if record["state"] in UNFINISHED else ""
    return ""


def _subject(details: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(details.get(name) for name in ("host", "deployment", "release_to"))


def previous_release(records: list[dict[str, Any]]) -> str:
    """The release that the newest change of a release began with; "" where none was recorded.

    Where the newest one is a way back that did not end well, it is the release which that one goes to.
    """
    changes = [record for record in records if record.get("operation") in RELEASE_OPERATIONS]
    for number, record in enumerate(changes):
        details = record.get("details") or {}
        unfinished_back = record["operation"] == "rollback-release" and record.get("state") in UNFINISHED
        if number == 0 and unfinished_back and details.get("release_to"):
            return str(details["release_to"])
        if details.get("release_from"):
            return str(details["release_from"])
    return ""


def begin(folder: Path, run: Run, *, keep: int, now_s: float, salt: str, check: bool = False) -> dict[str, Any]:
    """Open a record; return {changed, run, resumes, cut_off}. Whoever calls it has the lease.

    Open records of earlier runs are marked as cut off, and all but the newest `keep` are removed.
    """
    earlier = listed(folder)
    left = [record["id"] for record in earlier if record["state"] == BEGUN]
    resumes = unfinished(earlier, run.operation, run.details)
    answer = {"changed": True, "run": "", "resumes": resumes, "cut_off": left}
    if check:
        return answer
    for name in left:
        record = read(_path(folder, name))
        _write(_path(folder, name), {**record, "state": CUT_OFF, "cause": "it did not end: killed, or cut off"})
    record = {
        "version": 1,
        "id": run_id(run.operation, now_s, salt),
        "state": BEGUN,
        "operation": run.operation,
        "who": run.who,
        "plan_hash": run.plan_hash,
        "cluster": run.cluster,
        "versions": run.versions,
        "details": run.details,
        "wanted": {host: [_short(line) for line in lines[:MOST_LINES]] for host, lines in run.wanted.items()},
        "begun_at": int(now_s),
        "ended_at": None,
        "resumes": resumes,
        "cause": "",
        "steps": [],
    }
    _write(_path(folder, record["id"]), record)
    for path in sorted(folder.glob("*.json"), reverse=True)[max(keep, 1) :]:
        path.unlink()
    return {**answer, "run": record["id"]}


def add_step(folder: Path, run: str, step: dict[str, str], *, now_s: float, check: bool = False) -> bool:
    """Add what was done: {host, unit, result, text}; whether the record changed. After MOST_STEPS none is added."""
    record = read(_path(folder, run))
    if check or len(record["steps"]) >= MOST_STEPS:
        return check
    record["steps"].append({"at": int(now_s), **{name: _short(value) for name, value in step.items()}})
    _write(_path(folder, run), record)
    return True


def end(folder: Path, run: str, state: str, cause: str, *, now_s: float, check: bool = False) -> bool:
    """Close a record as `done` or `failed`; whether it changed. A record that failed stays so."""
    record = read(_path(folder, run))
    if record["state"] == state or (record["state"] == FAILED and state == DONE):
        return False
    if not check:
        _write(_path(folder, run), {**record, "state": state, "cause": _short(cause), "ended_at": int(now_s)})
    return True


def history_lines(records: list[dict[str, Any]]) -> list[str]:
    """Records as an aligned table for people, with what failed below its run."""
    head = ("WHEN (UTC)", "OPERATION", "WHO", "PLAN", "RELEASE", "TOOK", "STATE", "STEPS")
    rows, below = [head], [""]
    for record in records:
        begun, ended = record.get("begun_at"), record.get("ended_at")
        details, versions = record.get("details") or {}, record.get("versions") or {}
        release = versions.get("release", "")
        if details.get("release_from"):
            release = f"{details['release_from']} -> {details.get('release_to', '')}"
        subject = " ".join(str(details[name]) for name in ("host", "deployment") if details.get(name))
        rows.append(
            (
                time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(begun)) if begun else record["id"],
                f"{record.get('operation', '')} {subject}".strip(),
                record.get("who", ""),
                str(record.get("plan_hash", ""))[:12],
                release,
                f"{ended - begun} s" if begun and ended else "",
                record["state"],
                f"{sum(step.get('result') == 'ok' for step in record['steps'])}/{len(record['steps'])}",
            )
        )
        below.append(record.get("cause") or "")
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row, cause in zip(rows, below):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        lines += [f"    {cause}"] if cause else []
    return lines


def is_known_replacement(records: list[dict[str, Any]], host: str, machine_id: str) -> bool:
    """Whether an unfinished replacement of the host has begun to bring up this very machine."""
    for record in records:
        if record.get("operation") != "replace-host" or (record.get("details") or {}).get("host") != host:
            continue
        if record["state"] == DONE:
            return False
        if any(step.get("text") == NEW_MACHINE + machine_id for step in record["steps"]):
            return True
    return False
