"""The modules as Ansible calls them, records on disk, and the trial."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import nccl_topology
import nccl_topology_lint
import nccl_trial
import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from rackserve.nccl import record
from rackserve.nccl.document import read
from rackserve.nccl.trial import judge_trial

from .host import FIXTURES, REPO, build


class Ended(Exception):
    """A module's answer."""


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    def end(_self: Any, failed: bool = False, **answer: Any) -> None:
        raise Ended({"failed": failed, **answer})

    monkeypatch.setattr(basic.AnsibleModule, "exit_json", end)
    monkeypatch.setattr(basic.AnsibleModule, "fail_json", lambda self, **answer: end(self, True, **answer))

    def run(module: ModuleType, check: bool = False, **arguments: Any) -> dict[str, Any]:
        given = {**arguments, "_ansible_check_mode": check}
        with patch_module_args(given), pytest.raises(Ended) as ended:
            module.main()
        answer: dict[str, Any] = ended.value.args[0]
        return answer

    return run


@pytest.fixture
def host(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    root = tmp_path / "root"
    root.mkdir()
    return root, build(root, read((FIXTURES / "synthetic-h20-8gpu-8x400ib.xml").read_text()))


def test_topologies_are_kept_once_and_drift_is_told(call: Any, host: Any, tmp_path: Path) -> None:
    root, known = host
    dest = tmp_path / "kept/nccl"
    given = {"root": str(root), "gpus": known, "dest": str(dest)}
    first = call(nccl_topology, check=True, **given)
    assert first["changed"] and not dest.exists() and first["drift"] == []
    assert call(nccl_topology, **given)["changed"]
    assert (dest / "observed.xml").read_text() == first["observed"]
    assert (dest / "inject.xml").read_text() == first["inject"]
    assert stat.S_IMODE((dest / "inject.xml").stat().st_mode) == 0o644
    assert sorted(path.name for path in dest.iterdir()) == ["inject.xml", "observed.xml"]
    again = call(nccl_topology, **given)
    assert not again["changed"] and again["drift"] == [] and again["diff"] == []
    bus = known[0]["bus_id"][4:].lower()
    width = next(root.glob(f"sys/devices/**/{bus}/max_link_width"))
    width.write_text("8\n")
    seen = call(nccl_topology, check=True, **given)
    assert [item["code"] for item in seen["drift"]] == ["link-narrower"] and seen["changed"]
    assert [part["before_header"] for part in seen["diff"]] == ["observed.xml", "inject.xml"]
    assert call(nccl_topology, **given)["drift"] and call(nccl_topology, **given)["drift"] == []


def test_without_dest_nothing_is_written(call: Any, host: Any) -> None:
    answer = call(nccl_topology, root=str(host[0]), gpus=host[1])
    assert not answer["changed"] and not answer["failed"] and set(answer) >= {"observed", "inject", "findings", "drift"}


def test_a_record_nobody_can_read_is_told(call: Any, host: Any, tmp_path: Path) -> None:
    (tmp_path / "observed.xml").write_text("<?xml?>")
    answer = call(nccl_topology, root=str(host[0]), gpus=host[1], dest=str(tmp_path))
    assert [item["code"] for item in answer["drift"]] == ["record-unreadable"] and answer["changed"]


def test_what_fails_is_one_line(call: Any, host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = call(nccl_topology, root=str(host[0]), gpus=[{"index": 0}])
    assert answer["failed"] and "\n" not in answer["msg"] and "bus_id" in answer["msg"]
    monkeypatch.setattr(nccl_topology.gpus, "read", partial(nccl_topology.gpus.read, "no-such-library.so"))
    answer = call(nccl_topology, root=str(host[0]))
    assert answer["failed"] and "no-such-library.so is not there" in answer["msg"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "observed.xml"
    record.replace(target, "old")
    monkeypatch.setattr(os, "fsync", lambda _handle: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        record.replace(target, "new")
    assert target.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["observed.xml"]


def test_linter_module(call: Any, tmp_path: Path) -> None:
    refused = call(nccl_topology_lint, path=str(FIXTURES / "refused-blueprint.xml"))
    assert refused["failed"] and refused["findings"][0]["line"] == 1
    assert "line 1: an XML declaration" in refused["msg"] and "delete the line" in refused["msg"]
    good = call(nccl_topology_lint, path=str(FIXTURES / "azure-ndv5-h100.xml"))
    assert good == {"failed": False, "changed": False, "findings": []}
    missing = call(nccl_topology_lint, path=str(tmp_path / "no.xml"))
    assert missing["failed"] and "No such file" in missing["msg"]


def times(default: float, injected: float, /, **more: Any) -> dict[str, Any]:
    sizes = [{"32768": {"median_us": value}, "4194304": {"median_us": 48.0}} for value in (default, injected)]
    names = ("default", "injected")
    return {"variants": {n: {"error": "", "sizes": s} for n, s in zip(names, sizes)} | more}


@pytest.fixture
def trial(host: Any, call: Any) -> Any:
    answer = call(nccl_topology, root=str(host[0]), gpus=host[1])

    def run(result: dict[str, Any], use: str = "inject", candidate: str = "", **dumps: str) -> Any:
        seen = {"default": answer["observed"], "injected": answer["observed"], **dumps}
        taken, findings = judge_trial(host[0], candidate or answer["inject"], result, seen, use)
        return taken, [item["code"] for item in findings]

    run.inject, run.observed = answer["inject"], answer["observed"]  # type: ignore[attr-defined]
    return run


def test_a_trial_decides(trial: Any) -> None:
    assert trial(times(20, 20.2)) == (True, [])
    assert trial(times(20, 20.2), "measure") == (False, ["topology-no-gain"])
    assert trial(times(20, 15), "measure") == (True, [])
    assert trial(times(20, 21)) == (False, ["topology-slower"])
    assert trial(times(20, 21), "measure") == (False, ["topology-slower"])
    failed = {"injected": {"error": "x\nXML Parse : expected >", "sizes": {}}}
    assert trial(times(20, 20, **failed)) == (False, ["trial-failed"])


def test_a_trial_refuses_what_does_not_belong_to_the_host(trial: Any) -> None:
    good = times(20, 20)
    stale = trial.inject.replace("0000:18:00.0", "0000:1f:00.0")
    assert trial(good, candidate=stale) == (False, ["topology-stale"])
    twice = trial.inject.replace("0000:38:00.0", "0000:18:00.0")
    assert trial(good, candidate=twice) == (False, ["topology-twice"])
    other = trial.inject.replace('busid="0000:18:00.0" class="0x030200"', 'busid="0000:18:00.0" class="0x020000"')
    assert trial(good, candidate=other) == (False, ["topology-stale"])
    assert trial(good, candidate="\t" + trial.inject) == (False, ["topology-refused"])
    fewer = trial.observed.replace('<net name="mlx5_3"', '<net name="mlx5_9"')
    assert trial(good, injected=fewer) == (False, ["topology-other-devices"])
    moved = trial.observed.replace('link_width="16"', 'link_width="8"', 1)
    assert trial(good, injected=moved) == (True, ["topology-changes"])
    assert trial(good, injected="") == (False, ["trial-without-dump"])


def test_trial_module_writes_and_removes(call: Any, host: Any, tmp_path: Path, trial: Any) -> None:
    folder = tmp_path / "trial"
    folder.mkdir()
    candidate = tmp_path / "inject.xml"
    candidate.write_text(trial.inject)
    for name in ("default", "injected"):
        (folder / f"{name}.xml").write_text(trial.observed)
    dest = tmp_path / "etc/topology.xml"
    given = {
        "candidate": str(candidate), "folder": str(folder), "use": "measure", "dest": str(dest), "root": str(host[0]),
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(times(20, 15)))
    assert call(nccl_trial, check=True, **given)["changed"] and not dest.exists()
    assert call(nccl_trial, **given)["taken"] and dest.read_text() == trial.inject
    assert not call(nccl_trial, **given)["changed"]
    (folder / "result.json").write_text(json.dumps(times(20, 20)))
    answer = call(nccl_trial, **given)
    assert answer["changed"] and not answer["taken"] and not dest.exists()
    (folder / "result.json").unlink()
    assert "measure-topology.yml" in call(nccl_trial, **given)["msg"]


STAND_IN = """
import os, sys
class Event:
    def __init__(self, enable_timing): pass
    def record(self): pass
    def elapsed_time(self, other): return float(os.environ.get("SLOW", "1"))
class cuda:
    Event = Event
    class nccl:
        version = staticmethod(lambda: (2, 28, 9))
    set_device = synchronize = staticmethod(lambda *a: None)
    device_count = staticmethod(lambda: 2)
class Buffer:
    def __getitem__(self, part): return self
zeros = lambda *a, **k: Buffer()
bfloat16, __version__ = None, "2.11"
device = lambda *a: None
"""
STAND_IN_DIST = """
import os, sys
def init_process_group(*a, **k):
    if "BROKEN" in os.environ:
        print("NCCL WARN XML Parse : expected >", flush=True)
        sys.exit(1)
all_reduce = destroy_process_group = lambda *a: None
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The measuring program with a torch that counts nothing."""
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text(STAND_IN)
    (package / "distributed.py").write_text(STAND_IN_DIST)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    spec = importlib.util.spec_from_file_location("all_reduce", REPO / "roles/nccl/files/all_reduce.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_variants_are_measured_in_turn(program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "variants.json").write_text(json.dumps({"default": {}, "slow": {"SLOW": "3"}, "bad": {"BROKEN": "1"}}))
    words = [f"--variants={tmp_path}/variants.json", f"--out={tmp_path}/result.json", "--rounds=5", "--limit-s=20"]
    monkeypatch.setattr(sys, "argv", ["all_reduce.py", *words])
    program.main()
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["gpus"], result["nccl"], result["rounds"]) == (2, "2.28.9", 5)
    default, slow, bad = (result["variants"][name] for name in ("default", "slow", "bad"))
    assert default["sizes"]["32768"] == {"us": [5.0] * 5, "median_us": 5.0, "spread_us": 0.0}
    assert slow["sizes"]["1073741824"]["median_us"] == 300.0 and not slow["error"]
    assert "expected >" in bad["error"] and bad["sizes"] == {}
