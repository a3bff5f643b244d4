"""A release stands complete at its path or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from rackserve.release.archive import pack, require_free
from rackserve.release.host import ReleaseError, must, run_command, write_atomic
from rackserve.release.install import InstallRequest, install, installed_manifest, marker_text, verify
from rackserve.release.manifest import MANIFEST, MARKER, build_manifest, manifest_id


def make_archive(tmp_path: Path, name: str = "r1", content: bytes = b"engine") -> InstallRequest:
    tree = tmp_path / f"{name}-tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "python3").write_bytes(content)
    (tree / "bin" / "python3").chmod(0o755)
    (tree / "bin" / "python").symlink_to("python3")
    text = build_manifest(tree)
    (tree / MANIFEST).write_text(text)
    archive = tmp_path / f"{name}.tar.zst"
    pack(tree, archive, run_command)
    return InstallRequest(name, tmp_path / "releases" / "r1", archive, manifest_id(text), 1 << 20)


def test_installs_once_and_says_so(tmp_path: Path) -> None:
    request = make_archive(tmp_path)
    assert install(request) is True
    assert (request.path / MARKER).read_text() == marker_text("r1", request.manifest_sha256)
    assert json.loads((request.path / MARKER).read_text())["release"] == "r1"
    assert os.access(request.path / "bin" / "python", os.X_OK)
    assert install(request) is False
    assert verify(request.path, request.manifest_sha256) == 2


def test_check_mode_touches_nothing(tmp_path: Path) -> None:
    request = make_archive(tmp_path)
    assert install(request, check_mode=True) is True
    assert not request.path.parent.exists()


def test_a_left_part_is_cleaned(tmp_path: Path) -> None:
    request = make_archive(tmp_path)
    left = request.path.with_name("r1.part")
    left.mkdir(parents=True)
    (left / "stray").write_text("from an interrupted run")
    install(request)
    assert not left.exists() and not (request.path / "stray").exists()


def test_a_tree_without_marker_is_not_installed_and_not_overwritten(tmp_path: Path) -> None:
    request = make_archive(tmp_path)
    request.path.mkdir(parents=True)
    assert installed_manifest(request.path) is None
    (request.path / "theirs").write_text("")
    with pytest.raises(ReleaseError, match="no finished release"):
        install(request)
    assert (request.path / "theirs").exists()


def test_another_build_under_the_same_id_is_refused(tmp_path: Path) -> None:
    install(make_archive(tmp_path))
    (tmp_path / "second").mkdir()
    other = make_archive(tmp_path / "second", content=b"other")._replace(path=tmp_path / "releases" / "r1")
    with pytest.raises(ReleaseError, match="immutable"):
        install(other)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"manifest_sha256": "0" * 64}, "wanted 000000000000"),
        ({"archive": Path("/nonexistent/r1.tar.zst")}, "ship the release first"),
        ({"unpacked_bytes": 1 << 60}, r"needs \d+ MiB on the file system of .*, \d+ MiB are free"),
    ],
)
def test_refusals_leave_nothing_at_the_path(tmp_path: Path, change, said) -> None:
    request = make_archive(tmp_path)._replace(**change)
    with pytest.raises(ReleaseError, match=said):
        install(request)
    assert not request.path.exists()


def test_a_truncated_archive_leaves_nothing_at_the_path(tmp_path: Path) -> None:
    request = make_archive(tmp_path)
    request.archive.write_bytes(request.archive.read_bytes()[:-40])
    with pytest.raises(ReleaseError, match="unpacking"):
        install(request)
    assert not request.path.exists()


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    request = make_archive(tmp_path)
    install(request)
    (request.path / "bin" / "python3").write_bytes(b"ENGINE")
    (request.path / "new").write_text("")
    with pytest.raises(ReleaseError, match=r"1 corrupt \(first: bin/python3\); 1 extra \(first: new\)"):
        verify(request.path, request.manifest_sha256)


def test_a_tree_without_manifest_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="has no MANIFEST"):
        verify(tmp_path, "0" * 64)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_broken_marker_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / MARKER).write_text(text)
    with pytest.raises(ReleaseError, match="not a release marker"):
        installed_manifest(tmp_path)


def test_the_same_tree_gives_the_same_archive(tmp_path: Path) -> None:
    make_archive(tmp_path)
    os.utime(tmp_path / "r1-tree" / "bin" / "python3", (1, 1))
    (tmp_path / "r1-tree" / "bin" / "python3").chmod(0o775)
    pack(tmp_path / "r1-tree", tmp_path / "again.tar.zst", run_command)
    assert (tmp_path / "again.tar.zst").read_bytes() == (tmp_path / "r1.tar.zst").read_bytes()


def test_enough_space_is_silent(tmp_path: Path) -> None:
    require_free(tmp_path / "not" / "there", 1, "x")


def test_a_failing_command_is_one_line() -> None:
    with pytest.raises(ReleaseError) as failed:
        must(run_command, ["sh", "-c", "echo one; echo two >&2; exit 3"], "it")
    assert str(failed.value) == "it failed (exit 3): two"
    assert run_command(["/nonexistent/program"])[0] == 127


def test_an_atomic_write_leaves_no_part(tmp_path: Path) -> None:
    write_atomic(tmp_path / "f", "x", 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").stat().st_mode & 0o777 == 0o600
