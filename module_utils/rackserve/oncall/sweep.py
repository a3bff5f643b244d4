"""Ask many hosts at once, and give up on those that do not answer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from typing import Callable, NamedTuple

from .hosts import Host

MOST_AT_ONCE = 64


class Answer(NamedTuple):
    """What a host said; ``problem`` is one line and empty where it answered, ``wall_s`` what it took."""

    text: str = ""
    problem: str = ""
    wall_s: float = 0.0


Ask = Callable[[Host], str]
"""Asks one host and returns its output. Raises an Exception whose text is one line."""


def sweep(hosts: Sequence[Host], ask: Ask, limit_s: float) -> dict[str, Answer]:
    """Every host's answer by name, in the order of ``hosts``; one that is silent for ``limit_s`` is named as such.

    Threads of silent hosts are left behind: a call into a dead connection cannot be ended from here.
    """
    waiting: queue.SimpleQueue[Host] = queue.SimpleQueue()
    for host in hosts:
        waiting.put(host)
    answers: queue.SimpleQueue[tuple[str, Answer]] = queue.SimpleQueue()

    def work() -> None:
        while True:
            try:
                host = waiting.get_nowait()
            except queue.Empty:
                return
            answers.put((host.name, _ask(host, ask)))

    for _ in range(min(len(hosts), MOST_AT_ONCE)):
        threading.Thread(target=work, daemon=True).start()
    found: dict[str, Answer] = {}
    until_s = time.monotonic() + limit_s
    while len(found) < len(hosts):
        try:
            name, answer = answers.get(timeout=max(0.0, until_s - time.monotonic()))
        except queue.Empty:
            break
        found[name] = answer
    silent = Answer("", f"no answer within {limit_s:g} s: look at it by its console", limit_s)
    return {host.name: found.get(host.name, silent) for host in hosts}


def _ask(host: Host, ask: Ask) -> Answer:
    started_s = time.monotonic()
    try:
        return Answer(ask(host), "", time.monotonic() - started_s)
    except Exception as error:  # whatever one host does must not take the others with it
        words = " ".join(str(error).split()) or type(error).__name__
        return Answer("", words, time.monotonic() - started_s)
