"""Compare a model's folder with its manifest, and mark it ready for serving.

The manifest is {"version": 1, "files": {name: {"size": bytes, "sha256": hex}}}. READY holds the manifest's sha256 and
nothing else, so a controller can compare it without reading weights; READY.stat.json holds size and modification time
of every file when it was hashed, so that an unchanged folder is not hashed again, and the digests for start_check.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ..release.host import write_atomic
from ..release.manifest import hash_file

READY = "READY"
STAT = "READY.stat.json"


class ModelError(Exception):
    """The manifest or the question is wrong; the text is one line: what, where, how to fix."""


class Reader(NamedTuple):
    """Who must be able to read the files: ``uid`` and all group ids."""

    uid: int
    gids: frozenset[int]


class Verdict(NamedTuple):
    """What is wrong, as names in the manifest (``unreadable`` may also name a folder on the way). ``hashed``: how many
    files were read in full; ``changed``: READY was, or in check mode would be, written or removed."""

    missing: list[str]
    corrupt: list[str]
    unreadable: list[str]
    hashed: int
    changed: bool

    @property
    def ready(self) -> bool:
        """Nothing is wrong."""
        return not (self.missing or self.corrupt or self.unreadable)


def parse_manifest(manifest: Any) -> dict[str, tuple[int, str]]:
    """{name: (size in bytes, sha256)} of a manifest. Raises ModelError when it is malformed or leaves the folder."""
    try:
        files = {str(name): (int(one["size"]), str(one["sha256"])) for name, one in manifest["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as bad:
        raise ModelError(f"the manifest is not {{files: {{name: {{size, sha256}}}}}} ({bad!r}): make it again") from bad
    if not files:
        raise ModelError("the manifest names no file: make it again")
    for name in files:
        if name.startswith("/") or ".." in name.split("/") or name in (READY, STAT):
            raise ModelError(f"the manifest names {name!r}, which is not a file of a model: make it again")
    return files


def manifest_digest(text: str) -> str:
    """sha256 of the manifest file's text: what READY holds."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def can(reader: Reader, state: os.stat_result, bit: int) -> bool:
    """Whether ``reader`` has permission ``bit`` (4 read, 1 search) by mode and ownership; root always has."""
    if reader.uid == 0:
        return True
    if state.st_uid == reader.uid:
        return bool(state.st_mode >> 6 & bit)
    return bool(state.st_mode >> (3 if state.st_gid in reader.gids else 0) & bit)


def unreadable(folder: Path, names: Sequence[str], reader: Reader, root: Path = Path("/")) -> list[str]:
    """The files ``reader`` cannot read, and first any folder between ``root`` and the files it cannot search."""
    folders = {parent for name in names for parent in (folder / name).parents if root in (parent, *parent.parents)}
    closed = [str(one) for one in sorted(folders) if not can(reader, one.stat(), 1)]
    return closed + [name for name in names if not can(reader, (folder / name).stat(), 4)]


def table(folder: Path, names: Sequence[str]) -> dict[str, list[int]]:
    """{name: [size in bytes, modification time in ns]}."""
    states = {name: (folder / name).stat() for name in names}
    return {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}


def known_good(folder: Path, digest: str) -> dict[str, list[int]]:
    """The table written when the folder was last found to match ``digest``; {} when it never was or READY is gone."""
    try:
        if (folder / READY).read_text(encoding="utf-8") != digest + "\n":
            return {}
        noted = json.loads((folder / STAT).read_text(encoding="utf-8"))
        return dict(noted["files"]) if noted["manifest_sha256"] == digest else {}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return {}


def present_files(folder: Path, names: Sequence[str]) -> list[str]:
    """The ``names`` that are regular files in ``folder``, links to files included."""

    def there(name: str) -> bool:
        try:
            return stat.S_ISREG((folder / name).stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    return [name for name in names if there(name)]


def verify(
    folder: Path,
    manifest_text: str,
    *,
    reader: Reader | None = None,
    full: bool = False,
    check_mode: bool = False,
    threads: int = 4,
    root: Path = Path("/"),
    marks: Path | None = None,
    proven: Mapping[str, Sequence[int]] | None = None,
    right: dict[str, list[int]] | None = None,
) -> Verdict:
    """Compare ``folder`` with the manifest; write READY when all is right, remove it when anything is wrong.

    A file is hashed when ``full``, when READY is absent or of another manifest, or when its size or modification time
    is not the noted one; a file of the wrong size is corrupt without reading it. Nothing is written in check mode.
    ``proven``: {name: (size, modification time in ns)} of files that were hashed in this run, such as while they came;
    ``right`` is given those that are right now, in the same form.
    READY and its table stand in ``marks`` where that is given, so that ``folder`` may be read-only.
    Raises ModelError for a bad manifest.
    """
    try:
        files = parse_manifest(json.loads(manifest_text))
    except ValueError as bad:
        raise ModelError(f"the manifest is not JSON ({bad}): make it again") from bad
    digest = manifest_digest(manifest_text)
    names = sorted(files)
    there = present_files(folder, names)
    seen = table(folder, there)
    marks = marks or folder
    noted = {} if full else known_good(marks, digest)
    sized = [name for name in there if seen[name][0] == files[name][0]]
    noted = {**noted, **{name: list(state) for name, state in (proven or {}).items()}}
    suspects = [name for name in sized if noted.get(name) != seen[name]]
    with ThreadPoolExecutor(max_workers=threads) as pool:
        digests = dict(zip(suspects, pool.map(lambda name: hash_file(folder / name), suspects)))
    corrupt = sorted(set(there) - set(sized) | {name for name in suspects if digests[name] != files[name][1]})
    closed = unreadable(folder, there, reader, root) if reader is not None and there else []
    if right is not None:
        right.update({name: seen[name] for name in sized if name not in corrupt})
    verdict = Verdict(sorted(set(names) - set(there)), corrupt, closed, len(suspects), False)
    noting = {"manifest_sha256": digest, "files": seen, "sha256": {name: files[name][1] for name in names}}
    changed = _mark(marks, noting, verdict.ready, check_mode)
    return verdict._replace(changed=changed)


def _mark(folder: Path, noting: dict[str, Any], ready: bool, check_mode: bool) -> bool:
    """Bring READY and its table to the verdict; returns whether that changes (check mode: would change) it."""
    marker = folder / READY
    if not ready:
        there = marker.exists() or (folder / STAT).exists()
        for path in (marker, folder / STAT):
            if path.exists() and not check_mode:
                path.unlink()
        return there
    digest = noting["manifest_sha256"]
    if known_good(folder, digest) == noting["files"]:
        return False
    if not check_mode:
        write_atomic(folder / STAT, json.dumps(noting, sort_keys=True) + "\n")
        write_atomic(marker, digest + "\n")
    return True


def explain(verdict: Verdict, folder: Path) -> str:
    """One line for people: what is wrong with the model in ``folder``, naming the first file of each sort."""
    sorts = (
        ("missing", verdict.missing, "copy it"),
        ("corrupt", verdict.corrupt, "copy it again"),
        ("unreadable for the service user", verdict.unreadable, "fix mode or owner"),
    )
    said = [f"{len(names)} {sort}, first {names[0]} ({fix})" for sort, names, fix in sorts if names]
    return f"{folder} is not ready: " + "; ".join(said) if said else f"{folder} is ready"
