"""The ladder: which step comes next, and everything for which none does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import rackserve_health
from rackserve.gateway.notes import note_file, write_notes
from rackserve.gateway.quarantine import renote
from rackserve.gateway.runtime import GatewayError
from rackserve.health import actions
from rackserve.health.actions import ActionError, Host
from rackserve.health.catalogue import BY_ID
from rackserve.health.check import CRITICAL
from rackserve.health.ladder import (
    LADDERS,
    MENDED,
    OPERATION,
    QUARANTINED,
    STEPS,
    Decision,
    State,
    barred,
    decide,
    ladder_of,
    lines,
    next_step,
    targets_of,
    units_of,
)

NOW = 1_000_000.0
ALL = set(STEPS)
OURS = State(drained_by=(OPERATION,))


def finding(
    check: str = "fabric-state", seen: str = "bad", severity: str = CRITICAL, cause: str = ""
) -> dict[str, Any]:
    return {"id": check, "subject": "host", "seen": seen, "severity": severity, "caused_by": cause}


def tried(*steps: str, check: str = "fabric-state", ago_s: float = 60) -> State:
    rows = tuple({"step": step, "check": check, "subject": "host", "at": NOW - ago_s} for step in steps)
    return OURS._replace(tried=rows)


def step(state: State, enabled: set[str] = ALL, **given: Any) -> tuple[str, str]:
    decision = next_step("n", finding(**given), state, enabled, NOW)
    return decision.step, decision.held


def test_every_check_of_the_ladder_is_one_of_the_catalogue() -> None:
    assert set(LADDERS) <= set(BY_ID)
    for ladder in LADDERS.values():
        assert ladder[0] == "drain" and ladder[-1] == "quarantine"
        assert list(ladder) == [name for name in STEPS if name in ladder], "steps go up"


def test_it_goes_up_one_step_after_the_other() -> None:
    assert step(State(serving=("be/r0",)))[0] == "drain"
    assert step(State())[0] == "drain"
    assert step(OURS)[0] == "restart_fabric_manager"
    assert step(tried("restart_fabric_manager"))[0] == "gpu_reset"
    assert step(tried("restart_fabric_manager", "gpu_reset"))[0] == "reboot"
    assert step(tried("restart_fabric_manager", "gpu_reset", "reboot"))[0] == "quarantine"
    name, held = step(tried(*STEPS))
    assert (name, held.startswith("every enabled step was taken")) == ("alert", True)


def test_nothing_is_enabled_by_itself() -> None:
    assert step(State(serving=("be/r0",)), set()) == ("alert", "the step drain is not enabled (host_health_actions)")
    assert step(OURS, {"drain"})[0] == "alert"
    assert step(OURS, {"reboot", "quarantine"})[0] == "alert"


def test_a_step_that_is_off_or_not_there_is_left_out() -> None:
    assert step(OURS, {"drain", "quarantine"})[0] == "quarantine"
    assert step(OURS._replace(cannot=("restart_fabric_manager",)))[0] == "gpu_reset"


def test_a_step_taken_long_ago_or_for_something_else_does_not_count() -> None:
    assert step(tried("restart_fabric_manager", ago_s=30 * 86400))[0] == "restart_fabric_manager"
    assert step(tried("restart_fabric_manager", check="gpu-lost"))[0] == "restart_fabric_manager"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State(drained_by=("",)), "a person took it out"),
        (State(drained_by=("roll-serving", OPERATION)), "roll-serving took it out"),
        (State(drained_by=(QUARANTINED,)), "in quarantine"),
        (OURS._replace(problem="Ansible runs on this host"), "Ansible runs"),
    ],
)
def test_a_host_that_is_not_ours_to_work_on(state: State, words: str) -> None:
    name, held = step(state)
    assert name == "alert" and words in held


@pytest.mark.parametrize(
    "given",
    [
        {"severity": "warning"},
        {"cause": "gpu-lost"},
        {"check": "disk-space"},
        {"check": "time-sync"},
    ],
)
def test_what_is_only_told(given: dict[str, Any]) -> None:
    assert ladder_of(finding(**given)) == ()


@pytest.mark.parametrize(
    ("seen", "second"),
    [
        ("Xid 119 10 s ago: GSP", "reboot"),
        ("Xid 109 10 s ago: ctx", "gpu_reset"),
        ("Xid 74 2 times, last 10 s ago: link", "restart_fabric_manager"),
        ("Xid 9999 1 s ago: new", "quarantine"),
    ],
)
def test_xids_by_their_remedy(seen: str, second: str) -> None:
    assert step(OURS, check="gpu-xid", seen=seen)[0] == second


def test_a_line_of_the_log_that_is_older_than_the_step_is_no_reason_for_another() -> None:
    state = tried("gpu_reset", check="gpu-xid", ago_s=60)
    name, held = step(state, check="gpu-xid", seen="Xid 109 100 s ago: ctx")
    assert name == "alert" and "older than the step gpu_reset" in held
    assert step(state, check="gpu-xid", seen="Xid 109 30 s ago: ctx")[0] == "reboot"


ENGINES = {host: [f"be/{host}{number}" for number in range(4)] for host in "abc"}


def decided(
    states: Mapping[str, State],
    away: list[str],
    most_out: int = 1,
    targets: Mapping[str, list[str]] = ENGINES,
) -> list[Decision]:
    results = {host: {"findings": [finding()]} for host in states}
    enabled = dict.fromkeys(states, ALL)
    return decide(results, states, enabled, targets=targets, units={}, away=away, most_out=most_out, now_s=NOW)


def test_one_host_at_a_time() -> None:
    serving = State(serving=("be/r0",))
    first, second = decided({"a": serving, "b": serving}, [])
    assert (first.step, second.step) == ("drain", "alert")
    assert "one host and one step at a time" in second.held
    (first, second) = decided({"a": serving, "b": OURS}, ENGINES["b"])
    assert (first.host, first.step, second.step) == ("b", "restart_fabric_manager", "alert")
    (only,) = decided({"a": serving}, ["be/c0"])
    assert only.step == "alert" and "c (be/c0) is out already, at most 1" in only.held
    assert decided({"a": serving}, ["be/c0"], 2)[0].step == "drain"


def test_a_host_of_which_something_serves_is_not_drained_beside_one_that_is_out() -> None:
    (one,) = decided({"b": State(serving=("be/b1",))}, [*ENGINES["a"], "be/b0"])
    assert one.step == "alert" and "a (be/a0, be/a1, be/a2, be/a3) is out already" in one.held
    (one,) = decided({"b": State(serving=("be/b1",))}, ["be/b0"])
    assert (one.step, one.others_out) == ("drain", 0)
    (one,) = decided({"b": State(serving=("be/b1",))}, ["be/a0", "be/a1", "other/x"], 2)
    assert (one.step, one.others_out) == ("drain", 2), "those of its own backends"
    (one,) = decided({"b": State(serving=("be/b1",))}, [*ENGINES["a"], *ENGINES["b"]])
    assert (one.step, one.others_out) == ("drain", -1), "nothing of it serves: a drain takes nothing away"


def test_hosts_of_one_engine_count_as_one() -> None:
    groups = {"a": ["be/r0"], "b": ["be/r0"], "c": ["be/r1"], "d": ["be/r1"]}
    (worker,) = decided({"b": State(serving=("be/r0",))}, ["be/r0"], targets=groups)
    assert worker.step == "drain", "its head is out because of it"
    (other,) = decided({"c": State(serving=("be/r1",))}, ["be/r0"], targets=groups)
    assert other.step == "alert" and "a (be/r0) is out already" in other.held
    assert decided({"c": State(serving=("be/r1",))}, ["be/r0"], 2, groups)[0].step == "drain"


def test_a_host_that_is_well_again_stays_drained_and_is_told() -> None:
    (one,) = ended({"a": {"findings": [finding(severity="warning")], "unknown": []}})
    assert (one.step, one.why) == ("hand_over", MENDED)
    assert lines([one]) == [f"a: drained on host: {MENDED}: next step hand_over"]


def ended(results: dict[str, Any], targets: Mapping[str, list[str]] | None = None) -> list[Decision]:
    shared = {"a": ["be/r0"], **(targets or {})}
    states = {host: OURS for host in results if "be/r0" in shared[host]}
    units = {host: ["vllm-m-0.service"] for host in states}
    enabled = dict.fromkeys(states, ALL)
    return decide(results, states, enabled, targets=shared, units=units, away=["be/r0"], most_out=1, now_s=NOW)


@pytest.mark.parametrize(
    ("findings", "unknown", "words"),
    [
        ([finding("driver-versions")], [], "driver-versions on host: bad"),
        ([finding("gpu-xid", cause="driver-versions")], [], "gpu-xid on host: bad"),
        ([], [{"id": "gpu-lost", "why": "NVML", "caused_by": ""}], "gpu-lost could not be read"),
    ],
)
def test_what_the_ladder_has_no_step_for_is_not_mended(
    findings: list[dict[str, Any]], unknown: list[dict[str, Any]], words: str
) -> None:
    (one,) = ended({"a": {"findings": findings, "unknown": unknown}})
    assert (one.step, one.held) == ("alert", f"not mended yet, a: {words}")


@pytest.mark.parametrize(
    ("unit", "seen", "step"),
    [
        ("vllm-m-0.service", "inactive/dead (loaded)", "hand_over"),
        ("vllm-m-0.service", "failed/failed (loaded)", "alert"),
        ("vllm-m-0.service", "inactive/dead (not-found)", "alert"),
        ("haproxy.service", "inactive/dead (loaded)", "alert"),
    ],
)
def test_what_the_drain_itself_stopped_does_not_stand_against_the_host(unit: str, seen: str, step: str) -> None:
    resting = {**finding("services"), "subject": unit, "seen": seen}
    (one,) = ended({"a": {"findings": [resting], "unknown": []}})
    assert one.step == step
    (both,) = ended({"a": {"findings": [resting, finding("driver-versions")], "unknown": []}})
    assert both.step == "alert"


def test_a_host_is_handed_over_with_those_that_share_its_servers() -> None:
    well = {"findings": [], "unknown": []}
    sick, head = ended({"a": well, "b": {"findings": [finding()], "unknown": []}}, {"b": ["be/r0"]})
    assert (sick.host, sick.step) == ("b", "restart_fabric_manager")
    assert (head.host, head.step, head.held) == ("a", "alert", "not mended yet, b: fabric-state on host: bad")
    (one,) = ended({"a": well}, {"b": ["be/r0"]})
    assert (one.step, one.held) == ("alert", "not mended yet, b: nothing is known of it")
    assert [one.step for one in ended({"a": well, "b": well}, {"b": ["be/r0"]})] == ["hand_over", "hand_over"]
    assert [one.step for one in ended({"a": well}, {"b": ["be/r1"]})] == ["hand_over"]


def test_targets_are_those_of_the_host_and_of_its_groups() -> None:
    instances = [
        {"host": "a", "group": "g", "gateway_target": "be/r0"},
        {"host": "b", "group": "g", "gateway_target": None},
        {"host": "c", "group": "h", "gateway_target": "be/r1"},
    ]
    assert [targets_of(host, instances) for host in "abc"] == [["be/r0"], ["be/r0"], ["be/r1"]]
    units = [{**one, "unit": f"vllm-{number}.service"} for number, one in enumerate(instances)]
    assert [units_of(host, units) for host in "abc"] == [
        [f"vllm-{n}.service" for n in ends] for ends in ("01", "01", "2")
    ]


def test_the_filter_puts_hosts_gateway_and_settings_together() -> None:
    health = {"checks": [], "findings": [finding()], "unknown": [], "status": "critical", "wall_s": 0.1}
    instances = [
        {"host": "a", "group": "a", "gateway_target": "be/r0", "unit": "vllm-m-0.service"},
        {"host": "b", "group": "b", "gateway_target": "be/r1", "unit": "vllm-m-1.service"},
    ]
    servers = [{"backend": "be", "slot": f"r{n}", "admin": "ready", "drained_by": "", "status": "UP"} for n in (0, 1)]
    hostvars = {
        "a": {"rackserve_health": health, "act_on_health_seen": {"tried": []}, "act_on_health_steps": {"drain": True}}
    }
    (row,) = rackserve_health.health_decisions(hostvars, servers, instances, [])
    assert row["step"] == "drain"
    assert rackserve_health.health_decision_lines([row]) == ["a: fabric-state on host: bad: next step drain"]
    (row,) = rackserve_health.health_decisions(
        hostvars, [{**servers[0]}, {**servers[1], "status": "DOWN"}], instances, []
    )
    assert "b (be/r1) is out already" in row["held"]
    two = [*instances, {**instances[0], "group": "c", "gateway_target": "be/r2"}]
    down = [{**servers[0], "status": "DOWN"}, {**servers[1], "admin": "drain"}, {**servers[0], "slot": "r2"}]
    (row,) = rackserve_health.health_decisions(hostvars, down, two, [])
    assert (row["step"], row["held"]) == ("alert", "b (be/r1) is out already, at most 1 at a time")
    group = [instances[0], {**instances[1], "group": "a", "gateway_target": None}]
    worker = {"b": hostvars["a"]}
    (row,) = rackserve_health.health_decisions(worker, [{**servers[0], "status": "DOWN"}], group, [])
    assert (row["host"], row["step"]) == ("b", "drain")
    (row,) = rackserve_health.health_decisions(hostvars, [], instances, [])
    assert "the gateway has no server of it" in row["held"]
    (row,) = rackserve_health.health_decisions(hostvars, servers, instances, ["a"])
    assert row["step"] == "alert" and "it runs the gateway" in row["held"]
    pool = {**instances[0], "group": "p", "gateway_target": None, "deployment": "pd", "pool": "decode"}
    (row,) = rackserve_health.health_decisions(hostvars, servers, [*instances, pool], [])
    assert row["step"] == "alert" and "engines of pd that the gateway cannot lead requests around" in row["held"]


def test_a_host_that_cannot_be_drained_is_not_worked_on() -> None:
    head = {"host": "a", "group": "g", "gateway_target": "be/r0", "deployment": "m", "pool": None}
    part = {"host": "b", "group": "g", "gateway_target": None, "deployment": "m", "pool": None}
    assert [barred(host, [head, part], ["gw"]) for host in "abc"] == ["", "", ""]
    assert "runs the gateway" in barred("a", [head, part], ["a"])
    assert "engines of m" in barred("b", [part], [])
    assert "engines of m" in barred("b", [head, {**part, "gateway_target": "be/r1", "pool": "prefill"}], [])


def test_quarantine_takes_over_the_ladders_drains_and_nobody_elses(tmp_path: Path) -> None:
    state = tmp_path / "server-state"
    write_notes(note_file(state), {"be/r0": OPERATION, "be/r1": "roll-serving"})
    assert renote(state, ["be/r0"], OPERATION, QUARANTINED, check=True)
    assert json.loads(note_file(state).read_text())["be/r0"] == OPERATION
    assert renote(state, ["be/r0"], OPERATION, QUARANTINED, check=False)
    assert json.loads(note_file(state).read_text()) == {"be/r0": QUARANTINED, "be/r1": "roll-serving"}
    assert not renote(state, ["be/r0"], OPERATION, QUARANTINED, check=False)
    for targets, words in ((["be/r1"], "roll-serving"), (["be/r9"], "by a person or not at all")):
        with pytest.raises(GatewayError, match=words):
            renote(state, targets, OPERATION, QUARANTINED, check=False)


class Machine:
    """A host whose commands are answered from a table; remembers those that change something."""

    def __init__(self, root: Path, engine: str = "inactive", fails: str = "") -> None:
        self.root, self.engine, self.fails = root, engine, fails
        self.done: list[str] = []

    def __call__(self, words: list[str], _limit_s: float) -> tuple[int, str, str]:
        line = " ".join(words)
        if "LoadState" in line:
            return 0, "loaded\n", ""
        if "ActiveState" in line:
            states = {"vllm-m-0.service": self.engine}
            return 0, "\n\n".join(f"Id={name}\nActiveState={states.get(name, 'active')}" for name in words[3:]), ""
        self.done.append(line)
        return (1, "", "no") if self.fails and self.fails in line else (0, "", "")

    def host(self, **given: Any) -> Host:
        return Host(self.root, self, ("vllm-m-0.service",), **given)


def test_gpus_are_reset_with_what_holds_them_stopped(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    done = actions.take(machine.host(), "gpu_reset", "gpu-xid", "GPU 3", NOW, dry=False)
    assert (
        done
        == machine.done
        == [
            "systemctl stop nvidia-persistenced.service",
            "nvidia-smi --gpu-reset",
            "systemctl restart nvidia-persistenced.service",
            "systemctl restart nvidia-fabricmanager.service",
        ]
    )
    assert actions.read_record(tmp_path) == [
        {"step": "gpu_reset", "check": "gpu-xid", "subject": "GPU 3", "at": int(NOW)}
    ]


def test_daemons_come_back_although_the_reset_failed(tmp_path: Path) -> None:
    machine = Machine(tmp_path, fails="gpu-reset")
    with pytest.raises(ActionError, match="nvidia-smi --gpu-reset ended with 1"):
        actions.take(machine.host(), "gpu_reset", "c", "s", NOW, dry=False)
    assert machine.done[-1] == "systemctl restart nvidia-fabricmanager.service"
    assert actions.read_record(tmp_path)[0]["step"] == "gpu_reset", "it was tried"


@pytest.mark.parametrize("name", ["restart_fabric_manager", "gpu_reset", "reboot"])
def test_no_step_beyond_the_drain_while_anything_runs(tmp_path: Path, name: str) -> None:
    machine = Machine(tmp_path, engine="deactivating")
    with pytest.raises(ActionError, match=r"vllm-m-0.service is deactivating"):
        actions.take(machine.host(), name, "c", "s", NOW, dry=False)
    folder = tmp_path / "proc/77"
    (folder / "fd").mkdir(parents=True)
    (folder / "fd/3").symlink_to("/dev/nvidia0")
    (folder / "comm").write_text("train\n")
    (folder / "cgroup").write_text("0::/user.slice/session-3.scope\n")
    with pytest.raises(ActionError, match=r"process 77 \(train of session-3.scope\)"):
        actions.take(Machine(tmp_path).host(), name, "c", "s", NOW, dry=False)
    assert machine.done == [] and actions.read_record(tmp_path) == []


def test_never_on_the_host_from_which_ansible_runs(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("abc\n")
    (tmp_path / actions.BOOT_ID).parent.mkdir(parents=True)
    (tmp_path / actions.BOOT_ID).write_text("boot\n")
    in_a_container = {"controller": "x", "connection": "172.17.0.2 5 10.0.0.1 22", "controller_boot": "boot\n"}
    for given in ({"controller": "abc"}, {"connection": "10.0.0.1 5 10.0.0.1 22"}, in_a_container):
        machine = Machine(tmp_path)
        assert "another one" in actions.look(machine.host(**given))["problem"]
        with pytest.raises(ActionError, match="Ansible runs on this host"):
            actions.take(machine.host(**given), "drain", "c", "s", NOW, dry=False)
    elsewhere = {"controller": "x", "connection": "10.0.0.2 5 10.0.0.1 22", "controller_boot": "other"}
    assert actions.look(Machine(tmp_path).host(**elsewhere))["problem"] == ""


def test_a_dry_run_looks_and_takes_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert actions.take(machine.host(), "restart_fabric_manager", "c", "s", NOW, dry=True) == []
    assert machine.done == [] and not (tmp_path / actions.RECORD).exists()
    with pytest.raises(ActionError, match="simulated"):
        actions.take(machine.host(simulated=True), "gpu_reset", "c", "s", NOW, dry=True)
    assert actions.look(machine.host(simulated=True))["cannot"] == ["gpu_reset"]


def test_a_record_that_cannot_be_read_stops_the_ladder(tmp_path: Path) -> None:
    (tmp_path / actions.RECORD).parent.mkdir(parents=True)
    (tmp_path / actions.RECORD).write_text("{")
    with pytest.raises(ActionError, match="look at it"):
        actions.take(Machine(tmp_path).host(), "drain", "c", "s", NOW, dry=False)
