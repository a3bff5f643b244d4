"""What documents would write, as files of the controller."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from rackserve.converge.errors import DocumentError
from rackserve.converge.render import LISTING, render_documents, render_table
from rackserve_converge import FilterModule


def documents(*extra: dict[str, Any]) -> list[dict[str, Any]]:
    items = [
        {"id": "key", "kind": "file", "path": "/etc/x/key", "mode": "0640", "content": "k={secret:a_key}\n",
         "gated_by": "x.service"},
        {"id": "conf", "kind": "file", "path": "/etc/x/conf", "content": "sha {config_sha256}\n",
         "gated_by": "x.service"},
        {"id": "repo", "kind": "repository", "path": "/etc/apt/sources.list.d/x.sources", "content": "Types: deb\n"},
        {"id": "knob", "kind": "knob", "path": "/proc/sys/net/core/somaxconn", "value": "4096"},
        *extra,
    ]  # fmt: skip
    return [{"role": "vllm", "items": items}, {"role": "firewall", "items": []}]


def test_files_stand_below_the_folder_without_secrets(tmp_path: Path) -> None:
    result = render_documents(documents(), tmp_path)
    assert (tmp_path / "etc/x/key").read_text() == "k=<secret:a_key>\n"
    first = (tmp_path / "etc/x/conf").read_text()
    assert len(first.split()[1]) == 64
    assert (tmp_path / "etc/apt/sources.list.d/x.sources").read_text() == "Types: deb\n"
    assert not (tmp_path / "proc").exists()
    assert result["files"] == [
        {"role": "vllm", "path": "/etc/x/key", "mode": "0640", "bytes": 17},
        {"role": "vllm", "path": "/etc/x/conf", "mode": "0644", "bytes": 69},
        {"role": "vllm", "path": "/etc/apt/sources.list.d/x.sources", "mode": "", "bytes": 11},
    ]
    listed = json.loads((tmp_path / LISTING).read_text())
    assert [item["id"] for item in listed if item["role"] == "vllm"] == ["key", "conf", "repo", "knob"]
    assert "content" not in listed[0] and listed[3]["value"] == "4096"
    assert render_documents(documents(), tmp_path) == {"changed": False, "files": result["files"], "diff": []}


def test_what_is_wanted_no_more_goes_and_foreign_files_stay(tmp_path: Path) -> None:
    render_documents(documents({"id": "old", "kind": "file", "path": "/etc/old", "content": "old"}), tmp_path)
    (tmp_path / "etc/mine").write_text("mine")
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    dry = render_documents(documents(), tmp_path, check=True)
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == before
    wet = render_documents(documents(), tmp_path)
    assert dry == wet and wet["changed"]
    gone = str(tmp_path / "etc/old")
    assert {"before_header": gone, "after_header": gone, "before": "old", "after": ""} in wet["diff"]
    assert not Path(gone).exists() and (tmp_path / "etc/mine").read_text() == "mine"


def test_what_cannot_be_rendered_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"role vllm, item l: /desired-state\.json is the listing's own name"):
        render_documents(documents({"id": "l", "kind": "file", "path": f"/{LISTING}", "content": ""}), tmp_path)
    with pytest.raises(DocumentError, match="unknown kind"):
        render_documents(documents({"id": "l", "kind": "fil"}), tmp_path)
    (tmp_path / LISTING).write_text("no json")
    with pytest.raises(DocumentError, match="not what an earlier rendering wrote"):
        render_documents(documents(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LISTING]


def test_the_table_has_one_row_a_path() -> None:
    def row(path: str, size: int) -> dict[str, Any]:
        return {"role": "vllm", "path": path, "mode": "0644", "bytes": size}

    hosts = {f"n{number}": [row("/etc/all", 10 + number)] for number in range(7)}
    for number in range(6):
        hosts[f"n{number}"].append(row("/etc/most", 5))
    hosts["n2"].append(row("/etc/one", 7))
    lines = FilterModule().filters()["render_table"](hosts)
    assert [line.split() for line in lines] == [
        ["file", "role", "mode", "bytes", "hosts"],
        ["/etc/all", "vllm", "0644", "10-16", "all", "7"],
        ["/etc/most", "vllm", "0644", "5", "n0,", "n1,", "n2,", "n3", "and", "2", "more"],
        ["/etc/one", "vllm", "0644", "7", "n2"],
    ]
    assert render_table({"n0": hosts["n2"]})[1].split()[-1] == "n0"
    assert len(render_table({})) == 1


def test_the_module_writes_shows_a_diff_and_fails_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False)
    module = importlib.import_module("render_documents")

    def call(given: Any, **flags: bool) -> dict[str, Any]:
        with patch_module_args({"documents": given, "folder": str(tmp_path), **flags}), pytest.raises(SystemExit):
            module.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    dry = call(documents(), _ansible_check_mode=True, _ansible_diff=True)
    assert dry["changed"] and len(dry["diff"]) == 4 and not list(tmp_path.iterdir())
    wet = call(documents())
    assert wet["changed"] and "diff" not in wet and wet["files"] == dry["files"]
    assert call(documents())["changed"] is False
    assert "unknown kind" in call([{"role": "vllm", "items": [{"id": "l", "kind": "fil"}]}])["msg"]
