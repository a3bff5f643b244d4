"""Operations under load that lose their controller, and two operators at once: what clients see, what comes after."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import INVENTORY, REPO, Run, eventually, whole
from lossless import no_request_lost
from stage import cut_run

Module = Callable[..., dict[str, Any]]
Shell = Callable[[str, str], str]
POINTS = 10
# Named in the failure, so that the same moments can be had again.
SEED = int(os.environ.get("RACKSERVE_SEED", random.SystemRandom().randrange(10**6)))


@pytest.fixture
def host(plan: dict[str, Any]) -> str:
    """The host of the third engine."""
    return str(plan["instances"][2]["host"])


@pytest.fixture
def drained(plan: dict[str, Any], module: Module) -> Callable[[], dict[str, str]]:
    """{server that gets no request: who drained it}."""
    gateway = plan["gateway"]
    options = {"socket": gateway["stats_socket"], "state_file": gateway["server_state_file"]}

    def read() -> dict[str, str]:
        rows = module("gw", "gateway_servers", **options)["servers"]
        return {row["slot"]: row["drained_by"] for row in rows if row["address"] and row["admin"] != "ready"}

    return read


@pytest.fixture
def under_load(plan: dict[str, Any], base_url: str, secrets: dict[str, str]) -> Callable[[str], Any]:
    """``no_request_lost`` of the lab, for a name of what is done."""
    return partial(no_request_lost, plan, base_url, secrets)


def started(*arguments: str) -> subprocess.Popen[bytes]:
    """A run of its own process group."""
    program = str(Path(sys.executable).parent / "ansible-playbook")
    return subprocess.Popen(
        [program, "-i", str(INVENTORY), *arguments],
        cwd=REPO,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def undisturbed_s(playbook: Run, plan: dict[str, Any]) -> float:
    """What the operation takes when nobody disturbs it."""
    began_s = time.monotonic()
    done = playbook("restart-serving", "--limit", plan["instances"][2]["host"])
    assert done.returncode == 0, done.stdout[-3000:]
    return time.monotonic() - began_s


@whole
@pytest.mark.parametrize("number", range(POINTS))
def test_a_killed_operation_is_finished_by_the_next(
    *, number: int, undisturbed_s: float, host: str, playbook: Run, plan: dict[str, Any], shell: Shell,
    drained: Callable[[], dict[str, str]], under_load: Any,
) -> None:  # fmt: skip
    """Killed at a random moment, then run again: every engine serves, nothing is drained, nobody noticed."""
    chance = random.Random(f"{SEED}-{number}")  # noqa: S311 - a moment, no secret
    wait_s = chance.uniform(0.5, 0.95 * undisturbed_s)
    (unit,) = [item["unit"] for item in plan["instances"] if item["host"] == host]
    with under_load("controller killed in restart-serving (SIGKILL)") as outcome:
        run = started("playbooks/restart-serving.yml", "--limit", host)
        time.sleep(wait_s)
        assert run.poll() is None, f"it ended before {wait_s:.1f} s, seed {SEED}"
        cut_run(run)
        began_s = time.monotonic()
        done = playbook("restart-serving", "--limit", host)
        assert done.returncode == 0, f"killed after {wait_s:.1f} s, seed {SEED}: {done.stdout[-3000:]}"
        outcome.again_s = time.monotonic() - began_s
        outcome.human = "the same operation again"
    assert drained() == {}
    assert shell(host, f"systemctl is-active {unit}").strip() == "active"
    site = playbook("site")
    assert site.returncode == 0, site.stdout[-3000:]


@whole
def test_two_operators_at_once(
    *, host: str, playbook: Run, plan: dict[str, Any], drained: Callable[[], dict[str, str]], under_load: Any
) -> None:
    """The second is told who is at work and with what, and touches nothing; the first ends as if it were alone."""
    other = plan["instances"][0]["host"]
    with under_load("two operators at once") as outcome:
        run = started("playbooks/restart-serving.yml", "--limit", host)
        try:
            eventually(lambda: bool(drained()), 60)
            second = playbook("restart-serving", "--limit", other, "-e", "rackserve_operator=ada@ops1")
            said = " ".join(second.stdout.split())
            assert second.returncode != 0
            assert "holds the lease" in said and "for restart-serving" in said, second.stdout[-3000:]
            assert set(drained().values()) <= {"restart-serving"}
        finally:
            ended = run.wait(300)
        assert ended == 0
        outcome.human = "the second waits, as it is told"
    assert drained() == {}
