"""What engines compiled, kept for each release and model: which of it belongs to releases that are gone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

UNITS = "etc/systemd/system"
# What an engine wrote before caches were kept for each release, by name.
EARLIER = ("vllm", ".cache", ".triton", ".nv", ".config", ".flashinfer", ".inductor")
_CACHE_LINE = re.compile(r"^CacheDirectory=(\S+)$", re.MULTILINE)


class Cache(NamedTuple):
    """One folder: ``stale`` says why nobody is going to use it, "" where somebody may; ``ours``: we know what it is."""

    path: str
    engine: str
    release: str
    size: int
    stale: str
    ours: bool


def used_folders(root: Path) -> set[str]:
    """Cache folders, below /var/cache, of all units of the host."""
    found: set[str] = set()
    for path in sorted((root / UNITS).glob("*.service")):
        found.update(_CACHE_LINE.findall(path.read_text(encoding="utf-8", errors="replace")))
    return found


def find_caches(root: Path, cache_dir: str, releases_dir: str) -> list[Cache]:
    """Every folder CACHE_DIR/engine/release, and what an earlier version left in its place; links are left alone."""
    base, used = root / cache_dir.lstrip("/"), used_folders(root)
    installed = {path.name for path in (root / releases_dir.lstrip("/")).glob("*") if path.is_dir()}
    below = cache_dir.partition("/var/cache/")[2].strip("/")
    found = []
    for engine in sorted(path for path in base.glob("*") if path.is_dir() and not path.is_symlink()):
        for entry in sorted(engine.iterdir()):
            if entry.is_symlink():
                continue
            folder = f"{below}/{engine.name}/{entry.name}"
            stale, ours = _judge(entry, folder, used, installed)
            found.append(Cache(str(entry), engine.name, entry.name, size_of(entry), stale, ours))
    return found


def _judge(entry: Path, folder: str, used: set[str], installed: set[str]) -> tuple[str, bool]:
    """(why it is stale or "", whether it is ours)."""
    if any(one == folder or one.startswith(f"{folder}/") for one in used):
        return "", True
    if entry.name in EARLIER:
        # A unit of the earlier layout has the engine's whole folder.
        return ("" if folder.rpartition("/")[0] in used else "of an earlier layout"), True
    if entry.name in installed:
        return "", True
    # A release's folder holds one folder for each model and nothing else.
    ours = entry.is_dir() and all(path.is_dir() and not path.is_symlink() for path in entry.iterdir())
    return f"release {entry.name} is not installed and no unit uses it", ours


def size_of(path: Path) -> int:
    """Bytes below a folder, or of a file; links count as nothing."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(one.lstat().st_size for one in files if one.is_file() and not one.is_symlink())


def prune(caches: Sequence[Cache]) -> list[str]:
    """Remove the stale ones that are ours; their paths. Raises OSError."""
    removed = []
    for one in caches:
        if one.stale and one.ours:
            path = Path(one.path)
            shutil.rmtree(str(path)) if path.is_dir() else path.unlink()
            removed.append(one.path)
    return removed
