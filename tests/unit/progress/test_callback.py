"""The output of real ansible runs with the callback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]
MODULE = """#!/usr/bin/python
import pathlib
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule(argument_spec={"folder": {"type": "path"}, "fail": {"type": "bool"}}, supports_check_mode=True)
counter = pathlib.Path(module.params["folder"]) / "calls"
calls = int(counter.read_text()) + 1 if counter.exists() else 1
counter.write_text(str(calls))
if module.params["fail"] and calls == 3:
    module.fail_json(msg="the disk is full")
told = {"phase": "unpacking", "done": calls << 20, "total": 4 << 20, "unit": "B", "start": 0, "elapsed_s": calls}
module.exit_json(changed=True, progress={**told, "finished": calls == 4}, step_s={"unpacking": 4.2})
"""
PLAY = """
- name: Work
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Unpack
      fake_work: {folder: "{{ folder }}", fail: "{{ fail | default(false) }}"}
      register: work
      until: work is failed or work.progress.finished
      retries: 10
      delay: 0
    - name: Ordinary retry
      ansible.builtin.command: "true"
      changed_when: false
      failed_when: again.attempts == 1
      register: again
      until: again is not failed
      retries: 2
      delay: 0
    - name: Skipped
      ansible.builtin.debug: {msg: never}
      when: false
"""


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "library").mkdir(exist_ok=True)
    (folder / "library/fake_work.py").write_text(MODULE)
    (folder / "play.yml").write_text(PLAY)
    return subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local", "play.yml",
         "-e", f"folder={folder}", "-e", f"ansible_python_interpreter={sys.executable}", *arguments],
        cwd=folder,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"), "ANSIBLE_LIBRARY": str(folder / "library"),
            "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "RACKSERVE_SUMMARY_AFTER": "0",
            "RACKSERVE_PROGRESS_EVERY": "0", **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


def test_progress_stands_under_its_task_and_the_summary_after_the_recap(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    task = done.stdout.partition("TASK [Unpack]")[2].partition("TASK [")[0]
    assert re.findall(r"^  localhost: unpacking (\d) MiB of 4 MiB \((\d+) %\), [\d.]+ MiB/s, .* left$", task, re.M) == [
        ("1", "25"), ("2", "50"), ("3", "75"),
    ]  # fmt: skip
    assert "changed: [localhost]" in task
    recap, _banner, summary = done.stdout.partition("PLAY RECAP")[2].partition("WHERE THE TIME WENT: ")
    assert "ok=2    changed=1    unreachable=0    failed=0    skipped=1" in recap
    assert re.search(r"^ +[\d.]+ s +\d+ %  Unpack \[localhost\]\n +localhost: unpacking 4\.2 s$", summary, re.M)


def test_other_retries_look_as_ever(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.stdout.count("FAILED - RETRYING: [localhost]: ") == 1
    assert "FAILED - RETRYING: [localhost]: Ordinary retry (2 retries left)." in done.stdout


def test_a_failure_ends_the_repeats_and_names_its_cause(tmp_path: Path) -> None:
    done = run(tmp_path, "-e", "fail=true")
    assert done.returncode == 2
    assert "the disk is full" in done.stdout and (tmp_path / "calls").read_text() == "3"
    assert "WHERE THE TIME WENT" in done.stdout


@pytest.mark.parametrize("arguments", [["--check"], ["--diff", "-v"], ["-vvv"]])
def test_flags_do_not_disturb_it(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "localhost: unpacking 2 MiB of 4 MiB (50 %)" in done.stdout


def test_short_runs_and_sites_that_do_not_want_it_have_no_summary(tmp_path: Path) -> None:
    for after_s in ("3600", "-1"):
        done = run(tmp_path, RACKSERVE_SUMMARY_AFTER=after_s)
        assert done.returncode == 0 and "WHERE THE TIME WENT" not in done.stdout
        (tmp_path / "calls").unlink()


def test_results_can_be_json(tmp_path: Path) -> None:
    done = run(tmp_path, "-v", ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    result = json.loads(re.search(r"^changed: \[localhost\] => (\{.*\})$", done.stdout, re.M)[1])
    assert result["attempts"] == 4 and result["progress"]["finished"] is True


def test_another_output_is_left_alone(tmp_path: Path) -> None:
    done = run(tmp_path, ANSIBLE_STDOUT_CALLBACK="default")
    assert done.returncode == 0
    assert "FAILED - RETRYING: [localhost]: Unpack" in done.stdout and "WHERE THE TIME WENT" not in done.stdout
