"""completion_check on the controller: the module's answer without a module being packed and started."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

Ansible = Callable[..., "subprocess.CompletedProcess[str]"]
CLOSED = {"base_url": "http://127.0.0.1:9"}


def test_it_runs_inside_ansible_on_the_controller(ansible_here: Ansible) -> None:
    done = ansible_here("completion_check", CLOSED)
    assert done.returncode != 0
    assert "1 of 1 checks failed: http://127.0.0.1:9 (plain)" in done.stdout
    assert "Connection refused" in done.stdout
    assert "EXEC" not in done.stdout


def test_wrong_options_are_refused_as_the_module_refuses_them(ansible_here: Ansible) -> None:
    done = ansible_here("completion_check", {**CLOSED, "kinds": ["poem"]})
    assert done.returncode != 0
    assert "value of kinds must be one or more of: plain, stream, chat, chat_stream" in done.stdout.replace("\n", " ")
