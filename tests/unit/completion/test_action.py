"""completion_check on the controller: the module's answer without a module being packed and started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the module by hand against a closed port."""
    command = [str(Path(sys.executable).with_name("ansible")), "-i", "localhost,", "localhost", "-c", "local"]
    return subprocess.run(
        [*command, "-m", "completion_check", "-vvv", "-a", json.dumps({"base_url": "http://127.0.0.1:9"}), *arguments],
        cwd=REPO,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPO / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_it_runs_inside_ansible_on_the_controller() -> None:
    done = ask()
    assert done.returncode != 0
    assert "1 of 1 checks failed: http://127.0.0.1:9 (plain)" in done.stdout
    assert "Connection refused" in done.stdout
    assert "EXEC" not in done.stdout


def test_wrong_options_are_refused_as_the_module_refuses_them() -> None:
    done = ask("-a", json.dumps({"base_url": "http://127.0.0.1:9", "kinds": ["poem"]}))
    assert done.returncode != 0
    assert "value of kinds must be one or more of: plain, stream, chat, chat_stream" in done.stdout.replace("\n", " ")
