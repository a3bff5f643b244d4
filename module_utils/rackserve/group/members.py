"""How members of a group tell each other what runs: a page over HTTP, asked every second."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .judge import Answer

TIMEOUT_S = 3.0
_MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class Peer:
    """Another member: its agent's address, and its units of the group."""

    member: str
    address: str
    units: tuple[str, ...]


def read_answer(text: bytes, group: str) -> Answer | None:
    """A member's page; None where it is no page of this group."""
    try:
        told = json.loads(text)
        if told["group"] != group:
            return None
        units = {str(unit): None if run is None else str(run) for unit, run in told["units"].items()}
        joined = told["joined"]
        return Answer(units, None if joined is None else {str(unit): str(run) for unit, run in joined.items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class Ear:
    """Asks one member again and again in a thread of its own; `heard` is (number of its answers, the last one)."""

    def __init__(self, group: str, peer: Peer, port: int, interval_s: float) -> None:
        self.group, self.peer, self.port, self.interval_s = group, peer, port, interval_s
        self.heard: tuple[int, Answer] | None = None

    def ask(self) -> bool:
        """Ask once; whether it answered."""
        connection = http.client.HTTPConnection(self.peer.address, self.port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            text = response.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        answer = read_answer(text, self.group)
        if answer is None:
            return False
        self.heard = ((self.heard[0] if self.heard else 0) + 1, answer)
        return True

    def run(self) -> None:
        """Ask for ever."""
        while True:
            self.ask()
            time.sleep(self.interval_s)


class Mouth(ThreadingHTTPServer):
    """Tells whoever asks what `say` was given last. Raises OSError where the address cannot be bound."""

    daemon_threads = True

    def __init__(self, address: str, port: int) -> None:
        super().__init__((address, port), _Page)
        self.page = b"{}"

    def say(self, member: str, group: str, answer: Answer) -> None:
        """What the next who asks is told."""
        told: Mapping[str, Any] = {"member": member, "group": group, "units": answer.units, "joined": answer.joined}
        self.page = json.dumps(told, sort_keys=True).encode() + b"\n"

    def start(self) -> None:
        """Answer, in threads."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to tell."""


class _Page(BaseHTTPRequestHandler):
    timeout = TIMEOUT_S
    server: Mouth

    def do_GET(self) -> None:
        page = self.server.page
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: Any) -> None:
        """Asked every second: not worth a line."""
