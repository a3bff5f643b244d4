"""Run records: begun, steps, ended, cut off, bounded, shown."""

from __future__ import annotations

import importlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from rackserve.operation import record as core


def run(operation: str = "restart-serving", **details: Any) -> core.Run:
    return core.Run(operation, "ada@ops1", "abc", "lab", {"release": "1"}, {"node1": ["vllm: unit-a"]}, details)


def begin(folder: Path, now_s: float, given: core.Run | None = None, keep: int = 200) -> dict[str, Any]:
    return core.begin(folder, given or run(), keep=keep, now_s=now_s, salt="00ff")


def test_a_run_from_begin_to_end(tmp_path: Path) -> None:
    begun = begin(tmp_path / "runs", 1000)
    assert begun["run"] == "19700101T001640Z-restart-serving-00ff"
    path = tmp_path / "runs" / f"{begun['run']}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert core.read(path)["state"] == "begun"
    step = {"host": "node1", "unit": "vllm-a.service", "result": "ok", "text": "proven\n twice"}
    assert core.add_step(tmp_path / "runs", begun["run"], step, now_s=1010)
    assert core.end(tmp_path / "runs", begun["run"], "done", "", now_s=1020)
    assert not core.end(tmp_path / "runs", begun["run"], "done", "", now_s=1030)
    record = core.read(path)
    assert record["state"] == "done" and record["ended_at"] == 1020 and record["wanted"] == {"node1": ["vllm: unit-a"]}
    assert record["steps"] == [{**step, "text": "proven twice", "at": 1010}]
    assert not list((tmp_path / "runs").glob("*.part"))


def test_a_failed_run_is_not_made_done(tmp_path: Path) -> None:
    name = begin(tmp_path, 1000)["run"]
    assert core.end(tmp_path, name, "failed", "too slow", now_s=1001)
    assert not core.end(tmp_path, name, "done", "", now_s=1002)
    assert core.listed(tmp_path)[0]["cause"] == "too slow"


def test_the_next_run_marks_what_was_killed_and_goes_on_with_it(tmp_path: Path) -> None:
    first = begin(tmp_path, 1000, run("upgrade-release", release_to="2"))["run"]
    other = begin(tmp_path, 1100, run("upgrade-release", release_to="3"))
    assert other["cut_off"] == [first] and other["resumes"] == ""
    again = begin(tmp_path, 1200, run("upgrade-release", release_to="2"))
    assert again["resumes"] == first and again["cut_off"] == [other["run"]]
    core.end(tmp_path, again["run"], "done", "", now_s=1300)
    assert begin(tmp_path, 1400, run("upgrade-release", release_to="2"))["resumes"] == ""
    assert [record["state"] for record in core.listed(tmp_path)] == ["begun", "done", "cut off", "cut off"]


def test_records_are_bounded(tmp_path: Path) -> None:
    for number in range(5):
        name = begin(tmp_path, 1000 + number, keep=3)["run"]
    assert len(list(tmp_path.glob("*.json"))) == 3
    step = {"host": "n", "unit": "u", "result": "ok", "text": "x" * 5000}
    for _ in range(core.MOST_STEPS):
        core.add_step(tmp_path, name, step, now_s=1)
    assert not core.add_step(tmp_path, name, step, now_s=1)
    steps = core.listed(tmp_path, most=1)[0]["steps"]
    assert len(steps) == core.MOST_STEPS and len(steps[0]["text"]) == core.MOST_CHARACTERS


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    answer = core.begin(tmp_path / "runs", run(), keep=5, now_s=1, salt="0", check=True)
    assert answer["changed"] and answer["run"] == "" and not (tmp_path / "runs").exists()


def test_the_previous_release_is_that_of_the_newest_change() -> None:
    records: list[dict[str, Any]] = [
        {"operation": "site", "details": {"release_from": "9"}},
        {"operation": "upgrade-release", "details": {"release_from": "", "release_to": "3"}},
        {"operation": "rollback-release", "details": {"release_from": "2", "release_to": "1"}},
        {"operation": "upgrade-release", "details": {"release_from": "1", "release_to": "2"}},
    ]
    assert core.previous_release(records) == "2"
    assert core.previous_release(records[:2]) == ""


@pytest.mark.parametrize(("state", "release"), [("begun", "1"), ("cut off", "1"), ("failed", "1"), ("done", "2")])
def test_a_way_back_that_did_not_end_is_gone_on_with(state: str, release: str) -> None:
    back = {"operation": "rollback-release", "state": state, "details": {"release_from": "2", "release_to": "1"}}
    there = {"operation": "upgrade-release", "state": "done", "details": {"release_from": "1", "release_to": "2"}}
    site = {"operation": "site", "state": "failed"}
    assert core.previous_release([site, back, there]) == release
    again = {"operation": "upgrade-release", "state": "failed", "details": {"release_from": "1", "release_to": "3"}}
    assert core.previous_release([again, back, there]) == "1"
    nothing_left = {**back, "details": {"release_from": "", "release_to": "1"}}
    assert core.previous_release([nothing_left, back, there]) == ("2" if state == "done" else "1")


def test_a_broken_record_is_shown_and_stops_no_list(tmp_path: Path) -> None:
    (tmp_path / "20260101T000000Z-site-0000.json").write_text("{")
    begin(tmp_path, 1_800_000_000)
    shown = core.history_lines(core.listed(tmp_path))
    assert "unreadable" in shown[2] and "look at it, then remove it" in shown[3]
    with pytest.raises(core.RecordError, match="not the name of a run"):
        core.add_step(tmp_path, "../x", {}, now_s=1)


def test_the_table_names_release_subject_and_cause() -> None:
    record = {
        "id": "a", "operation": "upgrade-release", "who": "ada@ops1", "plan_hash": "0123456789abcdef", "begun_at": 1000,
        "ended_at": 1090, "state": "failed", "cause": "too slow", "versions": {"release": "2"},
        "details": {"release_from": "1", "release_to": "2", "host": "node3"},
        "steps": [{"result": "put back"}, {"result": "ok"}],
    }  # fmt: skip
    head, row, cause = core.history_lines([record])
    assert head.split()[0] == "WHEN"
    for part in ("1970-01-01 00:16:40", "upgrade-release node3", "0123456789ab ", "1 -> 2", "90 s", "failed", "1/2"):
        assert part in row
    assert cause.strip() == "too slow"


def test_a_machine_that_an_unfinished_replacement_brought_up_is_known(tmp_path: Path) -> None:
    given = run("replace-host", host="node3")
    first = begin(tmp_path, 1000, given)["run"]
    core.add_step(tmp_path, first, {"host": "node3", "unit": "", "result": "ok", "text": "new machine m2"}, now_s=1)
    begin(tmp_path, 1100, given)
    records = core.listed(tmp_path)
    assert core.is_known_replacement(records, "node3", "m2")
    assert not core.is_known_replacement(records, "node3", "m1")
    assert not core.is_known_replacement(records, "node2", "m2")
    core.end(tmp_path, first, "done", "", now_s=2)
    assert not core.is_known_replacement(core.listed(tmp_path), "node3", "m2")


def call(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    module = importlib.import_module("run_record")
    with patch_module_args(options), pytest.raises(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_the_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path)
    begun = call(capsys, folder=folder, state="begun", operation="site", who="ada@ops1")
    assert begun["changed"]
    step = {"folder": folder, "run": begun["run"], "state": "step", "host": "node1", "unit": "u", "text": "t"}
    assert call(capsys, **step)["changed"]
    assert call(capsys, folder=folder, state="failed", run=begun["run"], text="no")["changed"]
    seen = call(capsys, folder=folder, state="listed")
    assert seen["records"][0]["cause"] == "no" and seen["previous_release"] == ""
    assert not call(capsys, folder=folder, state="step", run="")["changed"]
    assert "cannot read the run record" in call(capsys, folder=folder, state="done", run="gone")["msg"]
