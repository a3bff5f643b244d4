"""The side of a host that passes files on, as far as they are there."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterable
from typing import Callable

from . import wire
from .shelf import Shelf, ShelfError

_FRAME = 1 << 20
_WORD_EVERY_S = 1.0
_QUESTION_S = 600.0


class Limiter:
    """Lets so many bytes a second through, all connections together; 0 is no limit."""

    def __init__(self, bytes_a_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: seconds."""
        self._rate, self._clock = bytes_a_second, clock
        self._lock = threading.Lock()
        self._free_at = 0.0

    def pause_s(self, amount: int) -> float:
        """Seconds to wait before ``amount`` more bytes; they count as sent."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = self._clock()
            begins = max(now, self._free_at)
            self._free_at = begins + amount / self._rate
            return begins - now


class Server:
    """Listens at one address and answers the hosts of the chain, each connection in its thread."""

    def __init__(
        self,
        shelf: Shelf,
        token: bytes,
        bind: tuple[str, int],
        *,
        peers: Iterable[str],
        limit: Limiter,
        silence_s: float,
    ) -> None:
        """``peers``: addresses that may ask; ``silence_s``: a peer that takes nothing for so long is dropped.

        Raises OSError when the address cannot be had.
        """
        self._shelf, self._token, self._peers, self._limit = shelf, token, frozenset(peers), limit
        self._silence_s = silence_s
        self._lock = threading.Lock()
        self._open = 0
        self._idle_since = time.monotonic()
        self.sent = 0
        family = socket.AF_INET6 if ":" in bind[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(bind)
            self._socket.listen(64)
        except OSError:
            self._socket.close()
            raise
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No further connections."""
        # Wakes the thread that waits in accept; close alone does not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def idle_s(self) -> float:
        """Seconds without any connection."""
        with self._lock:
            return 0.0 if self._open else time.monotonic() - self._idle_since

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self._socket.accept()
            except OSError:
                return
            if address[0] not in self._peers:
                connection.close()
                continue
            with self._lock:
                self._open += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError, wire.WireError):
                connection.settimeout(self._silence_s)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                wire.greet(connection, self._token)
                while True:
                    # Between two files the other side writes to its disk.
                    connection.settimeout(_QUESTION_S)
                    asked = wire.read_question(connection)
                    connection.settimeout(self._silence_s)
                    if asked is None:
                        return
                    self._send(connection, *asked)
        finally:
            with self._lock:
                self._open -= 1
                self._idle_since = time.monotonic()

    def _send(self, connection: socket.socket, name: str, at: int) -> None:
        """One file from byte ``at`` on, as it arrives here."""
        if name not in self._shelf.files:
            wire.send_error(connection, f"{name[:200]!r} is no file of this model")
            return
        size = self._shelf.files[name].size
        descriptor, round_ = -1, None
        try:
            while True:
                view = self._shelf.wait(name, at, round_, _WORD_EVERY_S)
                if round_ not in (None, view.round):
                    wire.send_frame(connection, wire.AGAIN, 0)
                    return
                # The last byte is here before the digest is known: until then the file may begin again.
                if at >= size and view.right:
                    break
                if view.there <= at:
                    wire.send_frame(connection, wire.WAIT, self._shelf.progress)
                    continue
                if descriptor < 0:
                    opened = self._shelf.open(name)
                    if opened is None:
                        continue
                    descriptor, round_ = opened
                    continue
                at += self._pass_on(connection, descriptor, at, min(view.there - at, _FRAME))
            wire.send_frame(connection, wire.END, size)
        except ShelfError as problem:
            wire.send_error(connection, str(problem))
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _pass_on(self, connection: socket.socket, descriptor: int, at: int, amount: int) -> int:
        pause_s = self._limit.pause_s(amount)
        if pause_s:
            time.sleep(pause_s)
        wire.send_frame(connection, wire.DATA, amount, True)
        with open(descriptor, "rb", closefd=False) as stream:
            if connection.sendfile(stream, at, amount) != amount:
                raise wire.WireError("the file got shorter")
        self.sent += amount
        return amount
