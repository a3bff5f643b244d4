"""The role's filters, its unit, and the task that must not be templated where it is delegated."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import rackserve_firewall as filters
import yaml
from ansible.errors import AnsibleFilterError

ROLE = Path(__file__).resolve().parents[3] / "roles/firewall"


def test_filters_pass_options_and_turn_errors_into_theirs():
    given = filters.FilterModule().filters()
    built = given["firewall_rules"](
        [{"name": "x", "port": 8000, "sources": ["10.0.0.1"]}],
        mode="owned_ports",
        management_cidrs=[],
        ssh_ports=["22"],
    )
    assert built["flows"][0]["low"] == 8000
    with pytest.raises(AnsibleFilterError, match="firewall: flow"):
        given["firewall_rules"]([{"name": "x", "port": "y"}], mode="owned_ports", management_cidrs=[])
    assert given["fresh_ssh_command"](["true"], {"host": "h"})[-2:] == ["h", "true"]
    with pytest.raises(AnsibleFilterError, match="ansible_host"):
        given["fresh_ssh_command"](["true"], {})


def test_the_unit_is_valid_and_confined(tmp_path):
    unit = tmp_path / "rackserve-firewall.service"
    unit.write_text((ROLE / "templates/rackserve-firewall.service.j2").read_text())
    tool = shutil.which("systemd-analyze")
    assert tool is not None
    for arguments in (["verify", "--recursive-errors=no"], ["security", "--offline=true", "--threshold=25"]):
        done = subprocess.run([tool, *arguments, str(unit)], capture_output=True, text=True, check=False, timeout=20)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_way_in_is_written_down_before_the_task_is_delegated():
    tasks = yaml.safe_load((ROLE / "tasks/confirm.yml").read_text())
    inner = [task for block in tasks if "block" in block for task in block["block"]]
    delegated = [task for task in inner if "delegate_to" in task]
    assert delegated
    assert not any("firewall_connection" in str(t) or "firewall_cancel_command" in str(t) for t in delegated)
    assert "firewall_cancel_command" in str(tasks[0])
