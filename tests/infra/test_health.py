"""Health of the lab's hosts: a sweep without a finding, a fault with its fix, the timer under its own restrictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from conftest import REPO, Run

Shell = Callable[[str, str], str]
Module = Callable[..., dict[str, Any]]

CATALOGUE = yaml.safe_load((REPO / "files/simulated/faults.yml").read_text("utf-8"))
# The kernel log of this host holds the faults that tests put there.
NODE = "node3"
METRICS = "/var/lib/rackserve-health/rackserve_health.prom"


def test_a_sweep_of_healthy_hosts_finds_nothing(playbook: Run, tmp_path: Path) -> None:
    output = tmp_path / "health.json"
    done = playbook("check-health", "--limit", f"all:!{NODE}", "-e", f"health_output={output}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    assert len(found) == 4
    assert [(host, one["unknown"]) for host, one in found.items() if one["unknown"]] == []
    # Told where the lab's own machine lacks CAP_SYS_RESOURCE: it cannot give its hosts more than it has.
    findings = [each for one in found.values() for each in one["findings"]]
    assert [each for each in findings if "PID 1 lacks CAP_SYS_RESOURCE" not in each["seen"]] == []


def test_a_fault_is_named_with_its_fix_by_playbook_program_and_metrics(
    playbook: Run, module: Module, shell: Shell
) -> None:
    shell(NODE, "systemctl start rackserve-host-health.service")
    module(NODE, "simulated_fault", catalogue=CATALOGUE, fault="gpu-off-bus", parameters={"gpu": 3})
    try:
        done = playbook("check-health", "--limit", NODE)
        assert done.returncode == 2
        assert "gpu-lost" in done.stdout and "power it off and on" in done.stdout
        program = "python3 /usr/local/lib/rackserve/host-health"
        assert shell(NODE, f"{program} >/dev/null; echo $?").strip() == "2"
        shell(NODE, "systemctl start rackserve-host-health.service")
        metrics = shell(NODE, f"cat {METRICS}")
        assert 'check="gpu-lost",severity="critical",subject="GPU 3"' in metrics
        assert 'check="gpu-xid",severity="critical",subject="GPU 3"' in metrics
    finally:
        module(NODE, "simulated_fault", catalogue=CATALOGUE, fault="all", state="absent")
    shell(NODE, "systemctl start rackserve-host-health.service")
    metrics = shell(NODE, f"cat {METRICS}")
    assert 'check="gpu-lost",status="pass"' in metrics
    assert 'check="gpu-xid",status="fail"' in metrics, "what the driver said stays until the next boot"


def test_the_timer_runs_and_reads_everything_without_privileges(shell: Shell) -> None:
    assert shell(NODE, "systemctl is-active rackserve-host-health.timer").strip() == "active"
    shell(NODE, "systemctl start rackserve-host-health.service")
    text = shell(NODE, f"cat {METRICS}")
    assert 'status="unknown"' not in text, text
    assert shell(NODE, f"stat -c %U:%a {METRICS}").strip() == "rackserve-health:644"
