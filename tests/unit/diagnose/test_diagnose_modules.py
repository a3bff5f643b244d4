"""The modules and filters of a diagnosis, as Ansible calls them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import diagnose_case
import host_evidence
import pytest
from ansible.module_utils.testing import patch_module_args
from diagnose_support import changed, healthy_cluster, plan
from rackserve_diagnose import FilterModule, diagnose_hosts, host_question

OOM = "ValueError: 4.38 GiB KV cache is needed, which is larger than the available KV cache memory (1.0 GiB)\n"


def run(module: Any, options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    with patch_module_args(options), pytest.raises(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_a_host_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text("127.0.0.1 localhost\n")
    given = {"root": str(tmp_path), "plan": {}, "budget_s": 30, "_ansible_check_mode": True}
    found = run(host_evidence, given, capsys)
    assert found["changed"] is False
    assert "files/etc/hosts" in {one["name"] for one in found["sources"]}
    assert {"volumes", "weights", "engines", "missed"} <= set(found["readings"])


def test_a_case_is_examined_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = changed(healthy_cluster())
    cluster["node2"]["sources"].append(
        {"name": "a.log", "kind": "engine", "unit": "u", "state": "troubled", "text": OOM}
    )
    files = {"output": str(tmp_path / "c.json"), "bundle": str(tmp_path / "b.tgz")}
    given = {"hosts": cluster, **files, "secrets": {"a": "needed, which is"}, "inventory": "inv"}
    dry = run(diagnose_case, {**given, "_ansible_check_mode": True}, capsys)
    assert dry["written"] == [files["bundle"], files["output"]]
    assert list(tmp_path.iterdir()) == []
    found = run(diagnose_case, given, capsys)
    assert (found["changed"], found["causes"][0]["cause"]) == (False, "gpu-oom-kv")
    assert "needed, which is" not in json.dumps(found)
    assert json.loads(Path(files["output"]).read_text())[0]["cause"] == "gpu-oom-kv"
    with tarfile.open(files["bundle"]) as archive:
        assert len(archive.getnames()) > 5
    again = run(diagnose_case, {"input": files["bundle"]}, capsys)
    assert again["causes"][0]["cause"] == "gpu-oom-kv"


def test_what_cannot_be_examined_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(diagnose_case, {"input": "/nowhere/at/all"}, capsys)
    assert found["failed"] is True
    assert (
        found["msg"]
        == "diagnose_input=/nowhere/at/all: No such file or directory; name a bundle, a folder or a log file"
    )


def test_the_question_takes_what_the_site_expects() -> None:
    piece = plan()["slices"]["node1"]
    asked = host_question(piece, {"gpus": {"count": 4}, "governor": "performance"}, ["time-sync"])
    assert (asked["gpus"], asked["health"]["governor"], asked["health"]["skip"]) == (4, "performance", ["time-sync"])
    assert host_question(piece)["health"]["gpus"]["count"] == 8
    assert host_question({})["health"] == {}
    assert set(FilterModule().filters()) == {"host_question", "diagnose_hosts"}


def test_what_hosts_said_and_why_others_did_not() -> None:
    whole = {"sources": [], "readings": {}, "plan": {}, "changed": False}
    hostvars = {
        "fine": {"rackserve_evidence": whole},
        "gone": {"rackserve_evidence": {"unreachable": True, "msg": "No route to host"}},
        "late": {"rackserve_evidence": {"failed": True, "msg": "x"}, "rackserve_evidence_failed": "Timed out"},
        "other": {"rackserve_evidence": {"failed": True, "msg": "MODULE FAILURE"}},
        "localhost": {},
    }
    found = diagnose_hosts(hostvars, list(hostvars))
    assert found == {
        "fine": {"sources": [], "readings": {}, "plan": {}},
        "gone": {"lost": "No route to host"},
        "late": {"lost": "host_evidence: Timed out"},
        "other": {"lost": "host_evidence: MODULE FAILURE"},
    }
