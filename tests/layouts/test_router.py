"""vllm-router in front of real engines on the lab: it serves, loses an engine and itself, and is rolled under load.

RACKSERVE_LAYOUTS=full   asks for it (20 minutes, root): make test-layouts, after make demo
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from layout_lab import BACK_S, LayoutLab, until
from load import Load

pytestmark = pytest.mark.asked_by("RACKSERVE_LAYOUTS", "full")

ANSWERED = (
    "python3 -c \"import urllib.request as u; print(u.urlopen('http://{address}:{port}/metrics').read().decode())\""
    " | awk '/^vllm:request_success_total/ {{sum += $2}} END {{print sum + 0}}'"
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayoutLab]:
    """Two engines behind a router; the lab's own layout afterwards."""
    found = LayoutLab("router", tmp_path_factory.mktemp("router"))
    found.deploy()
    yield found
    LayoutLab("replica", tmp_path_factory.mktemp("replica")).deploy()


def router_of(lab: LayoutLab) -> dict[str, Any]:
    [deployment] = lab.plan["gateway"]["deployments"]
    found: dict[str, Any] = deployment["router"]
    return found


def gateway(lab: LayoutLab) -> str:
    return str(lab.plan["gateway"]["host"])


def answered(lab: LayoutLab, item: dict[str, Any]) -> int:
    """Requests an engine has answered."""
    return int(float(lab.shell(item["host"], ANSWERED.format(**item))))


def test_both_engines_answer_through_the_router(lab: LayoutLab) -> None:
    client, before = lab.client(), [answered(lab, item) for item in lab.plan["instances"]]

    def both() -> bool:
        answer = client.ask("plain", 8)
        assert not answer.error, answer.error
        return all(answered(lab, item) > seen for item, seen in zip(lab.plan["instances"], before))

    until(both, 120, "requests answered by each engine")
    unit = router_of(lab)["unit"]
    assert lab.shell(gateway(lab), f"systemctl is-active {unit}").strip() == "active"


@pytest.mark.parametrize("victim", ["engine", "router"])
def test_what_is_killed_comes_back_and_the_others_serve(lab: LayoutLab, victim: str) -> None:
    """Only what was in flight there may fail, and what begins before the gateway knows."""
    host, unit = (lab.head["host"], lab.head["unit"]) if victim == "engine" else (gateway(lab), router_of(lab)["unit"])
    with Load(lab.endpoint, lab.head["served_model_name"], clients=2, pause_s=0.5) as load:
        time.sleep(10)
        assert load.failures == []
        lab.shell(host, f"systemctl reset-failed {unit}; rm -f /run/rackserve-engine-watch/*.json")
        lab.shell(host, f"kill -KILL $(systemctl show -P MainPID {unit})")
        killed_s = time.monotonic()
        time.sleep(45)
        late = [one for one in load.records if one.error and one.started_s > killed_s + 40]
        lost = len(load.failures)
    sys.stdout.write(f"\n{victim} killed: {lost} of {len(load.records)} requests failed\n")
    assert late == []

    def back() -> bool:
        return lab.shell(host, f"systemctl is-active {unit} || true").strip() == "active" and (
            victim == "router" or answered_now(lab, lab.head)
        )

    until(back, BACK_S, f"{unit} serves again")


def answered_now(lab: LayoutLab, item: dict[str, Any]) -> bool:
    """Whether an engine answers requests that clients send now."""
    try:
        before = answered(lab, item)
    except (AssertionError, ValueError):
        return False
    client = lab.client()
    for _ in range(6):
        client.ask("plain", 8)
    return answered(lab, item) > before


def test_it_is_rolled_under_load(lab: LayoutLab) -> None:
    before = lab.invocations()
    with Load(lab.endpoint, lab.head["served_model_name"], clients=2, pause_s=0.5) as load:
        lab.must("roll-serving", "-e", "roll_all=true")
    after = lab.invocations()
    assert all(after[unit] and after[unit] != before[unit] for unit in before)
    assert load.served > 20
    assert load.failures == []


def test_a_rerun_changes_nothing(lab: LayoutLab) -> None:
    recap = lab.must("site").partition("PLAY RECAP")[2]
    assert recap.count("changed=0") == recap.count("changed=")
