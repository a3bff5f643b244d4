"""The state of a lab that has to be the same after a disturbed and an undisturbed run, and where two differ."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

HERE = Path(__file__).parent

# {pattern of a path below /: why it may differ between two hosts that were set up alike}.
MAY_DIFFER = {
    r"var/log(/.*)?": "logs",
    r"(var/)?tmp/.*": "systemd names private folders at random",
    r"etc/machine-id": "made at the first boot",
    r"etc/ssh/ssh_host_.*": "made with the host",
    r"var/lib/systemd/.*": "random seed, stamps of timers",
    r"var/lib/private/.*|var/cache/private/.*": "state of dynamic users, made at boot",
    r"etc/ld\.so\.cache|var/cache/ldconfig/.*": "ldconfig stores times",
    r"var/cache/apt/.*|var/lib/apt/(lists|periodic|extended_states|daily_lock).*": "apt's indexes",
    r"var/cache/debconf/.*|var/lib/dpkg/(status|available|lock|diversions|statoverride|triggers).*": "compared by dpkg",
    r"etc/(passwd|group|shadow|gshadow|subuid|subgid)-": "backups of the last but one change",
    r"etc/\.pwd\.lock": "the lock of that",
    r"var/cache/rackserve/.*": "the engine's own cache",
    r"(usr|var)/.*\.pyc|(usr|var)/.*/__pycache__": "bytecode of the system's Python, by which modules ran",
    r"root/\.cache(/.*)?|root/\.ssh(/.*)?": "made by logging in",
    r"root/\.ansible(/.*)?": "Ansible's folder of the task that was cut off, closed to others",
    r"srv/models/[^/]+/READY\.stat\.json": "modification times, which a model's READY is proven by",
    r"var/lib/(chrony|dbus|logrotate)/.*": "run time state of these services",
    r"var/lib/rackserve-health/.*": "what the health timer found last, with times",
    r"var/lib/rackserve-weights(/.*)?": "what the timer that reads weights found last, with times",
    r"var/spool/.*|var/backups/.*": "run time state of cron jobs",
}
# Unit states that depend on the moment, not on what a run did.
MOVING_UNITS = {
    r"session-.*|user.*|ssh@.*|systemd-(hostnamed|timedated|localed|tmpfiles-clean)\.service": "people and clocks",
    r"(apt-daily|dpkg-db-backup|e2scrub|fstrim|logrotate|man-db|systemd-tmpfiles).*": "timers and what they start",
    r"rackserve-host-health\.service": "started by its timer",
    r"rackserve-verify-weights\.service": "started by its timer",
}
_JUNK = re.compile(r"(.*/)?(\.[^/]*\.rackserve-new|[^/]*\.part|\.rsync-partial|[^/]*\.dpkg-(new|tmp))")

State = dict[str, dict[str, str]]


class Place(Protocol):
    """What this module needs of a lab."""

    hosts: list[str]

    def upper(self, host: str) -> Path:
        """The folder of a host's changes."""

    def python(self, host: str, source: str) -> str:
        """Run a program on a host; its output."""


def _matches(patterns: Iterable[str], text: str) -> bool:
    return any(re.fullmatch(pattern, text) for pattern in patterns)


def describe(path: Path) -> str:
    """A file in a word group: kind, mode, owner, content or target. An overlay's whiteout is "deleted"."""
    found = path.lstat()
    owner = f"{stat.S_IMODE(found.st_mode):04o} {found.st_uid}:{found.st_gid}"
    if stat.S_ISLNK(found.st_mode):
        return f"link {found.st_uid}:{found.st_gid} {path.readlink()}"
    if stat.S_ISREG(found.st_mode):
        return f"file {owner} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    if stat.S_ISDIR(found.st_mode):
        return f"folder {owner}"
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
        return "deleted"
    return f"other {owner}"


def files(upper: Path) -> tuple[dict[str, str], dict[str, str]]:
    """({path: description} of a host's changes, {path: ""} of what only a run under way may have)."""
    found, junk = {}, {}
    for folder, names, leaves in os.walk(upper):
        for name in [*names, *leaves]:
            path = Path(folder) / name
            inside = str(path.relative_to(upper))
            if _JUNK.fullmatch(inside):
                junk[inside] = ""
            elif not _matches(MAY_DIFFER, inside):
                found[inside] = describe(path)
    # A folder stands in the upper layer as soon as anything below it was touched, in whatever way: times, caches.
    kept = {path: text for path, text in found.items() if not text.startswith("folder") or _ours(path)}
    return kept, junk


def _ours(path: str) -> bool:
    """Folders that roles make."""
    return bool(re.match(r"(etc|opt|var/lib|usr/local/lib)/rackserve|srv/models|etc/systemd|var/lib/vllm", path))


def read(place: Place) -> State:
    """{host and topic: {name: value}} of every host."""
    source = (HERE / "host_state.py").read_text()
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(place.hosts, pool.map(lambda host: place.python(host, source), place.hosts)))
    state: State = {}
    for host, answer in answers.items():
        for topic, values in json.loads(answer).items():
            state[f"{host} {topic}"] = {name: str(value) for name, value in values.items()}
        units = state[f"{host} units"]
        state[f"{host} units"] = {name: value for name, value in units.items() if not _matches(MOVING_UNITS, name)}
        state[f"{host} files"], state[f"{host} junk"] = files(place.upper(host))
    return state


def differences(wanted: State, found: State) -> list[str]:
    """One line for each name whose value differs."""
    lines = []
    for topic in sorted({*wanted, *found}):
        before, after = wanted.get(topic, {}), found.get(topic, {})
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                lines.append(f"{topic}: {name}: wanted {before.get(name, 'nothing')}, is {after.get(name, 'nothing')}")
    return lines
