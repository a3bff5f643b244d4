"""Tiers in a real HAProxy: a deployment without a server hands its requests to its first fallback that has one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_lab import KEYS, Engine, Gateway, deployment, running
from test_haproxy import ask, change


@pytest.fixture
def tiered(tmp_path: Path, engines: list[Engine]) -> Iterator[Gateway]:
    """general -> fast -> general."""
    two = [
        deployment("general", [engines[0]], fallback=["be_fast"]),
        deployment("fast", [engines[1]], fallback=["be_general"]),
    ]
    with running(Gateway(tmp_path, two)) as gateway:
        gateway.wait_for(lambda: gateway.command("show stat").count("L7OK") >= 2)
        yield gateway


def by(gateway: Gateway, model: str) -> str:
    return str(ask(gateway, body={"model": model})[2]["by"])


def test_each_has_its_own_as_long_as_one_is_up(tiered: Gateway) -> None:
    assert [by(tiered, model) for model in ("general", "fast")] == ["e0", "e1"]


@pytest.mark.parametrize(("down", "left"), [("general", "e1"), ("fast", "e0")])
def test_the_other_answers_while_it_has_none(tiered: Gateway, down: str, left: str) -> None:
    change(tiered, targets=[f"be_{down}/r0"], state="maint")
    assert {by(tiered, model) for model in ("general", "fast")} == {left}
    assert ask(tiered, body={"prompt": "no model is named"})[2]["by"] == ("e1" if down == "general" else "e0")
    change(tiered, targets=[f"be_{down}/r0"], state="ready")
    assert [by(tiered, model) for model in ("general", "fast")] == ["e0", "e1"]


def test_a_chain_that_is_down_ends_with_an_error(tiered: Gateway) -> None:
    change(tiered, targets=["be_general/r0", "be_fast/r0"], state="maint")
    assert [ask(tiered, body={"model": model})[0] for model in ("general", "fast")] == [503, 503]


def test_an_engine_that_dies_is_replaced_by_the_next_tier(tiered: Gateway, engines: list[Engine]) -> None:
    engines[0].close()
    tiered.wait_for(lambda: ask(tiered, body={"model": "general"})[0] == 200)
    assert by(tiered, "general") == "e1"


def test_who_names_a_server_is_answered_by_it_or_not_at_all(tiered: Gateway) -> None:
    """A proof of one engine must not be given by another tier."""
    change(tiered, targets=["be_general/r0"], state="drain")
    status, headers, _ = ask(tiered, key=KEYS["operator"], body={"model": "general"}, X_Rackserve_Server="r0")
    assert (status, headers["x-served-by"]) == (200, "be_general/r0")
    change(tiered, targets=["be_general/r0"], state="maint")
    assert ask(tiered, key=KEYS["operator"], body={"model": "general"}, X_Rackserve_Server="r0")[0] == 503


def test_a_full_queue_is_no_reason_for_another_tier(tmp_path: Path, engines: list[Engine]) -> None:
    engines[0].delay_s = 1.0
    one = deployment("general", [engines[0]], fallback=["be_fast"], max_inflight_per_server=1)
    with running(Gateway(tmp_path, [one, deployment("fast", [engines[1]])], max_queue=0)) as gateway:
        gateway.wait_for(lambda: gateway.command("show stat").count("L7OK") >= 2)
        first: list[str] = []
        thread = threading.Thread(target=lambda: first.append(by(gateway, "general")))
        thread.start()
        gateway.wait_for(lambda: bool(engines[0].seen))
        assert ask(gateway, body={"model": "general"})[0] == 429
        thread.join(5)
    assert first == ["e0"]
