"""READY says exactly that the folder matches the manifest, and is cheap to keep true."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rackserve.model.verify import (
    READY,
    STAT,
    ModelError,
    Reader,
    Verdict,
    explain,
    manifest_digest,
    parse_manifest,
    verify,
)

FILES = {"config.json": b"{}", "a.safetensors": b"weights a", "b.safetensors": b"weights b"}


def manifest_of(files: dict[str, bytes]) -> str:
    rows = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    }
    return json.dumps({"version": 1, "files": rows})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "model"
    top.mkdir(mode=0o755)
    for name, content in FILES.items():
        (top / name).write_bytes(content)
        (top / name).chmod(0o644)
    return top


def test_a_right_folder_becomes_ready_once(folder: Path) -> None:
    text = manifest_of(FILES)
    first = verify(folder, text)
    assert first == Verdict([], [], [], 3, True) and first.ready
    assert (folder / READY).read_text() == manifest_digest(text) + "\n"
    assert verify(folder, text) == Verdict([], [], [], 0, False)
    assert verify(folder, text, full=True).hashed == 3
    (folder / "unrelated").write_text("not in the manifest")
    assert verify(folder, text).ready


def test_check_mode_reports_and_writes_nothing(folder: Path) -> None:
    assert verify(folder, manifest_of(FILES), check_mode=True).changed is True
    assert not (folder / READY).exists() and not (folder / STAT).exists()
    verify(folder, manifest_of(FILES))
    (folder / "config.json").unlink()
    assert verify(folder, manifest_of(FILES), check_mode=True).changed is True
    assert (folder / READY).exists()


def test_marks_may_stand_elsewhere_so_that_a_source_stays_untouched(folder: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    assert verify(folder, manifest_of(FILES), marks=marks) == Verdict([], [], [], 3, True)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert verify(folder, manifest_of(FILES), marks=marks) == Verdict([], [], [], 0, False)
    (folder / "a.safetensors").write_bytes(b"weights b")
    assert verify(folder, manifest_of(FILES), marks=marks).corrupt == ["a.safetensors"]
    assert not (marks / READY).exists()


def test_only_what_changed_is_hashed(folder: Path) -> None:
    verify(folder, manifest_of(FILES))
    os.utime(folder / "config.json", ns=(1, 1))
    assert verify(folder, manifest_of(FILES)) == Verdict([], [], [], 1, True)


def test_a_changed_byte_is_corrupt_and_ready_goes(folder: Path) -> None:
    verify(folder, manifest_of(FILES))
    (folder / "b.safetensors").write_bytes(b"weights B")
    os.utime(folder / "b.safetensors", ns=(5, 5))
    verdict = verify(folder, manifest_of(FILES))
    assert verdict == Verdict([], ["b.safetensors"], [], 1, True) and not verdict.ready
    assert not (folder / READY).exists() and not (folder / STAT).exists()
    assert "1 corrupt, first b.safetensors (copy it again)" in explain(verdict, folder)


def test_a_changed_byte_with_size_and_time_kept_is_found_by_full_only(folder: Path) -> None:
    verify(folder, manifest_of(FILES))
    state = (folder / "b.safetensors").stat()
    (folder / "b.safetensors").write_bytes(b"weights B")
    os.utime(folder / "b.safetensors", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert verify(folder, manifest_of(FILES)).ready
    assert verify(folder, manifest_of(FILES), full=True).corrupt == ["b.safetensors"]


def test_a_truncated_file_is_corrupt_without_reading_it(folder: Path) -> None:
    (folder / "a.safetensors").write_bytes(b"weights")
    assert verify(folder, manifest_of(FILES)) == Verdict([], ["a.safetensors"], [], 2, False)


def test_missing_files_and_folders(folder: Path, tmp_path: Path) -> None:
    (folder / "a.safetensors").unlink()
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    assert verify(folder, manifest_of(FILES)).missing == ["a.safetensors", "config.json"]
    assert verify(tmp_path / "nowhere", manifest_of(FILES)).missing == sorted(FILES)


def test_another_manifest_hashes_everything_again(folder: Path) -> None:
    verify(folder, manifest_of(FILES))
    fewer = {name: FILES[name] for name in ("config.json", "a.safetensors")}
    assert verify(folder, manifest_of(fewer)) == Verdict([], [], [], 2, True)


@pytest.mark.parametrize("damage", ["{", "[]", '{"manifest_sha256": "other", "files": {}}'])
def test_a_damaged_table_only_costs_time(folder: Path, damage: str) -> None:
    verify(folder, manifest_of(FILES))
    (folder / STAT).write_text(damage)
    assert verify(folder, manifest_of(FILES)) == Verdict([], [], [], 3, True)


@pytest.mark.parametrize(
    ("reader", "mode", "closed"),
    [
        (Reader(4242, frozenset()), 0o644, []),
        (Reader(4242, frozenset()), 0o640, ["config.json"]),
        (Reader(4242, frozenset([0])), 0o640, []),
        (Reader(4242, frozenset([0])), 0o604, ["config.json"]),
        (Reader(0, frozenset()), 0o000, []),
    ],
)
def test_readability_by_mode_and_group(folder: Path, reader: Reader, mode: int, closed) -> None:
    os.chown(folder / "config.json", os.getuid(), 0)
    (folder / "config.json").chmod(mode)
    verdict = verify(folder, manifest_of(FILES), reader=reader, root=folder)
    assert verdict.unreadable == closed and verdict.ready is not bool(closed)


def test_the_owner_bits_count_for_the_owner(folder: Path) -> None:
    os.chown(folder / "config.json", 4242, 0)
    (folder / "config.json").chmod(0o044)
    verdict = verify(folder, manifest_of(FILES), reader=Reader(4242, frozenset()), root=folder)
    assert verdict.unreadable == ["config.json"]


def test_a_closed_folder_on_the_way_is_named(folder: Path) -> None:
    folder.chmod(0o700)
    verdict = verify(folder, manifest_of(FILES), reader=Reader(4242, frozenset()), root=folder)
    assert verdict.unreadable == [str(folder)] and "fix mode or owner" in explain(verdict, folder)


def test_a_ready_folder_is_explained_too(folder: Path) -> None:
    assert explain(verify(folder, manifest_of(FILES)), folder) == f"{folder} is ready"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"files": {}}',
        '{"files": {"a": 1}}',
        '{"files": {"a": {"size": "x", "sha256": ""}}}',
        '{"files": {"../a": {"size": 1, "sha256": "x"}}}',
        '{"files": {"/a": {"size": 1, "sha256": "x"}}}',
        '{"files": {"READY": {"size": 1, "sha256": "x"}}}',
    ],
)
def test_a_bad_manifest_is_one_clear_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelError, match="make it again") as failed:
        verify(tmp_path, text)
    assert "\n" not in str(failed.value)


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_manifest_is_read_or_refused(manifest) -> None:
    try:
        assert parse_manifest(manifest)
    except ModelError as refused:
        assert "manifest" in str(refused)
