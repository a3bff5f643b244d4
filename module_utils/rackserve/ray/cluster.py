"""A Ray cluster's nodes and GPUs, out of what its own command line prints.

`ray status` ends with 0 where there is no cluster, and hangs where the head is gone: only counted nodes within a time
limit are a proof.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Callable

Run = Callable[[Sequence[str], float], "tuple[int | None, str]"]
"""Runs a command for so many seconds at most; returns (exit status, None where it took longer, and its output)."""

_ACTIVE = re.compile(r"^Active:\n((?: .*\n)*)", re.MULTILINE)
_NODE = re.compile(r"^ (\d+) ", re.MULTILINE)
_GPU = re.compile(r"^ +([\d.]+)/([\d.]+) GPU", re.MULTILINE)
_USAGE = re.compile(r"^Total Usage:\n((?: .*\n)*)", re.MULTILINE)
_REFUSED = ("AuthenticationError", "InvalidAuthToken")
_POLL_S = 2.0


@dataclass(frozen=True)
class Status:
    """What a cluster has."""

    nodes: int
    gpus: float
    gpus_used: float


@dataclass(frozen=True)
class Cluster:
    """Where a cluster is asked: its head, the release's Python, the file that holds its token."""

    python: str
    address: str
    token_file: str
    timeout_s: float = 10.0


@dataclass(frozen=True)
class Seen:
    """What was found; `why` is empty where the cluster is as it should be."""

    nodes: int = 0
    gpus: float = 0.0
    gpus_used: float = 0.0
    why: str = ""


def parse_status(text: str) -> Status | None:
    """The cluster of `ray status`; None where it prints none."""
    active, usage = _ACTIVE.search(text), _USAGE.search(text)
    if not active or not usage:
        return None
    gpus = _GPU.search(usage[1])
    used, total = (float(gpus[1]), float(gpus[2])) if gpus else (0.0, 0.0)
    return Status(sum(int(count) for count in _NODE.findall(active[1])), total, used)


def run_for(token_file: str) -> Run:
    """A Run whose commands know the token, and leave nothing in the release."""
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token_file, "RAY_USAGE_STATS_ENABLED": "0"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {**kept, **own, "PYTHONDONTWRITEBYTECODE": "1"}

    def run(command: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
        try:
            done = subprocess.run(
                list(command), env=environment, capture_output=True, text=True, errors="replace", timeout=timeout_s,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None, ""
        except OSError as problem:
            return 127, str(problem)
        return done.returncode, done.stdout + done.stderr

    return run


def _ask(cluster: Cluster, words: Sequence[str], run: Run) -> tuple[str, str]:
    """(output, why there is none)."""
    command = [cluster.python, "-m", "ray.scripts.scripts", *words, "--address", cluster.address]
    status, output = run(command, cluster.timeout_s)
    if status is None:
        return "", f"ray {words[0]} gave no answer within {cluster.timeout_s:g} s: look at the head's journal"
    if any(word in output for word in _REFUSED):
        return "", f"the token in {cluster.token_file} is not this cluster's: write the secret ray_token anew"
    if status != 0:
        last = (output.strip().splitlines() or ["no output"])[-1].strip()
        return "", f"ray {words[0]} ended with {status}: {last[:200]}"
    return output, ""


def look(cluster: Cluster, run: Run) -> Seen:
    """Ask a cluster once, its head first: `ray status` without a head takes as long as its timeout."""
    _, why = _ask(cluster, ["health-check"], run)
    output, why = ("", why) if why else _ask(cluster, ["status"], run)
    if why:
        return Seen(why=f"{cluster.address}: {why}")
    status = parse_status(output)
    if status is None:
        return Seen(why=f"{cluster.address}: the head answers and tells of no node yet")
    return Seen(**asdict(status))


def wait(
    cluster: Cluster,
    wanted: tuple[int, int],
    wait_s: float,
    run: Run,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Seen:
    """Ask until the cluster has (nodes, GPUs), ``wait_s`` seconds at most; ``why`` says what is missing."""
    nodes, gpus = wanted
    until_s = clock() + wait_s
    while True:
        seen = look(cluster, run)
        if not seen.why and seen.nodes >= nodes and seen.gpus >= gpus:
            return seen
        if clock() >= until_s:
            break
        sleep(_POLL_S)
    if seen.why:
        return seen
    has = f"{seen.nodes} of {nodes} nodes and {seen.gpus:g} of {gpus} GPUs"
    why = f"{cluster.address}: it has {has}: look at journalctl -u 'ray-*' on the hosts that are missing"
    return Seen(seen.nodes, seen.gpus, seen.gpus_used, why)


def info(given: dict[str, Any], run: Run | None = None) -> dict[str, Any]:
    """What the module returns, from its options."""
    cluster = Cluster(given["python"], given["address"], given["token_file"], given["timeout_s"])
    wanted = (given["nodes"], given["gpus"])
    seen = wait(cluster, wanted, given["wait_s"], run or run_for(cluster.token_file))
    return {"complete": not seen.why, **asdict(seen)}
