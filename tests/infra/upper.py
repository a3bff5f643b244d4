"""What a run changed on a host's disk: the overlay's upper folder, every entry of it, before and after."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# What lives by itself, whoever runs: each with its reason. Everything else on a host belongs to the roles.
LIVES = {
    "root/.ansible": "where Ansible puts modules that it cannot send over a pipe",
    "root/.cache": "caches of programs that a login runs",
    "run": "not on the disk: gone with a reboot",
    "tmp": "temporary files of services and of programs that a login runs",
    "var/cache/apt/pkgcache.bin": "apt's lookup table: whoever reads package lists makes it anew from those",
    "var/cache/apt/srcpkgcache.bin": "apt's lookup table of source packages, as above",
    "var/cache/rackserve": "what running engines write",
    "var/lib/rackserve/gateway/server-state": "servers in service: the gateway and the engines' watch write it",
    "var/lib/rackserve-health": "what the host's health timer found last",
    "var/lib/systemd": "clocks, random seed and timers of systemd",
    "var/log": "the journal, and what a login leaves there",
    "var/tmp": "as tmp",
}


class Entry(NamedTuple):
    """One file, folder or link. ``ctime_ns`` moves with every change of it, and nobody can set it."""

    kind: str
    mode: int
    owner: tuple[int, int]
    size: int
    mtime_ns: int
    ctime_ns: int


def _walk(folder: Path, inside: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{inside}{entry.name}"
            if path in LIVES:
                continue
            yield path, entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{path}/")


def snapshot(upper: Path) -> dict[str, Entry]:
    """{path: entry} of everything that differs from the host's image, but for LIVES. Nothing is read but metadata."""
    found = {}
    parents = {str(parent) for path in LIVES for parent in Path(path).parents}
    for path, entry in _walk(upper, ""):
        state = entry.stat(follow_symlinks=False)
        folder = entry.is_dir(follow_symlinks=False)
        # A folder's times move with anything that comes and goes in it; what lives in these may.
        times = (0, 0) if folder and path in parents else (state.st_mtime_ns, state.st_ctime_ns)
        kind = "link" if entry.is_symlink() else "folder" if folder else "file"
        size = 0 if folder else state.st_size
        found[path] = Entry(kind, state.st_mode, (state.st_uid, state.st_gid), size, *times)
    return found


def changes(before: dict[str, Entry], after: dict[str, Entry]) -> list[str]:
    """Paths that came, went or changed, one a line, sorted; none where the disk is as it was."""
    paths = sorted(set(before) | set(after))
    return [f"{path}: {before.get(path)} -> {after.get(path)}" for path in paths if before.get(path) != after.get(path)]
