"""Which commands a difference becomes, and what is written down."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from gateway_lab import Gateway, render
from rackserve.gateway.membership import plan_membership, plan_state, read_slots
from rackserve.gateway.notes import read_notes, write_notes
from rackserve.gateway.runtime import NO_ADDRESS, GatewayError, Server, intent_rows, parse_servers_state, parse_stat
from rackserve.gateway.servers import Request, apply, wait_idle, write_state_file
from rackserve.gateway.slots import acceptance_targets, gateway_slots, instance_names, smoke_targets, wrong_doors

COLUMNS = (
    "be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state "
    "bk_f_forced_id srv_f_forced_id srv_fqdn srv_port"
)


def state_text(*servers: tuple[str, str, str, int, int]) -> str:
    """`show servers state` for (backend, slot, address, port, admin bits)."""
    rows = [f"3 {b} 1 {s} {a} 2 {bits} 1 1 3 1 0 2 0 0 0 0 - {p}" for b, s, a, p, bits in servers]
    return "\n".join(["1", f"# {COLUMNS}", *rows]) + "\n"


def servers(*rows: tuple[str, str, str, int, int]) -> dict[str, Server]:
    return parse_servers_state(state_text(*rows))


def slot(address: str | None, port: int = 8000, name: str = "r0") -> dict[str, Any]:
    return {"backend": "be", "probe_backend": "probe", "slot": name, "address": address, "port": port}


class FakeHaproxy:
    """Answers the commands that `apply` sends; remembers them."""

    def __init__(self, *rows: tuple[str, str, str, int, int], refuse: str = "") -> None:
        self.rows = {f"{row[0]}/{row[1]}": list(row) for row in rows}
        self.sent: list[str] = []
        self.refuse = refuse
        self.sessions: list[int] = []

    def __call__(self, text: str) -> str:
        if text == "show servers state":
            return state_text(*[tuple(row) for row in self.rows.values()])  # type: ignore[misc]
        if text == "show stat":
            count = self.sessions.pop(0) if self.sessions else 0
            lines = [f"{row[0]},{row[1]},0,{count},UP,L7OK,ok" for row in self.rows.values()]
            return "\n".join(["# pxname,svname,qcur,scur,status,check_status,last_chk", "be,BACKEND,0,9,UP,,", *lines])
        self.sent.append(text)
        if self.refuse and self.refuse in text:
            return "No such server.\n"
        words = text.split()
        row = self.rows[words[2]]
        if words[3] == "state":
            row[4] = {"ready": 0, "drain": 8, "maint": 1}[words[4]]
        elif words[3] == "addr":
            row[2], row[3] = words[4], int(words[6])
            return "IP changed from '0.0.0.0' to '10.0.0.1' by 'stats socket command'\n"
        return "\n"


EMPTY = (("be", "r0", NO_ADDRESS, 1, 7), ("probe", "r0", NO_ADDRESS, 1, 5))
FULL = (("be", "r0", "10.0.0.1", 8000, 0), ("probe", "r0", "10.0.0.1", 8000, 0))
DRAINED = (("be", "r0", "10.0.0.1", 8000, 8), ("probe", "r0", "10.0.0.1", 8000, 0))


@pytest.mark.parametrize(
    ("bits", "admin"), [(0, "ready"), (4, "ready"), (1, "maint"), (2, "maint"), (8, "drain"), (9, "maint")]
)
def test_admin_bits(bits: int, admin: str) -> None:
    assert Server("be", "r0", "10.0.0.1", 8000, bits).admin == admin


def test_a_filled_slot_starts_behind_a_probe_that_is_down_and_gets_its_address_last() -> None:
    (change,) = plan_membership(servers(*EMPTY), read_slots([slot("10.0.0.1")]), "ready")
    assert (change.before, change.after) == ("empty", "10.0.0.1:8000 ready")
    assert change.commands[-4:] == (
        "set server probe/r0 state ready",
        "set server probe/r0 health down",
        "set server be/r0 state ready",
        "set server be/r0 addr 10.0.0.1 port 8000",
    )


@pytest.mark.parametrize("rows", [FULL, DRAINED, (("be", "r0", "10.0.0.1", 8000, 1), FULL[1])])
def test_a_slot_that_keeps_its_address_keeps_its_state(rows: Any) -> None:
    assert plan_membership(servers(*rows), read_slots([slot("10.0.0.1")]), "ready") == []


def test_a_new_address_takes_the_join_state_and_an_empty_slot_goes_to_maintenance() -> None:
    (change,) = plan_membership(servers(*DRAINED), read_slots([slot("10.0.0.2")]), "drain")
    assert (change.before, change.after) == ("10.0.0.1:8000 drain", "10.0.0.2:8000 drain")
    (change,) = plan_membership(servers(*DRAINED), read_slots([slot(NO_ADDRESS, 8000)]), "ready")
    assert change.after == "empty" and change.commands[0] == "set server be/r0 state maint"
    assert plan_membership(servers(*EMPTY), read_slots([slot(None)]), "ready") == []


def test_a_sync_that_was_killed_half_way_is_finished() -> None:
    probe_only = (EMPTY[0], FULL[1])
    assert plan_membership(servers(*probe_only), read_slots([slot("10.0.0.1")]), "ready")
    probe_off = (FULL[0], ("probe", "r0", "10.0.0.1", 8000, 1))
    (change,) = plan_membership(servers(*probe_off), read_slots([slot("10.0.0.1")]), "ready")
    assert change.commands[0] == "set server probe/r0 state ready"


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([slot("10.0.0.1", 0)], "no port"),
        ([slot("10.0.0.1"), slot("10.0.0.2")], "named twice"),
        ([slot("10.0.0.1", name="r9")], "no server be/r9; its slots changed: reload"),
    ],
)
def test_unusable_slots(rows: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(GatewayError, match=why):
        plan_membership(servers(*FULL), read_slots(rows), "ready")


def test_state_of_targets() -> None:
    (change,) = plan_state(servers(*FULL), ["be/r0"], "drain")
    assert change.commands == ("set server be/r0 state drain",)
    assert plan_state(servers(*DRAINED), ["be/r0"], "drain") == []
    with pytest.raises(GatewayError, match="known: be/r0, probe/r0"):
        plan_state(servers(*FULL), ["be/r7"], "drain")
    with pytest.raises(GatewayError, match="empty slot"):
        plan_state(servers(*EMPTY), ["be/r0"], "ready")


@pytest.mark.parametrize("text", ["2\n# be_id\n", "1\n", "1\n# be_name srv_name\nbe r0\n"])
def test_an_unknown_state_format_is_refused(text: str) -> None:
    with pytest.raises(GatewayError, match="server state"):
        parse_servers_state(text)


def test_only_intent_is_written_down() -> None:
    text = state_text(*DRAINED, ("be", "r1", "10.0.0.2", 8000, 0), ("be", "r2", NO_ADDRESS, 1, 1))
    assert list(parse_servers_state(intent_rows(text))) == ["be/r0"]
    assert parse_servers_state("") == {}


def test_apply_writes_the_file_once_and_check_mode_touches_nothing(tmp_path: Path) -> None:
    haproxy, state_file = FakeHaproxy(*EMPTY), tmp_path / "server-state"
    request = Request(read_slots([slot("10.0.0.1")]), ["be/r0"], "drain", "ready", 5)
    predicted = apply(haproxy, state_file, request, check=True)
    assert haproxy.sent == [] and not state_file.exists()
    assert predicted["servers"][0]["admin"] == "drain"
    haproxy.sessions = [2, 1, 0]
    done = apply(haproxy, state_file, request, check=False)
    assert predicted["diff"] == done["diff"] and done["changed"]
    assert done["diff"]["before"]["be/r0"] == "empty"
    assert done["diff"]["after"]["be/r0"] == "10.0.0.1:8000 drain"
    assert done["waited_s"] >= 0.2
    assert parse_servers_state(state_file.read_text())["be/r0"].admin == "drain"
    assert state_file.stat().st_mode & 0o777 == 0o640
    again = apply(haproxy, state_file, request, check=False)
    assert again["changed"] is False and again["diff"] == {"before": {}, "after": {}}


def test_a_drain_by_hand_is_written_down_too(tmp_path: Path) -> None:
    state_file = tmp_path / "server-state"
    result = apply(FakeHaproxy(*DRAINED), state_file, Request(), check=False)
    assert result["changed"] and str(state_file) in result["diff"]["after"]
    assert [row["slot"] for row in result["servers"]] == ["r0", "r0"]
    state_file.write_text("rubbish")
    assert apply(FakeHaproxy(*DRAINED), state_file, Request(), check=False)["changed"]


def test_slots_that_wait_for_the_next_configuration_are_left_and_named(tmp_path: Path) -> None:
    """A slot without its probe counts as well; the others are brought."""
    haproxy = FakeHaproxy(*EMPTY, ("be", "r1", NO_ADDRESS, 1, 7))
    slots = read_slots([slot("10.0.0.1"), slot("10.0.0.2", name="r1"), slot("10.0.0.3", name="r9")])
    with pytest.raises(GatewayError, match="no server probe/r1"):
        apply(haproxy, tmp_path / "s", Request(slots), check=False)
    done = apply(haproxy, tmp_path / "s", Request(slots, leave_missing=True), check=False)
    assert done["missing"] == ["be/r1", "be/r9"]
    assert [(row["slot"], row["address"]) for row in done["servers"]] == [("r0", "10.0.0.1")]


def test_what_leads_to_an_address_is_drained_and_given_back_together(tmp_path: Path) -> None:
    """A router's server and an engine's; not its probe, and not what another drained."""
    router = (("be_r", "r0", "127.0.0.1", 8300, 0), ("probe_r", "r0", "127.0.0.1", 8300, 0))
    haproxy, state_file = FakeHaproxy(*FULL, *router, ("be", "r1", "10.0.0.2", 8000, 0)), tmp_path / "server-state"
    doors = [("10.0.0.1", 8000), ("127.0.0.1", 8300), ("10.0.0.9", 8000)]
    done = apply(haproxy, state_file, Request(doors=doors, state="drain", by="roll-serving"), check=False)
    assert {(row["backend"], row["admin"], row["drained_by"]) for row in done["servers"]} == {
        ("be", "drain", "roll-serving"), ("be_r", "drain", "roll-serving"),
    }  # fmt: skip
    assert haproxy.sent == ["set server be/r0 state drain", "set server be_r/r0 state drain"]
    apply(haproxy, state_file, Request(doors=doors, state="ready", by="another"), check=False)
    assert len(haproxy.sent) == 2
    apply(haproxy, state_file, Request(doors=doors, state="ready", by="roll-serving"), check=False)
    assert haproxy.sent[2:] == ["set server be/r0 state ready", "set server be_r/r0 state ready"]


def test_a_refused_command_and_an_unknown_target_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="refused 'set server be/r0 state drain': No such server"):
        haproxy = FakeHaproxy(*FULL, refuse="drain")
        apply(haproxy, tmp_path / "s", Request(targets=["be/r0"], state="drain"), check=False)
    with pytest.raises(GatewayError, match="no server be/r8"):
        apply(FakeHaproxy(*FULL), tmp_path / "s", Request(targets=["be/r8"], wait_idle_s=1), check=False)


def test_a_wait_that_times_out_names_what_is_in_flight() -> None:
    haproxy = FakeHaproxy(*DRAINED)
    haproxy.sessions = [3] * 50
    with pytest.raises(GatewayError, match=r"after 0 s: be/r0 3; they stay drained"):
        wait_idle(haproxy, ["be/r0"], 0.1, 0.02)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="drains would not outlive"):
        write_state_file(tmp_path / "none" / "server-state", "1\n")


def test_stat_counts() -> None:
    load = parse_stat("# pxname,svname,qcur,scur,status,check_status,last_chk\nbe,r0,,2,UP,L7OK,fine\n")["be/r0"]
    assert (load.sessions, load.queued, load.check) == (2, 0, "L7OK fine")


def test_targets_of_acceptance_come_from_the_filled_slots(gateway: Gateway) -> None:
    targets = acceptance_targets(gateway.slice, {"m": {"cases": [{"prompt": "a"}]}})
    assert [(target["server"], target["kinds"]) for target in targets] == [
        ("be_m/r0", ["plain", "stream"]),
        ("be_m/r1", ["plain", "stream"]),
        ("", ["chat", "chat_stream"]),
    ]
    assert targets[0]["golden"] == {"cases": [{"prompt": "a"}]}
    assert len(acceptance_targets(gateway.slice, {}, chat=False)) == 2


def test_a_quick_acceptance_asks_every_engine_for_one_golden_answer(gateway: Gateway) -> None:
    golden = {"m": {"cases": [{"prompt": "a"}, {"prompt": "b"}], "hardware": "h"}}
    full = acceptance_targets(gateway.slice, golden, chat=False)
    quick = acceptance_targets(gateway.slice, golden, depth="quick")
    assert [target["server"] for target in quick] == [target["server"] for target in full]
    assert [target["kinds"] for target in quick] == [["stream"]] * len(full)
    assert quick[0]["golden"] == {"cases": [{"prompt": "a"}], "hardware": "h"}
    with pytest.raises(ValueError, match="depth 'deep': one of full, quick"):
        acceptance_targets(gateway.slice, golden, depth="deep")
    assert len(gateway_slots(gateway.slice)) == 3
    assert instance_names(gateway.slice) == {"be_m/r0": "node e0", "be_m/r1": "node e1"}


def test_the_unit_says_what_it_was_rendered_from(gateway: Gateway) -> None:
    one = render("rackserve-gateway.service.j2", load_balancer_gateway=gateway.slice, load_balancer_low_port=False)
    low = render("rackserve-gateway.service.j2", load_balancer_gateway=gateway.slice, load_balancer_low_port=True)
    assert "AmbientCapabilities=\n" in one and "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" in low
    revisions = {line for text in (one, low) for line in text.splitlines() if "RACKSERVE_UNIT=" in line[:40]}
    assert len(revisions) == 2


def test_only_server_lines_know_addresses(gateway: Gateway) -> None:
    """The gate and the digest leave server lines out, so an address anywhere else would be lost."""
    before = gateway.config.read_text().splitlines()
    for entry in gateway.slice["deployments"][0]["slots"]:
        entry["address"] = entry["address"] and "10.9.9.9"
    gateway.write()
    after = gateway.config.read_text().splitlines()
    changed = [line for old, line in zip(before, after) if old != line]
    assert len(changed) == 4 and all(line.startswith("  server ") for line in changed)
    assert os.linesep.join(after).count("0.0.0.0:1") == 2


TARGET = ["be/r0"]


def test_a_drain_of_an_operation_is_noted_and_ends_with_it(tmp_path: Path) -> None:
    haproxy, state = FakeHaproxy(*FULL), tmp_path / "server-state"
    drained = apply(haproxy, state, Request(targets=TARGET, state="drain", by="roll-serving"), check=False)
    assert drained["servers"][0]["drained_by"] == "roll-serving"
    assert read_notes(tmp_path / "drained-by.json") == {"be/r0": "roll-serving"}
    seen = apply(haproxy, state, Request(), check=False)
    assert [row["drained_by"] for row in seen["servers"]] == ["roll-serving", ""]
    assert seen["changed"] is False
    again = apply(haproxy, state, Request(targets=TARGET, state="ready", by="roll-serving"), check=False)
    assert (again["servers"][0]["admin"], again["servers"][0]["drained_by"]) == ("ready", "")
    assert not (tmp_path / "drained-by.json").exists()


def test_an_operation_does_not_end_a_drain_that_is_not_its_own(tmp_path: Path) -> None:
    haproxy, state = FakeHaproxy(*DRAINED), tmp_path / "server-state"
    for wanted in ("drain", "ready"):
        done = apply(haproxy, state, Request(targets=TARGET, state=wanted, by="roll-serving"), check=False)
        assert (done["servers"][0]["admin"], done["servers"][0]["drained_by"]) == ("drain", "")
    assert apply(haproxy, state, Request(targets=TARGET, state="ready"), check=False)["servers"][0]["admin"] == "ready"


@pytest.mark.parametrize("asked", ["drain", "ready"])
def test_what_a_person_asks_for_is_no_operations_any_more(asked: str, tmp_path: Path) -> None:
    haproxy, state = FakeHaproxy(*FULL), tmp_path / "server-state"
    apply(haproxy, state, Request(targets=TARGET, state="drain", by="roll-serving"), check=False)
    done = apply(haproxy, state, Request(targets=TARGET, state=asked), check=False)
    assert (done["servers"][0]["admin"], done["servers"][0]["drained_by"]) == (asked, "")
    assert not (tmp_path / "drained-by.json").exists()


def test_a_note_of_a_server_that_works_is_dropped_and_check_mode_writes_none(tmp_path: Path) -> None:
    haproxy, state, notes = FakeHaproxy(*FULL), tmp_path / "server-state", tmp_path / "drained-by.json"
    apply(haproxy, state, Request(), check=False)
    apply(haproxy, state, Request(targets=TARGET, state="drain", by="roll-serving"), check=True)
    assert not notes.exists()
    write_notes(notes, {"be/r0": "roll-serving"})
    assert apply(haproxy, state, Request(), check=True)["changed"] is True
    assert notes.exists()
    assert apply(haproxy, state, Request(), check=False)["changed"] is True
    assert not notes.exists()


def test_notes_that_cannot_be_read_or_written_are_said(tmp_path: Path) -> None:
    (tmp_path / "drained-by.json").write_text("[]")
    with pytest.raises(GatewayError, match="look at it, then remove it"):
        apply(FakeHaproxy(*FULL), tmp_path / "server-state", Request(), check=False)
    with pytest.raises(GatewayError, match="would not be found"):
        write_notes(tmp_path / "nowhere" / "drained-by.json", {"be/r0": "x"})


def test_a_smoke_test_asks_every_model_once_and_names_no_engine() -> None:
    gateway = {"deployments": [{"name": "m", "served_model_name": "M"}, {"name": "n", "served_model_name": "N"}]}
    first, second = smoke_targets(gateway, {"m": {"cases": [{"prompt": "a"}, {"prompt": "b"}]}}, chat=False)
    assert first == {"server": "", "kinds": ["plain", "stream"], "model": "M", "golden": {"cases": [{"prompt": "a"}]}}
    assert second["golden"] == {}
    assert "chat_stream" in smoke_targets(gateway, {})[0]["kinds"]


def test_a_door_that_is_open_is_told() -> None:
    def knock(status: int) -> dict[str, Any]:
        return {"item": {"what": "with a wrong key", "wanted": 401}, "status": status}

    assert wrong_doors([knock(401)]) == []
    assert wrong_doors([knock(200)]) == ["with a wrong key: HTTP 200, 401 is meant"]
