"""Whose a drain is: an operation's note becomes a quarantine, which no operation ends, or is handed to another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .notes import note_file, read_notes, write_notes
from .runtime import GatewayError


def renote(state_file: Path, targets: Sequence[str], by: str, note: str, *, check: bool) -> bool:
    """Give the servers that ``by`` drained another note; whether a note changed.

    Raises GatewayError where one of them was not drained by ``by``: nothing is noted then.
    """
    path = note_file(state_file)
    notes = read_notes(path)
    wrong = [key for key in targets if notes.get(key) not in (by, note)]
    if wrong:
        who = ", ".join(f"{key} ({notes.get(key) or 'by a person or not at all'})" for key in wrong)
        raise GatewayError(f"not drained by {by}: {who}; drain the host first, then run {by} again")
    after = {**notes, **{key: note for key in targets}}
    if after != notes and not check:
        write_notes(path, after)
    return after != notes
