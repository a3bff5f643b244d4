"""Caches of releases that are gone: found, told from everything else, removed only where asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from rackserve.release.caches import find_caches, prune, used_folders

CACHE, RELEASES = "/var/cache/rackserve", "/opt/rackserve/releases"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "opt/rackserve/releases/2026.11").mkdir(parents=True)
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    (units / "vllm-a-0.service").write_text("[Service]\nCacheDirectory=rackserve/a-0/2026.12/tiny\n")
    (units / "vllm-b-0.service").write_text("[Service]\nCacheDirectory=rackserve/b-0\n")
    return tmp_path


def make(root: Path, name: str, size: int = 10) -> Path:
    path = root / "var/cache/rackserve" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def stale(root: Path) -> dict[str, str]:
    found = find_caches(root, CACHE, RELEASES)
    return {f"{one.engine}/{one.release}": one.stale for one in found if one.stale and one.ours}


def test_only_releases_that_are_gone_are_stale(root: Path) -> None:
    make(root, "a-0/2026.10/tiny/vllm/x", 100)
    make(root, "a-0/2026.11/tiny/vllm/x")
    make(root, "a-0/2026.12/tiny/vllm/x")
    make(root, "ray-c/2026.10/vllm/x")
    assert stale(root) == {
        "a-0/2026.10": "release 2026.10 is not installed and no unit uses it",
        "ray-c/2026.10": "release 2026.10 is not installed and no unit uses it",
    }
    [first] = [one for one in find_caches(root, CACHE, RELEASES) if one.release == "2026.10" and one.engine == "a-0"]
    assert first.size == 100


def test_an_earlier_layout_goes_once_its_unit_has_changed(root: Path) -> None:
    for engine in ("a-0", "b-0"):
        make(root, f"{engine}/vllm/x")
        make(root, f"{engine}/.triton/x")
    assert set(stale(root)) == {"a-0/vllm", "a-0/.triton"}


def test_what_is_not_known_stays(root: Path) -> None:
    make(root, "a-0/notes.txt")
    make(root, "a-0/mine/file")
    (root / "var/cache/rackserve/a-0/link").symlink_to(root / "opt")
    (root / "var/cache/rackserve/elsewhere").symlink_to(root / "opt")
    found = find_caches(root, CACHE, RELEASES)
    assert {one.release: one.ours for one in found} == {"mine": False, "notes.txt": False}
    assert prune(found) == []
    assert (root / "var/cache/rackserve/a-0/mine/file").is_file()


def test_pruning_removes_the_stale_and_nothing_else(root: Path) -> None:
    gone = make(root, "a-0/2026.10/tiny/x")
    kept = make(root, "a-0/2026.11/tiny/x")
    removed = prune(find_caches(root, CACHE, RELEASES))
    assert removed == [str(gone.parents[1])]
    assert (gone.exists(), kept.exists()) == (False, True)
    assert prune(find_caches(root, CACHE, RELEASES)) == []
    assert used_folders(root) == {"rackserve/a-0/2026.12/tiny", "rackserve/b-0"}
    assert find_caches(root / "nothing", CACHE, RELEASES) == []
