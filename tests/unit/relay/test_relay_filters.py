"""The filters, as Ansible gets them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from rackserve_relay import FilterModule

FILTERS = FilterModule().filters()
PLAN = {"slices": {
    "gw": {"models": []},
    "node1": {"models": [{"name": "m"}]},
    "node2": {"models": [{"name": "m"}]},
    "node3": {"models": [{"name": "m"}, {"name": "n"}]},
}}  # fmt: skip
DIFFERS = {"dirty_roles": ["model_store"], "roles": {"model_store": {"differs": [{"id": "ready-m"}]}}}
HOSTVARS: dict[str, Any] = {
    "node1": {"rackserve_probe": {"dirty_roles": [], "roles": {}}},
    "node2": {"rackserve_probe": DIFFERS, "model_store_lacking": {"m": ["a"]}},
    # Its probe failed.
    "node3": {"rackserve_probe": {"failed": True}},
}
HOSTS = [{"name": f"node{number}", "address": f"10.0.0.{number}"} for number in (1, 2, 3)]


def test_spread_chain_and_parents() -> None:
    spread = FILTERS["weights_spread"](PLAN, HOSTVARS)
    assert spread["m"] == {"ready": ["node1"], "lacking": ["node2"], "unseen": ["node3"]}
    assert spread["n"] == {"ready": [], "lacking": [], "unseen": ["node3"]}
    chain = FILTERS["relay_chain"](spread["m"], ["node1", "node2"], HOSTS, fed=True)
    assert chain["peers"] == ["10.0.0.1", "10.0.0.2"]
    parents = FILTERS["relay_parents"](chain, "node2", 8690)
    assert parents == [{"name": "node1", "address": "10.0.0.1", "port": 8690}]


def test_sources_that_refuse() -> None:
    spread = {"ready": ["node1", "node3"], "lacking": ["node2"], "unseen": []}
    chain = FILTERS["relay_chain"](spread, ["node2"], HOSTS, gone=["node3"])
    assert [one["name"] for one in chain["sources"]] == ["node1"]
    asked = {"results": [{"item": chain["sources"][0], "msg": "no"}]}
    assert FILTERS["relay_refusals"](asked) == {"node1": "no"}
    assert FILTERS["relay_refusals"]({"results": [], "skipped": True}) == {}
    assert FILTERS["relay_givers"](chain, {}) == chain
    with pytest.raises(AnsibleFilterError, match=r"weights: no source gives these weights \(node1: no\)"):
        FILTERS["relay_givers"](chain, {"node1": "no"})


def test_no_way_is_one_line() -> None:
    with pytest.raises(AnsibleFilterError, match="weights: no host has these weights"):
        FILTERS["relay_chain"]({"ready": [], "lacking": ["node2"], "unseen": []}, ["node2"], HOSTS)


def test_what_came_in_words() -> None:
    relay = {"bytes": 1 << 30, "seconds": 8.0, "received": {"node1": 1 << 30}, "left": {}, "resent": []}
    assert FILTERS["relay_words"](relay) == "1.0 GiB in 8.0 s (128 MiB/s) from node1"
    worse = {**relay, "left": {"node3": "it is silent"}, "resent": ["a"]}
    assert FILTERS["relay_words"](worse).endswith("from node1; passed by: node3 (it is silent); came twice: a")
