"""The modules translate options and answers; the work is tested elsewhere."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.testing import patch_module_args
from rackserve.release.archive import pack
from rackserve.release.host import run_command
from rackserve.release.manifest import build_manifest, manifest_id


def call(name: str, check: bool = False, **options):
    """The JSON a module answers with."""
    module = importlib.import_module(name)
    out = io.StringIO()
    with patch_module_args({**options, "_ansible_check_mode": check}), redirect_stdout(out), pytest.raises(SystemExit):
        module.main()
    return json.loads(out.getvalue())


@pytest.fixture
def install_options(tmp_path: Path) -> dict:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("x")
    text = build_manifest(tree)
    (tree / "MANIFEST").write_text(text)
    pack(tree, tmp_path / "a.tar.zst", run_command)
    return {
        "release_id": "r",
        "archive": str(tmp_path / "a.tar.zst"),
        "path": str(tmp_path / "r"),
        "manifest_sha256": manifest_id(text),
        "unpacked_bytes": 1,
    }


def test_release_install(install_options: dict) -> None:
    planned = call("release_install", check=True, **install_options)
    assert (planned["changed"], planned["installed"]) == (True, False)
    assert planned["diff"] == {"before": "absent\n", "after": install_options["manifest_sha256"] + "\n"}
    done = call("release_install", **install_options)
    assert (done["changed"], done["installed"]) == (True, True)
    again = call("release_install", check=True, **install_options)
    assert (again["changed"], again["installed"], again["diff"]) == (False, True, {})
    refused = call("release_install", **{**install_options, "manifest_sha256": "0" * 64})
    assert refused["failed"] and "immutable" in refused["msg"]


def finish(name: str, options: dict) -> tuple[dict, list[str]]:
    """Call a module as a task with `until` does; its last result and the phases it told on the way."""
    phases = []
    for _ in range(600):
        result = call(name, **options, progress_s=0.1, ticket="run 1")
        if result.get("failed") or result["progress"]["finished"]:
            return result, phases
        phases.append(result["progress"]["phase"])
    raise AssertionError("it does not end")


def test_release_install_in_the_background(install_options: dict, tmp_path: Path) -> None:
    options = {**install_options, "state_dir": str(tmp_path / "jobs")}
    done, _phases = finish("release_install", options)
    assert (done["changed"], done["installed"]) == (True, True)
    assert done["diff"] == {"before": "absent\n", "after": install_options["manifest_sha256"] + "\n"}
    assert list(done["step_s"]) == ["unpacking", "verifying", "flushing to disk"]
    assert (tmp_path / "r/f").read_text() == "x"
    again = call("release_install", **options, progress_s=5)
    assert (again["changed"], again["progress"]) == (False, {"finished": True})
    assert not list((tmp_path / "jobs").iterdir()), "nothing to do starts nothing"
    refused, _phases = finish("release_install", {**options, "manifest_sha256": "0" * 64})
    assert "immutable" in refused["msg"]
    (tmp_path / "a.tar.zst").write_bytes(b"no archive")
    broken, _phases = finish("release_install", {**options, "path": str(tmp_path / "other")})
    assert "unpacking" in broken["msg"] and not (tmp_path / "other").exists()


def test_release_build_in_the_background(tmp_path: Path) -> None:
    options = {name: str(tmp_path / name) for name in ("lock", "wheelhouse", "output_dir")}
    (tmp_path / "lock").write_text(f"a==1 --hash=sha256:{hashlib.sha256(b'').hexdigest()}\n")
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3.11").write_bytes(b"")
    tool = tmp_path / "pip"
    tool.write_text("#!/bin/sh\necho 'no such wheel' >&2\nexit 1\n")
    tool.chmod(0o755)
    options.update(release_id="r", chroot=str(tmp_path), find_links=[], pip_command=[str(tool)])
    failed, _phases = finish("release_build", options)
    assert "no such wheel" in failed["msg"] or "needs" in failed["msg"]
    assert not list((tmp_path / "output_dir/jobs").iterdir())


def test_rsync_send(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    options = {"transfer": "n", "source": f"{tmp_path}/a", "target": f"{tmp_path}/b", "state_dir": f"{tmp_path}/jobs"}
    assert call("rsync_send", check=True, **options)["changed"] is True and not (tmp_path / "b").exists()
    done, _phases = finish("rsync_send", options)
    assert (done["changed"], done["bytes"], (tmp_path / "b").read_text()) == (True, 1, "a")
    failed, _phases = finish("rsync_send", {**options, "source": f"{tmp_path}/none"})
    assert "cannot be read on the controller" in failed["msg"]


def test_release_build_says_what_is_missing_and_what_is_due(tmp_path: Path) -> None:
    options = {name: str(tmp_path / name) for name in ("lock", "wheelhouse", "output_dir")}
    refused = call("release_build", release_id="r", **options)
    assert refused["failed"] and "lock is missing" in refused["msg"]
    (tmp_path / "lock").write_text(f"a==1 --hash=sha256:{hashlib.sha256(b'').hexdigest()}\n")
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3.11").write_bytes(b"")
    due = call("release_build", check=True, release_id="r", chroot=str(tmp_path), find_links=[], **options)
    assert due["changed"] is True and due["archive"].endswith("/r/r.tar.zst")
    assert due["diff"] == {"before": "none\n", "after": "to be built\n"}


def test_release_run_and_golden_record_in_check_mode_and_failing(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("")
    run = {"tree": str(tmp_path), "release_path": "/opt/r", "output_dir": str(tmp_path / "out")}
    assert call("release_run", check=True, script=str(tmp_path / "script.py"), **run)["changed"] is True
    assert "No such file" in call("release_run", script=str(tmp_path / "none.py"), **run)["msg"]
    golden = {
        "release_id": "r",
        "tree": str(tmp_path),
        "release_path": "/opt/r",
        "model": "m",
        "model_dir": str(tmp_path),
        "model_path": "/srv/m",
        "hardware_class": "h",
        "argv": ["x"],
        "port": 1,
        "output": str(tmp_path / "g.json"),
    }
    assert "manifest.json is missing" in call("golden_record", **golden)["msg"]
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "MANIFEST").write_text("")
    assert call("golden_record", check=True, **golden)["changed"] is True


def test_model_verify(tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.mkdir()
    (model / "w").write_bytes(b"x")
    manifest = {"version": 1, "files": {"w": {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}}}
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    (tmp_path / "manifest.json").write_text(text)
    first = call("model_verify", path=str(model), manifest=str(tmp_path / "manifest.json"), user="root")
    assert (first["ready"], first["changed"], first["hashed"]) == (True, True, 1)
    assert first["diff"] == {"before": "READY: False\n", "after": "READY: True\n"}
    for given in (text, manifest):
        again = call("model_verify", path=str(model), manifest=given)
        assert (again["changed"], again["manifest_sha256"]) == (False, hashlib.sha256(text.encode()).hexdigest())
    (model / "w").unlink()
    gone = call("model_verify", path=str(model), manifest=text, fail=True)
    assert gone["failed"] and gone["missing"] == ["w"] and "first w (copy it)" in gone["msg"]
    assert "does not exist" in call("model_verify", path=str(model), manifest=text, user="no-such-user")["msg"]


def test_the_filter_reports_a_malformed_plan() -> None:
    filters = importlib.import_module("rackserve_release")
    assert filters.FilterModule().filters()["golden_instances"]({"instances": []}) == []
    with pytest.raises(AnsibleFilterError, match="golden_instances"):
        filters.golden_instances({"instances": [{}]})
    assert sys.path.count(filters.MODULE_UTILS) >= 1
