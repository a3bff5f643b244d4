"""Re-runs, dry runs, and the gated transaction under load."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import LAB_HOSTS, Run, whole
from lossless import no_request_lost
from rackserve.firewall.rules import build_rules
from upper import changes, snapshot

Shell = Callable[[str, str], str]
Module = Callable[..., dict[str, Any]]

CHANGE = json.dumps({"cluster_overrides": {"deployments": {"tiny-deepseek": {"engine_args": {"max_num_seqs": 24}}}}})


def main_pids(plan: dict[str, Any], shell: Shell) -> dict[str, str]:
    units = {item["unit"]: item["host"] for item in plan["instances"]}
    return {unit: shell(host, f"systemctl show -P MainPID {unit}").strip() for unit, host in units.items()}


def test_a_rerun_changes_nothing_and_compiles_once(playbook: Run, tmp_path: Path) -> None:
    trace = tmp_path / "compiles"
    done = playbook("site", RACKSERVE_COMPILE_TRACE=str(trace))
    assert done.returncode == 0, done.stdout
    recap = done.stdout.partition("PLAY RECAP")[2]
    assert recap.count("changed=0") == recap.count("changed=")
    assert len(trace.read_text().splitlines()) == 1


def test_check_mode_touches_no_disk(playbook: Run) -> None:
    folders = {name: LAB_HOSTS / name / "upper" for name in ("gw", "node1")}
    before = {name: snapshot(folder) for name, folder in folders.items()}
    assert any("haproxy.cfg" in path for path in before["gw"])
    done = playbook("site", "--check", "--diff", "-e", "full=true")
    assert done.returncode == 0, done.stdout[-3000:]
    changed = {name: changes(before[name], snapshot(folder)) for name, folder in folders.items()}
    assert changed == {name: [] for name in folders}


def test_a_changed_engine_argument_restarts_nothing(playbook: Run, plan: dict[str, Any], shell: Shell) -> None:
    before = main_pids(plan, shell)
    done = playbook("site", "-e", CHANGE)
    assert done.returncode != 0
    assert all(unit in done.stdout for unit in before)
    assert "roll-serving.yml" in done.stdout
    assert main_pids(plan, shell) == before


@pytest.fixture
def rolled_under_load(
    playbook: Run, plan: dict[str, Any], base_url: str, secrets: dict[str, str]
) -> Callable[..., None]:
    """Run roll-serving.yml beside clients, none of which may fail."""

    def run(what: str, *arguments: str) -> None:
        with no_request_lost(plan, base_url, secrets, what):
            done = playbook("roll-serving", *arguments)
        assert done.returncode == 0, done.stdout

    return run


def test_rolling_one_host_loses_no_request(
    rolled_under_load: Callable[..., None], playbook: Run, plan: dict[str, Any], shell: Shell
) -> None:
    before = main_pids(plan, shell)
    rolled_under_load("one host rolled (roll-serving)", "--limit", "node2,gw", "-e", "roll_all=true")
    after = main_pids(plan, shell)
    mine = {item["unit"] for item in plan["instances"] if item["host"] == "node2"}
    assert {unit for unit in before if after[unit] != before[unit]} == mine
    again = playbook("site")
    assert again.returncode == 0, again.stdout


@whole
def test_rolling_all_hosts_loses_no_request(
    rolled_under_load: Callable[..., None], playbook: Run, plan: dict[str, Any], shell: Shell
) -> None:
    before = main_pids(plan, shell)
    rolled_under_load("all hosts rolled (roll-serving)", "-e", CHANGE)
    after = main_pids(plan, shell)
    assert all(after[unit] != pid for unit, pid in before.items())
    again = playbook("site", "-e", CHANGE)
    assert again.returncode == 0, again.stdout
    back = playbook("roll-serving")
    assert back.returncode == 0, back.stdout


def greets(address: str) -> bool:
    """Whether a new connection to ssh gets an answer."""
    try:
        with socket.create_connection((address, 22), timeout=2) as connection:
            connection.settimeout(2)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def test_rules_that_cut_ssh_heal_themselves(module: Module, shell: Shell, plan: dict[str, Any]) -> None:
    mine = plan["slices"]["node4"]
    built = build_rules(
        mine["firewall"]["inbound"], "owned_ports", mine["network"]["management_cidrs"],
        ssh_ports=[22], peers=mine["hosts"], exempt=[], pin_interface="",
        relay_port=mine.get("relay_port", 0),
    )  # fmt: skip
    loaded = shell("node4", "cat /etc/rackserve/firewall/rackserve.nft")
    cutting = loaded.replace("policy accept;", "policy accept;\n\t\ttcp dport 22 ct state new drop", 1)
    assert cutting != loaded
    assert module("node4", "firewall_apply", ruleset=cutting, rules=built, rollback_s=8)["armed"]
    assert not greets(mine["address"])
    deadline = time.monotonic() + 30
    while not greets(mine["address"]):
        assert time.monotonic() < deadline, "the host did not heal itself"
        time.sleep(0.5)
    assert "ct state new drop" not in shell("node4", "nft list ruleset")
    assert shell("node4", "cat /etc/rackserve/firewall/rackserve.nft") == loaded
