"""What a roll does to an engine when a step fails: the tasks of role vllm, over actions that only remember.

Each host is a case, so that one run tries all of them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]
Runs = dict[str, "tuple[list[str], str]"]
ACTIONS = (
    "gateway_servers", "engine_files", "lease", "run_record", "completion_check", "engine_warm_up", "canary_check",
    "converge",
)  # fmt: skip
ACTION = """
import json, os, pathlib
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        args, case = self._task.args, task_vars["inventory_hostname"]
        awaited = f"up {[door['address'] for door in args['doors']]}" if args.get("wait_up_s") else ""
        whoever = " whoever is out" if int(args.get("others_out", 0)) < 0 else ""
        call = f"{self._task.action} {args.get('state') or awaited}{whoever}".strip()
        log = pathlib.Path(os.environ["CALLS"]) / case
        number = log.read_text().splitlines().count(call) if log.exists() else 0
        with log.open("a") as handle:
            handle.write(call + "\\n")
        failed = bool({call, f"{call} {number}"} & set(json.loads(os.environ["CASES"])[case]))
        return {"failed": failed, "msg": f"{call} fails", "release": "1", "progress": {"finished": True}}
"""
SYSTEMCTL = """#!/bin/sh
case "$1" in
show) echo LoadState=loaded; echo ActiveState=active;;
stop) echo stop >> "$CALLS/$CASE";;
esac
"""
PLAYBOOK = """
- hosts: all
  gather_facts: false
  environment: {CASE: "{{ inventory_hostname }}"}
  vars:
    # The same for all cases, which go through the tasks in step then.
    vllm_instances:
      - {name: tiny, unit: vllm-tiny.service, port: 8000, address: 10.0.0.1, group: tiny, deployment: tiny,
         gateway_target: be_tiny-engines/e0, pool: null, part: replica, served_model_name: tiny, api_key_secret: key,
         start_timeout_s: 5, gateway_doors: [{address: 10.0.0.1, port: 8000}, {address: 127.0.0.1, port: 8300}]}
    vllm_groups: []
    vllm_ray: null
    vllm_secrets: {key: none}
    vllm_warm: false
    vllm_roll_units: [vllm-tiny.service]
    vllm_roll_change: false
    vllm_others_out: 0
    vllm_roll_put_back: "{{ inventory_hostname is match('keep') }}"
    vllm_gateway_host: "{{ inventory_hostname }}"
    vllm_run: run
    vllm_lease: {owner: ada, plan_hash: x}
  tasks:
    - ansible.builtin.include_role: {name: vllm, tasks_from: roll}
"""
# Its own door, not its router's.
UP = "gateway_servers up ['10.0.0.1']"
# The calls that fail, every time or only when made for the <number>th time; `keep…` put old files back.
CASES = {
    "taken": ["lease"],
    "lost": ["lease 1"],
    "record": ["run_record step", "run_record failed"],
    "down": [UP],
    "wrong": ["completion_check"],
    "keepdown": [f"{UP} 0"],
    "keepbusy": [UP, "gateway_servers drain 1"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """{case: (calls in their order, what the run said at last)}."""
    root = tmp_path_factory.mktemp("roll")
    for name in ("actions", "bin", "calls"):
        (root / name).mkdir()
    for name in ACTIONS:
        (root / "actions" / f"{name}.py").write_text(ACTION)
    (root / "bin/systemctl").write_text(SYSTEMCTL)
    (root / "bin/systemctl").chmod(0o755)
    (root / "play.yml").write_text(PLAYBOOK)
    known = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "vllm_document": {"items": []},
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", f"{','.join(CASES)},"]
    done = subprocess.run(
        [*command, str(root / "play.yml"), "-e", json.dumps(known)],
        cwd=REPO,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(root / "tmp"),
            "ANSIBLE_ACTION_PLUGINS": str(root / "actions"), "ANSIBLE_STDOUT_CALLBACK": "default",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(root / "calls"), "CASES": json.dumps(CASES),
        },
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    found = re.findall(r"^fatal: \[(\w+)\]: FAILED! => (.*)$", done.stdout, re.MULTILINE)
    said = {case: json.loads(result).get("msg", "") for case, result in found}
    assert set(said) == set(CASES), done.stdout + done.stderr
    return {case: ((root / "calls" / case).read_text().splitlines(), said[case]) for case in CASES}


def after_work(calls: list[str]) -> list[str]:
    """What was done once it had been given work."""
    return calls[calls.index("gateway_servers ready") + 1 :]


def test_a_run_without_the_lease_drains_nothing(runs: Runs) -> None:
    calls, said = runs["taken"]
    assert not {"gateway_servers drain", "stop"} & set(calls)
    assert "was not rolled and was not stopped" in said and "lease fails" in said


@pytest.mark.parametrize("case", ["lost", "record", "down"])
def test_what_fails_after_it_was_given_work_does_not_stop_it(case: str, runs: Runs) -> None:
    calls, said = runs[case]
    assert not {"stop", "gateway_servers drain", "engine_files put_back"} & set(after_work(calls))
    assert "vllm-tiny.service was rolled, is proven and has work" in said
    assert CASES[case][0].rsplit(" ", 1)[0] in said and "run roll-serving again" in said


def test_what_answers_wrongly_is_stopped_and_stays_drained(runs: Runs) -> None:
    calls, said = runs["wrong"]
    assert "gateway_servers ready" not in calls
    assert calls[calls.index("completion_check") + 1 :][:2] == ["gateway_servers drain whoever is out", "stop"]
    assert "stays drained and stopped" in said and "completion_check fails" in said


def test_a_changed_one_that_the_gateway_does_not_see_is_drained_before_its_old_files_are_put_back(runs: Runs) -> None:
    calls, said = runs["keepdown"]
    assert after_work(calls)[:3] == [UP, "gateway_servers drain", "engine_files put_back"]
    assert calls.count("gateway_servers ready") == 2
    assert "its old files were put back" in said and f"{UP} fails" in said


def test_one_that_cannot_be_drained_again_goes_on_running(runs: Runs) -> None:
    calls, said = runs["keepbusy"]
    assert not {"stop", "engine_files put_back"} & set(after_work(calls))
    assert "was not stopped" in said and "It was not drained again either: gateway_servers drain fails" in said
