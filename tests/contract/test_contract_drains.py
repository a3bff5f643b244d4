"""What has work is drained before it is stopped; an operation is not refused a start for those before it."""

from __future__ import annotations

from typing import Any

import pytest
from contract_support import REPO, read_yaml


def _starts(task: dict[str, Any]) -> bool:
    service = task.get("ansible.builtin.systemd_service") or {}
    argv = str((task.get("ansible.builtin.command") or {}).get("argv", ""))
    return service.get("state") == "started" or "'systemctl', 'start'" in argv


def _forgets(task: dict[str, Any]) -> bool:
    return "reset-failed" in str((task.get("ansible.builtin.command") or {}).get("argv", ""))


STARTS = sorted(
    path.name for path in (REPO / "roles/vllm/tasks").glob("*.yml") if any(_starts(task) for task in read_yaml(path))
)


@pytest.mark.parametrize("entry", ["rest", "stop"])
def test_a_host_is_drained_before_its_engines_are_stopped(entry: str) -> None:
    tasks = read_yaml(REPO / f"roles/vllm/tasks/{entry}.yml")
    drained = [
        number for number, task in enumerate(tasks) if task.get("ansible.builtin.import_tasks") == "rest-drain.yml"
    ]
    stopped = [number for number, task in enumerate(tasks) if "ansible.builtin.systemd_service" in task]
    assert drained and stopped and drained[0] < stopped[0]


def test_engines_are_started_where_the_role_says_so() -> None:
    assert {"start.yml", "roll-start.yml", "roll-group-start.yml", "return.yml"} <= set(STARTS)


@pytest.mark.parametrize("name", STARTS)
def test_earlier_crashes_are_forgotten_before_an_engine_is_started(name: str) -> None:
    tasks = read_yaml(REPO / "roles/vllm/tasks" / name)
    forgotten = [number for number, task in enumerate(tasks) if _forgets(task)]
    started = [number for number, task in enumerate(tasks) if _starts(task)]
    assert forgotten and forgotten[0] < started[0]
