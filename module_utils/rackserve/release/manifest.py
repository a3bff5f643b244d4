"""The manifest of a tree: one line a file (sha256, size, executable or not, path), sorted by path.

``<sha256> <size> <x|-> <path>`` for a file, ``link <target> - <path>`` for a symbolic link. A path is relative to the
tree and may hold spaces, not newlines. The manifest's own sha256 names the content of the whole tree.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, NamedTuple

from .host import ReleaseError

MANIFEST = "MANIFEST"
MARKER = "RELEASE.json"
_CHUNK_BYTES = 4 << 20
_FIELDS = 4
_SHA256 = re.compile("[0-9a-f]{64}$")


class Entry(NamedTuple):
    """One file or link. ``digest`` is "link" for a link, and then ``target`` is what it points to."""

    path: str
    digest: str
    size: int
    executable: bool
    target: str = ""

    def line(self) -> str:
        """The manifest line of this entry."""
        if self.digest == "link":
            return f"link {self.target} - {self.path}"
        return f"{self.digest} {self.size} {'x' if self.executable else '-'} {self.path}"


def hash_file(path: Path) -> str:
    """sha256 of a file's content, as hex."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as handle:
        while True:
            chunk = handle.read(_CHUNK_BYTES)
            if not chunk:
                return digest.hexdigest()
            digest.update(chunk)


def walk(tree: Path) -> Iterator[str]:
    """Relative paths of the files and links in ``tree`` but for the manifest and the marker at its top, unsorted."""
    base = str(tree)
    for folder, names, files in os.walk(base):
        links = [name for name in names if os.path.islink(os.path.join(folder, name))]  # noqa: PTH118, PTH114 - 40,000 files: Path objects cost seconds
        for name in files + links:
            relative = os.path.relpath(os.path.join(folder, name), base)  # noqa: PTH118 - see above
            if relative not in (MANIFEST, MARKER):
                yield relative


def describe(tree: Path, relative: str) -> Entry:
    """The entry of one file or link in ``tree``."""
    path = tree / relative
    if "\n" in relative:
        raise ReleaseError(f"{relative!r} in {tree} has a newline in its name: remove it from the release")
    if path.is_symlink():
        return Entry(relative, "link", 0, False, str(path.readlink()))
    state = path.stat()
    return Entry(relative, hash_file(path), state.st_size, bool(state.st_mode & 0o100))


def build_manifest(tree: Path, threads: int = 2, on_bytes: Callable[[int], None] | None = None) -> str:
    """The manifest text of ``tree``; ``on_bytes`` gets each file's size.

    Raises ReleaseError for a name that a manifest cannot hold.
    """
    names = sorted(walk(tree))

    def one(name: str) -> Entry:
        entry = describe(tree, name)
        if on_bytes:
            on_bytes(entry.size)
        return entry

    with ThreadPoolExecutor(max_workers=threads) as pool:
        entries = list(pool.map(one, names))
    return "".join(entry.line() + "\n" for entry in entries)


def parse_manifest(text: str) -> dict[str, Entry]:
    """{path: entry} of a manifest text. Raises ReleaseError on a line that is not one, or a path leaving the tree."""
    entries: dict[str, Entry] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(" ", 3)
        if len(words) != _FIELDS or not (words[0] == "link" or (_SHA256.match(words[0]) and words[1].isdigit())):
            raise ReleaseError(f"line {number} of the manifest is not 'sha256 size mode path': build the release again")
        first, second, mode, path = words
        if path.startswith("/") or ".." in path.split("/"):
            raise ReleaseError(f"line {number} of the manifest leaves the release: {path}: build the release again")
        is_link = first == "link"
        entries[path] = Entry(path, first, 0 if is_link else int(second), mode == "x", second if is_link else "")
    return entries


def manifest_id(text: str) -> str:
    """sha256 of the manifest text: the identity of the tree's content."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def verify_tree(
    tree: Path, manifest: dict[str, Entry], threads: int = 4, on_bytes: Callable[[int], None] | None = None
) -> tuple[list[str], list[str], list[str]]:
    """(missing, corrupt, extra) relative paths of ``tree`` against ``manifest``, each sorted. Reads every file.

    ``on_bytes`` is called with the size of each file that was read.
    """
    present = set(walk(tree))
    missing = sorted(set(manifest) - present)
    extra = sorted(present - set(manifest))

    def differs(path: str) -> bool:
        found = describe(tree, path)
        if on_bytes:
            on_bytes(found.size)
        return found != manifest[path]

    names = sorted(present & set(manifest))
    with ThreadPoolExecutor(max_workers=threads) as pool:
        corrupt = [path for path, bad in zip(names, pool.map(differs, names)) if bad]
    return missing, corrupt, extra
