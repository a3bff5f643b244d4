"""Lines for the kernel log of a simulated host, and Xids for those who wait for them in NVML."""

from __future__ import annotations

import array
import fcntl
import os
import stat
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .state import VOLATILE

SEQUENCE = "kmsg-seq"
EVENTS = "events"
MARK = "simulated"
# journald reads what is there and takes the first record only: the pipe has to be empty before the next one.
_WAIT_S = 2.0


class KernelLogError(Exception):
    """A line cannot be written; the text is one line."""


def marked(line: str) -> str:
    """The line, saying that it is simulated."""
    return line if MARK in line else f"{line} ({MARK})"


def write_line(root: Path, priority: int, line: str) -> None:
    """One record for the host's /dev/kmsg. Raises KernelLogError."""
    with _locked(root / VOLATILE / SEQUENCE) as (text, write):
        number = int(text or "0") + 1
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        _put(root / "dev/kmsg", f"{priority},{number},{usec},-;{marked(line)}\n".encode("ascii", "backslashreplace"))
        write(f"{number}\n")


def add_event(root: Path, gpu: int, xid: int) -> None:
    """One Xid for NVML's event sets."""
    with _locked(root / VOLATILE / EVENTS) as (text, write):
        write(f"{text}{len(text.splitlines()) + 1} {gpu} {xid}\n")


@contextmanager
def _locked(path: Path) -> Iterator[tuple[str, _Writer]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        text = path.read_text("ascii")
        yield text, _Writer(handle, text)
    finally:
        os.close(handle)


class _Writer:
    """Replaces what a locked file holds; what only grew is appended, so that readers never see less."""

    def __init__(self, handle: int, old: str) -> None:
        self._handle = handle
        self._old = old

    def __call__(self, text: str) -> None:
        same = len(self._old) if text.startswith(self._old) else 0
        os.pwrite(self._handle, text[same:].encode("ascii"), same)
        os.ftruncate(self._handle, len(text))


def _put(path: Path, record: bytes) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise KernelLogError(
            f"cannot write a kernel line to {path}: {error.strerror}; is this a booted lab host?"
        ) from error
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISCHR(mode):
            raise KernelLogError(f"{path} is the kernel log of the machine itself: lines go only into a lab host's own")
        os.write(handle, record)
        if stat.S_ISFIFO(mode):
            _drained(handle, path)
    except BlockingIOError as error:
        raise KernelLogError(f"{path} is full: nobody reads it; is systemd-journald running?") from error
    finally:
        os.close(handle)


def _drained(handle: int, path: Path) -> None:
    waiting = array.array("i", [0])
    end = time.monotonic() + _WAIT_S
    while True:
        fcntl.ioctl(handle, termios.FIONREAD, waiting)
        if not waiting[0]:
            return
        if time.monotonic() > end:
            raise KernelLogError(f"{path}: nobody read the line for {_WAIT_S:.0f} s; is systemd-journald running?")
        time.sleep(0.005)
