"""A bundle is made for real: apt, apt-ftparchive, dpkg-deb and gpg, without a network."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from bundle_support import Site, package
from rackserve.bundle.collect import collect, inputs_of, standing
from rackserve.bundle.debs import Wanted, resolve, write_repository
from rackserve.bundle.manifest import MANIFEST, verify
from rackserve.bundle.signature import Signer
from rackserve.progress.report import Report
from rackserve.release.host import ReleaseError, run_command


class Watched:
    """Runs for real and keeps every command."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, command: Any) -> tuple[int, str, str]:
        self.calls.append(list(command))
        return run_command(command)


def test_packages_come_with_what_they_need_and_the_folder_is_a_repository(
    given: dict[str, Any], site: Site, tmp_path: Path
) -> None:
    report = Report()
    made = collect(given, run_command, report)
    folder = Path(made["path"])
    assert {path.name for path in (folder / "debs").iterdir()} == {
        "tool_1.0-1_all.deb", "base_1.4-1_all.deb", "Packages", "Release", "InRelease",
    }  # fmt: skip
    assert (made["changed"], made["packages"], made["files"]) == (True, 2, 6)
    assert (folder / "engine/releases/set-1/set-1.tar.zst").read_text() == "an archive"
    assert {"resolving packages", "downloading packages", "indexing packages", "hashing"} <= set(report.step_s)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["set-1"]

    # A host with the bundle's folder and key as its only source finds all of it there.
    sources = tmp_path / "host.sources"
    sources.write_text(f"Types: deb\nURIs: file:{folder}/debs/\nSuites: ./\nSigned-By: {site.public}\n")
    wanted = Wanted({"tool": "1:1.0-1"}, str(sources))
    _, found = resolve(wanted, tmp_path / "host", run_command)
    assert {deb.uri for deb in found} == {
        f"file:{folder}/debs/./{name}" for name in ("tool_1.0-1_all.deb", "base_1.4-1_all.deb")
    }


def test_the_same_is_made_once(given: dict[str, Any]) -> None:
    assert standing(given) is None
    collect(given, run_command, Report())
    there = standing(given)
    assert there is not None and not there["changed"] and there["packages"] == 2
    assert standing({**given, "debs": {**given["debs"], "packages": {"base": "1.4-1"}}}) is None
    Path(given["files"][0]["source"]).write_text("another archive")
    assert standing(given) is None


def test_a_bundle_that_lost_a_file_is_made_anew(given: dict[str, Any]) -> None:
    folder = Path(collect(given, run_command, Report())["path"])
    for lost in ("debs/tool_1.0-1_all.deb", "MANIFEST.json.asc", "debs/InRelease"):
        (folder / lost).rename(folder.parent / "aside")
        assert standing(given) is None, lost
        (folder.parent / "aside").rename(folder / lost)
        assert standing(given) is not None
    (folder / "debs/InRelease").unlink()
    assert collect(given, run_command, Report())["files"] == 6
    assert standing(given) is not None


def test_a_package_without_a_version_is_the_newest(given: dict[str, Any]) -> None:
    given["debs"]["packages"] = {"other": ""}
    assert (Path(collect(given, run_command, Report())["path"]) / "debs/other_1.0-1_all.deb").is_file()


def test_what_a_host_has_is_left_out(given: dict[str, Any], tmp_path: Path) -> None:
    status = tmp_path / "status"
    lines = ("Package: base", "Status: install ok installed", "Version: 1.4-1", "Architecture: all", "Maintainer: n")
    status.write_text("\n".join([*lines, "Description: d", "", ""]))
    given["debs"]["status"] = str(status)
    assert collect(given, run_command, Report())["packages"] == 1


def test_no_secret_stands_in_a_command_or_in_the_manifest(given: dict[str, Any], site: Site) -> None:
    watched = Watched()
    made = collect(given, watched, Report())
    secret = site.passphrase.read_text().strip()
    assert any("--detach-sign" in call for call in watched.calls)
    assert not [call for call in watched.calls if secret in " ".join(call)]
    folder = Path(made["path"])
    assert not [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert not [call for call in watched.calls if call[0] not in ("gpg", "env")]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda g: g["debs"]["packages"].update(tool="2.0-1"), "Version '2.0-1' for 'tool' was not found"),
        (lambda g: g["debs"].update(sources="/nowhere.sources"), "/nowhere.sources is missing"),
        (lambda g: g["debs"].update(status="/nowhere"), "/nowhere is missing"),
        (lambda g: g["files"][0].update(source="/nowhere.tar.zst"), "build the release first"),
        (lambda g: g["signing"].update(key="0" * 40), "has no secret key"),
        (lambda g: g["signing"].update(passphrase_file="/nowhere"), "/nowhere is missing"),
        (lambda g: g["wheels"].append({"lock": "/nowhere.txt", "folder": "a"}), "/nowhere.txt is missing"),
    ],
)
def test_what_cannot_be_collected_is_one_line(spoil: Any, said: str, given: dict[str, Any]) -> None:
    spoil(given)
    with pytest.raises(ReleaseError) as refused:
        collect(given, run_command, Report())
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not (Path(given["output_dir"]) / "set-1").exists()


def test_a_dependency_that_no_source_has_is_named(given: dict[str, Any], tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    package(alone, "tool", "1.0-1", "base (>= 9)")
    signer = Signer(**given["signing"])
    write_repository(alone, "alone", signer, run_command, Report())
    text = Path(given["debs"]["sources"]).read_text()
    Path(given["debs"]["sources"]).write_text(re.sub(r"file:\S+", f"file:{alone}/", text))
    given["debs"]["packages"] = {"tool": "1.0-1"}
    with pytest.raises(ReleaseError, match=r"tool : Depends: base \(>= 9\)"):
        collect(given, run_command, Report())


def test_a_repository_that_was_forged_is_refused(given: dict[str, Any], tmp_path: Path, mirror: Path) -> None:
    forged = tmp_path / "forged"
    shutil.copytree(mirror, forged)
    release = (forged / "InRelease").read_text()
    (forged / "InRelease").write_text(release.replace("Origin: mirror", "Origin: forged"))
    sources = Path(given["debs"]["sources"])
    sources.write_text(sources.read_text().replace(str(mirror), str(forged)))
    with pytest.raises(ReleaseError, match="reading the indexes"):
        collect(given, run_command, Report())


def test_a_passphrase_that_others_may_read_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.write_text("x")
    loose.chmod(0o644)
    given["signing"] = {**given["signing"], "passphrase_file": str(loose)}
    with pytest.raises(ReleaseError, match="may be read by others: chmod 600"):
        collect(given, run_command, Report())


def test_a_failure_leaves_the_bundle_that_stood_before(given: dict[str, Any], site: Site) -> None:
    folder = Path(collect(given, run_command, Report())["path"])
    before = (folder / MANIFEST).read_bytes()
    given["debs"]["packages"]["tool"] = "2.0-1"
    with pytest.raises(ReleaseError):
        collect(given, run_command, Report())
    assert (folder / MANIFEST).read_bytes() == before
    assert verify(folder, site.public, run_command, Report())["files"] == 6


def test_wheels_and_collections_are_taken(given: dict[str, Any], tmp_path: Path) -> None:
    house = tmp_path / "wheelhouse"
    house.mkdir()
    (house / "tool-1.0-py3-none-any.whl").write_bytes(b"a wheel")
    lock = tmp_path / "lock.txt"
    digest = hashlib.sha256(b"a wheel").hexdigest()
    lock.write_text(f"tool==1.0 --hash=sha256:{digest}\n")
    given["wheels"] = [{"lock": str(lock), "folder": "engine", "wheelhouse": str(house), "python": "3.11"}]
    Path(given["collections"]).write_text("collections:\n  - name: some.thing\n")
    given["galaxy_command"] = ["/bin/sh", "-c", 'mkdir -p "${6}" && echo x >"${6}/some-thing.tar.gz"', "galaxy"]
    folder = Path(collect(given, run_command, Report())["path"])
    assert {path.name for path in (folder / "wheels/engine").iterdir()} == {
        "tool-1.0-py3-none-any.whl", "requirements.txt",
    }  # fmt: skip
    assert (folder / "collections/some-thing.tar.gz").is_file()
    inputs = json.loads((folder / MANIFEST).read_text())["inputs"]
    assert inputs == inputs_of(given) and {"wheels.engine", "collections", "debs.sources"} <= set(inputs)
