"""Clients that may lose nothing while something is done, and an eye on how many engines serve meanwhile."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from conftest import STATE
from load import Load
from rackserve.completion.client import Endpoint
from scenarios import Outcome, record

_WATCH = """
import socket, time
backend = "{backend}"
while True:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect("{socket}")
        link.sendall(b"show stat\\n")
        text = b""
        while chunk := link.recv(65536):
            text += chunk
    rows = [line.split(",") for line in text.decode().lstrip("# ").splitlines() if line]
    head = rows[0]
    up = [r for r in rows[1:] if r[0] == backend and r[1] != "BACKEND" and r[head.index("status")].startswith("UP")]
    print(len(up), flush=True)
    time.sleep(0.3)
"""


class InService:
    """How many servers of a backend the gateway had in service at each look, while the context lasts."""

    def __init__(self, backend: str, socket_path: str) -> None:
        source = _WATCH.format(backend=backend, socket=socket_path)
        self.command = ["/usr/bin/ssh", "-F", str(STATE / "ssh_config"), "gw", "python3 -u -"]
        self.source, self.counts, self.watched = source, list[int](), False

    def __enter__(self) -> InService:
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.process.stdin is not None
        self.process.stdin.write(self.source)
        self.process.stdin.close()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        return self

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.counts.append(int(line))

    def __exit__(self, *_: object) -> None:
        self.watched = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        self.reader.join(5)


@contextmanager
def no_request_lost(plan: Mapping[str, Any], base_url: str, secrets: Mapping[str, str], what: str) -> Iterator[Outcome]:
    """A streaming and a plain client while the block lasts; fails for a lost request or fewer than N-1 in service.

    An engine spins for a second after each message: two slow clients leave the lab's two cores room for a start.
    """
    made = Outcome(what)
    client = Endpoint(base_url, str(STATE / "gateway-ca.pem"), secrets["api_key_client"], timeout_s=120)
    part = plan["gateway"]["deployments"][0]
    watched = InService(part["backend"], plan["gateway"]["stats_socket"])
    with Load(client, part["served_model_name"], clients=2, pause_s=1.5) as load, watched as seen:
        time.sleep(3)
        yield made
    assert load.failures == [], what
    assert load.served > 0
    assert seen.watched and seen.counts and min(seen.counts) >= len(plan["instances"]) - 1, seen.counts
    made.requests = load.served
    made.slowest_s = max(item.took_s for item in load.records)
    record(made)
