"""Files of an engine, kept on its host before a gated change, and put back when the changed engine is not fit.

A kept set is complete or not there: written beside its place and renamed. It stands for an unfinished change only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

KEPT = "kept.json"
Run = Callable[[Sequence[str]], "tuple[int, str, str]"]
_EXEC = re.compile(r"^ExecStart=[@:+!-]*(\S+)", re.MULTILINE)
_UNIT = re.compile(r"[A-Za-z0-9@:_.-]+\.service\Z")


class FilesError(Exception):
    """Files cannot be kept or put back; one line says which and why."""


def release_of(unit_text: str) -> str:
    """The release that a unit starts, by the path of its command: /opt/rackserve/releases/<id>/bin/python3."""
    found = _EXEC.search(unit_text)
    parents = Path(found.group(1)).parents if found else ()
    return parents[1].name if len(parents) > 1 else ""


def _at(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def unit_release(root: Path, unit: str) -> str:
    """The release that the written unit starts; "" where there is no unit file."""
    try:
        return release_of(_at(root, f"/etc/systemd/system/{unit}").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""


def read_kept(folder: Path, unit: str) -> dict[str, Any] | None:
    """What is kept of a unit: {unit, release, files}; None without a set. FilesError where it is damaged."""
    if not _UNIT.match(unit):
        raise FilesError(f"{unit!r} is not the name of a service unit")
    path = folder / unit / KEPT
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        for entry in kept["files"]:
            stored = entry.get("stored")
            if stored and hashlib.sha256((path.parent / stored).read_bytes()).hexdigest() != entry["sha256"]:
                raise ValueError(f"{stored} is not what was kept of {entry['path']}")
        return {"unit": str(kept["unit"]), "release": str(kept["release"]), "files": list(kept["files"])}
    except FileNotFoundError as missing:
        if path.parent.exists():
            raise FilesError(f"{path.parent} is no kept set ({missing}): look at it, then remove it") from missing
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FilesError(f"{path} is damaged ({error}): look at it, then remove {path.parent}") from error


def keep(root: Path, folder: Path, unit: str, paths: Sequence[str], *, check: bool = False) -> dict[str, Any]:
    """Keep the files at `paths` as they are now, those that are not there as not there; {changed, release}.

    Where something is kept a change was cut off: that is the old state, and what stands now may be half changed.
    """
    kept = read_kept(folder, unit)
    if kept is not None:
        return {"changed": False, "release": kept["release"]}
    release = unit_release(root, unit)
    if check:
        return {"changed": True, "release": release}
    part = folder / f"{unit}.part"
    shutil.rmtree(str(part), ignore_errors=True)
    part.mkdir(mode=0o700, parents=True)
    files: list[dict[str, Any]] = []
    for number, path in enumerate(paths):
        source = _at(root, path)
        try:
            data, found = source.read_bytes(), source.stat()
        except FileNotFoundError:
            files.append({"path": path, "stored": None})
            continue
        stored = f"{number:02d}"
        _write(part / stored, data, 0o600, os.geteuid(), os.getegid())
        entry = {"path": path, "stored": stored, "sha256": hashlib.sha256(data).hexdigest()}
        files.append({**entry, "mode": stat.S_IMODE(found.st_mode), "uid": found.st_uid, "gid": found.st_gid})
    text = json.dumps({"unit": unit, "release": release, "files": files}, indent=1) + "\n"
    _write(part / KEPT, text.encode(), 0o600, os.geteuid(), os.getegid())
    part.rename(folder / unit)
    return {"changed": True, "release": release}


def forget(folder: Path, unit: str, check: bool = False) -> bool:
    """Remove what is kept of a unit; whether there was something."""
    if not _UNIT.match(unit):
        raise FilesError(f"{unit!r} is not the name of a service unit")
    there = (folder / unit).exists()
    if there and not check:
        gone = folder / f"{unit}.gone"
        shutil.rmtree(str(gone), ignore_errors=True)
        (folder / unit).rename(gone)
        shutil.rmtree(str(gone))
    return there


def put_back(
    root: Path, folder: Path, unit: str, run: Run, *, start: bool = True, check: bool = False
) -> dict[str, Any]:
    """End the unit at once, bring its kept files back, start it; {changed, release}.

    It is drained and has no request of a client, so nothing waits for it to end by itself. Raises FilesError where
    nothing is kept, or where systemd does not start it.
    """
    kept = read_kept(folder, unit)
    if kept is None:
        raise FilesError(f"nothing is kept of {unit} in {folder}: its old files cannot be put back")
    if check:
        return {"changed": True, "release": kept["release"]}
    run(["systemctl", "kill", "--signal=SIGKILL", unit])  # one that does not run is no failure
    _must(run, ["systemctl", "stop", unit])
    for entry in kept["files"]:
        target = _at(root, entry["path"])
        if entry["stored"] is None:
            target.unlink(missing_ok=True)
            continue
        data = (folder / unit / entry["stored"]).read_bytes()
        _write(target, data, entry["mode"], entry["uid"], entry["gid"])
    _must(run, ["systemctl", "daemon-reload"])
    if start:
        run(["systemctl", "reset-failed", unit])  # nothing to reset is no failure
        _must(run, ["systemctl", "start", unit])
    return {"changed": True, "release": kept["release"]}


def _must(run: Run, command: Sequence[str]) -> None:
    code, _, errors = run(command)
    if code != 0:
        raise FilesError(f"{' '.join(command)} ended with {code}: {' '.join(errors.split())}")


def _write(path: Path, data: bytes, mode: int, uid: int, gid: int) -> None:
    part = path.with_name(path.name + ".part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fchown(handle.fileno(), uid, gid)
            os.fchmod(handle.fileno(), mode)
            os.fsync(handle.fileno())
        part.replace(path)
    except OSError as error:
        raise FilesError(f"cannot write {path}: {error}") from error
