"""Which operation drained a server: a note beside the server-state file.

An operation that was cut off is found by its note and finished by its next run; it never ends the drain of a person.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from .runtime import GatewayError

NAME = "drained-by.json"
# Each of these leaves an engine on files it has proven, so each may finish what another one of them left drained.
TRANSACTIONS = ("roll-serving", "upgrade-release", "rollback-release")

# These take servers out until a person asks for them back: no run is missing anything there.
ON_PURPOSE = {"drain-host": "return-host", "replace-host": "replace-host"}


def taken_over(by: str) -> tuple[str, ...]:
    """Whose drains an operation may end: its own; a transaction those of every transaction and of a restart.

    return-host ends those that wait for a person.
    """
    if by == "return-host":
        return tuple(ON_PURPOSE)
    return (*TRANSACTIONS, "restart-serving") if by in TRANSACTIONS else (by,)


def note_file(state_file: Path) -> Path:
    """The notes that belong to a server-state file."""
    return state_file.with_name(NAME)


def read_notes(path: Path) -> dict[str, str]:
    """{"backend/slot": the operation that drained it}; empty when there is no file.

    Raises GatewayError when the file holds something else.
    """
    try:
        notes = json.loads(path.read_text())
        return {str(key): str(value) for key, value in notes.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise GatewayError(f"cannot read {path}: {error}; look at it, then remove it") from error


def write_notes(path: Path, notes: dict[str, str]) -> None:
    """Replace the notes as a whole; without any the file goes.

    Raises GatewayError.
    """
    try:
        if not notes:
            path.unlink(missing_ok=True)
            return
        part = path.with_name(path.name + ".part")
        with part.open("w") as handle:
            json.dump(notes, handle, sort_keys=True)
            handle.write("\n")
            handle.flush()
            os.fsync(handle.fileno())
        part.chmod(0o640)
        part.replace(path)
    except OSError as error:
        raise GatewayError(f"cannot write {path}: {error}; an operation that is cut off would not be found") from error


def noted_before(notes: dict[str, str], targets: list[str], admins: dict[str, str], by: str) -> dict[str, str]:
    """The notes once `by` drains the targets; a server that is out already was taken out by somebody else.

    Only replace-host takes over what drain-host took out: the machine that was drained does not come back.
    """
    taken = {key for key in targets if by == "replace-host" and notes.get(key) == "drain-host"}
    return {**notes, **{key: by for key in targets if by and (admins.get(key) == "ready" or key in taken)}}


def noted_after(notes: dict[str, str], targets: list[str], admins: dict[str, str], by: str) -> dict[str, str]:
    """The notes that are still true: of servers that are out, less those a person asked something of."""
    taken = set() if by else set(targets)
    return {key: who for key, who in notes.items() if admins.get(key, "ready") != "ready" and key not in taken}
