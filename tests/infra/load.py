"""Constant load on the gateway, plain and streamed: closed-loop clients that keep a record of every request."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from rackserve.completion.client import Endpoint

PROMPT = "The operator drains"


@dataclass
class Record:
    """One request; moments in monotonic seconds. `begun_s` is when an answer's headers came: then nobody can retry."""

    kind: str
    started_s: float
    begun_s: float | None = None
    token_s: float | None = None
    ended_s: float = 0.0
    server: str = ""
    error: str = ""

    @property
    def took_s(self) -> float:
        """Seconds from the question to the end."""
        return self.ended_s - self.started_s


class Client:
    """Asks for completions and keeps records; the operator's key makes the gateway say which server answered."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self.endpoint, self.model = endpoint, model
        self.context = ssl.create_default_context(cafile=endpoint.ca_file)

    def ask(self, kind: str, tokens: int, record: Record | None = None, server: str = "") -> Record:
        """Ask once; `record` is filled as the answer comes. Never raises: what went wrong is in `error`."""
        record = record or Record(kind, time.monotonic())
        url = urlsplit(self.endpoint.base_url)
        connection = http.client.HTTPSConnection(
            url.hostname or "", url.port, timeout=self.endpoint.timeout_s, context=self.context
        )
        body = {"model": self.model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        headers = {"Authorization": f"Bearer {self.endpoint.api_key}", "Content-Type": "application/json"}
        headers |= {"X-Rackserve-Server": server} if server else {}
        try:
            connection.request("POST", "/v1/completions", json.dumps({**body, "stream": kind == "stream"}), headers)
            response = connection.getresponse()
            record.server = response.headers.get("X-Served-By", "").rpartition("/")[2]
            if response.status != http.HTTPStatus.OK:
                record.error = f"HTTP {response.status}"
            elif kind == "stream":
                record.begun_s = time.monotonic()
                self._follow(response, record)
            else:
                self._check(json.loads(response.read()), tokens)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            record.error = f"{type(error).__name__}: {error}"
        finally:
            connection.close()
            record.ended_s = time.monotonic()
        return record

    @staticmethod
    def _check(answer: dict[str, Any], tokens: int) -> None:
        if answer["usage"]["completion_tokens"] != tokens:
            raise ValueError(f"{answer['usage']} where {tokens} tokens were asked for")

    @staticmethod
    def _follow(response: http.client.HTTPResponse, record: Record) -> None:
        while line := response.readline():
            if line.startswith(b"data: [DONE]"):
                return
            if line.startswith(b'data: {"error"'):
                raise ValueError(f"error in the stream: {line[6:120].decode(errors='replace')}")
            if line.startswith(b"data:") and record.token_s is None:
                record.token_s = time.monotonic()
        raise ValueError("the stream broke off before [DONE]")


@dataclass
class Load:
    """Closed-loop clients, half of them streaming; use as a context manager. `records` are the finished requests."""

    endpoint: Endpoint
    model: str
    clients: int = 2
    pause_s: float = 1.5
    tokens: int = 16
    records: list[Record] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        client = Client(self.endpoint, self.model)
        for number in range(self.clients):
            kind = ("plain", "stream")[number % 2]
            thread = threading.Thread(target=self._loop, args=(client, kind), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(self.endpoint.timeout_s)

    def _loop(self, client: Client, kind: str) -> None:
        while not self._stop.wait(self.pause_s):
            self.records.append(client.ask(kind, self.tokens))

    @property
    def failures(self) -> list[str]:
        """What went wrong, as words."""
        return [f"{record.kind}: {record.error}" for record in self.records if record.error]

    @property
    def served(self) -> int:
        """Whole answers."""
        return sum(not record.error for record in self.records)
