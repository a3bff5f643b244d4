"""Every layout that a CPU can run, by real vLLM on the lab: it serves, and any of its processes may be killed.

RACKSERVE_LAYOUTS=full   asks for it (an hour, root): make test-layouts, after make demo
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from layout_lab import BACK_S, LAYOUTS, LayoutLab, Outage, until, write

pytestmark = pytest.mark.asked_by("RACKSERVE_LAYOUTS", "full")

OUTAGES: list[Outage] = []
# A process that loses another one may say why for some seconds before it is ended.
NOTICED_S = 5


@pytest.fixture(scope="module", params=list(LAYOUTS))
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LayoutLab:
    """The lab, deployed with a layout."""
    found = LayoutLab(request.param, tmp_path_factory.mktemp("layouts"))
    found.deploy()
    return found


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    write(OUTAGES)


def test_it_serves_through_the_gateway(lab: LayoutLab) -> None:
    lab.prove()
    until(lab.joined, 30, "agents that are joined to the same")


@pytest.mark.parametrize("victim", ["head", "other", "other's process"])
def test_whatever_is_killed_all_of_it_starts_anew_and_serves(lab: LayoutLab, victim: str) -> None:
    """Where an engine is one unit alone, it is its own other part."""
    item = lab.group[0] if victim == "head" else lab.group[-1]
    what = "main" if victim != "other's process" else "VLLM::"
    lab.prove()
    until(lab.joined, 30, "agents that are joined to the same")
    before = lab.invocations()
    assert all(before.values())
    outage = Outage(lab.name, f"{item['part']}: {what}")
    statuses = lab.statuses()
    try:
        time.sleep(2)
        began_s = time.monotonic()
        lab.kill(item, what)

        def anew() -> bool:
            now = lab.invocations()
            return all(now[unit] and now[unit] != before[unit] for unit in before)

        all_anew_s = until(anew, 180, f"units that all started anew: {before}")
        lab.prove()
        serves_s = time.monotonic()
        after = lab.invocations()
    finally:
        statuses.close()
    outage.restarted = [unit for unit in after if after[unit] != before[unit]]
    outage.all_restarted_after_s, outage.serves_after_s = all_anew_s - began_s, serves_s - began_s
    outage.out_after_s = out_of_service(lab, statuses.seen, began_s, all_anew_s)
    OUTAGES.append(outage)
    assert sorted(outage.restarted) == sorted(before)
    until(lab.joined, 60, "agents that are joined to the same")
    # Once, and not again.
    time.sleep(20)
    assert lab.invocations() == after


def out_of_service(lab: LayoutLab, seen: list[tuple[float, dict[str, str]]], began_s: float, back_s: float) -> float:
    """Seconds until the gateway took it out; never UP from then on while a part is not there."""
    check: dict[str, Any] = lab.plan["gateway"]["deployments"][0]["check"]
    # It takes `fall` probes that fail; one that began just before the kill does not count.
    limit_s = check["interval_s"] * check["fall"] + 5 + NOTICED_S
    said = [(at - began_s, states.get(lab.slot, "")) for at, states in seen if at >= began_s]
    out = next((at for at, status in said if status and status != "UP"), None)
    assert out is not None, "the gateway never took it out"
    assert out <= limit_s
    wrong = [(at, status) for at, status in said if status == "UP" and limit_s < at < back_s - began_s]
    assert wrong == []
    first_up = next((at for at, status in said if status == "UP" and at > out), None)
    assert first_up is not None
    assert first_up > back_s - began_s - 2, "UP before all parts were there again"
    return out


def test_a_rerun_changes_nothing(lab: LayoutLab) -> None:
    before = lab.invocations()
    recap = lab.must("site").partition("PLAY RECAP")[2]
    assert recap.count("changed=0") == recap.count("changed=")
    assert lab.invocations() == before


def test_a_roll_is_one_transaction_of_all_parts(lab: LayoutLab) -> None:
    """Everything is rolled although nothing changed: each part anew, together, and it serves afterwards."""
    before = lab.invocations()
    lab.must("roll-serving", "-e", "roll_all=true")
    after = lab.invocations()
    assert all(after[unit] and after[unit] != before[unit] for unit in before)
    lab.prove(BACK_S)
    until(lab.joined, 30, "agents that are joined to the same")
