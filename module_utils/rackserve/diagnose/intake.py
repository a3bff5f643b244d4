"""Evidence from elsewhere: a bundle of ours, any archive, a folder or a log file. Read in memory, never unpacked."""

from __future__ import annotations

import gzip
import json
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .case import ANY, ELSEWHERE, Host, Source, read_host

MANIFEST = "manifest.json"
KIND = "rackserve-diagnosis"


class Limits(NamedTuple):
    """What is read at most: members, bytes of one and of all, and how much an archive may grow."""

    members: int = 5000
    member_bytes: int = 64 << 20
    total_bytes: int = 256 << 20
    ratio: int = 300
    # Small archives may grow more: they hurt nobody.
    always_bytes: int = 16 << 20


class IntakeError(ValueError):
    """The input cannot be read; one line says what, where and how to fix it."""


def read_input(path: Path, limits: Limits = Limits()) -> list[Host]:  # noqa: B008 - it is immutable
    """Hosts of a bundle; of anything else one host named `input` with every text. Raises IntakeError."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a link that is named is followed, links inside never are
    except OSError as problem:
        raise IntakeError(f"diagnose_input={path}: {problem.strerror}; name a bundle, a folder or a log file") from None
    if stat.S_ISDIR(found.st_mode):
        members = dict(_of_folder(path, limits))
    elif not stat.S_ISREG(found.st_mode):
        raise IntakeError(f"diagnose_input={path}: it is neither a file nor a folder; name a bundle, a folder or a log")
    elif _is_tar(path):
        members = dict(_of_tar(path, limits))
    else:
        members = {path.name: _of_file(path, limits)}
    hosts = _of_members(members)
    if not any(host.sources or host.readings or host.lost for host in hosts):
        raise IntakeError(f"diagnose_input={path}: there is no text in it; name a bundle, a folder or a log file")
    return hosts


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error):
        return False


def _too_much(path: Path, what: str) -> IntakeError:
    return IntakeError(f"diagnose_input={path}: {what}; unpack what matters by hand and name that folder")


class _Budget:
    """Counts what was read of one input. Raises IntakeError."""

    def __init__(self, path: Path, limits: Limits, packed_bytes: int = 0) -> None:
        self.path, self.limits, self.members, self.bytes = path, limits, 0, 0
        self.most = limits.total_bytes
        if packed_bytes:
            self.most = min(self.most, max(limits.always_bytes, packed_bytes * limits.ratio))

    def take(self, name: str, size: int) -> None:
        self.members += 1
        self.bytes += max(0, size)
        if self.members > self.limits.members:
            raise _too_much(self.path, f"it has more than {self.limits.members} members")
        if size > self.limits.member_bytes:
            raise _too_much(self.path, f"{name!r} has {size} bytes, more than {self.limits.member_bytes}")
        if self.bytes > self.most:
            raise _too_much(self.path, f"it holds more than {self.most} bytes (size, or how much it grows)")


def _of_folder(path: Path, limits: Limits) -> Iterator[tuple[str, bytes]]:
    budget = _Budget(path, limits)
    for folder, names, files in os.walk(path, followlinks=False):
        names.sort()
        for name in sorted(files):
            place = Path(folder) / name
            try:
                size = place.lstat()
                if not stat.S_ISREG(size.st_mode):
                    continue
                shown = str(place.relative_to(path))
                if _is_packed(place):
                    content = _of_file(place, limits, budget)
                else:
                    budget.take(shown, size.st_size)
                    content = _read(place, limits.member_bytes)
            except OSError:
                continue
            yield shown, content


def _read(path: Path, most: int) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        return stream.read(most)


def _is_packed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _of_file(path: Path, limits: Limits, budget: _Budget | None = None) -> bytes:
    """A file, or what a gzip of one file holds. Raises IntakeError."""
    mine = budget or _Budget(path, limits, path.stat().st_size)
    if not _is_packed(path):
        mine.take(path.name, path.stat().st_size)
        return path.read_bytes()
    try:
        with gzip.open(path) as stream:
            content = stream.read(limits.member_bytes + 1)
    except (OSError, EOFError, zlib.error) as problem:
        raise IntakeError(f"diagnose_input={path}: it cannot be unpacked ({problem}); copy it again") from None
    mine.take(path.name, len(content))
    return content


def _of_tar(path: Path, limits: Limits) -> Iterator[tuple[str, bytes]]:
    """Regular members with names that stay inside. Nothing is written, so nothing can be overwritten or linked."""
    budget = _Budget(path, limits, path.stat().st_size)
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                budget.take(member.name, member.size)
                name = _inside(member.name)
                if not member.isreg() or member.issparse() or name is None:
                    continue
                stream = archive.extractfile(member)
                if stream is not None:
                    yield name, _bounded(stream, limits)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as problem:
        raise IntakeError(f"diagnose_input={path}: the archive is damaged ({problem}); copy it again") from None


def _bounded(stream: BinaryIO | Any, limits: Limits) -> bytes:
    content: bytes = stream.read(limits.member_bytes)
    return content


def _inside(name: str) -> str | None:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts) if parts and not name.startswith("/") and ".." not in parts else None


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _is_text(content: bytes) -> bool:
    return b"\0" not in content[:4096]


def _of_members(members: Mapping[str, bytes]) -> list[Host]:
    top = _top(members)
    try:
        manifest = json.loads(members[f"{top}{MANIFEST}"])
        ours = manifest.get("kind") == KIND and isinstance(manifest.get("hosts"), dict)
    except (KeyError, ValueError, AttributeError):
        ours = False
    if ours:
        return [_of_bundle(name, entry, members, top) for name, entry in manifest["hosts"].items()]
    sources = [
        Source(ELSEWHERE, name, ANY, _text(content))
        for name, content in members.items()
        if content and _is_text(content)
    ]
    return [Host(ELSEWHERE, sources)]


def _top(members: Mapping[str, bytes]) -> str:
    """The folder that everything lies in, with its slash; empty where there is none."""
    tops = {name.partition("/")[0] for name in members if "/" in name}
    alone = len(tops) == 1 and all("/" in name for name in members)
    return f"{tops.pop()}/" if alone else ""


def _of_bundle(name: str, entry: Any, members: Mapping[str, bytes], top: str) -> Host:
    entry = entry if isinstance(entry, dict) else {}
    sources = []
    for one in entry.get("sources") or []:
        content = members.get(f"{top}{one.get('file')}") if isinstance(one, dict) else None
        if content is not None:
            sources.append({**one, "text": _text(content)})
    try:
        readings = json.loads(members.get(f"{top}{entry.get('readings')}") or b"{}")
    except ValueError:
        readings = {}
    given = readings if isinstance(readings, dict) else {}
    lost = entry.get("lost") or ""
    return read_host(
        str(name), {"sources": sources, "lost": lost, **{key: given.get(key) for key in ("readings", "plan")}}
    )
