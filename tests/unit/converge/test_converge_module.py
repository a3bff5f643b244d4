"""The module and the command line: options, results, exit codes, and no secret in any output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import converge as module
import pytest
from ansible.module_utils.rackserve.converge import answer, runner
from ansible.module_utils.rackserve.converge.__main__ import main as command_line
from ansible.module_utils.testing import patch_module_args
from converge_support import FakeSystemd, go, one, put, snapshot

REPO = Path(__file__).resolve().parents[3]
SECRET = "canary-5b1d77aa"
FILE = {"kind": "file", "path": "/etc/a", "content": "k={secret:k}\n", "mode": "0600"}


def call(capsys: pytest.CaptureFixture[str], code: int, **options: Any) -> dict[str, Any]:
    """main() with these options; its JSON."""
    with patch_module_args(options), pytest.raises(SystemExit) as caught:
        module.main()
    output = capsys.readouterr().out
    assert caught.value.code == code, output
    assert SECRET not in output
    answer: dict[str, Any] = json.loads(output)
    return answer


def test_check_then_apply_then_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = FakeSystemd(x={"UnitFileState": "disabled"})
    monkeypatch.setattr(answer, "host_runner", lambda _root: systemd)
    documents = one(FILE)
    documents[0]["items"].append({"id": "run", "kind": "unit", "name": "x.service", "enabled": True, "active": True})
    options: dict[str, Any] = {"documents": documents, "secrets": {"k": SECRET}, "root": str(root)}
    before = snapshot(root)
    predicted = call(capsys, 0, _ansible_check_mode=True, **options)
    assert snapshot(root) == before
    assert predicted["diff"] == []
    applied = call(capsys, 0, _ansible_diff=True, **options)
    assert (applied["changed"], applied["dirty_roles"], applied["reload_needed"]) == (True, ["vllm"], False)
    assert applied["roles"] == predicted["roles"]
    assert applied["roles"]["vllm"]["changed"] == ["it", "run"]
    assert applied["inactive"] == [{"unit": "x.service", "role": "vllm"}]
    assert [entry["after"][:7] for entry in applied["diff"]] == ["sha256 ", "enabled"]
    assert (root / "etc/a").read_text() == f"k={SECRET}\n"
    assert call(capsys, 0, **options)["changed"] is False


def test_apply_gated_reaches_the_core(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "host_runner", lambda _root: FakeSystemd(x={"ActiveState": "active"}))
    options = {"documents": one({**FILE, "content": "", "gated_by": "x.service"}), "root": str(root)}
    assert call(capsys, 0, **options)["stale"][0]["why"] == "waiting for the gate: /etc/a"
    assert call(capsys, 0, apply_gated=["x.service"], **options)["roles"]["vllm"]["changed"] == ["it"]


def test_errors_end_the_module_with_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = call(capsys, 1, documents=one({**FILE, "mode": "rw"}), secrets={"k": SECRET}, root=str(root))
    assert answer["msg"].startswith("role vllm, item it: mode must be")
    documents = one({**FILE, "path": "/etc/no/a"})
    documents[0]["items"].insert(0, {**FILE, "id": "first"})
    answer = call(capsys, 1, documents=documents, secrets={"k": SECRET}, root=str(root))
    assert "directory is missing" in answer["msg"]
    assert answer["changed"] is True
    assert answer["roles"]["vllm"]["changed"] == ["first"]


@pytest.fixture
def ansible() -> Any:
    """Run the real ansible on this machine, as an operator would, with very verbose output."""

    def run(words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible")),
                "localhost",
                "-i",
                "localhost,",
                "-c",
                "local",
                "-vvv",
                *words,
            ],
            cwd=REPO,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ANSIBLE_CONFIG": str(REPO / "ansible.cfg")},
        )

    return run


def test_the_real_module_keeps_secrets_out_of_very_verbose_output(root: Path, ansible: Any) -> None:
    put(root, "/etc/a", f"k={SECRET}-old\n", 0o600)
    before = snapshot(root)
    arguments = json.dumps({"documents": one(FILE), "secrets": {"k": SECRET}, "root": str(root)})
    words = [
        "-e",
        f"ansible_python_interpreter={sys.executable}",
        "--check",
        "--diff",
        "-m",
        "converge",
        "-a",
        arguments,
    ]
    done = ansible(words)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "content differs" in output, output
    assert "renamed" not in output
    assert "sha256 " in output
    assert SECRET not in output.replace(arguments, "")
    assert snapshot(root) == before


def test_the_command_line_reports_drift_without_secrets(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "vllm.json"
    document.write_text(json.dumps(one(FILE)[0]))
    go(root, one(FILE), secrets={"k": SECRET})
    words = [str(document), "--root", str(root)]
    assert (command_line(words), capsys.readouterr().out) == (0, "no difference\n")
    (root / "etc/a").write_text(f"key={SECRET}\n")
    before = snapshot(root)
    assert command_line(words) == 1
    assert capsys.readouterr().out == "differs  vllm: it (file): content differs\n"
    assert snapshot(root) == before
    document.write_text("[")
    assert command_line(words) == 2
    assert "Expecting value" in capsys.readouterr().err
    document.write_text('["x"]')
    assert command_line(words) == 2
    assert "must be a dict" in capsys.readouterr().err


def test_the_command_line_names_stale_inactive_and_unjudged_units(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = FakeSystemd(x={"ActiveState": "active", "MainPID": "7"})
    entry = sys.modules[command_line.__module__]
    monkeypatch.setattr(entry, "host_runner", lambda _root: systemd)
    items = [
        {**FILE, "id": "a", "gated_by": "x.service"},
        {"id": "x", "kind": "unit", "name": "x.service", "running_config": "environ"},
        {"id": "y", "kind": "unit", "name": "y.service", "active": True},
    ]
    document = tmp_path / "d.json"
    document.write_text(json.dumps([{"role": "vllm", "items": items}]))
    assert command_line([str(document), "--root", str(root)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "differs  vllm: y (unit): inactive (not-found), wanted active",
        "stale    vllm: x.service: waiting for the gate: /etc/a",
        "inactive vllm: y.service",
        "unjudged vllm: x: its configuration's digest needs secrets this run was not given",
    ]


def test_it_runs_as_a_program_without_ansible(root: Path, tmp_path: Path) -> None:
    document = tmp_path / "d.json"
    document.write_text(json.dumps(one({"kind": "absent", "path": "/etc/passwd"})))
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
            "runpy.run_module('rackserve.converge', run_name='__main__')",
            str(REPO / "module_utils"),
            str(document),
            "--root",
            str(root),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "differs  vllm: it (absent): present (file)\n"), done.stderr


def test_the_runner_runs_reports_and_knows_a_missing_program() -> None:
    words = [sys.executable, "-c", "import os, sys; print(os.environ['LC_ALL']); sys.stderr.write('e'); sys.exit(3)"]
    assert runner.run_command(words) == (3, "C\n", "e")
    assert runner.run_command(["/nowhere/x"]) == (127, "", "/nowhere/x: No such file or directory")
    assert runner.host_runner(Path("/")) is runner.run_command
    assert runner.host_runner(Path("/srv")) is None
