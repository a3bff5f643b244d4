"""The ways to a real host: its commands, its driver in a process of its own, its clock."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable

from ..gpu.info.nvml import Nvml
from ..gpu.settings.nvml import LIBRARY, NvmlError
from .check import Unreadable
from .gpus import Gpu, read_gpus
from .look import Clock, Driver, Tools, Volume

COMMAND_S = 20.0
DRIVER_S = 30.0
MEASURE_S = 1800.0
_UNSYNCHRONISED, _NANOSECONDS = 0x40, 0x2000
_READ_BYTES = 65536


def run_command(words: list[str], timeout_s: float = COMMAND_S) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command in the C locale; 127 where there is none, or it takes too long."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(words, capture_output=True, check=False, env=environment, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return 124, "", f"{words[0]} did not answer within {timeout_s:g} s"
    except OSError as problem:
        return 127, "", f"{words[0]}: {problem.strerror}"
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def ask_driver(library: str = LIBRARY) -> Driver:
    """What NVML says, asked in this process."""
    try:
        nvml = Nvml(library)
        return Driver(nvml.system_text("nvmlSystemGetDriverVersion"), read_gpus(nvml))
    except NvmlError as error:
        return Driver("", [], str(error))


def apart(ask: Callable[[], Driver], timeout_s: float = DRIVER_S) -> Driver:
    """The same in a child: a call into a sick driver may never return, and cannot be ended either."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = ask()
            said = {"version": found.version, "problem": found.problem, "gpus": [gpu.plain() for gpu in found.gpus]}
            with os.fdopen(writer, "w") as channel:
                json.dump(said, channel)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        answer = _read_all(reader, timeout_s)
    finally:
        os.close(reader)
    if answer is None:
        os.kill(child, signal.SIGKILL)  # one that hangs in the kernel stays until it returns
        return Driver("", [], f"NVML did not answer within {timeout_s:g} s: journalctl -k -g NVRM; drain and reboot")
    os.waitpid(child, 0)
    try:
        said = json.loads(answer)
    except ValueError:
        return Driver("", [], "NVML ended the process that asked it: journalctl -k -g NVRM; drain and reboot")
    return Driver(said["version"], [Gpu(**gpu) for gpu in said["gpus"]], said["problem"])


def _read_all(handle: int, timeout_s: float) -> bytes | None:
    until_s, found = time.monotonic() + timeout_s, b""
    while True:
        ready, _, _ = select.select([handle], [], [], max(0.0, until_s - time.monotonic()))
        if not ready:
            return None
        part = os.read(handle, _READ_BYTES)
        if not part:
            return found
        found += part


def volume_of(path: Path) -> Volume:
    """Room of a file system. Raises OSError."""
    seen = os.statvfs(path)
    return Volume(seen.f_blocks * seen.f_frsize, seen.f_bavail * seen.f_frsize, seen.f_files, seen.f_favail)


class _Timex(ctypes.Structure):
    """struct timex, as far as it is read; the kernel writes more."""

    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("rest", ctypes.c_long * 40),
    )  # fmt: skip


def kernel_clock() -> Clock:
    """Whether the kernel's clock is held by a time service, asked without setting it. Raises Unreadable."""
    seen = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(seen))
    except (OSError, AttributeError) as problem:
        raise Unreadable(f"adjtimex: {problem}") from None
    if state < 0:
        raise Unreadable(f"adjtimex: {os.strerror(ctypes.get_errno())}; it must not be forbidden to the unit")
    unit_s = 1e-9 if seen.status & _NANOSECONDS else 1e-6
    return Clock(not seen.status & _UNSYNCHRONISED, abs(seen.offset) * unit_s)


def _no_clock() -> Clock:
    raise Unreadable("the clock is not part of a copied tree")


def _no_driver() -> Driver:
    return Driver("", [], "the driver is not part of a copied tree")


def tools_for(root: Path, library: str = "") -> Tools:
    """What a root offers: `/` everything; a copied tree its files, and the driver's library where one is named."""
    driver: Callable[[], Driver] = _no_driver
    here: Any = root == Path("/")
    simulated = bool(root.name) and os.environ.get("RACKSERVE_SIMULATED_ROOT") == str(root)
    if here or library or simulated:
        driver = lambda: apart(lambda: ask_driver(library or LIBRARY))  # noqa: E731 - one expression
    if not here:
        return Tools(None, driver, volume_of, _no_clock)
    return Tools(run_command, driver, volume_of, kernel_clock, measure=lambda words: run_command(words, MEASURE_S))
