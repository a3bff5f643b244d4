"""The sweep of GPU processes on the lab: somebody else's process is named and lives on, serving engines too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml
from conftest import REPO, Run

Shell = Callable[[str, str], str]
Module = Callable[..., dict[str, Any]]
CATALOGUE = yaml.safe_load((REPO / "files/simulated/faults.yml").read_text("utf-8"))
NODE = "node3"


def test_a_foreign_process_is_named_and_not_signalled(playbook: Run, module: Module, shell: Shell) -> None:
    main = shell(NODE, "systemctl show -P MainPID 'vllm-*'")
    module(NODE, "simulated_fault", catalogue=CATALOGUE, fault="foreign-process", parameters={"gpu": 3})
    try:
        pid = shell(NODE, "pgrep -o -x train").strip()
        done = playbook("sweep-gpu-processes", "--limit", f"{NODE},gw")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"process {pid} (train): foreign" in done.stdout, done.stdout
        assert shell(NODE, "pgrep -o -x train").strip() == pid
        assert shell(NODE, "systemctl show -P MainPID 'vllm-*'") == main
    finally:
        module(NODE, "simulated_fault", catalogue=CATALOGUE, fault="all", state="absent")
