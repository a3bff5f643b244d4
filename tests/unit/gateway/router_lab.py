"""A real vllm-router, started with the words that the role writes into its unit."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway_lab import ENGINE_KEY, REPO, Engine, deployment, free_port, render

ROLE = REPO / "roles/router"
SETTINGS = {
    "policy": "cache_aware",
    "cache_threshold": 0.5,
    "balance_abs_threshold": 32,
    "balance_rel_threshold": 1.0001,
}


def routed(name: str, engines: list[Engine], **options: Any) -> dict[str, Any]:
    """A deployment of the gateway's slice with a router in front of its engines, as the plan compiles it."""
    urls = [f"http://127.0.0.1:{engine.port}" for engine in engines]
    router = {
        "kind": "vllm-router",
        "unit": f"rackserve-router-{name}.service",
        "address": "127.0.0.1",
        "port": free_port(),
        "metrics_port": free_port(),
        **SETTINGS,
        "workers": urls,
    }
    plain = deployment(name, list(engines))
    engines_part = {
        "backend": f"be_{name}-engines",
        "probe_backend": f"probe_{name}-engines",
        "max_inflight_per_server": plain["max_inflight_per_server"],
        "slots": [{**slot, "slot": f"e{number}"} for number, slot in enumerate(plain["slots"])],
    }
    own = {"slot": "r0", "instance": None, "host": "gw", "address": "127.0.0.1", "port": router["port"]}
    inflight = plain["max_inflight_per_server"] * len(engines)
    return {
        **plain,
        "router": router,
        "engines": engines_part,
        "slots": [own],
        "max_inflight_per_server": inflight,
        **options,
    }


def pools(name: str, prefill: list[Engine], decode: list[Engine]) -> dict[str, Any]:
    """The same for a deployment of prefill and decode pools, which has no way around its router."""
    found = routed(name, [])
    del found["router"]["workers"]
    found["router"]["prefill"] = [f"http://127.0.0.1:{engine.port}" for engine in prefill]
    found["router"]["decode"] = [f"http://127.0.0.1:{engine.port}" for engine in decode]
    return {**found, "engines": None, "max_inflight_per_server": 8}


def unit_text(one: dict[str, Any], **overrides: Any) -> str:
    given = {"deployment": one, "__router_release": {"path": "/opt/rackserve/releases/router-0.1.17"}, **overrides}
    return render("rackserve-router.service.j2", ROLE, **given)


def words(unit: str) -> list[str]:
    """ExecStart as a list of words."""
    line = next(line for line in unit.replace("\\\n", " ").splitlines() if line.startswith("ExecStart="))
    return shlex.split(line.removeprefix("ExecStart="))


@contextmanager
def routing(one: dict[str, Any], folder: Path, **overrides: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The router of a deployment, once it knows an engine; ended with the test."""
    unit = unit_text(one, **overrides)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "SPT_NOENV": "1"}
    if "EnvironmentFile=" in unit:
        environment["OPENAI_API_KEY"] = ENGINE_KEY
    with (folder / "router.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, *words(unit)[1:]], env=environment, stdout=log, stderr=log)
    try:
        wait_ready(one["router"], folder)
        yield process
    finally:
        process.terminate()
        process.wait(10)


def wait_ready(router: dict[str, Any], folder: Path) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{router['port']}/readiness", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the router is not ready; log:\n" + (folder / "router.log").read_text())
