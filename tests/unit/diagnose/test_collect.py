"""What is taken of a host: bounded texts without secrets, units, processes, volumes, weights; what fails is named."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from diagnose_support import REPO, plan
from rackserve.diagnose import collect, readings
from rackserve.diagnose.case import FINE, TROUBLED
from rackserve.diagnose.collect import Collector, kind_of, last_starts
from rackserve.diagnose.inputs import host_question
from rackserve.diagnose.look import look_at_host
from rackserve.diagnose.redact import MARK, Redactor

ENGINE = "vllm-tiny-deepseek-0.service"
KEY = "engine-key-4711"
Answers = dict[str, tuple[int, str, str]]


class Runner:
    """Answers commands by their first words; what it does not know is not installed."""

    def __init__(self, answers: Answers) -> None:
        self.answers, self.asked = answers, list[list[str]]()

    def __call__(self, words: list[str]) -> tuple[int, str, str]:
        self.asked.append(words)
        line = " ".join(words)
        return next((answer for begin, answer in self.answers.items() if line.startswith(begin)), (127, "", "none"))


def entry(text: Any, start: str = "", about: str = "", who: str = "python3") -> str:
    one = {"MESSAGE": text, "SYSLOG_IDENTIFIER": who, "__REALTIME_TIMESTAMP": "1764169200000000"}
    one.update({"_SYSTEMD_INVOCATION_ID": start} if start else {})
    one.update({"INVOCATION_ID": about} if about else {})
    return json.dumps(one)


def show(name: str, **other: str) -> str:
    given = {
        "Id": name, "LoadState": "loaded", "ActiveState": "active", "SubState": "running", "Result": "success",
        "ExecMainStatus": "0", "NRestarts": "0", "UnitFileState": "enabled", "DropInPaths": "",
        "NeedDaemonReload": "no", "MainPID": "4100", "AssertResult": "yes", "ActiveEnterTimestampMonotonic": "1000000",
        "InactiveEnterTimestamp": "", "FragmentPath": f"/etc/systemd/system/{name}", **other,
    }  # fmt: skip
    return "".join(f"{key}={value}\n" for key, value in given.items())


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def collector(root: Path, run: Any = None, budget_s: float = 60.0) -> Collector:
    return Collector(root, run or Runner({}), Redactor([KEY]), 0.0, budget_s)


def test_texts_are_bounded_at_their_end_and_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "MOST_BYTES", 100)
    monkeypatch.setattr(collect, "MOST_ALL", 150)
    mine = collector(tmp_path)
    mine.add("a", "unit", "".join(f"line {number} {KEY}\n" for number in range(50)))
    mine.add("empty", "unit", " \n")
    (one,) = mine.sources
    assert one["text"].splitlines()[-1] == f"line 49 {MARK}"
    assert one["cut"] == 50 - len(one["text"].splitlines()) > 40
    mine.add("b", "unit", "x" * 99 + "\n")
    assert mine.missed == ["b: no room was left"]
    monkeypatch.setattr(collect, "MOST_ALL", 10_000)
    monkeypatch.setattr(collect, "MOST_COLUMNS", 10)
    mine.add("c", "unit", "x" * 50)
    assert mine.sources[-1]["text"] == "x" * 10 + " ...\n"


def test_only_the_last_starts_of_a_unit_count() -> None:
    journal = "\n".join([
        entry("old", "a"), entry("Started", about="b", who="systemd"), entry("one\ntwo", "b"), entry([104, 105], "c"),
        entry("Failed with result", about="c", who="systemd"), "no json", entry("of nobody"),
    ])  # fmt: skip
    two = [line.partition("Z ")[2] for line in last_starts(journal, 2)]
    assert two == ["systemd: Started", "python3: one", "python3: two", "python3: hi", "systemd: Failed with result",
                   "python3: of nobody"]  # fmt: skip
    assert [line.partition("Z ")[2] for line in last_starts(journal, 1)] == [
        "python3: hi", "systemd: Failed with result", "python3: of nobody",
    ]  # fmt: skip
    assert last_starts("", 2) == []


@pytest.mark.parametrize(
    ("unit", "serves", "state", "starts"),
    [
        ({"active": "active", "sub": "running"}, "fine", FINE, 1),
        ({"active": "active", "sub": "running"}, "hung", TROUBLED, 1),
        ({"active": "active", "sub": "running", "restarts": 2, "active_s": 30.0}, "loading", TROUBLED, 2),
        ({"active": "activating", "sub": "auto-restart"}, "inactive", TROUBLED, 2),
        ({"active": "failed", "sub": "failed"}, "inactive", TROUBLED, 2),
        ({"active": "inactive", "sub": "dead"}, "inactive", TROUBLED, 1),
    ],
)
def test_logs_of_a_unit_that_serves_are_no_evidence(
    tmp_path: Path, unit: dict[str, Any], serves: str, state: str, starts: int
) -> None:
    run = Runner({"journalctl": (0, "\n".join(entry(f"of {name}", name) for name in "abc"), "")})
    mine = collector(tmp_path, run)
    mine.journals({ENGINE: unit}, {ENGINE: serves}, 600)
    (one,) = mine.sources
    assert (one["state"], one["kind"], len(one["text"].splitlines())) == (state, "engine", starts)
    assert f"--unit={ENGINE}" in run.asked[0] and "--lines=600" in run.asked[0]


def test_files_of_ours_without_those_that_hold_secrets(tmp_path: Path) -> None:
    names = ("etc/rackserve/vllm/a.env", "etc/rackserve/vllm/a.secret.env", "etc/rackserve/gateway/tls.pem",
             "etc/rackserve/gateway/keys.map", "etc/rackserve/ray/token", "etc/rackserve/gateway/haproxy.cfg",
             "etc/systemd/system/vllm-a.service", "etc/systemd/system/vllm-a.service.d/x.conf")  # fmt: skip
    for name in names:
        write(tmp_path, name, f"key {KEY}\n")
    mine = collector(tmp_path)
    mine.files()
    assert {one["name"] for one in mine.sources} == {
        "files/etc/rackserve/vllm/a.env", "files/etc/rackserve/gateway/haproxy.cfg",
        "files/etc/systemd/system/vllm-a.service", "files/etc/systemd/system/vllm-a.service.d/x.conf",
    }  # fmt: skip
    assert all(one["text"] == f"key {MARK}\n" for one in mine.sources)


def test_nothing_new_is_begun_when_time_is_used_up(tmp_path: Path) -> None:
    run = Runner({})
    mine = collector(tmp_path, run, -1.0)
    mine.kernel()
    mine.journals({ENGINE: {"active": "active"}}, {}, 10)
    mine.tools(True, True)
    assert run.asked == []
    assert mine.missed[0] == "kernel log: no time was left"


def test_tools_and_logs(tmp_path: Path) -> None:
    write(tmp_path, "run/rackserve-ray/session_1/logs/raylet.out", "Failed to connect to GCS\n")
    write(tmp_path, "var/log/fabricmanager.log", "fine\n")
    run = Runner({
        "nvidia-smi": (9, "Failed to initialize NVML: Driver/library version mismatch\n", ""),
        "df": (0, "Filesystem\n", ""), "haproxy -c": (1, "", "[ALERT] unknown keyword\n"),
        "journalctl --dmesg": (1, "", "no permission\n"),
    })  # fmt: skip
    mine = collector(tmp_path, run)
    mine.kernel()
    mine.logs(ray_troubled=True)
    mine.tools(gpus=True, gateway=True)
    states = {one["name"]: (one["kind"], one["state"]) for one in mine.sources}
    assert states["tools/nvidia-smi.txt"] == ("tool", "")
    assert states["tools/df.txt"] == ("tool", FINE)
    assert states["tools/haproxy-check.txt"] == ("gateway", "")
    assert states["ray/raylet.out"] == ("ray", TROUBLED)
    assert states["logs/var/log/fabricmanager.log"] == ("unit", FINE)
    assert mine.missed == ["kernel log: no permission"]
    without = collector(tmp_path, run)
    without.tools(gpus=False, gateway=False)
    assert [one["name"] for one in without.sources] == ["tools/df.txt"]


def test_kinds_of_logs() -> None:
    names = (ENGINE, "rackserve-gateway.service", "rackserve-ray.service", "rackserve-group.service")
    assert [kind_of(name) for name in names] == ["engine", "gateway", "ray", "unit"]


def test_units_as_systemd_has_them(tmp_path: Path) -> None:
    digest, other = "a" * 64, "b" * 64
    write(tmp_path, f"etc/systemd/system/{ENGINE}", f"Environment=RACKSERVE_CONFIG_SHA256={digest}\n")
    write(tmp_path, "proc/4100/environ", f"A=1\0RACKSERVE_CONFIG_SHA256={other}\0")
    listed = f"{ENGINE} loaded active running x\nrackserve-host-health.service loaded inactive dead x\n"
    run = Runner({
        "systemctl list-units": (0, listed, ""),
        "systemctl show": (0, "\n".join([show(ENGINE, NRestarts="3", DropInPaths="/etc/a.conf /etc/b.conf"),
                                         show("gone.service", LoadState="not-found", MainPID="0")]), ""),
    })  # fmt: skip
    found = readings.unit_states(tmp_path, run, [ENGINE, "gone.service"], 61.0)
    assert list(found) == [ENGINE, "gone.service"]
    assert (found[ENGINE]["restarts"], found[ENGINE]["active_s"]) == (3, 60.0)
    assert (found[ENGINE]["wanted_digest"], found[ENGINE]["running_digest"]) == (digest, other)
    assert found[ENGINE]["drop_ins"] == ["/etc/a.conf", "/etc/b.conf"]
    assert found["gone.service"]["running_digest"] == ""
    assert "rackserve-host-health.service" not in run.asked[1]
    for broken in ({"systemctl list-units": (1, "", "no bus")}, {"systemctl list-units": (0, listed, ""),
                                                                 "systemctl show": (1, "", "no bus")}):  # fmt: skip
        with pytest.raises(ValueError, match="no bus"):
            readings.unit_states(tmp_path, Runner(broken), [ENGINE], 0.0)
    assert readings.unit_states(tmp_path, Runner({"systemctl list-units": (0, "", "")}), [], 0.0) == {}


def test_a_unit_that_is_behind_the_plan(tmp_path: Path) -> None:
    """Every engine of the lab's golden files is as the plan has it; one word more or less is told."""
    golden = REPO / "tests/golden/lab"
    for name, piece in plan()["slices"].items():
        asked = host_question(piece)
        assert readings.behind_plan(golden / name, asked["argv"]) == []
        assert not asked["engines"] or (golden / name / f"etc/systemd/system/{asked['engines'][0]['unit']}").is_file()
    write(
        tmp_path,
        f"etc/systemd/system/{ENGINE}",
        "[Service]\nExecStart=/x \\\n  --a=1 \\\n  '--b=5%% x'\nRestart=always\n",
    )
    assert readings.behind_plan(tmp_path, {ENGINE: ["/x", "--a=1", "--b=5% x"], "gone.service": ["y"]}) == []
    found = readings.behind_plan(tmp_path, {ENGINE: ["/x", "--a=2", "--b=5% x"]})
    assert found == [{"unit": ENGINE, "missing": ["--a=2"], "extra": ["--a=1"]}]


def process(root: Path, pid: int, state: str, unit: str) -> None:
    write(root, f"proc/{pid}/stat", f"{pid} (VLLM::Engine (x)) {state} 1 1 1\n")
    write(root, f"proc/{pid}/cgroup", f"0::/system.slice/{unit}\n")


def test_processes_of_units_and_those_that_wait_in_the_kernel(tmp_path: Path) -> None:
    process(tmp_path, 10, "S", ENGINE)
    process(tmp_path, 11, "T", ENGINE)
    process(tmp_path, 12, "D", ENGINE)
    process(tmp_path, 13, "D", ENGINE)
    process(tmp_path, 14, "R", "sshd.service")
    found = readings.with_stuck(tmp_path, [ENGINE], lambda _s: process(tmp_path, 13, "R", ENGINE))
    assert [(one["pid"], one["state"], one["stuck"]) for one in found] == [
        (10, "S", False), (11, "T", False), (12, "D", True), (13, "R", False),
    ]  # fmt: skip
    assert found[0]["name"] == "VLLM::Engine (x)"
    process(tmp_path, 12, "S", ENGINE)
    assert not any("stuck" in one for one in readings.with_stuck(tmp_path, [ENGINE], lambda _s: pytest.fail("waited")))


def test_volumes_once_a_file_system(tmp_path: Path) -> None:
    found = readings.volumes(tmp_path, ["/a", "/b/c"])
    assert len(found) == 1 and found[0]["paths"] == ["/a", "/b/c"]
    assert found[0]["size_mib"] > found[0]["free_mib"] > 0 and not found[0]["read_only"]


def test_weights_are_compared_and_nothing_is_taken_away(tmp_path: Path) -> None:
    shard = write(tmp_path, "srv/m/model.safetensors", "abc")
    seen = shard.stat()
    proven = {"files": {"model.safetensors": [3, seen.st_mtime_ns]}, "sha256": {}}
    write(tmp_path, "srv/m/READY", "x")
    write(tmp_path, "srv/m/READY.stat.json", json.dumps(proven))
    asked = [{"path": "/srv/m"}, {"path": "/srv/gone"}]
    fine, gone = readings.weights(tmp_path, asked)
    assert fine == {"path": "/srv/m", "present": True, "ready": True, "changed": []}
    assert gone == {"path": "/srv/gone", "present": False, "ready": False}
    os.utime(shard, (1, 1))
    assert readings.weights(tmp_path, asked)[0]["changed"] == ["model.safetensors was written to and has other content"]
    shard.write_text("abcd")
    assert "has 4 bytes instead of 3" in readings.weights(tmp_path, asked)[0]["changed"][0]
    assert (tmp_path / "srv/m/READY").exists(), "unlike the check before a start"


def test_large_weights_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "_MOST_HASHED", 2)
    shard = write(tmp_path, "srv/m/model.safetensors", "abc")
    kept = {"files": {"model.safetensors": [3, shard.stat().st_mtime_ns], "gone": [9, 1]}, "sha256": {}}
    write(tmp_path, "srv/m/READY.stat.json", json.dumps(kept))
    assert "gone cannot be read" in readings.weights(tmp_path, [{"path": "/srv/m"}])[0]["changed"][0]
    os.utime(shard, (1, 1))
    assert "too large to be hashed" in readings.weights(tmp_path, [{"path": "/srv/m"}])[0]["changed"][0]
    shard.write_text("abcd")
    assert "has 4 bytes" in readings.weights(tmp_path, [{"path": "/srv/m"}])[0]["changed"][0]
    write(tmp_path, "srv/m/READY.stat.json", "no json")
    assert readings.weights(tmp_path, [{"path": "/srv/m"}])[0]["changed"] == []


def test_the_question_of_every_slice_is_plain_and_holds_no_secret() -> None:
    for name, piece in plan()["slices"].items():
        asked = host_question(piece)
        assert json.loads(json.dumps(asked)) == asked
        assert asked["units"], name
        assert "secret" not in json.dumps({key: value for key, value in asked.items() if key != "gateway"}), name
    node = host_question(plan()["slices"]["node1"])
    assert node["engines"][0]["unit"] == ENGINE and node["gpus"] == 8
    assert host_question({})["units"] == []


def test_a_look_at_a_host_names_what_it_could_not_read(tmp_path: Path) -> None:
    write(tmp_path, "etc/rackserve/vllm/tiny-deepseek-0.secret.env", f"VLLM_API_KEY={KEY}\n")
    run = Runner({
        "systemctl": (1, "", f"no bus, {KEY}"), "journalctl --dmesg": (0, f"kernel: {KEY}\n", ""), "df": (0, "x\n", ""),
    })  # fmt: skip
    asked = {"since_s": 60.0, "lines": 10, "budget_s": 60.0, "controller_epoch_s": time.time() + 100}
    found = look_at_host(tmp_path, run, host_question(plan()["slices"]["node1"]), asked)
    assert KEY not in json.dumps(found)
    assert found["redacted"] >= 2
    assert any(text.startswith("units: systemctl list-units: no bus") for text in found["readings"]["missed"])
    assert found["readings"]["clock"]["offset_s"] < -90
    assert {"engines", "volumes", "weights"} <= set(found["readings"])
    assert "kernel.log" in {one["name"] for one in found["sources"]}
    ahead = look_at_host(tmp_path, run, {}, {**asked, "controller_epoch_s": time.time() - 5})
    assert ahead["readings"]["clock"]["offset_s"] == 0.0, "the module travelled for 5 s"
