"""Routers in the plan: what the gateway gets, and what the release set must bring."""

from __future__ import annotations

import dataclasses
from typing import Any

from rackserve.gateway.slots import acceptance_targets, gateway_slots
from rackserve.plan import Library, compile_plan

from .conftest import Compile, codes, load_site

ROUTED = {"deployments.0.router": "vllm-router"}


def test_a_router_takes_the_one_slot_and_engines_stay_within_reach(compiled: Compile) -> None:
    plan = compiled("lab", ROUTED)
    assert codes(plan) == []
    backend = plan["gateway"]["deployments"][0]
    assert [(slot["slot"], slot["address"], slot["port"]) for slot in backend["slots"]] == [("r0", "127.0.0.1", 8300)]
    assert backend["max_inflight_per_server"] == 4 * backend["engines"]["max_inflight_per_server"]
    assert [slot["instance"] for slot in backend["engines"]["slots"]] == [f"tiny-deepseek-{n}" for n in range(4)]
    keys = [f"{slot['backend']}/{slot['slot']}" for slot in gateway_slots(plan["gateway"])]
    assert keys == ["be_tiny-deepseek/r0", *(f"be_tiny-deepseek-engines/e{n}" for n in range(4))]
    assert [row["server"] for row in acceptance_targets(plan["gateway"], {}, chat=False)] == keys


def test_without_a_router_there_is_one_way(compiled: Compile) -> None:
    plan = compiled("lab")
    assert plan["gateway"]["deployments"][0]["engines"] is None
    assert [item["gateway_doors"] for item in plan["instances"]] == [[door(item)] for item in plan["instances"]]
    alone = compiled("lab", {"gateway": None})["instances"]
    assert [item["gateway_doors"] for item in alone] == [[]] * 4


def door(way: dict[str, Any]) -> dict[str, Any]:
    return {"address": way["address"], "port": way["port"]}


def test_an_engine_behind_a_router_is_reached_by_both_and_has_a_server_of_its_own(compiled: Compile) -> None:
    plan = compiled("lab", ROUTED)
    [backend] = plan["gateway"]["deployments"]
    for number, item in enumerate(plan["instances"]):
        assert item["gateway_target"] == f"be_tiny-deepseek-engines/e{number}"
        assert item["gateway_doors"] == [door(item), door(backend["router"])]


def test_the_release_set_brings_the_router(compiled: Compile) -> None:
    plan = compiled("lab", ROUTED)
    wanted = {"id": "router-0.1.17", "path": "/opt/rackserve/releases/router-0.1.17", "lock": "requirements/router.txt"}
    assert plan["release"]["router"] == plan["gateway"]["router_release"] == wanted


def test_a_set_without_one_is_refused(library: Library) -> None:
    cluster, groups, addresses = load_site("lab")
    cluster["deployments"][0]["router"] = "vllm-router"
    releases: dict[str, Any] = {name: {**one, "router": None} for name, one in library.releases.items()}
    plan = compile_plan(cluster, groups, addresses, dataclasses.replace(library, releases=releases))
    assert codes(plan) == ["release-without-router"]
    assert plan["gateway"]["router_release"] is None
