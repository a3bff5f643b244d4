"""Apply slots and drain state to a running HAProxy, wait until servers are idle, keep the intent in a file."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any, Callable

from .membership import Change, Slot, missing_servers, plan_membership, plan_state, read_slots, servers_at
from .notes import note_file, noted_after, noted_before, read_notes, taken_over, write_notes
from .runtime import Command, GatewayError, Load, Server, intent_rows, parse_servers_state, parse_stat
from .service import require_others, wait_up


@dataclasses.dataclass(frozen=True)
class Request:
    """What a caller asks for: slots to sync, targets ("backend/slot") and their state, seconds to wait for idle.

    `by` names an operation: its drains are noted, and of its targets it makes ready only what it drained itself.
    `others_out`: how many others may be out while a target is taken out, waited for `others_wait_s`; -1 does not ask.
    `wait_up_s`: seconds within which what was made ready gets requests.
    `doors` are targets by (address, port): every serving server that leads there.
    `leave_missing` leaves out planned slots that the running gateway does not have, in place of a GatewayError.
    """

    slots: list[Slot] = dataclasses.field(default_factory=list)
    targets: list[str] = dataclasses.field(default_factory=list)
    state: str | None = None
    join_state: str = "ready"
    wait_idle_s: float = 0.0
    by: str = ""
    others_out: int = -1
    others_wait_s: float = 30.0
    wait_up_s: float = 0.0
    leave_missing: bool = False
    doors: list[tuple[str, int]] = dataclasses.field(default_factory=list)


def read_request(options: dict[str, Any]) -> Request:
    """The options of gateway_servers. Raises GatewayError for slots that cannot be."""
    same = ("targets", "state", "join_state", "wait_idle_s", "by", "others_out", "others_wait_s", "wait_up_s")
    return Request(
        slots=read_slots(options["servers"]),
        doors=[(door["address"], door["port"]) for door in options["doors"]],
        leave_missing=options["missing"] == "leave",
        **{name: options[name] for name in same},
    )


def _send(command: Command, text: str) -> None:
    answer = command(text).strip()
    harmless = not answer or (" addr " in text and ("changed from" in answer or "no need to change" in answer))
    if not harmless:
        raise GatewayError(f"HAProxy refused {text!r}: {answer.splitlines()[0]}")


def _predicted(current: dict[str, Server], changes: list[Change]) -> dict[str, Server]:
    """The servers after `changes`, for check mode."""
    bits = {"ready": 0, "drain": 8, "maint": 1}
    after = dict(current)
    for change in changes:
        for text in change.commands:
            words = text.split()
            server = after[words[2]]
            if words[3] == "state":
                after[words[2]] = dataclasses.replace(server, admin_bits=bits[words[4]])
            elif words[3] == "addr":
                after[words[2]] = dataclasses.replace(server, address=words[4], port=int(words[6]))
    return after


def wait_idle(command: Command, targets: list[str], limit_s: float, poll_s: float = 0.2) -> float:
    """Wait until no target has a session or a queued request; return the seconds waited.

    Raises GatewayError naming what was still there after `limit_s`.
    """
    started = time.monotonic()
    while True:
        loads = parse_stat(command("show stat"))
        busy = {key: loads[key].sessions + loads[key].queued for key in targets if key in loads}
        busy = {key: count for key, count in busy.items() if count}
        waited_s = time.monotonic() - started
        if not busy:
            return waited_s
        if waited_s >= limit_s:
            seen = ", ".join(f"{key} {count}" for key, count in sorted(busy.items()))
            raise GatewayError(
                f"requests in flight after {limit_s:.0f} s: {seen}; they stay drained: wait longer (wait_idle_s) or "
                "end those requests"
            )
        time.sleep(min(poll_s, limit_s - waited_s))


def write_state_file(path: Path, text: str) -> None:
    """Replace the server-state file atomically; its folder must exist (mode 0640, the folder's group)."""
    part = path.with_name(path.name + ".part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(text)
            handle.flush()
            os.fchmod(handle.fileno(), 0o640)
            if os.geteuid() == 0:
                os.fchown(handle.fileno(), 0, path.parent.stat().st_gid)
            os.fsync(handle.fileno())
        part.replace(path)
    except OSError as error:
        raise GatewayError(f"cannot write {path}: {error}; drains would not outlive a restart") from error


def _intent(text: str) -> dict[str, tuple[str, int, str]]:
    return {key: (s.address, s.port, s.admin) for key, s in parse_servers_state(text).items()}


def _stored_intent(path: Path) -> dict[str, tuple[str, int, str]] | None:
    try:
        return _intent(path.read_text())
    except (OSError, GatewayError):
        return None


def rows(
    servers: dict[str, Server], loads: dict[str, Load], keys: list[str], notes: dict[str, str]
) -> list[dict[str, Any]]:
    """One row a server: backend, slot, address, port, admin, drained_by, status, check, sessions, queued."""
    result = []
    for key in keys:
        server, load = servers[key], loads.get(key, Load(0, 0, "", ""))
        result.append(
            {
                "backend": server.backend,
                "slot": server.slot,
                "address": None if server.empty else server.address,
                "port": None if server.empty else server.port,
                "admin": server.admin,
                "drained_by": notes.get(key, ""),
                "status": load.status,
                "check": load.check,
                "sessions": load.sessions,
                "queued": load.queued,
            }
        )
    return result


def _admins(servers: dict[str, Server]) -> dict[str, str]:
    """Of filled servers: an empty slot is out by nobody's will, so a note on it ends."""
    return {key: server.admin for key, server in servers.items() if not server.empty}


def _asked(request: Request, notes: dict[str, str], planned: dict[str, Server]) -> tuple[list[str], dict[str, str]]:
    """The targets that change, and the notes to write before they do."""
    if request.state == "ready" and request.by:
        return [key for key in request.targets if notes.get(key) in taken_over(request.by)], notes
    if request.state in ("drain", "maint"):
        return request.targets, noted_before(notes, request.targets, _admins(planned), request.by)
    return request.targets, notes


def _shown(changes: list[Change]) -> tuple[dict[str, str], dict[str, str]]:
    """Each changed server before and after, for a diff."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for change in changes:
        before.setdefault(change.key, change.before)
        after[change.key] = change.after
    return before, after


def apply(
    command: Command, state_file: Path, request: Request, *, check: bool, waiter: Callable[..., float] = wait_idle
) -> dict[str, Any]:
    """Bring the gateway to `request`; return changed, diff, servers, missing ("backend/slot") and waited_s.

    Order: the note, membership, state, the intent file, the notes that are true no more, the wait; so a wait that times
    out leaves a drain that outlives a restart. With `check` nothing is sent or written.

    Raises GatewayError.
    """
    text = command("show servers state")
    current = parse_servers_state(text)
    request = dataclasses.replace(request, targets=request.targets + servers_at(current, request.doors))
    missing = missing_servers(current, request.slots) if request.leave_missing else []
    slots = [slot for slot in request.slots if slot.key not in missing]
    changes = plan_membership(current, slots, request.join_state)
    planned = _predicted(current, changes)
    note_path = note_file(state_file)
    stored = read_notes(note_path)
    asked, notes = _asked(request, stored, planned)
    plan_state(planned, request.targets, "ready")
    if request.state is not None:
        changes += plan_state(planned, asked, request.state)
    planned = _predicted(current, changes)
    if request.others_out >= 0 and request.state in ("drain", "maint"):
        wait_s = 0.0 if check else request.others_wait_s
        require_others(command, request.targets, request.others_out, stored, wait_s=wait_s)
    if notes != stored and not check:
        write_notes(note_path, notes)
    if changes and not check:
        for change in changes:
            for line in change.commands:
                _send(command, line)
        text = command("show servers state")
        planned = parse_servers_state(text)
    stale_file = _stored_intent(state_file) != _intent(intent_rows(text))
    if stale_file and not check:
        write_state_file(state_file, intent_rows(text))
    true_notes = noted_after(notes, asked if request.state else [], _admins(planned), request.by)
    if true_notes != notes and not check:
        write_notes(note_path, true_notes)
    keys = [slot.key for slot in slots]
    keys += [key for key in request.targets if key not in keys]
    shown = keys or [change.key for change in changes] or sorted(current)
    waited_s = 0.0
    if request.wait_idle_s > 0 and not check and request.targets:
        waited_s = waiter(command, request.targets, request.wait_idle_s)
    if request.wait_up_s > 0 and not check:
        wait_up(command, request.targets, request.wait_up_s)
    before, after = _shown(changes)
    if stale_file:
        before[str(state_file)], after[str(state_file)] = "stale", "holds every drain and maintenance"
    return {
        "changed": bool(changes) or stale_file or true_notes != stored,
        "diff": {"before": before, "after": after},
        "servers": rows(planned, parse_stat(command("show stat")), shown, true_notes),
        "missing": missing,
        "waited_s": round(waited_s, 3),
    }
