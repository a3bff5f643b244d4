"""Tests of the running lab: behaviour seen from outside, by the same plan that the roles read."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO / "module_utils"), str(Path(__file__).parent)]

INVENTORY = REPO / "inventories/lab/hosts.yml"
STATE = REPO / "inventories/lab/.state"
LAB_HOSTS = Path("/var/lib/rackserve-lab/hosts")

Run = Callable[..., subprocess.CompletedProcess[str]]
# Takes a minute or more, or tries one more case of what a quick test tries: `make test-lab` runs it, CI does not.
whole = pytest.mark.asked_by("RACKSERVE_WHOLE", "1")


def case(*values: Any, name: str, quick: bool) -> Any:
    """A parameter set that CI runs only where it is quick."""
    return pytest.param(*values, id=name, marks=[] if quick else [whole])


def ansible(
    program: str, *arguments: str, inventory: Path = INVENTORY, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ansible or ansible-playbook against the lab, from the repository."""
    return subprocess.run(
        [str(Path(sys.executable).parent / program), "-i", str(inventory), *arguments],
        cwd=REPO,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"),
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_NOCOLOR": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def playbook() -> Run:
    """Run a playbook of the repository by its name."""

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return ansible("ansible-playbook", f"playbooks/{name}.yml", *arguments, **environment)

    return run


@pytest.fixture(scope="session")
def module() -> Callable[..., dict[str, Any]]:
    """Run one of our modules on a lab host; its result. Fails the test when the module fails."""

    def run(host: str, name: str, **options: Any) -> dict[str, Any]:
        done = ansible("ansible", host, "-m", name, "-a", json.dumps(options), ANSIBLE_CALLBACK_RESULT_FORMAT="json")
        assert done.returncode == 0, done.stdout + done.stderr
        result: dict[str, Any] = json.loads(done.stdout[done.stdout.index("=> ") + 3 :])
        return result

    return run


@pytest.fixture(scope="session")
def plan(playbook: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The plan of the lab."""
    target = tmp_path_factory.mktemp("plan") / "plan.json"
    done = playbook("show-plan", "-e", f"show_plan_output={target}")
    assert done.returncode == 0, done.stdout
    loaded: dict[str, Any] = json.loads(target.read_text())
    return loaded


@pytest.fixture(scope="session")
def secrets() -> dict[str, str]:
    """The lab's secrets."""
    loaded = yaml.safe_load((REPO / "inventories/lab/group_vars/all/secrets.yml").read_text())
    values: dict[str, str] = loaded["rackserve_secrets"]
    return values


@pytest.fixture(scope="session")
def base_url(plan: dict[str, Any]) -> str:
    """Where clients go."""
    return f"https://{plan['gateway']['address']}:{plan['gateway']['port']}"


def run_shell(host: str, line: str) -> str:
    """Run a shell line on a lab host over ssh, bounded; its output. AssertionError on another exit status than 0."""
    command = ["/usr/bin/ssh", "-F", str(STATE / "ssh_config"), host, line]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    assert done.returncode == 0, f"{host}: {line}: {done.stdout}{done.stderr}"
    return done.stdout


def eventually(reached: Callable[[], bool], within_s: float) -> None:
    """Wait for a state; a host that does not answer yet has not reached it."""
    deadline = time.monotonic() + within_s
    while True:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            if reached():
                return
        assert time.monotonic() < deadline, f"not reached within {within_s} s"
        time.sleep(1)


@pytest.fixture
def shell() -> Callable[[str, str], str]:
    """``run_shell``, for one test."""
    return run_shell
