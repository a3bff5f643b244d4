"""Restart, drain, return, and who may run them, on the lab under load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Run
from lossless import no_request_lost

Shell = Callable[[str, str], str]
Module = Callable[..., dict[str, Any]]


@pytest.fixture
def servers(plan: dict[str, Any], module: Module) -> Callable[[], dict[str, dict[str, Any]]]:
    """The gateway's servers of the first deployment by slot."""
    gateway = plan["gateway"]
    backend = gateway["deployments"][0]["backend"]

    def read() -> dict[str, dict[str, Any]]:
        options = {"socket": gateway["stats_socket"], "state_file": gateway["server_state_file"]}
        rows = module("gw", "gateway_servers", **options)["servers"]
        return {row["slot"]: row for row in rows if row["backend"] == backend and row["address"]}

    return read


def test_one_host_is_restarted_and_no_other(
    playbook: Run, plan: dict[str, Any], shell: Shell, base_url: str, secrets: dict[str, str]
) -> None:
    def pids() -> dict[str, str]:
        return {
            item["host"]: shell(item["host"], f"systemctl show -P MainPID {item['unit']}") for item in plan["instances"]
        }

    before = pids()
    with no_request_lost(plan, base_url, secrets, "one host restarted (restart-serving)"):
        done = playbook("restart-serving", "--limit", "node2")
    assert done.returncode == 0, done.stdout[-3000:]
    after = pids()
    assert [host for host in before if before[host] != after[host]] == ["node2"]


def test_a_drained_host_stays_out_until_it_is_returned(
    playbook: Run, shell: Shell, servers: Callable[[], dict[str, dict[str, Any]]]
) -> None:
    done = playbook("drain-host", "-e", "host=node2")
    assert done.returncode == 0, done.stdout[-3000:]
    try:
        shell("gw", "systemctl reload rackserve-gateway.service")
        site = playbook("site")
        assert site.returncode == 0, site.stdout[-3000:]
        out = [row for row in servers().values() if row["admin"] != "ready"]
        assert [(row["admin"], row["drained_by"]) for row in out] == [("drain", "drain-host")]
        refused = playbook("restart-serving", "--limit", "node1")
        assert refused.returncode != 0
        assert "is drain, by drain-host" in refused.stdout and "may_be_out=1" in refused.stdout
        assert "was not stopped" in refused.stdout
        rolled = playbook("roll-serving", "-e", "roll_all=true", "--limit", "node2,gw")
        assert rolled.returncode == 0, rolled.stdout[-3000:]
        assert [row["drained_by"] for row in servers().values() if row["admin"] != "ready"] == ["drain-host"]
    finally:
        back = playbook("return-host", "-e", "host=node2")
    assert back.returncode == 0, back.stdout[-3000:]
    assert all(row["admin"] == "ready" and not row["drained_by"] for row in servers().values())


def test_a_second_operator_is_told_who_is_at_work(playbook: Run, module: Module) -> None:
    module("gw", "lease", owner="ada@ops1", plan_hash="abc", operation="upgrade-release")
    try:
        done = playbook("restart-serving", "--limit", "node2")
        assert done.returncode != 0
        said = " ".join(done.stdout.split())
        assert "ada@ops1 holds the lease" in said and "for upgrade-release" in said
    finally:
        module("gw", "lease", owner="ada@ops1", state="absent")


def test_hosts_that_are_none_and_clusters_that_are_others_are_refused(playbook: Run, plan: dict[str, Any]) -> None:
    done = playbook("drain-host", "-e", "host=nowhere")
    assert done.returncode != 0 and "given: nowhere" in done.stdout
    done = playbook("replace-host", "-e", "host=node3", "-e", "confirm=another")
    assert done.returncode != 0 and f"-e confirm={plan['cluster']}" in " ".join(done.stdout.split())


def test_the_history_names_runs(playbook: Run) -> None:
    done = playbook("show-history", "-e", "most=5")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "OPERATION" in done.stdout and "return-host node2" in done.stdout
