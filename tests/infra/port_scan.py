"""A TCP connect scan: `python port_scan.py ADDRESS PORTS [SOURCE]` prints {port: what it said} for all but refusals.

PORTS is `all` or a list such as 22,8000-8100, SOURCE one of the addresses here. Run it inside a network namespace to
see what a host there sees. What did not answer is asked a second time, alone and for longer, so that a busy machine
makes no port look closed.
"""

from __future__ import annotations

import errno
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterable

FIRST_S, SECOND_S, AT_ONCE = 1.0, 2.5, 800


def ports_of(text: str) -> list[int]:
    """Port numbers of `all`, or of a list of numbers and ranges."""
    if text == "all":
        return list(range(1, 65536))
    pairs = (part.partition("-") for part in text.split(",") if part)
    return sorted({port for low, _, high in pairs for port in range(int(low), int(high or low) + 1)})


def said(code: int) -> str:
    """What an outcome of connect() means."""
    return {0: "open", errno.ECONNREFUSED: "refused"}.get(code, errno.errorcode.get(code, str(code)))


def scan(address: str, ports: Iterable[int], timeout_s: float, source: str) -> dict[int, str]:
    """Connect to each port: open, refused, silent (no answer within `timeout_s`) or the name of an error."""
    family, _, _, _, target = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0]
    waiting, answers, left = selectors.DefaultSelector(), {}, iter(ports)
    started: dict[socket.socket, tuple[int, float]] = {}

    def begin(port: int) -> None:
        one = socket.socket(family, socket.SOCK_STREAM)
        one.setblocking(False)
        if source:
            one.bind((source, 0))
        code = one.connect_ex((target[0], port, *target[2:]))
        if code != errno.EINPROGRESS:
            answers[port] = said(code)
            one.close()
            return
        started[one] = (port, time.monotonic() + timeout_s)
        waiting.register(one, selectors.EVENT_WRITE)

    def finish(one: socket.socket, outcome: str) -> None:
        answers[started.pop(one)[0]] = outcome
        waiting.unregister(one)
        one.close()

    more = True
    while more or started:
        while more and len(started) < AT_ONCE:
            port = next(left, None)
            more = port is not None
            if port is not None:
                begin(port)
        for key, _ in waiting.select(0.05):
            one = key.fileobj
            if isinstance(one, socket.socket):
                finish(one, said(one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))
        now = time.monotonic()
        for one in [one for one, (_, until_s) in started.items() if until_s < now]:
            finish(one, "silent")
    return answers


def main() -> None:
    """Scan, ask the silent ones again, print."""
    address, ports, source = sys.argv[1], ports_of(sys.argv[2]), (sys.argv[3:] or [""])[0]
    answers = scan(address, ports, FIRST_S, source)
    answers |= scan(address, [port for port, what in answers.items() if what == "silent"], SECOND_S, source)
    interesting = {port: what for port, what in sorted(answers.items()) if what != "refused"}
    sys.stdout.write(json.dumps({"asked": len(answers), "answers": interesting}) + "\n")


if __name__ == "__main__":
    main()
