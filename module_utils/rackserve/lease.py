"""One change at a time: a lease file on the gateway, taken, renewed, released, broken by name."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


class LeaseError(Exception):
    """The lease is held by somebody else, or cannot be read or written."""


@dataclass(frozen=True)
class Lease:
    """Who changes the cluster, under which plan, doing what; times are seconds since the epoch."""

    owner: str
    plan_hash: str
    operation: str
    acquired_at: int
    expires_at: int


def _clock(epoch_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(epoch_s))


def read(path: Path) -> Lease | None:
    """The lease in the file; None when there is none.

    Raises LeaseError when the file is not a lease.
    """
    try:
        return Lease(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise LeaseError(f"cannot read the lease {path}: {error}; look at it, then remove it") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock beside the lease, so that reading and replacing it are one step."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LeaseError(f"cannot lock the lease {path}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, lease: Lease) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w") as handle:
        json.dump(asdict(lease), handle, sort_keys=True)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    part.chmod(0o644)
    part.replace(path)


def _held(lease: Lease, path: Path) -> LeaseError:
    return LeaseError(
        f"{lease.owner} holds the lease {path} for {lease.operation} (plan {lease.plan_hash[:12]}) since "
        f"{_clock(lease.acquired_at)} until {_clock(lease.expires_at)}: wait, or after making sure that it is not "
        f"running any more, -e break_lock={lease.owner}"
    )


def _takeover_note(held: Lease | None, owner: str, break_lock: str, now_s: int, path: Path) -> str:
    """Why `owner` may take a lease that somebody holds; "" when nothing stands in the way.

    Raises LeaseError when it may not, or when `break_lock` names somebody else than the holder.
    """
    if held is None or held.owner == owner:
        return ""
    if held.expires_at <= now_s:
        return f"took over the lease of {held.owner} ({held.operation}), expired at {_clock(held.expires_at)}"
    if not break_lock:
        raise _held(held, path)
    if break_lock != held.owner:
        raise LeaseError(f"break_lock={break_lock} does not name the holder. {_held(held, path)}")
    return f"broke the lease of {held.owner} ({held.operation}), valid until {_clock(held.expires_at)}"


def acquire(
    path: Path, wanted: Lease, break_lock: str = "", *, check: bool = False, now_s: int | None = None
) -> dict[str, Any]:
    """Take or renew the lease; return changed, holder, note and diff.

    The same owner renews its own lease and keeps `acquired_at`. An expired lease is taken over with a note.

    Raises LeaseError when another owner holds it.
    """
    moment = int(time.time()) if now_s is None else now_s
    if check:
        held = read(path)
        note = _takeover_note(held, wanted.owner, break_lock, moment, path)
        return _result(held, wanted, note)
    with _locked(path):
        held = read(path)
        note = _takeover_note(held, wanted.owner, break_lock, moment, path)
        if held is not None and held.owner == wanted.owner:
            wanted = Lease(wanted.owner, wanted.plan_hash, wanted.operation, held.acquired_at, wanted.expires_at)
        _write(path, wanted)
    return _result(held, wanted, note)


def release(
    path: Path, owner: str, break_lock: str = "", *, check: bool = False, now_s: int | None = None
) -> dict[str, Any]:
    """Give the lease back; nothing to do when there is none.

    Raises LeaseError when another owner holds a lease that has not expired.
    """
    moment = int(time.time()) if now_s is None else now_s
    if check:
        held = read(path)
        return _result(held, None, _takeover_note(held, owner, break_lock, moment, path))
    with _locked(path):
        held = read(path)
        note = _takeover_note(held, owner, break_lock, moment, path)
        if held is not None:
            path.unlink()
    return _result(held, None, note)


def _result(before: Lease | None, after: Lease | None, note: str) -> dict[str, Any]:
    return {
        "changed": before != after,
        "holder": asdict(after) if after else None,
        "note": note,
        "diff": {"before": asdict(before) if before else {}, "after": asdict(after) if after else {}},
    }
