"""What goes over a connection of the relay: a proof that both sides know the token, questions, frames of bytes.

The token itself never travels. Content is protected by the manifest's digests, not by encryption.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import struct
from typing import Any, NamedTuple

HELLO = b"RSRELAY1"
DATA, WAIT, END, ERROR, AGAIN = range(1, 6)
NONCE = PROOF = 32
LONGEST_QUESTION = 4096
LONGEST_ERROR = 2000
_HEAD = struct.Struct(">BQ")


class WireError(Exception):
    """The other side is none of ours, or broke off; one line."""


class Frame(NamedTuple):
    """``number``: bytes that follow for DATA and ERROR, the sender's progress for WAIT, the size for END."""

    kind: int
    number: int


def proof(token: bytes, side: bytes, nonces: bytes) -> bytes:
    """What only somebody with the token can say."""
    return hmac.new(token, side + nonces, hashlib.sha256).digest()


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes. Raises WireError when the other side ends, OSError."""
    parts, missing = [], size
    while missing:
        part = connection.recv(missing)
        if not part:
            raise WireError("it broke off")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def greet(connection: socket.socket, token: bytes) -> None:
    """The server's half of the proof. Raises WireError when the other side has another token."""
    ours = os.urandom(NONCE)
    connection.sendall(HELLO + ours)
    theirs = receive(connection, NONCE)
    if not hmac.compare_digest(receive(connection, PROOF), proof(token, b"asks", ours + theirs)):
        raise WireError("it has another token")
    connection.sendall(proof(token, b"serves", ours + theirs))


def introduce(connection: socket.socket, token: bytes) -> None:
    """The client's half of the proof. Raises WireError when the other side is no relay, or has another token."""
    if receive(connection, len(HELLO)) != HELLO:
        raise WireError("it is no relay")
    theirs, ours = receive(connection, NONCE), os.urandom(NONCE)
    connection.sendall(ours + proof(token, b"asks", theirs + ours))
    if not hmac.compare_digest(receive(connection, PROOF), proof(token, b"serves", theirs + ours)):
        raise WireError("it has another token")


def send_frame(connection: socket.socket, kind: int, number: int, more: bool = False) -> None:
    """Send a frame's head; ``more``: bytes follow at once, so that they share a packet."""
    connection.sendall(_HEAD.pack(kind, number), socket.MSG_MORE if more else 0)


def send_error(connection: socket.socket, text: str) -> None:
    """Send why there is nothing."""
    said = text.encode()[:LONGEST_ERROR]
    send_frame(connection, ERROR, len(said), True)
    connection.sendall(said)


def read_frame(connection: socket.socket) -> Frame:
    """The next frame's head. Raises WireError, with its words where the other side sent an error."""
    kind, number = _HEAD.unpack(receive(connection, _HEAD.size))
    if kind == ERROR and number <= LONGEST_ERROR:
        raise WireError(receive(connection, number).decode("utf-8", "replace"))
    if kind not in (DATA, WAIT, END, AGAIN):
        raise WireError(f"it sent a frame of kind {kind}")
    return Frame(kind, number)


def ask(connection: socket.socket, name: str, start: int) -> None:
    """Ask for a file from byte ``start`` on."""
    connection.sendall(json.dumps({"file": name, "from": start}).encode() + b"\n")


def read_question(connection: socket.socket) -> tuple[str, int] | None:
    """(file, first byte) of the next question, None when the other side has no more. Raises WireError, OSError."""
    line = b""
    while not line.endswith(b"\n"):
        part = connection.recv(1)
        if not part:
            if line:
                raise WireError("it broke off")
            return None
        line += part
        if len(line) > LONGEST_QUESTION:
            raise WireError("its question has no end")
    try:
        asked: Any = json.loads(line)
        name, start = asked["file"], asked["from"]
    except (ValueError, KeyError, TypeError) as bad:
        raise WireError("its question is none") from bad
    if not isinstance(name, str) or not isinstance(start, int) or start < 0:
        raise WireError("its question is none")
    return name, start
