"""Daily, weekly and monthly looks at a host: a page that says what was looked at, what was seen, what a person decides.

They report and never apply. A page is kept under its date, the newest as `<routine>.md` beside it.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from .check import NotHere, Unreadable
from .counters import write
from .kernel import XID
from .look import Look

GIB, MIB = 2**30, 2**20
_MOST_LINES = 20
_SHOWN = 160
_JOURNAL = ["journalctl", "--quiet", "--no-pager", "--output=json", "--output-fields=MESSAGE,_SYSTEMD_UNIT,PRIORITY"]
_ERRORS = r"(?i)\b(error|exception|traceback|fatal|out of memory|critical|panic)\b"


class Part(NamedTuple):
    """One look: its title, what was read for it, and what was seen; ``kept`` is compared with by the next one."""

    title: str
    source: str
    lines: list[str]
    kept: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default, never changed


class Routine(NamedTuple):
    """How far back it looks, how many of its pages are kept, its looks, and what it leaves to a person."""

    since: str
    keep: int
    looks: Sequence[Callable[[Look, Routine, Mapping[str, Any]], Part]]
    by_hand: Sequence[str]


def _gpu_memory(look: Look, _: Routine, __: Mapping[str, Any]) -> Part:
    lines = []
    for gpu in look.gpus():
        memory = gpu.get("memory")
        share = 100 * memory["used"] / memory["total"] if memory and memory["total"] else 0
        lines.append(f"{gpu.subject}: {share:.0f} % of {memory['total'] // MIB} MiB" if memory else f"{gpu.subject}: ?")
    return Part("GPU memory", "NVML; an engine takes its share when it starts, so a high one is no fault", lines)


def _units(look: Look, _: Routine, __: Mapping[str, Any]) -> Part:
    lines = [
        f"{name}: {unit.active}" + (f", started again {unit.restarts} times" if unit.restarts else "")
        for name, unit in look.units().items()
    ]
    return Part("Units", "systemctl show of the plan's units", lines)


def _journal(look: Look, routine: Routine, _: Mapping[str, Any]) -> Part:
    """The same message with other numbers is one line."""
    if look.tools.run is None:
        raise Unreadable("the journal is not part of a copied tree")
    words = [*_JOURNAL, f"--since={routine.since}", "--lines=20000", f"--grep={_ERRORS}", "--case-sensitive=no"]
    code, out, err = look.tools.run(words)
    if code and err.strip():
        raise Unreadable(f"journalctl: {' '.join(err.split())}")
    counts: Counter[tuple[str, str]] = Counter()
    for text in out.splitlines():
        try:
            entry = json.loads(text)
        except ValueError:
            continue
        said = entry.get("MESSAGE")
        if isinstance(said, str):
            plain = re.sub(r"0x[0-9a-f]+|\d+", "#", " ".join(said.split()))[:_SHOWN]
            counts[str(entry.get("_SYSTEMD_UNIT") or "kernel"), plain] += 1
    lines = [f"{count} times {unit}: {said}" for (unit, said), count in counts.most_common(_MOST_LINES)]
    more = len(counts) - len(lines)
    return Part(
        "Errors in the journal",
        f"journalctl since {routine.since}, lines that speak of errors, alike but for numbers counted together",
        lines + ([f"and {more} others"] if more > 0 else []),
    )


def _xids(look: Look, _: Routine, __: Mapping[str, Any]) -> Part:
    found = Counter(
        (look.gpu_at(seen[1]), int(seen[2])) for seen in (XID.search(line.text) for line in look.lines()) if seen
    )
    lines = [f"{where}: Xid {number}, {count} times since boot" for (where, number), count in sorted(found.items())]
    return Part("Xids", "the kernel log since boot", lines)


def _disks(look: Look, _: Routine, last: Mapping[str, Any]) -> Part:
    kept, lines, unread = {}, [], []
    for place in sorted({place for place, kind, _ in look.mounts() if kind in ("ext4", "xfs", "btrfs", "overlay")}):
        try:
            seen = look.volume(place)
        except Unreadable as problem:
            unread.append(str(problem))
            continue
        used = seen.size - seen.free
        kept[place] = used
        grown = f", {(used - last[place]) / GIB:+.1f} GiB since the last time" if place in last else ""
        lines.append(f"{place}: {used / GIB:.0f} of {seen.size / GIB:.0f} GiB{grown}")
    return Part("Disks", "statvfs of local file systems", lines + unread, kept)


def _memory_errors(look: Look, _: Routine, last: Mapping[str, Any]) -> Part:
    kept, lines = {}, []
    for gpu in look.gpus():
        for name in ("dram_corrected", "dram_uncorrected", "sram_corrected", "sram_uncorrected"):
            count = gpu.get(name)
            if count:
                key = f"{gpu.subject} {name}"
                kept[key] = count
                lines.append(f"{key}: {count}" + (f", {count - last[key]:+d}" if key in last else ""))
    return Part("ECC errors of GPUs", "NVML, since the driver was loaded", lines, kept)


def _versions(look: Look, _: Routine, last: Mapping[str, Any]) -> Part:
    kept = {"kernel": look.file("proc/sys/kernel/osrelease").strip()}
    with contextlib.suppress(NotHere):  # a host without GPUs
        kept["driver"] = look.driver().version
    lines = [
        f"{name}: {version}" + (f", was {last[name]}" if last.get(name, version) != version else "")
        for name, version in kept.items()
    ]
    return Part("Versions", "the running kernel and the loaded driver", lines, kept)


_DAILY = (_gpu_memory, _units)
_WEEKLY = (*_DAILY, _journal, _xids)
ROUTINES = {
    "daily": Routine("1 day ago", 31, _DAILY, ("playbooks/smoke-test.yml from the controller",)),
    "weekly": Routine(
        "7 days ago",
        13,
        _WEEKLY,
        ("playbooks/prove-service.yml -e prove=full", "playbooks/backup-configuration.yml"),
    ),
    "monthly": Routine(
        "30 days ago",
        24,
        (*_WEEKLY, _disks, _memory_errors, _versions),
        (
            "answers of the model on the site's own questions, beside those of a month ago",
            "load against capacity (playbooks/show-plan.yml): is another replica due",
            "cost of a million tokens against the month before",
        ),
    ),
}


def parts(look: Look, routine: Routine, last: Mapping[str, Mapping[str, Any]]) -> list[Part]:
    """Every look of a routine; one that cannot be taken says why."""
    found = []
    for take in routine.looks:
        title = take.__name__.strip("_").replace("_", " ")
        try:
            found.append(take(look, routine, last.get(title, {}))._replace(title=title))
        except NotHere as reason:
            found.append(Part(title, "not looked at", [str(reason)]))
        except (Unreadable, OSError, ValueError, KeyError, TypeError) as reason:
            found.append(Part(title, "could not be read", [" ".join(str(reason).split())]))
    return found


def page(name: str, result: Mapping[str, Any], looks: Sequence[Part], host: str, now_s: float) -> str:
    """The page, Markdown: verdict, findings with their fix, every check with what it looked at, the further looks."""
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now_s))
    told = [f"# {host}, {name} check of {when}: {result['status']}", "", "Nothing was changed.", "", "## Found", ""]
    for one in result["findings"]:
        cause = f" (because of {one['caused_by']})" if one["caused_by"] else ""
        told.append(f"- {one['severity']} `{one['id']}` on {one['subject']}: {one['seen']}{cause}. Fix: {one['fix']}")
    told += [f"- could not read `{one['id']}`: {one['why']}" for one in result["unknown"]]
    if len(told) == _HEAD_LINES:
        told.append("Nothing.")
    for part in looks:
        told += ["", f"## {part.title.capitalize()}", "", f"Looked at: {part.source}.", ""]
        told += [f"- {line}" for line in part.lines] or ["Nothing to tell."]
    told += ["", "## Left to a person", "", *(f"- {line}" for line in ROUTINES[name].by_hand)]
    told += ["", "## Every check", "", "| check | result | said |", "|---|---|---|"]
    told += [f"| `{one['id']}` | {one['status']} | {one['said'].replace('|', '/')} |" for one in result["checks"]]
    return "\n".join(told) + "\n"


_HEAD_LINES = 6


def write_pages(folder: Path, name: str, text: str, looks: Sequence[Part], now_s: float) -> None:
    """Write the page and what the next one compares with; take the oldest away. Raises OSError."""
    day = time.strftime("%Y-%m-%d", time.gmtime(now_s))
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / f"{name}-{day}.md", text)
    write(folder / f"{name}.md", text)
    write(folder / f"{name}.json", json.dumps({part.title: part.kept for part in looks if part.kept}))
    for old in sorted(folder.glob(f"{name}-*.md"))[: -ROUTINES[name].keep]:
        old.unlink()


def last_kept(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """What the last page of a routine kept; nothing where there is none or it cannot be read."""
    try:
        found = json.loads((folder / f"{name}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
