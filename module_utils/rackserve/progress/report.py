"""How long work says where it is: a small file, written by the one who works, read by the one who asks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Callable

_WRITE_EVERY_S = 0.5


class Report:
    """Where the work is. Without a path it only keeps the times. Safe to use from several threads."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: seconds, the same for all processes of the host."""
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {}
        self.step_s: dict[str, float] = {}

    def phase(self, name: str, total: float | None = None, unit: str = "", start: float = 0.0) -> None:
        """A phase begins, the one before it ends. Units: "B", "s" (what it usually takes), or a plural noun."""
        with self._lock:
            self._end_phase()
            self._state = {
                "phase": name,
                "done": start,
                "total": total,
                "unit": unit,
                "start": start,
                "since": self._clock(),
            }
            self._write()

    def add(self, amount: float) -> None:
        """``amount`` more of the phase is done."""
        with self._lock:
            if self._state:
                self._state["done"] += amount

    def reach(self, done: float) -> None:
        """``done`` of the phase is done, all in all."""
        with self._lock:
            if self._state:
                self._state["done"] = done

    def end(self) -> None:
        """The last phase ends."""
        with self._lock:
            self._end_phase()
            self._state = {}

    def sampled(self, measure: Callable[[], float], every_s: float = 1.0) -> AbstractContextManager[None]:
        """Inside, ``measure`` is asked every ``every_s`` for what is done: for programs that do not say it."""
        return _repeated(lambda: self.reach(measure()), every_s)

    def kept(self, every_s: float = _WRITE_EVERY_S) -> AbstractContextManager[None]:
        """Inside, what ``add`` and ``reach`` say is written every ``every_s``; a new phase is written at once."""
        return _repeated(self.write, every_s)

    def write(self) -> None:
        """Write the present state."""
        with self._lock:
            self._write()

    def _end_phase(self) -> None:
        if self._state:
            name = str(self._state["phase"])
            spent_s = self._clock() - float(self._state["since"])
            self.step_s[name] = round(self.step_s.get(name, 0.0) + spent_s, 2)

    def _write(self) -> None:
        if self._path is not None:
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps(self._state), encoding="utf-8")
            part.replace(self._path)


@contextmanager
def _repeated(step: Callable[[], None], every_s: float) -> Iterator[None]:
    """Inside, a thread calls ``step`` every ``every_s``."""
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(every_s):
            step()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def progress_of(state: dict[str, Any], now: float) -> dict[str, Any]:
    """What a module returns as ``progress`` for the content of a report, read at ``now`` (seconds, same clock).

    {phase, done, total, unit, start, elapsed_s, finished: False}; of a phase in seconds, what has passed is done.
    """
    elapsed_s = max(0.0, now - float(state.get("since", now)))
    told = {key: state.get(key, default) for key, default in (("done", 0), ("total", None), ("unit", ""), ("start", 0))}
    if told["unit"] == "s":
        told["done"] = round(elapsed_s, 1)
    return {"phase": state.get("phase", "starting"), **told, "elapsed_s": round(elapsed_s, 1), "finished": False}


FINISHED: dict[str, Any] = {"finished": True}
"""The ``progress`` of work that is done, or that was not asked to be watched."""
