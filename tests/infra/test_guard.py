"""An engine does not start while a foreign process holds its GPU; the process is named and left alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Run, whole

Shell = Callable[[str, str], str]
Module = Callable[..., dict[str, Any]]
HOST = "node4"
pytestmark = whole
FAULT = ("-e", f"on={HOST}", "-e", "fault=foreign-process")
PARAMETERS = {"fault_parameters": {"gpu": 0, "process_name": "trainer"}}


@pytest.fixture
def engine(plan: dict[str, Any], module: Module, shell: Shell, playbook: Run) -> Iterator[dict[str, Any]]:
    """The engine of the host, drained and stopped; afterwards site.yml starts it and proves it by completions."""
    instance: dict[str, Any] = next(item for item in plan["instances"] if item["host"] == HOST)
    gateway = plan["gateway"]
    options = {
        "socket": gateway["stats_socket"],
        "state_file": gateway["server_state_file"],
        "targets": [instance["gateway_target"]],
    }
    module("gw", "gateway_servers", **options, state="drain", wait_idle_s=60)
    shell(HOST, f"systemctl stop {instance['unit']}")
    yield instance
    shell(HOST, f"systemctl stop {instance['unit']}")
    module("gw", "gateway_servers", **options, state="ready")
    done = playbook("site")
    assert done.returncode == 0, done.stdout[-3000:]
    assert shell(HOST, f"systemctl is-active {instance['unit']}").strip() == "active"
    said = shell(HOST, f"journalctl -u {instance['unit']} -o cat | grep -F 'simulated GPU 0 free' | tail -1")
    assert said.startswith(f"{instance['unit']} may start")


@pytest.fixture
def trainer(engine: dict[str, Any], playbook: Run, shell: Shell) -> Iterator[str]:
    """A foreign process on the engine's simulated GPU: its pid and when it started."""
    assert engine["gpu_ids"] == [0]
    done = playbook("inject-fault", *FAULT, "-e", json.dumps(PARAMETERS))
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        yield shell(HOST, "pgrep -x trainer").strip()
    finally:
        cleared = playbook("clear-fault", *FAULT)
        assert cleared.returncode == 0, cleared.stdout + cleared.stderr


def born(shell: Shell, pid: str) -> str:
    """Name and start time of a process: another one under the same pid has another."""
    return shell(HOST, f"ps -o comm=,lstart= -p {pid}").strip()


def test_a_foreign_process_stops_the_start_and_is_left_alone(
    engine: dict[str, Any], trainer: str, playbook: Run, shell: Shell
) -> None:
    unit, named, before = engine["unit"], f"process {trainer} (trainer)", born(shell, trainer)
    assert before.startswith("trainer")
    since = shell(HOST, "date +%s").strip()
    assert shell(HOST, f"if systemctl start {unit}; then echo started; else echo refused; fi").strip() == "refused"
    shell(HOST, f"systemctl stop {unit}")
    journal = shell(HOST, f"journalctl -u {unit} --since @{since} -o cat").splitlines()
    refusals = [line for line in journal if named in line]
    assert refusals
    assert all(line.startswith(f"{unit}: simulated GPU 0 (GPU-") for line in refusals)
    assert not [line for line in journal if "Started" in line]

    done = playbook("site")
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert f"{unit}: simulated GPU 0 (GPU-" in said, done.stdout[-3000:]
    assert f"is held by {named} of user nobody, 4096 MiB" in said
    assert "rackserve never signals a process that is not its own" in said
    assert shell(HOST, f"systemctl show -P ActiveState {unit}").strip() in ("inactive", "failed")
    assert born(shell, trainer) == before


def test_memory_that_nobody_owns_stops_the_start(engine: dict[str, Any], playbook: Run, shell: Shell) -> None:
    unit, fault = engine["unit"], ("-e", f"on={HOST}", "-e", "fault=orphan-memory")
    parameters = {"fault_parameters": {"gpu": 0, "used_mib": 67584}}
    done = playbook("inject-fault", *fault, "-e", json.dumps(parameters))
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        refused = playbook("site")
        assert refused.returncode != 0
        assert "MiB are allocated that no process owns" in refused.stdout
        assert shell(HOST, f"systemctl show -P ActiveState {unit}").strip() == "inactive"
    finally:
        cleared = playbook("clear-fault", *fault)
        assert cleared.returncode == 0, cleared.stdout + cleared.stderr
