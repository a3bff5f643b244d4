"""completion_check on the controller: the module's answer without a module being packed and started."""

from __future__ import annotations

import json
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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


class Haproxy(socketserver.StreamRequestHandler):
    """A gateway that knows no server."""

    def handle(self) -> None:
        wants_state = self.rfile.readline() == b"show servers state\n"
        self.wfile.write(b"1\n# be_name srv_name\n" if wants_state else b"# pxname,svname,qcur,scur,status\n")


@pytest.fixture
def stats_socket(tmp_path: Path) -> Iterator[Path]:
    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "haproxy.sock"), Haproxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path / "haproxy.sock"
        server.shutdown()


@pytest.mark.parametrize("unfinished", [[], ["roll-serving", "upgrade-driver"]])
def test_operations_that_engines_wait_for_are_named_beside_answers_that_failed(
    unfinished: list[str], ansible_here: Ansible, stats_socket: Path, tmp_path: Path
) -> None:
    slot = {"slot": "r0", "instance": "m-0", "host": "node2", "address": "127.0.0.1", "port": 9}
    deployment = {"name": "m", "served_model_name": "m", "backend": "be_m", "slots": [slot], "router": None}
    variables = {
        "acceptance_cluster": "c", "acceptance_plan_hash": "0", "acceptance_base_url": CLOSED["base_url"],
        "acceptance_gateway": {
            "deployments": [{**deployment, "engines": None}], "stats_socket": str(stats_socket),
            "server_state_file": str(tmp_path / "server-state"), "api_keys": ["operator"],
        },
        "rackserve_secrets": {"api_key_operator": "k" * 16},
        "acceptance_unfinished": unfinished, "acceptance_attempts": 1, "acceptance_wait_s": 0, "acceptance_chat": False,
        "acceptance_report_dir": str(tmp_path),
    }  # fmt: skip
    done = ansible_here("include_role", {"name": "acceptance"}, "-e", json.dumps(variables))
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "checks failed" in said, done.stdout[-3000:]
    named = "playbooks/roll-serving.yml; ansible-playbook -i <inventory> playbooks/upgrade-driver.yml" in said
    assert named is bool(unfinished), done.stdout[-3000:]
