"""Who is due, who is compared with whom, what ends with a host."""

from __future__ import annotations

from typing import Any

import pytest
from rackserve.operation import order


def engine(number: int, host: str, **given: Any) -> dict[str, Any]:
    return {
        "name": f"tiny-{number}", "unit": f"vllm-tiny-{number}.service", "host": host, "port": 8000, "pool": None,
        "deployment": "tiny", "part": "replica", "group": f"tiny-{number}", "gateway_target": f"be_tiny/r{number}",
        **given,
    }  # fmt: skip


FOUR = [engine(number, f"node{number}") for number in range(4)]
UNITS = [item["unit"] for item in FOUR]


def test_due_are_stale_ones_differing_ones_and_those_left_drained() -> None:
    probe = {
        "stale": [
            {"unit": UNITS[2], "role": "vllm", "why": "waits"},
            {"unit": UNITS[3], "role": "gpu_settings", "why": "clocks"},
        ],
        "roles": {"vllm": {"differs": [{"id": "unit-tiny-1", "kind": "file", "why": "x"}]}},
    }
    assert order.units_due(FOUR, probe, [], []) == [UNITS[1], UNITS[2]]
    assert order.units_due(FOUR, {}, ["be_tiny/r3"], []) == [UNITS[3]]
    assert order.units_due([engine(0, "n", gateway_target=None)], {}, [""], []) == []


def test_due_are_those_whose_change_was_cut_off_before_it_was_proven() -> None:
    pool = [engine(0, "n", gateway_target=None), engine(1, "n", gateway_target=None)]
    assert order.units_due(pool, {}, [], [UNITS[1]]) == [UNITS[1]]


def test_an_engine_that_was_left_drained_is_rolled_before_others_of_its_host() -> None:
    two = [engine(0, "node0"), engine(1, "node0"), engine(2, "node0", gateway_target=None)]
    named = [item["unit"] for item in two]
    assert [item["unit"] for item in order.next_engines(two, named, ["be_tiny/r1"])] == [named[1], named[0], named[2]]
    assert order.next_engines(two, [], ["be_tiny/r1"]) == [two[1]]
    assert order.next_engines(two, named, []) == two


def test_a_group_that_was_left_drained_is_rolled_before_others() -> None:
    groups = [{"name": f"tiny-{number}", "nodes": []} for number in range(3)]
    assert [item["name"] for item in order.next_groups(groups, FOUR, ["be_tiny/r1", "be_big/r0"])] == [
        "tiny-1", "tiny-0", "tiny-2",
    ]  # fmt: skip
    assert order.next_groups(groups, FOUR, []) == groups


def test_the_first_of_a_deployment_is_compared_with_the_others() -> None:
    assert [item["unit"] for item in order.canary_peers(FOUR, FOUR[0], [])] == UNITS[1:4]
    assert len(order.canary_peers(FOUR, FOUR[0], [], most=2)) == 2


def test_one_that_was_left_half_moved_is_compared_again() -> None:
    assert [item["unit"] for item in order.canary_peers(FOUR, FOUR[1], [UNITS[1]])] == [UNITS[0], *UNITS[2:]]


def test_the_second_one_is_not_compared_again() -> None:
    assert order.canary_peers(FOUR, FOUR[1], [UNITS[0]]) == []


def test_other_deployments_pools_and_parts_are_no_peers() -> None:
    others = [
        engine(4, "n", deployment="big"), engine(5, "n", pool="prefill"), engine(6, "n", port=None),
        engine(7, "n", part="head"),
    ]  # fmt: skip
    assert order.canary_peers([FOUR[0], *others], FOUR[0], []) == []
    assert order.canary_peers(FOUR, {"unit": ""}, []) == []


def test_with_a_host_end_its_engines_and_those_it_has_a_part_in() -> None:
    spread = [engine(8, "node0", group="g"), engine(9, "node1", group="g", gateway_target=None)]
    groups = [{"name": "g", "nodes": ["node0", "node1"]}]
    assert order.host_targets([*FOUR, *spread], groups, [], "node1") == ["be_tiny/r1", "be_tiny/r8"]
    assert order.host_targets(FOUR, [], [], "node9") == []


def test_with_a_host_its_routers_are_passed_by() -> None:
    direct = {"name": "tiny", "backend": "be_tiny", "slots": [{"slot": "r0"}], "engines": None}
    other = {"name": "big", "backend": "be_big", "slots": [{"slot": "r0"}], "engines": {"backend": "be_big-engines"}}
    routed = {**direct, "engines": {"backend": "be_tiny-engines"}}
    mine = [engine(1, "node1", gateway_target="be_tiny-engines/e1")]
    assert order.host_targets(mine, [], [routed, other], "node1") == ["be_tiny-engines/e1", "be_tiny/r0"]
    assert order.host_targets(mine, [], [direct, other], "node1") == ["be_tiny-engines/e1"]


def test_a_replica_is_not_removed_from_a_host_that_takes_no_part() -> None:
    hosts = [{"name": "node0", "address": "10.0.0.1"}, {"name": "node1", "address": "10.0.0.2"}]
    removed = [{"backend": "be_tiny", "slot": "r1", "address": "10.0.0.2", "port": 8000}]
    assert order.absent_hosts(removed, hosts, ["node0", "node1"]) == []
    assert order.absent_hosts(removed, hosts, ["node0"]) == ["node1 has be_tiny/r1 and takes no part in this run"]
    assert order.absent_hosts(removed, hosts[:1], ["node0"]) == [], "a machine that is gone has nothing to stop"


def test_units_of_removed_replicas_are_stopped_where_they_run_or_would() -> None:
    def shown(unit: str, active: str, enabled: str) -> str:
        return f"Id={unit}\nActiveState={active}\nUnitFileState={enabled}\n"

    rows = [("a", "active", "disabled"), ("b", "inactive", "enabled"), ("c", "inactive", "disabled"),
            ("d", "failed", "disabled"), ("e", "activating", "enabled")]  # fmt: skip
    assert order.units_to_stop("\n".join(shown(*row) for row in rows)) == ["a", "b", "e"]
    assert order.units_to_stop("") == []


def test_hosts_with_engines_that_are_out_come_first() -> None:
    hosts = ["node0", "node1", "node2"]
    assert order.next_hosts(hosts, FOUR, ["be_tiny/r2"]) == ["node2", "node0", "node1"]
    assert order.next_hosts(hosts, FOUR, []) == hosts


def test_the_release_that_hosts_come_from() -> None:
    assert order.release_change(["1", "2", ""], "2") == {"release_from": "1", "release_to": "2"}
    assert order.release_change(["2"], "2")["release_from"] == ""
    with pytest.raises(ValueError, match="hosts run 1 and 3"):
        order.release_change(["3", "1", "2"], "2")


def test_servers_that_the_plan_has_no_slot_for_are_removed_ones() -> None:
    def server(backend: str, slot: str, address: str | None) -> dict[str, Any]:
        return {"backend": backend, "slot": slot, "address": address, "port": 8000 if address else None}

    slots = [{"slot": "r0", "address": "10.0.0.1", "port": 8000}, {"slot": "r1", "address": None, "port": None}]
    deployment = {"backend": "be_tiny", "slots": slots, "engines": None}
    seen = [
        server("be_tiny", "r0", "10.0.0.1"), server("be_tiny", "r1", "10.0.0.2"), server("be_tiny", "r2", None),
        server("be_big", "r0", "10.0.0.2"),
    ]  # fmt: skip
    assert [row["slot"] for row in order.removed_servers(seen, deployment)] == ["r1"]
    behind = {"backend": "be_front", "slots": [], "engines": deployment}
    assert [row["slot"] for row in order.removed_servers(seen, behind)] == ["r1"]


def test_what_a_probe_found_in_lines() -> None:
    differs = [{"id": f"item-{number}", "kind": "file", "why": ""} for number in range(10)]
    probe = {
        "roles": {"vllm": {"differs": differs[:2]}, "firewall": {"differs": []}, "baseline": {"differs": differs}},
        "stale": [{"unit": "u", "role": "vllm", "why": "waits"}],
    }
    lines = order.probe_lines(probe)
    assert lines[0].endswith("item-7 and 2 more") and lines[1:] == ["vllm: item-0, item-1", "u: waits"]
    assert order.probe_lines({}) == []


def test_added_are_engines_without_a_server_and_all_parts_of_their_group() -> None:
    four = [{**item, "address": f"10.0.0.{number}"} for number, item in enumerate(FOUR)]
    part = {**engine(5, "node9", group="tiny-3", port=None), "address": "10.0.0.9"}
    seen = [{"address": f"10.0.0.{number}", "port": 8000} for number in range(3)] + [{"address": None, "port": None}]
    assert [item["unit"] for item in order.added_instances([*four, part], seen, "tiny")] == [UNITS[3], part["unit"]]
    assert order.added_instances(four, seen, "big") == []


def test_a_change_of_size_is_not_begun_where_it_would_change_more() -> None:
    probe = {
        "dirty_roles": ["vllm", "host_baseline"],
        "inactive": [{"unit": UNITS[0], "role": "vllm"}, {"unit": UNITS[1], "role": "vllm"}],
    }
    assert order.scale_conflicts("node0", probe, UNITS[:2], [UNITS[0]]) == [
        "node0: host_baseline differs",
        f"node0: {UNITS[1]} does not run and is not added",
    ]
    fresh = {"dirty_roles": ["serving_runtime", "host_baseline"], "inactive": []}
    assert order.scale_conflicts("node9", fresh, UNITS[:1], []) == []
    assert order.scale_conflicts("node9", {}, UNITS[:1], []) == []


@pytest.mark.parametrize(("planned", "added"), [([], []), (UNITS[:1], UNITS[:1])], ids=["last one", "first one"])
def test_a_host_that_begins_or_ends_to_serve_gets_its_kernel_settings_by_a_change_of_size(
    planned: list[str], added: list[str]
) -> None:
    probe = {"dirty_roles": ["host_baseline", "host_access"], "inactive": []}
    assert order.scale_conflicts("node3", probe, planned, added) == ["node3: host_access differs"]
    assert order.scale_conflicts("gw", probe, None, added) == ["gw: host_access differs", "gw: host_baseline differs"]


def test_what_to_type_names_each_operation_once() -> None:
    assert order.commands(["roll-serving", "upgrade-driver", "roll-serving"]) == (
        "ansible-playbook -i <inventory> playbooks/roll-serving.yml; "
        "ansible-playbook -i <inventory> playbooks/upgrade-driver.yml"
    )
    assert order.commands([]) == ""
