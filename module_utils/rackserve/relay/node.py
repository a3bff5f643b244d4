"""One host of a chain, from its settings to its result: passes on, and gets or awaits what it lacks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ..progress.report import Report
from .fetch import Fetcher, Parent, Parents, Patience, RelayError
from .serve import Limiter, Server
from .shelf import PART, File, Shelf

LOCK = ".rackserve-relay-lock"
_LOOK_EVERY_S = 0.5
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_READ = 1 << 22


class Settings(NamedTuple):
    """What one host does; plain data in a file, without the token.

    ``fed``: what it lacks is brought by somebody else into ``folder``, and passed on as soon as its digest is right.
    """

    folder: Path
    staging: Path | None
    files: dict[str, File]
    wanted: list[str]
    bind: tuple[str, int]
    peers: list[str]
    parents: list[Parent]
    fed: bool
    streams: int
    limit_bytes_s: float
    linger_s: float
    patience: Patience


def read_settings(data: Mapping[str, Any]) -> Settings:
    """Settings out of plain data. Raises KeyError, TypeError, ValueError."""
    return Settings(
        Path(data["folder"]),
        Path(data["staging"]) if data["staging"] else None,
        {str(name): File(int(one["size"]), str(one["sha256"])) for name, one in data["files"].items()},
        [str(name) for name in data["wanted"]],
        (str(data["address"]), int(data["port"])),
        [str(peer) for peer in data["peers"]],
        [Parent(str(one["name"]), str(one["address"]), int(one["port"])) for one in data["parents"]],
        bool(data["fed"]),
        int(data["streams"]),
        float(data["limit_mib_s"]) * (1 << 20),
        float(data["linger_s"]),
        Patience(**data.get("patience", {})),
    )


class Node:
    """A host at work. `bring` returns when it has everything; `linger` when nobody needs it any more."""

    def __init__(self, settings: Settings, token: bytes, report: Report) -> None:
        """Listens at once. Raises OSError when the address cannot be had."""
        self.settings, self.report = settings, report
        self._token = token
        self.shelf = Shelf(settings.folder, settings.staging, settings.files, settings.wanted)
        limit = Limiter(settings.limit_bytes_s)
        silence_s = settings.patience.silence_s
        self.server = Server(self.shelf, token, settings.bind, peers=settings.peers, limit=limit, silence_s=silence_s)

    def bring(self) -> dict[str, Any]:
        """Get what is missing. Raises RelayError, OSError.

        {files, bytes, seconds, began and ended in seconds of the clock, resent, left, received, proven}.
        """
        settings, started, began = self.settings, time.monotonic(), time.time()
        missing = self.shelf.missing()
        total = sum(settings.files[name].size for name in settings.wanted)
        self.report.phase("receiving", total, "B")
        kept: list[str] = []
        result: dict[str, Any] = {"resent": [], "left": {}, "received": {}}
        if missing and settings.fed:
            self._await(missing)
        elif missing:
            if not settings.parents:
                raise RelayError("there is no host to get the weights from: name one that has them")
            parents = Parents(settings.parents, settings.patience)
            fetcher = Fetcher(
                self.shelf,
                self._token,
                parents,
                patience=settings.patience,
                bind=settings.bind[0],
                count=self.report.add,
            )
            fetcher.run(settings.streams)
            kept = fetcher.kept
            result = {"resent": fetcher.resent, "left": parents.left, "received": fetcher.received}
        self.report.end()
        came = [name for name in missing if name not in kept]
        size = sum(settings.files[name].size for name in came)
        seconds = round(time.monotonic() - started, 3)
        told = {"files": came, "bytes": size, "seconds": seconds, "began": began, "ended": time.time()}
        return {**told, "proven": self.proven(), **result}

    def proven(self) -> dict[str, list[int]]:
        """{name: [size, modification time in ns]} of the wanted files: `bring` hashed each of them."""
        folder = self.settings.folder if self.settings.fed else self.settings.staging
        states = {name: (folder / name).stat() for name in self.settings.wanted} if folder else {}
        return {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}

    def linger(self) -> None:
        """Serve until there was no connection for ``linger_s``."""
        while self.server.idle_s() < self.settings.linger_s:
            time.sleep(min(1.0, self.settings.linger_s / 4))
        self.server.close()

    def _await(self, missing: list[str]) -> None:
        """Wait until every file has come into the folder and has the right digest."""
        left = list(missing)
        judged: dict[str, tuple[int, int, int]] = {}
        with ThreadPoolExecutor(max_workers=max(1, self.settings.streams)) as pool:
            lock = threading.Lock()

            def look(name: str) -> None:
                path, file = self.settings.folder / name, self.settings.files[name]
                try:
                    state = path.stat()
                    mark = (state.st_ino, state.st_size, state.st_mtime_ns)
                    if state.st_size != file.size or judged.get(name) == mark:
                        return
                    right = _digest(path) == file.sha256
                except OSError:
                    return  # not there yet
                judged[name] = mark
                if right:
                    self.shelf.finish(name, path)
                    self.report.add(file.size)
                    with lock:
                        left.remove(name)

            seen = 0
            while left:
                list(pool.map(look, list(left)))
                lying = _bytes_in(self.settings.folder)
                if lying != seen:
                    # Part of a file came; nothing to pass on yet, and yet no reason for those behind to leave.
                    self.shelf.gets_on()
                    seen = lying
                if left:
                    time.sleep(_LOOK_EVERY_S)


def _bytes_in(folder: Path) -> int:
    """Bytes of all files below ``folder`` that can be seen, the unfinished ones of whoever brings them too."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(base, name).stat().st_size
    return total


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_READ):
            total.update(piece)
    return total.hexdigest()


@contextlib.contextmanager
def held(staging: Path) -> Iterator[None]:
    """Have the staging folder alone, of all hosts that see it: a unit of an earlier run may still be at work there.

    A file system without locks is left to the mark of the run. Raises RelayError, OSError.
    """
    descriptor = os.open(str(staging / LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            raise RelayError(
                f"another host writes to {staging}, which is on one file system for both: wait until its copy ends, "
                "then run again"
            ) from taken
        except OSError as problem:
            if problem.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


def clear_stray(staging: Path, names: set[str]) -> list[str]:
    """Remove what lies in the staging folder and belongs to none of ``names``; what was removed."""
    stray = []
    for path in sorted(staging.rglob("*")):
        name = str(path.relative_to(staging))
        known = name in names or name == LOCK or (name.endswith(PART) and name[: -len(PART)] in names)
        if path.is_symlink() or (not path.is_dir() and not known):
            path.unlink()
            stray.append(name)
    return stray
