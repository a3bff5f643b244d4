"""Files of an engine: kept whole, put back, forgotten; a cut-off change keeps the older ones."""

from __future__ import annotations

import importlib
import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from rackserve.operation import files as core

UNIT = "vllm-tiny-0.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
ENV, SECRET, NEW = "/etc/rackserve/tiny-0.env", "/etc/rackserve/tiny-0.secret.env", "/usr/local/lib/guard/tiny-0"
PATHS = [UNIT_FILE, ENV, SECRET, NEW]


def unit_text(release: str) -> str:
    path = f"/opt/rackserve/releases/{release}/bin/python3"
    return f"[Service]\nExecStartPre=+{path} -I check\nExecStart={path} \\\n  -m vllm\n"


class Systemd:
    """Remembers commands; `fails` names one that ends with 1."""

    def __init__(self, root: Path, fails: str = "") -> None:
        self.sent: list[str] = []
        self.root, self.fails = root, fails

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        self.sent.append(" ".join(command[1:]))
        return (1, "", "it does\nnot") if self.fails and self.fails in command else (0, "", "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, UNIT_FILE, unit_text("1"))
    write(tmp_path, ENV, "A=1\n", 0o640)
    write(tmp_path, SECRET, "KEY=x\n", 0o600)
    return tmp_path


def write(root: Path, path: str, text: str, mode: int = 0o644) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)


def change(root: Path) -> None:
    write(root, UNIT_FILE, unit_text("2"))
    write(root, ENV, "A=2\n", 0o600)
    write(root, NEW, "guard\n")


def test_what_was_changed_is_put_back_and_started(root: Path) -> None:
    kept = root / "kept"
    assert core.keep(root, kept, UNIT, PATHS) == {"changed": True, "release": "1"}
    assert stat.S_IMODE((kept / UNIT).stat().st_mode) == 0o700
    change(root)
    assert core.unit_release(root, UNIT) == "2"
    systemd = Systemd(root)
    assert core.put_back(root, kept, UNIT, systemd)["release"] == "1"
    assert systemd.sent == [
        f"kill --signal=SIGKILL {UNIT}", f"stop {UNIT}", "daemon-reload", f"reset-failed {UNIT}", f"start {UNIT}",
    ]  # fmt: skip
    assert core.unit_release(root, UNIT) == "1"
    env = root / ENV.lstrip("/")
    assert env.read_text() == "A=1\n" and stat.S_IMODE(env.stat().st_mode) == 0o640
    assert not (root / NEW.lstrip("/")).exists()
    assert core.forget(kept, UNIT) and not core.forget(kept, UNIT)
    assert list(kept.iterdir()) == []


def test_a_change_that_was_cut_off_does_not_replace_what_is_kept(root: Path) -> None:
    kept = root / "kept"
    core.keep(root, kept, UNIT, PATHS)
    change(root)
    assert core.keep(root, kept, UNIT, PATHS) == {"changed": False, "release": "1"}
    assert core.forget(kept, UNIT)
    assert core.keep(root, kept, UNIT, PATHS) == {"changed": True, "release": "2"}


def test_a_keep_that_was_cut_off_counts_as_none(root: Path) -> None:
    kept = root / "kept"
    (kept / f"{UNIT}.part").mkdir(parents=True)
    (kept / f"{UNIT}.part" / "00").write_text("half")
    assert core.read_kept(kept, UNIT) is None
    assert core.keep(root, kept, UNIT, PATHS)["changed"]
    assert not (kept / f"{UNIT}.part").exists()


def test_a_damaged_set_is_refused(root: Path) -> None:
    kept = root / "kept"
    core.keep(root, kept, UNIT, PATHS)
    (kept / UNIT / "01").write_text("A=3\n")
    with pytest.raises(core.FilesError, match="01 is not what was kept of"):
        core.put_back(root, kept, UNIT, Systemd(root))
    (kept / UNIT / "kept.json").unlink()
    with pytest.raises(core.FilesError, match="is no kept set"):
        core.read_kept(kept, UNIT)


def test_nothing_kept_touches_nothing(root: Path) -> None:
    systemd = Systemd(root)
    with pytest.raises(core.FilesError, match="nothing is kept"):
        core.put_back(root, root / "kept", UNIT, systemd)
    assert systemd.sent == []
    with pytest.raises(core.FilesError, match="not the name"):
        core.forget(root / "kept", "../x")


def test_a_start_that_fails_is_said_and_a_kill_that_finds_nothing_is_not(root: Path) -> None:
    kept = root / "kept"
    core.keep(root, kept, UNIT, PATHS)
    core.put_back(root, kept, UNIT, Systemd(root, fails="kill"))
    with pytest.raises(core.FilesError, match=f"systemctl start {UNIT} ended with 1: it does not"):
        core.put_back(root, kept, UNIT, Systemd(root, fails="start"))
    held = Systemd(root)
    core.put_back(root, kept, UNIT, held, start=False)
    assert held.sent[-1] == "daemon-reload"


def test_check_mode_touches_nothing(root: Path) -> None:
    kept = root / "kept"
    assert core.keep(root, kept, UNIT, PATHS, check=True)["changed"] and not kept.exists()
    core.keep(root, kept, UNIT, PATHS)
    systemd = Systemd(root)
    assert core.put_back(root, kept, UNIT, systemd, check=True)["changed"] and systemd.sent == []
    assert core.forget(kept, UNIT, check=True) and (kept / UNIT).is_dir()


@pytest.mark.parametrize(
    ("text", "release"),
    [
        (unit_text("2026.11"), "2026.11"),
        ("ExecStart=+/opt/r/2/bin/python3 -m x\n", "2"),
        ("ExecStart=x\n", ""),
        ("", ""),
    ],
)
def test_the_release_is_in_the_command(text: str, release: str) -> None:
    assert core.release_of(text) == release


def call(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    module = importlib.import_module("engine_files")
    with patch_module_args({"unit": UNIT, **options}), pytest.raises(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_the_module(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = str(root / "kept")
    paths = [str(root) + path for path in PATHS]
    assert call(capsys, state="kept", folder=kept, paths=paths)["kept"]
    seen = call(capsys, state="observed", folder=kept)
    assert (seen["changed"], seen["release"], seen["kept"]) == (False, "", True)
    assert call(capsys, state="absent", folder=kept)["changed"]
    assert "nothing is kept" in call(capsys, state="put_back", folder=kept)["msg"]
