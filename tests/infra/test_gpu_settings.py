"""Settings of GPUs on the lab: as described, named when changed by hand, left alone under an engine, set by a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Run, whole

Shell = Callable[[str, str], str]
Module = Callable[..., dict[str, Any]]
HOST = "node3"
LIMITS = "nvidia-smi --query-gpu=power.limit,clocks.gr --format=csv,noheader,nounits"
PROGRAM = "/usr/local/lib/rackserve/gpu-settings"


@pytest.fixture
def engine(plan: dict[str, Any], module: Module, shell: Shell) -> Iterator[dict[str, Any]]:
    """The engine of the host, drained and stopped; the test's own site.yml starts it."""
    instance: dict[str, Any] = next(item for item in plan["instances"] if item["host"] == HOST)
    gateway = plan["gateway"]
    options = {
        "socket": gateway["stats_socket"],
        "state_file": gateway["server_state_file"],
        "targets": [instance["gateway_target"]],
    }
    module("gw", "gateway_servers", **options, state="drain", wait_idle_s=60)
    shell(HOST, f"systemctl stop {instance['unit']}")
    yield instance
    module("gw", "gateway_servers", **options, state="ready")


def test_the_gpus_that_engines_use_are_set_and_no_other(plan: dict[str, Any], shell: Shell) -> None:
    wanted = plan["slices"][HOST]["gpu_settings"]
    mine = [gpu["index"] for gpu in wanted["gpus"]]
    for index, row in enumerate(shell(HOST, LIMITS).splitlines()):
        limit, clock = (float(word) for word in row.split(","))
        assert (limit == wanted["settings"]["power_limit_w"]) is (index in mine)
        assert (clock >= wanted["settings"]["locked_graphics_clocks"]["low_mhz"]) is (index in mine)
    assert shell(HOST, "systemctl is-active rackserve-gpu-settings.service").strip() == "active"
    assert shell(HOST, f"python3 -I {PROGRAM} check").strip() == "every simulated GPU is as wanted"


def test_what_is_changed_under_an_engine_is_named_and_waits(playbook: Run, shell: Shell) -> None:
    shell(HOST, "nvidia-smi -i 0 -pl 300")
    try:
        done = playbook("site", "--check", "--limit", f"{HOST},gw")
        assert done.returncode == 2
        assert "waiting for the gate: GPU 0: power_limit_w 300 W, wanted 450 W" in done.stdout
        assert shell(HOST, LIMITS).splitlines()[0].startswith("300")
    finally:
        shell(HOST, "nvidia-smi -i 0 -pl 450")


@whole
def test_a_run_names_and_sets_exactly_what_was_changed_by_hand(
    engine: dict[str, Any], playbook: Run, shell: Shell
) -> None:
    before = shell(HOST, LIMITS)
    shell(HOST, "nvidia-smi -i 0 -pl 300; nvidia-smi -i 0 -rgc")
    done = playbook("site", "--check", "--diff", "--limit", f"{HOST},gw")
    for setting in ("power_limit_w", "locked_graphics_clocks"):
        assert f"simulated GPU 0, {setting}" in done.stdout
    assert "simulated GPU 0, persistence_mode" not in done.stdout
    assert shell(HOST, LIMITS).splitlines()[0].startswith("300")
    done = playbook("site")
    assert done.returncode == 0, done.stdout[-3000:]
    assert shell(HOST, LIMITS) == before
    assert shell(HOST, f"systemctl is-active {engine['unit']}").strip() == "active"
