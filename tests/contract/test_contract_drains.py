"""What has work is drained before it is stopped."""

from __future__ import annotations

import pytest
from contract_support import REPO, read_yaml


@pytest.mark.parametrize("entry", ["rest", "stop"])
def test_a_host_is_drained_before_its_engines_are_stopped(entry: str) -> None:
    tasks = read_yaml(REPO / f"roles/vllm/tasks/{entry}.yml")
    drained = [
        number for number, task in enumerate(tasks) if task.get("ansible.builtin.import_tasks") == "rest-drain.yml"
    ]
    stopped = [number for number, task in enumerate(tasks) if "ansible.builtin.systemd_service" in task]
    assert drained and stopped and drained[0] < stopped[0]
