"""Light constant load on the gateway, plain and streamed, for tests of operations; every failure is kept."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from rackserve.completion.client import Ask, CompletionError, Endpoint, complete


@dataclass
class Load:
    """Closed-loop clients; use as a context manager. `failures` are the errors as words, `served` counts answers."""

    endpoint: Endpoint
    model: str
    clients: int = 2
    pause_s: float = 1.5
    served: int = 0
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        for number in range(self.clients):
            kind = ("plain", "stream")[number % 2]
            thread = threading.Thread(target=self._client, args=(kind,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _client(self, kind: str) -> None:
        while not self._stop.wait(self.pause_s):
            started = time.monotonic()
            try:
                complete(self.endpoint, Ask(self.model, "The operator drains", kind, 16, False))
            except CompletionError as error:
                self.failures.append(f"{kind}: {error}")
            else:
                self.served += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
