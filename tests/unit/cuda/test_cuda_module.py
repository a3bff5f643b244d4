"""The module, and what the role's tasks promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cuda_check
import pytest
import yaml

ROLE = Path(__file__).resolve().parents[3] / "roles/cuda"
PARTS = {"nccl": {"version": "2.27.7", "packages": {"libnccl2": "2.27.7-1+cuda13.0"}}}


class Exit(Exception):
    """Carries what a module answers."""


def answer(monkeypatch: pytest.MonkeyPatch, root: Path, **given: Any) -> dict[str, Any]:
    class Module:
        def __init__(self, **_spec: Any) -> None:
            self.params = {"take_over": [], "change": False, "prove": False, "root": str(root), **given}

        def get_bin_path(self, name: str) -> None:
            assert name == "ldconfig"

        def exit_json(self, **result: Any) -> None:
            raise Exit(json.dumps(result))

        def fail_json(self, **result: Any) -> None:
            raise Exit(json.dumps({"failed": True, **result}))

    monkeypatch.setattr(cuda_check, "AnsibleModule", Module)
    with pytest.raises(Exit) as said:
        cuda_check.main()
    result: dict[str, Any] = json.loads(str(said.value))
    return result


def test_the_module_reports_and_never_fails_on_findings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = answer(monkeypatch, tmp_path, parts=PARTS)
    assert not said["changed"] and said["install"] == ["libnccl2=2.27.7-1+cuda13.0"] and said["findings"] == []
    proof = answer(monkeypatch, tmp_path, parts=PARTS, prove=True)
    assert {item["code"] for item in proof["findings"]} == {"cuda-mismatch"}


def test_what_cannot_be_read_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg/status").mkdir(parents=True)
    said = answer(monkeypatch, tmp_path, parts=PARTS)
    assert said["failed"] and "status" in said["msg"] and "\n" not in said["msg"]


def tasks(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml.safe_load((ROLE / "tasks" / name).read_text("utf-8"))
    return loaded


def test_nothing_is_removed_to_install_and_recommends_are_left_out() -> None:
    installs = [task["ansible.builtin.apt"] for task in tasks("install.yml") if "ansible.builtin.apt" in task]
    install = next(task for task in installs if task["state"] == "present")
    assert install["fail_on_autoremove"] is True and install["install_recommends"] is False
    assert install["allow_downgrade"] == "{{ cuda_change_versions }}"
    remove = next(task for task in tasks("install.yml") if "Remove" in task["name"])
    assert remove["when"] == "__cuda_seen.remove | length > 0"


def test_what_the_probe_sees_is_written_last() -> None:
    """A run that is cut off before the links and the cache are right leaves a file missing, and is seen."""
    names = [task["name"] for task in tasks("find.yml")]
    assert names[-1] == "Find | Write what shells and the linker read"
    constants = yaml.safe_load((ROLE / "vars/main.yml").read_text("utf-8"))
    assert "['profile', 'linker']" in constants["__cuda_document_before"]
