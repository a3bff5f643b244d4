"""The module simulated_packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import simulated_packages
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from packages_support import Pretended, recipe, small


def call(folder: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> dict[str, Any]:
    given = recipe(folder, small())
    arguments = {
        "packages": given.packages,
        "driver": str(given.driver),
        "pynvml": str(given.pynvml),
        "mirrors_dir": str(folder / "mirrors"),
        "keys_dir": str(given.keys),
    }
    with patch_module_args(arguments | changes), pytest.raises(SystemExit):
        simulated_packages.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_it_says_where_the_mirror_is_and_builds_it_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Pretended()
    monkeypatch.setattr(AnsibleModule, "run_command", lambda _, command: asked(command))
    first = call(tmp_path, capsys)
    assert first["changed"] is True
    assert Path(first["path"], "InRelease").is_file()
    assert call(tmp_path, capsys) == {**first, "changed": False}


def test_a_failure_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AnsibleModule, "run_command", lambda *_: (2, "", "no\ncompiler\n"))
    answer = call(tmp_path, capsys)
    assert answer["failed"] is True
    assert answer["msg"].endswith(": no compiler")
