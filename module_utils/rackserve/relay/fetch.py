"""The side of a host that gets files: from the host before it, and past that one when it is gone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

from . import wire
from .shelf import PART, Shelf

_BUFFER = 1 << 18
# Fewer bytes wake nobody: on a slow link every packet would cost a write, a wake and a send on each host of the chain.
_PIECE = 1 << 16
_READ = 1 << 22
_PAUSE_S = 0.2
_CONNECT_S = 5.0
_GREET_S = 10.0
WHOLE, WRONG, AGAIN = "whole", "wrong", "again"


class RelayError(Exception):
    """The transfer cannot go on; one line: what, where, how to fix."""


class Parent(NamedTuple):
    """A host to get files from."""

    name: str
    address: str
    port: int


class Patience(NamedTuple):
    """Seconds: until the host before us must have begun to listen, any other one, until a silent one is left, and
    until it is over because nobody sends."""

    join_s: float = 20.0
    retry_s: float = 3.0
    silence_s: float = 30.0
    nobody_s: float = 120.0


class Parents:
    """Where to ask now: the host before us first, then further up the chain, then from the front again."""

    def __init__(self, parents: list[Parent], patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
        """``parents``: nearest first."""
        self.all, self._patience, self._clock = parents, patience, clock
        self._lock = threading.Lock()
        self._at, self._met, self._begun = 0, False, False
        self._since = self._good = clock()
        self._nobody_s = max(patience.nobody_s, patience.silence_s * (len(parents) + 1))
        self.left: dict[str, str] = {}

    def current(self) -> Parent:
        """The one to ask."""
        with self._lock:
            return self.all[self._at]

    def met(self, parent: Parent) -> None:
        """``parent`` listens, and knows the token."""
        with self._lock:
            self._begun = True
            if self.all[self._at] == parent:
                self._met = True

    def gets_on(self) -> None:
        """Something came, or the one who is asked gets something itself."""
        with self._lock:
            self._good = self._clock()

    def failed(self, parent: Parent, why: str, at_once: bool = False) -> None:
        """``parent`` does not serve; the next one is asked unless it may still be starting. Raises RelayError."""
        with self._lock:
            now = self._clock()
            if now - self._good > self._nobody_s:
                raise RelayError(
                    f"nobody of {', '.join(one.name for one in self.all)} has sent anything for "
                    f"{self._nobody_s:g} s (last {parent.name}: {why}): run again, it goes on where it stopped"
                )
            if self.all[self._at] != parent:
                return
            starting_s = self._patience.retry_s if self._begun or self._at else self._patience.join_s
            if not at_once and not self._met and now - self._since < starting_s:
                return
            self.left[parent.name] = why
            self._at, self._met, self._since = (self._at + 1) % len(self.all), False, now


class Fetcher:
    """Gets what a shelf is missing, several files at a time, each hashed while it is written."""

    def __init__(
        self,
        shelf: Shelf,
        token: bytes,
        parents: Parents,
        *,
        patience: Patience,
        bind: str,
        count: Callable[[float], None],
    ) -> None:
        """``bind``: our own address, where the connections come from; ``count`` is told of every byte received."""
        self._shelf, self._token, self._parents, self._patience = shelf, token, parents, patience
        self._bind, self._count = bind, count
        self._queue: queue.Queue[str] = queue.Queue()
        self._errors: list[Exception] = []
        self.resent: list[str] = []
        self.kept: list[str] = []
        self.received: dict[str, int] = {}

    def run(self, streams: int) -> None:
        """Get everything. Raises RelayError, OSError (the disk is full)."""
        for name in self._shelf.missing():
            self._queue.put(name)
        threads = [threading.Thread(target=self._stream, daemon=True) for _ in range(max(1, streams))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _stream(self) -> None:
        connection = _Connection()
        try:
            while not self._errors:
                try:
                    name = self._queue.get_nowait()
                except queue.Empty:
                    return
                self._file(connection, name)
        except Exception as problem:  # whatever it is, the thread that started us raises it
            self._errors.append(problem)
        finally:
            connection.close()

    def _file(self, connection: _Connection, name: str) -> None:
        """Get one file: from its partial state, and from the start once its digest was wrong."""
        path = self._shelf.partial(name)
        wrong = 0
        while not self._errors:
            parent = self._parents.current()
            try:
                self._connect(connection, parent)
                outcome = self._attempt(connection, name, path)
            except wire.WireError as problem:
                self._leave(connection, parent, str(problem))
                continue
            if outcome == WHOLE:
                return
            if outcome == AGAIN:
                continue
            wrong += 1
            self.resent.append(name)
            if wrong > len(self._parents.all):
                raise RelayError(
                    f"{name} comes with other content than its manifest says from every host of the chain, last "
                    f"{parent.name}: verify the weights there (playbooks/repair-weights.yml)"
                )
            if wrong > 1:
                self._leave(connection, parent, f"{name} came with other content", at_once=True)

    def _leave(self, connection: _Connection, parent: Parent, why: str, at_once: bool = False) -> None:
        connection.close()
        self._parents.failed(parent, why, at_once)
        time.sleep(_PAUSE_S)

    def _connect(self, connection: _Connection, parent: Parent) -> None:
        """Be connected to ``parent``. Raises WireError."""
        if connection.parent == parent:
            return
        connection.close()
        with _on_the_wire():
            limit_s = min(_CONNECT_S, self._patience.silence_s)
            fresh = socket.create_connection((parent.address, parent.port), limit_s, (self._bind, 0))
            connection.take(fresh, parent)
            fresh.settimeout(min(_GREET_S, self._patience.silence_s))
            fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire.introduce(fresh, self._token)
            fresh.settimeout(self._patience.silence_s)
        self._parents.met(parent)

    def _attempt(self, connection: _Connection, name: str, path: Path) -> str:
        """Go on with a file until it is WHOLE; WRONG when its digest was, AGAIN when the other side began it again.

        What an earlier attempt left is read and hashed again, and the rest asked for: nothing where it is all there and
        right, all where it is all there and wrong. Raises WireError, OSError.
        """
        file = self._shelf.files[name]
        digest = hashlib.sha256()
        descriptor = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        with open(descriptor, "r+b", buffering=0) as stream:  # noqa: PTH123 - a descriptor
            there = _hash_prefix(stream, digest, file.size, self._reads)
            right = there == file.size and digest.hexdigest() == file.sha256
            if there == file.size and not right:
                digest, there = hashlib.sha256(), 0
            stream.truncate(there)
            stream.seek(there)
            self._shelf.begin(name, path, there)
            if right:
                self.kept.append(name)
                self._count(file.size)
            ended = right or self._ask(connection, name, stream, digest)
            if not ended or stream.tell() != file.size or digest.hexdigest() != file.sha256:
                stream.truncate(0)
                self._shelf.begin(name, path, 0)
                return WRONG if ended else AGAIN
            self._shelf.approve(name)
            os.fsync(stream.fileno())
        self._shelf.finish(name, path.with_name(path.name[: -len(PART)]))
        return WHOLE

    def _reads(self) -> None:
        """Reading what is there takes its time; neither we nor those behind are to take it for silence."""
        self._shelf.gets_on()
        self._parents.gets_on()

    def _ask(self, connection: _Connection, name: str, stream: Any, digest: Any) -> bool:
        with _on_the_wire():
            wire.ask(connection.socket, name, stream.tell())
        return self._receive(connection, name, stream, digest)

    def _receive(self, connection: _Connection, name: str, stream: Any, digest: Any) -> bool:
        """Write and hash what comes until the file ends; False when the other side began the file again."""
        buffer = memoryview(bytearray(_BUFFER))
        quiet_since, seen = time.monotonic(), -1
        while True:
            with _on_the_wire():
                frame = wire.read_frame(connection.socket)
            if frame.kind in (wire.END, wire.AGAIN):
                return frame.kind == wire.END
            now = time.monotonic()
            if frame.kind == wire.DATA:
                if stream.tell() + frame.number > self._shelf.files[name].size:
                    raise wire.WireError(f"it sends more of {name} than the manifest knows")
                self._take(connection, frame.number, buffer, (name, stream, digest))
                self._parents.gets_on()
                quiet_since = time.monotonic()
            elif frame.number != seen:
                if seen >= 0:
                    self._parents.gets_on()
                quiet_since, seen = now, frame.number
            elif now - quiet_since > self._patience.silence_s:
                raise wire.WireError(f"it got nothing itself for {self._patience.silence_s:g} s")

    def _take(self, connection: _Connection, missing: int, buffer: memoryview, into: tuple[str, Any, Any]) -> None:
        """Write ``missing`` bytes, each piece as it comes, so that the next host does not wait for a whole frame."""
        name, stream, digest = into
        sender = connection.parent.name if connection.parent else ""
        while missing:
            with _on_the_wire():
                connection.wake_at(min(missing, _PIECE))
                size = connection.socket.recv_into(buffer, min(missing, _BUFFER))
            if not size:
                raise wire.WireError("it broke off")
            missing -= size
            written = 0
            while written < size:
                written += stream.write(buffer[written:size])
            digest.update(buffer[:size])
            self._shelf.grow(name, size)
            self._count(size)
            self.received[sender] = self.received.get(sender, 0) + size
        with _on_the_wire():
            connection.wake_at(1)


@contextlib.contextmanager
def _on_the_wire() -> Iterator[None]:
    """Inside, an error is the other side's; those of our own disk are not caught. Raises WireError."""
    try:
        yield
    except socket.timeout as late:
        raise wire.WireError("it is silent") from late
    except OSError as problem:
        raise wire.WireError(problem.strerror or str(problem)) from problem


class _Connection:
    """The connection of one stream, and to whom it is."""

    def __init__(self) -> None:
        self.socket: Any = None
        self.parent: Parent | None = None

    def take(self, connection: socket.socket, parent: Parent) -> None:
        self.socket, self.parent = connection, parent

    def wake_at(self, amount: int) -> None:
        """Wait for ``amount`` bytes before a read returns: no more than are sure to come."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, amount)

    def close(self) -> None:
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.close()
        self.socket = self.parent = None


def _hash_prefix(stream: Any, digest: Any, size: int, reads: Callable[[], None]) -> int:
    """Hash what is there of a file of ``size`` bytes; how many bytes that is. ``reads`` is told of every piece."""
    there = 0
    while there < size:
        piece = stream.read(min(_READ, size - there))
        if not piece:
            break
        digest.update(piece)
        there += len(piece)
        reads()
    return there
