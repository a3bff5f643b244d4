"""What the watch asks an engine: its metrics, and one token."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass
from typing import Callable

from .judge import METRICS_TIMEOUT_S


@dataclass(frozen=True)
class Engine:
    """An engine of this host; `name` is its credential's name too."""

    unit: str
    name: str
    address: str
    port: int
    model: str


class Client:
    """Asks one engine: /metrics at once, a token in a thread of its own, since that may never be answered."""

    def __init__(self, engine: Engine, key: str, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.engine, self.key, self.timeout_s, self.clock = engine, key, timeout_s, clock
        self._answered = threading.Event()
        self._thread: threading.Thread | None = None
        self._since: float | None = None

    def metrics(self) -> str | None:
        """The text of /metrics; None when there is none."""
        connection = http.client.HTTPConnection(self.engine.address, self.engine.port, timeout=METRICS_TIMEOUT_S)
        try:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            return response.read().decode("utf-8", "replace") if response.status == http.HTTPStatus.OK else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def ask(self) -> None:
        """Ask for one token, unless a request is under way."""
        if self._thread is None or not self._thread.is_alive():
            self._since = self.clock() if self._since is None else self._since
            self._thread = threading.Thread(target=self._ask, daemon=True)
            self._thread.start()

    def _ask(self) -> None:
        body = json.dumps({"model": self.engine.model, "prompt": "1", "max_tokens": 1, "temperature": 0})
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(self.engine.address, self.engine.port, timeout=self.timeout_s)
        try:
            connection.request("POST", "/v1/completions", body, headers)
            status = connection.getresponse().status
        except (TimeoutError, socket.timeout):
            return
        except (OSError, http.client.HTTPException):
            self._since = None
        else:
            # Refused for want of room says nothing about the engine; whatever else it says, it is not hung.
            if status not in (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE):
                self._answered.set()
        finally:
            connection.close()

    def state(self) -> tuple[bool, float]:
        """(whether an answer came since the last call, seconds since the first request without one)."""
        answered = self._answered.is_set()
        if answered:
            self._answered.clear()
            self._since = None
        return answered, 0.0 if self._since is None else self.clock() - self._since
