"""The manifest names the content of a tree, and any change of the tree shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rackserve.release.host import ReleaseError
from rackserve.release.manifest import MANIFEST, MARKER, Entry, build_manifest, manifest_id, parse_manifest, verify_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "bin").mkdir(parents=True)
    (top / "bin" / "run").write_bytes(b"code")
    (top / "bin" / "run").chmod(0o755)
    (top / "bin" / "alias").symlink_to("run")
    (top / "a name with spaces").write_bytes(b"")
    return top


def test_lines_are_sorted_and_name_content(tree: Path) -> None:
    lines = build_manifest(tree).splitlines()
    assert [line.split(" ", 3)[3] for line in lines] == ["a name with spaces", "bin/alias", "bin/run"]
    assert lines[1] == "link run - bin/alias"
    assert lines[2].split()[1:3] == ["4", "x"]


def test_marker_and_manifest_at_the_top_do_not_count(tree: Path) -> None:
    before = build_manifest(tree)
    (tree / MANIFEST).write_text("x")
    (tree / MARKER).write_text("x")
    assert build_manifest(tree) == before
    (tree / "bin" / MARKER).write_text("x")
    assert build_manifest(tree) != before


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda tree: (tree / "bin/run").write_bytes(b"Code"), ([], ["bin/run"], [])),
        (lambda tree: (tree / "bin/run").chmod(0o644), ([], ["bin/run"], [])),
        (lambda tree: (tree / "bin/run").unlink(), (["bin/run"], [], [])),
        (lambda tree: (tree / "new").write_bytes(b""), ([], [], ["new"])),
        (lambda tree: (tree / "bin/run").replace(tree / "bin/alias"), (["bin/run"], ["bin/alias"], [])),
        (lambda _tree: None, ([], [], [])),
    ],
)
def test_every_change_is_found(tree: Path, change, found) -> None:
    manifest = parse_manifest(build_manifest(tree))
    change(tree)
    assert verify_tree(tree, manifest) == found


def test_a_link_to_a_folder_is_a_link(tree: Path) -> None:
    (tree / "lib").symlink_to("bin")
    assert parse_manifest(build_manifest(tree))["lib"] == Entry("lib", "link", 0, False, "bin")


def test_a_newline_in_a_name_is_refused(tree: Path) -> None:
    (tree / "a\nb").write_text("")
    with pytest.raises(ReleaseError, match="newline"):
        build_manifest(tree)


@pytest.mark.parametrize(
    "line", ["", "abc 1 x", "zz 1 x path", f"{'0' * 64} big x path", f"{'0' * 64} 1 x ../up", f"{'0' * 64} 1 x /etc/x"]
)
def test_a_bad_line_is_refused(line: str) -> None:
    with pytest.raises(ReleaseError, match="line 1"):
        parse_manifest(line + "\n")


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(min_codepoint=33, max_codepoint=1000), min_size=1).filter(
            lambda name: not {"/", "\x85", "\x1c", "\x1d", "\x1e", "\u2028"} & set(name) and ".." not in name
        ),
        st.tuples(st.integers(0, 2**60), st.booleans()),
    )
)
def test_what_is_written_is_read_again(files) -> None:
    entries = {name: Entry(name, manifest_id(name), size, executable) for name, (size, executable) in files.items()}
    text = "".join(entry.line() + "\n" for entry in entries.values())
    assert parse_manifest(text) == entries
