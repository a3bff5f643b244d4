"""Never fewer in service than allowed: asked before a server is taken out, waited for after."""

from __future__ import annotations

from pathlib import Path

import pytest
from rackserve.gateway.notes import read_notes, taken_over
from rackserve.gateway.runtime import NO_ADDRESS, GatewayError
from rackserve.gateway.servers import Request, apply
from rackserve.gateway.service import require_others, wait_up
from rackserve.gateway.slots import cut_off, out_on_purpose, still_out, unproven
from test_membership import FakeHaproxy

FOUR = tuple(("be", f"r{number}", f"10.0.0.{number + 1}", 8000, 0) for number in range(4))
EMPTY = ("be", "r4", NO_ADDRESS, 1, 1)
OTHER = ("other", "r0", "10.0.0.9", 8000, 8)


class Haproxy(FakeHaproxy):
    """With a status a server, and what changes from one look to the next."""

    def __init__(self, *rows: tuple[str, str, str, int, int], status: dict[str, list[str]] | None = None) -> None:
        super().__init__(*rows)
        self.status = status or {}

    def __call__(self, text: str) -> str:
        if text != "show stat":
            return super().__call__(text)
        lines = ["# pxname,svname,qcur,scur,status,check_status,last_chk"]
        for key, row in self.rows.items():
            said = self.status.get(key, [])
            word = (said.pop(0) if len(said) > 1 else said[0]) if said else ("DRAIN" if row[4] else "UP")
            lines.append(f"{row[0]},{row[1]},0,0,{word},L7TOUT,")
        return "\n".join(lines)


def drain(haproxy: Haproxy, tmp_path: Path, targets: list[str], others_out: int = 0, check: bool = False) -> None:
    request = Request(targets=targets, state="drain", by="upgrade-release", others_out=others_out, others_wait_s=0)
    apply(haproxy, tmp_path / "server-state", request, check=check)


def drained(row: tuple[str, str, str, int, int]) -> tuple[str, str, str, int, int]:
    return (*row[:4], 8)


def test_one_of_four_is_taken_out(tmp_path: Path) -> None:
    haproxy = Haproxy(*FOUR, EMPTY, OTHER)
    drain(haproxy, tmp_path, ["be/r1"])
    assert haproxy.sent == ["set server be/r1 state drain"]


def test_a_second_one_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    haproxy = Haproxy(drained(FOUR[0]), *FOUR[1:])
    for check in (True, False):
        with pytest.raises(GatewayError, match=r"leave 2 of 4 in service: be/r0 is drain, by a person.*may_be_out=1"):
            drain(haproxy, tmp_path, ["be/r1"], check=check)
    assert haproxy.sent == [] and not read_notes(tmp_path / "drained-by.json")
    drain(haproxy, tmp_path, ["be/r1"], others_out=1)
    assert haproxy.sent == ["set server be/r1 state drain"]


def test_one_that_is_down_counts_as_out(tmp_path: Path) -> None:
    haproxy = Haproxy(*FOUR, status={"be/r3": ["DOWN"]})
    with pytest.raises(GatewayError, match=r"be/r3 is DOWN \(L7TOUT\)"):
        drain(haproxy, tmp_path, ["be/r1"])


def test_what_is_out_already_may_be_gone_on_with(tmp_path: Path) -> None:
    haproxy = Haproxy(drained(FOUR[0]), drained(FOUR[1]), *FOUR[2:])
    drain(haproxy, tmp_path, ["be/r1"])
    assert haproxy.sent == []


def test_all_of_a_host_are_one_step(tmp_path: Path) -> None:
    haproxy = Haproxy(*FOUR)
    drain(haproxy, tmp_path, ["be/r0", "be/r1"])
    assert len(haproxy.sent) == 2


def test_others_that_come_back_are_waited_for() -> None:
    haproxy = Haproxy(*FOUR, status={"be/r3": ["DOWN", "DOWN 1/2", "UP"]})
    slept: list[float] = []
    require_others(haproxy, ["be/r0"], 0, {}, wait_s=30, clock=lambda: len(slept), sleep=slept.append)
    assert len(slept) == 2


def test_maintenance_is_noted_like_a_drain(tmp_path: Path) -> None:
    haproxy, state = Haproxy(*FOUR), tmp_path / "server-state"
    apply(haproxy, state, Request(targets=["be/r2"], state="maint", by="replace-host"), check=False)
    assert read_notes(tmp_path / "drained-by.json") == {"be/r2": "replace-host"}
    done = apply(haproxy, state, Request(targets=["be/r2"], state="ready", by="replace-host"), check=False)
    assert done["servers"][0]["admin"] == "ready"


def test_a_machine_that_was_refused_or_drained_before_comes_back(tmp_path: Path) -> None:
    haproxy, state = Haproxy(*FOUR), tmp_path / "server-state"
    apply(haproxy, state, Request(targets=["be/r2"], state="drain", by="drain-host"), check=False)
    apply(haproxy, state, Request(targets=["be/r1"], state="drain"), check=False)
    taken = Request(targets=["be/r1", "be/r2"], state="maint", by="replace-host")
    apply(haproxy, state, taken, check=False)
    assert read_notes(tmp_path / "drained-by.json") == {"be/r2": "replace-host"}
    back = Request(targets=["be/r1", "be/r2"], state="ready", by="return-host")
    done = apply(haproxy, state, back, check=False)
    assert [row["admin"] for row in done["servers"]] == ["maint", "ready"]
    assert still_out(done["servers"]) == ["be/r1 is still out (maint), by a person"]


def test_the_note_of_a_removed_replica_ends_with_its_slot(tmp_path: Path) -> None:
    haproxy, state = Haproxy(*FOUR, EMPTY), tmp_path / "server-state"
    (tmp_path / "drained-by.json").write_text('{"be/r2": "scale-deployment", "be/r4": "scale-deployment"}')
    apply(haproxy, state, Request(targets=["be/r2"], state="drain", by="scale-deployment"), check=False)
    haproxy.rows["be/r2"][2:5] = [NO_ADDRESS, 1, 1]
    apply(haproxy, state, Request(), check=False)
    assert read_notes(tmp_path / "drained-by.json") == {}


def test_return_host_ends_no_drain_of_an_operation_that_did_not_finish() -> None:
    assert set(taken_over("return-host")) == {"drain-host", "replace-host"}


def test_work_is_given_when_the_probe_has_seen_it() -> None:
    haproxy = Haproxy(*FOUR, status={"be/r0": ["DOWN", "UP"]})
    slept: list[float] = []
    wait_up(haproxy, ["be/r0"], 5, clock=lambda: len(slept), sleep=slept.append)
    assert len(slept) == 1
    haproxy.status["be/r0"] = ["DOWN"]
    with pytest.raises(GatewayError, match=r"does not see .* after 3 s: be/r0 DOWN \(L7TOUT\)"):
        wait_up(haproxy, ["be/r0"], 3, clock=lambda: len(slept), sleep=slept.append)


def test_one_that_a_person_drained_is_not_waited_for(tmp_path: Path) -> None:
    haproxy = Haproxy(drained(FOUR[0]), *FOUR[1:])
    request = Request(targets=["be/r0"], state="ready", by="roll-serving", wait_up_s=0.1)
    assert apply(haproxy, tmp_path / "s", request, check=False)["servers"][0]["admin"] == "drain"


@pytest.mark.parametrize(
    ("by", "ends", "stays"),
    [("rollback-release", "upgrade-release", "drain-host"), ("restart-serving", "restart-serving", "upgrade-release")],
)
def test_a_transaction_ends_what_another_one_left_and_nothing_else(
    by: str, ends: str, stays: str, tmp_path: Path
) -> None:
    haproxy, state = Haproxy(*FOUR), tmp_path / "server-state"
    apply(haproxy, state, Request(targets=["be/r0"], state="drain", by=ends), check=False)
    apply(haproxy, state, Request(targets=["be/r1"], state="drain", by=stays), check=False)
    done = apply(haproxy, state, Request(targets=["be/r0", "be/r1"], state="ready", by=by), check=False)
    assert [row["admin"] for row in done["servers"]] == ["ready", "drain"]
    assert read_notes(tmp_path / "drained-by.json") == {"be/r1": stays}


def test_what_is_out_on_purpose_is_no_failure_and_named() -> None:
    def row(slot: str, by: str) -> dict[str, str]:
        return {"backend": "be", "slot": slot, "address": "10.0.0.1", "admin": "drain", "drained_by": by}

    seen = [row("r0", "drain-host"), row("r1", "upgrade-release"), row("r2", "")]
    rows = [{"server": f"be/r{number}", "ok": number == 3} for number in range(4)]
    assert [entry["server"] for entry in unproven(rows, seen)] == ["be/r1", "be/r2"]
    assert out_on_purpose(seen) == [
        "be/r0 is out (drain) by drain-host; playbooks/return-host.yml brings it back",
    ]
    assert [entry["slot"] for entry in cut_off(seen)] == ["r1"]
    assert cut_off([{**seen[1], "address": None}]) == []
