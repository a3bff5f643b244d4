"""A root with a simulated machine in it, and the compiled driver to ask."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[3]
SOURCES = REPO / "files/simulated/driver"
FIXTURE = REPO / "tests/fixtures/h100-x4-vm"
VERSION = "580.159.04"
VOLATILE, PERSISTENT = "run/rackserve-simulated", "var/lib/rackserve-simulated"
HARDWARE = "usr/local/lib/rackserve-lab/hardware"
# Runs a list of calls [name, GPU or null, arguments...] and prints their results; a structure becomes a dict.
CHILD = """
import ctypes, json, os, sys
import pynvml

def plain(value):
    if isinstance(value, (ctypes.Structure, ctypes.Union)):
        return {name: plain(getattr(value, name)) for name, _ in value._fields_}
    if isinstance(value, (list, tuple)) or isinstance(value, ctypes.Array):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, ctypes._Pointer):
        return pynvml.nvmlDeviceGetIndex(value)
    return value.__dict__ if hasattr(value, "pid") else value

def one(name, gpu, arguments):
    if name == "become_nobody":
        return os.geteuid() or os.setresuid(65534, 65534, 65534)
    arguments = [handle(one["gpu"]) if isinstance(one, dict) else one for one in arguments]
    if name.startswith("fill:"):
        _, name, structure = name.split(":")
        filled = getattr(pynvml, structure)()
        getattr(pynvml, name)(handle(gpu), ctypes.byref(filled))
        return filled
    return getattr(pynvml, name)(*([] if gpu is None else [handle(gpu)]), *arguments)

def handle(gpu):
    if gpu not in handles:
        handles[gpu] = pynvml.nvmlDeviceGetHandleByIndex(gpu)
    return handles[gpu]

results, handles = [], {}
for name, gpu, *arguments in json.load(sys.stdin):
    try:
        results.append(plain(one(name, gpu, arguments)))
    except pynvml.NVMLError as error:
        results.append("!" + type(error).__name__.replace("NVMLError_", ""))
json.dump(results, sys.stdout)
"""


@functools.cache
def built(version: str = VERSION) -> Path:
    """The driver of that version, compiled without a warning."""
    assert shutil.which("gcc"), "the simulated driver is compiled here: install gcc and make"
    folder = Path(tempfile.mkdtemp(prefix="rackserve-driver-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = ["make", "-s", "-C", str(SOURCES), f"OUT={folder}", f"DRIVER_VERSION={version}", "CFLAGS=-Werror"]
    subprocess.run(command, check=True)
    return folder


class Host:
    """A root that looks like a lab host with the machine of a profile; the module is loaded."""

    def __init__(self, root: Path, machine: Path, version: str = VERSION) -> None:
        self.root = root
        self.driver = built(version)
        shutil.copytree(machine, root / HARDWARE, symlinks=True)
        (root / VOLATILE).mkdir(parents=True)
        (root / PERSISTENT).mkdir(parents=True)
        (root / "sys").symlink_to(root / HARDWARE / "sys")
        self.set({"module.version": version})
        self.environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.driver),
            "RACKSERVE_SIMULATED_ROOT": str(root),
        }

    def state(self, layer: str = VOLATILE) -> dict[str, str]:
        path = self.root / layer / "state"
        return dict(line.split("=", 1) for line in path.read_text().splitlines()) if path.exists() else {}

    def set(self, values: dict[str, str | None], layer: str = VOLATILE) -> None:
        merged = {**self.state(layer), **values}
        text = "".join(f"{key}={value}\n" for key, value in sorted(merged.items()) if value is not None)
        (self.root / layer / "state.new").write_text(text)
        (self.root / layer / "state.new").rename(self.root / layer / "state")

    def run(self, *words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in words],
            input=stdin,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def ask(self, *calls: list[Any], init: bool = True) -> list[Any]:
        """Results of pynvml calls in one process of its own."""
        todo = [["nvmlInit", None], *calls] if init else list(calls)
        done = self.run(sys.executable, "-c", CHILD, stdin=json.dumps(todo))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)[1:] if init else json.loads(done.stdout)

    def get(self, name: str, gpu: int | None = 0, *arguments: Any) -> Any:
        return self.ask([name, gpu, *arguments])[0]

    def smi(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, SOURCES / "nvidia-smi", *words)

    @contextmanager
    def running(self, *words: str | Path) -> Iterator[subprocess.Popen[str]]:
        """A program in the foreground, ended with TERM."""
        process = subprocess.Popen([str(word) for word in words], env=self.environment, text=True)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=10)


def wait_for(true: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.02)
