"""The playbooks with the real ansible-playbook; no host of the inventories exists, so any contact would fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from .conftest import REPO

PLAYBOOK = str(Path(sys.executable).with_name("ansible-playbook"))


def run(*words: str, cwd: Path = REPO, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return subprocess.run(
        [PLAYBOOK, *words], cwd=cwd, env={**clean, **env}, capture_output=True, text=True, timeout=60, check=False
    )


def test_limit_compiles_once_and_gives_the_same_plan(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    book = tmp_path / "book.yml"
    book.write_text(
        f"""- import_playbook: {REPO}/playbooks/compile-plan.yml
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "SLICE {{{{ inventory_hostname }}}} {{{{ (rackserve.plan_hash | default('none'))[:12] }}}}"
"""
    )
    limit = "node2,gw,builder1"
    result = run("-i", "inventories/lab", str(book), "--limit", limit, RACKSERVE_COMPILE_TRACE=str(trace))
    assert result.returncode == 0, result.stdout + result.stderr
    golden = json.loads((REPO / "tests/golden/lab/plan.json").read_text())["hash"][:12]
    assert f"SLICE node2 {golden}" in result.stdout
    assert f"SLICE gw {golden}" in result.stdout
    assert "SLICE builder1 none" in result.stdout
    assert "SLICE node1" not in result.stdout
    assert len(trace.read_text().splitlines()) == 1


def test_errors_stop_everything_and_are_all_listed(tmp_path: Path) -> None:
    book = tmp_path / "book.yml"
    book.write_text(
        f"""- import_playbook: {REPO}/playbooks/compile-plan.yml
- hosts: all
  gather_facts: false
  tasks: [ansible.builtin.debug: {{msg: LATER}}]
"""
    )
    overrides = json.dumps({"cluster_overrides": {"gateway": {"port": 80, "prot": 1}}})
    result = run("-i", "inventories/lab", str(book), "-e", overrides)
    assert result.returncode == 2
    assert "error [unknown-key] cluster.gateway.prot" in result.stdout + result.stderr
    assert "error [out-of-range] cluster.gateway.port" in result.stdout + result.stderr
    assert "LATER" not in result.stdout


def test_show_plan_writes_the_plan_even_with_errors(tmp_path: Path) -> None:
    output = tmp_path / "plan.json"
    overrides = json.dumps({"cluster_overrides": {"deployments": {"tiny-deepseek": {"replicas": 99}}}})
    result = run("playbooks/show-plan.yml", "-e", overrides, "-e", f"show_plan_output={output}")
    assert result.returncode == 2
    assert "cluster.deployments[0].replicas: 4 -> 99" in result.stdout
    plan = json.loads(output.read_text())
    assert [item["code"] for item in plan["findings"] if item["severity"] == "error"] == ["too-many-replicas"]


def test_from_another_directory_it_says_where_to_run(tmp_path: Path) -> None:
    result = run(str(REPO / "playbooks/show-plan.yml"), cwd=tmp_path)
    assert result.returncode == 2
    assert f"Run them as: cd {REPO} && ansible-playbook playbooks/..." in result.stdout
