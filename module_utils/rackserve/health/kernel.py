"""Lines of the kernel log, and what is known of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable, NamedTuple

from .check import Unreadable

Run = Callable[[list[str]], "tuple[int, str, str]"]
JOURNAL = [
    "journalctl", "--dmesg", "--quiet", "--no-pager", "--lines=20000", "--output=json",
    "--output-fields=MESSAGE,PRIORITY",
]  # fmt: skip
_KMSG = re.compile(r"(\d+),\d+,(\d+),[^;]*;(.*)")
_PRIORITIES = 8
XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)(.*)")


class Line(NamedTuple):
    """One line: how long ago, in seconds, its priority (0 emergency to 7 debug), and its text."""

    age_s: float
    priority: int
    text: str


def read_lines(root: Path, run: Run | None, now_s: float, monotonic_s: float, empty_is_fine: bool) -> list[Line]:
    """The kernel log since boot. Raises Unreadable.

    A copied tree may hold it as the plain file dev/kmsg, in the kernel's own format.
    """
    plain = root / "dev/kmsg"
    if plain.is_file():
        return [_of_record(record, monotonic_s) for record in map(_KMSG.match, _text(plain).splitlines()) if record]
    if run is None:
        raise Unreadable("the kernel log is not part of a copied tree; put it into dev/kmsg")
    code, out, err = run(JOURNAL)
    said = " ".join(err.split())
    if code or (not out.strip() and (said or not empty_is_fine)):
        told = said or "it is empty, and a machine's own never is"
        raise Unreadable(f"journalctl -k: {told}; run as root or as a member of systemd-journal")
    return [line for line in (_of_journal(text, now_s) for text in out.splitlines()) if line]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError as error:
        raise Unreadable(f"/dev/kmsg: {error.strerror}; run it as root") from None


def _of_record(record: re.Match[str], monotonic_s: float) -> Line:
    return Line(max(0.0, monotonic_s - int(record[2]) / 1e6), int(record[1]) % _PRIORITIES, record[3])


def _of_journal(text: str, now_s: float) -> Line | None:
    try:
        entry: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    said = entry.get("MESSAGE")
    if isinstance(said, list):  # bytes that are no text
        said = bytes(said).decode("utf-8", "replace")
    at_s = int(entry.get("__REALTIME_TIMESTAMP", 0)) / 1e6
    return Line(max(0.0, now_s - at_s), int(entry.get("PRIORITY", 6)), str(said or ""))


class Known(NamedTuple):
    """A kind of line that a check of its own looks for; ``within_s`` 0: since boot."""

    check: str
    pattern: re.Pattern[str]
    within_s: float = 0.0


_DAY_S = 86400.0
KNOWN = (
    Known("kernel-sxid", re.compile(r"SXid \(PCI:[^)]*\): \d+")),
    Known("kernel-mce", re.compile(r"mce: \[Hardware Error\]|Machine check events logged|EDAC .*\b(UE|CE)\b")),
    Known("kernel-aer", re.compile(r"AER: (Uncorrected|Multiple Uncorrected)|AER: .*\((Fatal|Non-Fatal)\)"), _DAY_S),
    Known("kernel-hung-task", re.compile(r"blocked for more than \d+ s|soft lockup|rcu.*detected stalls"), _DAY_S),
    Known(
        "kernel-mlx5",
        re.compile(
            r"insufficient power on the PCIe slot|mlx5.*High Temperature|ACCESS_REG.*failed|health compromised"
            r"|limited by \d"
        ),
    ),
    Known(
        "kernel-storage",
        re.compile(r"I/O error, dev|(EXT4|XFS|BTRFS).*(error|corrupt|shutting down)|Remounting filesystem read-only"
                   r"|nvme.*(controller is down|timeout, (reset|abort|disable))", re.IGNORECASE),
        _DAY_S,
    ),
    Known("kernel-oom", re.compile(r"Out of memory: Killed process|oom-kill:|Memory cgroup out of memory"), _DAY_S),
)  # fmt: skip
# Said by what other checks look at.
_EXPLAINED = re.compile(
    r"NVRM: (Xid|GPU |API mismatch|this kernel module)|Link (up|down)|NVRM: loading|systemd-journald|simulated counters"
)


def known_as(text: str) -> str:
    """The check that looks for such a line; empty where none does."""
    return next((known.check for known in KNOWN if known.pattern.search(text)), "")


def lines_of(lines: Iterable[Line], check: str) -> list[Line]:
    """Lines that a check looks for, the newest last."""
    known = next(known for known in KNOWN if known.check == check)
    return [
        line
        for line in lines
        if known.pattern.search(line.text) and (not known.within_s or line.age_s <= known.within_s)
    ]


def unexplained(lines: Iterable[Line], within_s: float) -> list[Line]:
    """Warnings and worse of the last seconds that no check knows."""
    return [
        line
        for line in lines
        if line.priority <= _WARNING and line.age_s <= within_s
        and not known_as(line.text) and not _EXPLAINED.search(line.text)
    ]  # fmt: skip


_WARNING = 4
