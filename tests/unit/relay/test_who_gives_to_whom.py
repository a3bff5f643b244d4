"""The chain as data: who has the weights, who gets them from whom."""

from __future__ import annotations

from typing import Any

import pytest
from rackserve.relay.chain import ChainError, chain_of, givers_of, parents_of, refusals_of, spread_of

ADDRESSES = {f"node{number}": f"10.0.0.{number}" for number in range(1, 6)}


def probe(*models: str) -> dict[str, Any]:
    return {"roles": {"model_store": {"differs": [{"id": f"ready-{name}"} for name in models]}}}


def test_who_is_ready_lacks_or_was_not_asked() -> None:
    probes = {"node1": probe(), "node2": probe("m"), "node3": probe("m"), "node4": None, "node5": {"roles": {}}}
    lacking = {"node2": {"m": ["a"]}, "node3": {"m": []}}
    spread = spread_of([{"name": "m"}], probes, lacking, {"m": list(ADDRESSES)})
    assert spread == {"m": {"ready": ["node1", "node3", "node5"], "lacking": ["node2"], "unseen": ["node4"]}}


def test_a_host_that_differs_and_did_not_compare_gives_nothing() -> None:
    spread = spread_of([{"name": "m"}], {"node1": probe("m")}, {}, {"m": ["node1"]})
    assert spread == {"m": {"ready": [], "lacking": [], "unseen": []}}


def test_a_chain_goes_from_those_that_have_it_to_those_that_lack_it() -> None:
    spread = {"ready": ["node4", "node1", "node5"], "lacking": ["node2", "node3"], "unseen": []}
    chain = chain_of(spread, list(ADDRESSES), ADDRESSES, fed=True)
    assert [one["name"] for one in chain["sources"]] == ["node4", "node1"]
    assert [one["name"] for one in chain["receivers"]] == ["node2", "node3"]
    assert chain["feed"] == ""
    assert chain["peers"] == ["10.0.0.4", "10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert [one["name"] for one in parents_of(chain, "node3", 8690)] == ["node2", "node4", "node1"]
    assert parents_of(chain, "node2", 8690)[0] == {"name": "node4", "address": "10.0.0.4", "port": 8690}


def test_a_host_that_failed_is_no_part_of_it() -> None:
    spread = {"ready": ["node1"], "lacking": ["node2", "node3"], "unseen": []}
    chain = chain_of(spread, ["node3"], ADDRESSES, fed=True)
    assert [one["name"] for one in chain["receivers"]] == ["node3"]
    assert [one["name"] for one in parents_of(chain, "node3", 1)] == ["node1"]


def test_where_nobody_has_it_the_first_is_fed() -> None:
    spread = {"ready": [], "lacking": ["node2", "node3"], "unseen": ["node1"]}
    chain = chain_of(spread, list(ADDRESSES), ADDRESSES, fed=True)
    assert (chain["feed"], chain["sources"]) == ("node2", [])
    assert [one["name"] for one in parents_of(chain, "node3", 1)] == ["node2"]
    alone = chain_of({"ready": [], "lacking": ["node2"], "unseen": []}, list(ADDRESSES), ADDRESSES, fed=True)
    assert (alone["feed"], alone["peers"]) == ("node2", [])


def test_a_host_outside_the_run_is_asked_where_the_controller_has_nothing() -> None:
    spread = {"ready": [], "lacking": ["node5"], "unseen": ["node1", "node2"]}
    chain = chain_of(spread, ["node5"], ADDRESSES, fed=False)
    assert [one["name"] for one in chain["sources"]] == ["node1"]
    named = chain_of(spread, ["node5"], ADDRESSES, fed=False, sources=["node2"])
    assert [one["name"] for one in named["sources"]] == ["node2"]


def test_a_host_that_failed_since_it_was_asked_gives_nothing() -> None:
    spread = {"ready": ["node1", "node3", "node4"], "lacking": ["node2"], "unseen": ["node5"]}
    chain = chain_of(spread, ["node2"], ADDRESSES, fed=False, gone=["node1"])
    assert [one["name"] for one in chain["sources"]] == ["node3", "node4"]
    with pytest.raises(ChainError, match="no host has these weights"):
        chain_of(spread, ["node2"], ADDRESSES, fed=False, gone=["node1", "node3", "node4", "node5"])


def test_a_source_that_does_not_start_is_passed_by_unless_it_was_the_last() -> None:
    spread = {"ready": ["node1", "node3", "node4"], "lacking": ["node2"], "unseen": []}
    chain = chain_of(spread, ["node2"], ADDRESSES, fed=False)
    rows: list[dict[str, Any]] = [
        {"item": chain["sources"][0], "failed": False, "msg": "it is not\nproven"},
        {"item": chain["sources"][1], "door": "opened", "msg": ""},
    ]
    assert refusals_of(rows) == {"node1": "it is not proven"}
    assert [one["name"] for one in parents_of(givers_of(chain, refusals_of(rows)), "node2", 1)] == ["node3"]
    rows[1] = {"item": chain["sources"][1], "unreachable": True}
    with pytest.raises(ChainError, match="node1: it is not proven; node3: it does not answer"):
        givers_of(chain, refusals_of(rows))
    fed = chain_of({"lacking": ["node2", "node3"]}, list(ADDRESSES), ADDRESSES, fed=True)
    assert givers_of(fed, {}) == fed


@pytest.mark.parametrize(
    ("spread", "addresses", "said"),
    [
        ({"ready": [], "lacking": ["node2"], "unseen": []}, ADDRESSES, "no host has these weights"),
        ({"ready": ["node1"], "lacking": ["node2"], "unseen": []}, {"node1": "10.0.0.1"}, "no address for node2"),
    ],
)
def test_what_cannot_be_is_said(spread: dict[str, list[str]], addresses: dict[str, str], said: str) -> None:
    with pytest.raises(ChainError, match=said):
        chain_of(spread, ["node2"], addresses, fed=False)
