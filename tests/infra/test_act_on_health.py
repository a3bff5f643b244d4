"""The ladder on the lab: an alert alone by default, then one step a run under load, then handed over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from conftest import REPO, STATE, Run
from load import Load
from rackserve.completion.client import Endpoint

Shell = Callable[[str, str], str]
Module = Callable[..., dict[str, Any]]

whole = pytest.mark.asked_by("RACKSERVE_WHOLE", "1")
CATALOGUE = yaml.safe_load((REPO / "files/simulated/faults.yml").read_text("utf-8"))
NODE = "node3"
STEPS = ("-e", json.dumps({"host_health_actions": {"drain": True, "restart_fabric_manager": True}}))


@pytest.fixture
def gateway(module: Module, plan: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """The server of the node in the gateway, and a way to change it."""
    target = next(one["gateway_target"] for one in plan["instances"] if one["host"] == NODE)
    ways = {"socket": plan["gateway"]["stats_socket"], "state_file": plan["gateway"]["server_state_file"]}

    def ask(**options: Any) -> dict[str, Any]:
        rows: list[dict[str, Any]] = module("gw", "gateway_servers", **ways, targets=[target], **options)["servers"]
        return rows[0]

    return ask


@pytest.fixture
def faulty(playbook: Run, module: Module, shell: Shell, gateway: Callable[..., dict[str, Any]]) -> Iterator[None]:
    """A GPU of the node that is not in the NVLink fabric; afterwards the node serves again."""
    module(NODE, "simulated_fault", catalogue=CATALOGUE, fault="fabric-not-ready", parameters={"gpu": 3})
    yield
    module(NODE, "simulated_fault", catalogue=CATALOGUE, fault="all", state="absent")
    shell(NODE, "rm -f /var/lib/rackserve/health-actions.json")
    gateway(state="ready")
    done = playbook("site", "--limit", f"{NODE},gw")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture
def load(base_url: str, secrets: dict[str, str], plan: dict[str, Any]) -> Load:
    """Clients that have not started yet."""
    client = Endpoint(base_url, str(STATE / "gateway-ca.pem"), secrets["api_key_client"], timeout_s=120)
    return Load(client, plan["instances"][0]["served_model_name"])


@whole
@pytest.mark.usefixtures("faulty")
def test_it_goes_up_one_step_a_run_and_hands_the_host_over(
    playbook: Run, module: Module, shell: Shell, gateway: Callable[..., dict[str, Any]], load: Load
) -> None:
    told = playbook("act-on-health")
    assert told.returncode == 2
    assert "the step drain is not enabled" in told.stdout
    assert gateway()["admin"] == "ready"

    with load:
        dry = playbook("act-on-health", "--check", *STEPS)
        assert "next step drain" in dry.stdout and gateway()["admin"] == "ready"

        first = playbook("act-on-health", *STEPS)
        assert first.returncode == 2 and "next step drain" in first.stdout, first.stdout[-3000:]
        assert (gateway()["admin"], gateway()["drained_by"]) == ("drain", "act-on-health")
        assert shell(NODE, "systemctl list-units --state=active --no-legend 'vllm-*'").strip() == ""

        before = shell(NODE, "systemctl show -P InvocationID nvidia-fabricmanager.service")
        second = playbook("act-on-health", *STEPS)
        assert "next step restart_fabric_manager" in second.stdout, second.stdout[-3000:]
        assert shell(NODE, "systemctl show -P InvocationID nvidia-fabricmanager.service") != before
        record = json.loads(shell(NODE, "cat /var/lib/rackserve/health-actions.json"))
        assert [row["step"] for row in record] == ["drain", "restart_fabric_manager"]

        module(NODE, "simulated_fault", catalogue=CATALOGUE, fault="all", state="absent")
        third = playbook("act-on-health", *STEPS)
        assert third.returncode == 0, third.stdout[-3000:]
        assert (gateway()["admin"], gateway()["drained_by"]) == ("drain", "drain-host")
    assert load.failures == [] and load.served > 0, "the other three served"
    returned = playbook("return-host", "-e", f"host={NODE}")
    assert returned.returncode == 0, returned.stdout[-3000:]
    assert gateway()["admin"] == "ready"
