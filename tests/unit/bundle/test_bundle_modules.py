"""The two modules and the filters, as playbooks call them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bundle_build
import bundle_verify
import pytest
import rackserve_bundle
import yaml
from ansible.errors import AnsibleFilterError
from bundle_support import Site
from rackserve.progress.job import Step

REPO = Path(__file__).resolve().parents[3]


class Exit(Exception):
    """Carries what a module answers."""


def call(monkeypatch: pytest.MonkeyPatch, module: Any, check_mode: bool = False, **given: Any) -> dict[str, Any]:
    class Module:
        def __init__(self, argument_spec: dict[str, Any], **_rest: Any) -> None:
            unknown = set(given) - set(argument_spec)
            assert not unknown, unknown
            self.params = {name: spec.get("default") for name, spec in argument_spec.items()} | given
            self.check_mode = check_mode

        def exit_json(self, **result: Any) -> None:
            raise Exit(json.dumps(result))

        def fail_json(self, **result: Any) -> None:
            raise Exit(json.dumps({"failed": True, **result}))

    monkeypatch.setattr(module, "AnsibleModule", Module)
    with pytest.raises(Exit) as said:
        module.main()
    result: dict[str, Any] = json.loads(str(said.value))
    return result


def test_a_bundle_is_made_once_proven_and_made_anew_on_request(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], site: Site
) -> None:
    dry = call(monkeypatch, bundle_build, check_mode=True, **given)
    assert dry["changed"] and dry["progress"] == {"finished": True} and not Path(given["output_dir"]).exists()
    made = call(monkeypatch, bundle_build, **given)
    assert made["changed"] and made["packages"] == 2
    again = call(monkeypatch, bundle_build, **given)
    assert not again["changed"] and again["path"] == made["path"]
    assert call(monkeypatch, bundle_build, check_mode=True, refresh=True, **given)["changed"]
    proof = call(monkeypatch, bundle_verify, path=made["path"], key_file=str(site.public))
    assert proof["signed_by"] == site.key and not proof["changed"]
    (Path(made["path"]) / "debs/Release").write_text("x")
    assert (
        "debs/Release differs" in call(monkeypatch, bundle_verify, path=made["path"], key_file=str(site.public))["msg"]
    )


def test_a_failure_is_one_line(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]) -> None:
    said = call(monkeypatch, bundle_build, **{**given, "signing": {"key": "0" * 40, "gpg_home": "/nowhere"}})
    assert said["failed"] and "has no secret key" in said["msg"] and "\n" not in said["msg"]


def test_long_work_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def advance(asked: Any, work: Any, payload: dict[str, Any]) -> Step:
        seen.append({"folder": asked.folder.name, "work": work.__name__, "payload": payload})
        return Step(False, {}, {"phase": "hashing", "finished": False}, {})

    monkeypatch.setattr(bundle_build, "advance", advance)
    monkeypatch.setattr(bundle_verify, "advance", advance)
    watched = {"progress_s": 1, "ticket": "t", "state_dir": str(tmp_path / "jobs")}
    said = call(monkeypatch, bundle_build, **given, **watched)
    assert said["changed"] and said["progress"]["phase"] == "hashing"
    call(monkeypatch, bundle_verify, path="/srv/b", key_file="/k.asc", **watched)
    assert [item["work"] for item in seen] == ["collect_work", "verify_work"]
    assert seen[0]["folder"] == "bundle-set-1" and not set(seen[0]["payload"]) & {"ticket", "refresh", "progress_s"}


def test_every_package_of_a_release_is_asked_for() -> None:
    release = yaml.safe_load((REPO / "files/releases/2026.11.yml").read_text("utf-8"))
    packages = rackserve_bundle.release_packages(release, "ubuntu-22.04")
    assert {"nvidia-dkms-580-open", "nvidia-fabricmanager-580", "cuda-toolkit-13-0", "libnccl2", "rdma-core"} <= set(
        packages
    )
    assert packages["rdma-core"] == "39.0-1"
    for wrong, said in (("", "set cluster.distribution"), ("debian-13", "not for debian-13")):
        with pytest.raises(AnsibleFilterError, match=said):
            rackserve_bundle.release_packages(release, wrong)
    lab = yaml.safe_load((REPO / "files/releases/2026.11-cpu.yml").read_text("utf-8"))
    assert rackserve_bundle.release_packages(lab, None)["libnccl2"] == "2.27.7-1+cuda13.0"


def test_the_engine_s_files_stand_as_in_the_cache(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden/r1--tiny--cpu.json").write_text("{}")
    (tmp_path / "golden/r2--tiny--cpu.json").write_text("{}")
    found = rackserve_bundle.FilterModule().filters()["bundle_engine_files"]("r1", tmp_path)
    assert [item["path"] for item in found] == [
        "engine/releases/r1/r1.json",
        "engine/releases/r1/r1.tar.zst",
        "engine/golden/r1--tiny--cpu.json",
    ]


def test_the_filter_says_what_a_host_compares() -> None:
    sums = rackserve_bundle.FilterModule().filters()["bundle_sums"]
    files = {"debs/a.deb": {"bytes": 1, "sha256": "aa"}, "engine/r.tar.zst": {"bytes": 1, "sha256": "bb"}}
    assert sums(json.dumps({"files": files}), "/srv/bundle") == ["aa  /srv/bundle/debs/a.deb"]
    for broken in ("", "[]", "{}"):
        with pytest.raises(AnsibleFilterError, match="manifest cannot be read"):
            sums(broken, "/srv/bundle")
