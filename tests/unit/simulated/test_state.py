"""The state of a simulated machine: three layers, written whole."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rackserve.simulated.state import HARDWARE, PERSISTENT, VOLATILE, State, StateError, format_state, parse_state

KEYS = st.from_regex(r"[a-z0-9_.]{1,20}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(str.strip)


def hardware(root: Path, text: str) -> None:
    (root / HARDWARE).mkdir(parents=True, exist_ok=True)
    (root / HARDWARE / "state").write_text(text)


@given(st.dictionaries(KEYS, VALUES))
def test_what_is_formatted_is_parsed(values: dict[str, str]) -> None:
    text = format_state(values)
    assert parse_state(text) == values
    assert text.splitlines() == [f"{key}={values[key]}" for key in sorted(values)]


@pytest.mark.parametrize(
    ("key", "value"),
    [("a b", "1"), ("", "1"), ("a=b", "1"), ("a", " 1"), ("a", "1\n"), ("a", "\u00e9"), ("a\nb", "1"), ("a", "x\ty")],
)
def test_what_would_break_a_line_is_refused(key: str, value: str) -> None:
    with pytest.raises(StateError, match="state"):
        format_state({key: value})


def test_a_broken_line_is_named() -> None:
    with pytest.raises(StateError, match=r"x line 2: 'b' is not key=value; remove it"):
        parse_state("a=1\nb\n", "x")


def test_volatile_is_before_persistent_is_before_hardware(tmp_path: Path) -> None:
    hardware(tmp_path, "a=hw\nb=hw\nc=hw\n")
    state = State(tmp_path)
    assert state.set_persistent({"a": "p", "b": "p"})
    assert state.set_volatile({"a": "v"})
    assert [state.get(key) for key in "abcd"] == ["v", "p", "hw", None]
    assert state.get("d", "-") == "-"
    assert state.all() == {"a": "v", "b": "p", "c": "hw"}


def test_none_takes_a_key_out_of_its_layer_only(tmp_path: Path) -> None:
    hardware(tmp_path, "a=hw\n")
    state = State(tmp_path)
    state.set_volatile({"a": "v", "b": "v"})
    assert state.set_volatile({"a": None, "nothing": None})
    assert (state.get("a"), state.get("b")) == ("hw", "v")
    assert (tmp_path / VOLATILE / "state").read_text() == "b=v\n"
    assert not state.set_volatile({"b": "v", "nothing": None})


def test_what_does_not_change_is_not_written(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.set_persistent({"a": "1"})
    before = (tmp_path / PERSISTENT / "state").stat()
    assert not state.set_persistent({"a": "1"})
    assert (tmp_path / PERSISTENT / "state").stat().st_ino == before.st_ino


def test_another_writer_is_seen(tmp_path: Path) -> None:
    reader = State(tmp_path)
    assert reader.get("a") is None
    State(tmp_path).set_volatile({"a": "1"})
    assert reader.get("a") == "1"
    State(tmp_path).set_volatile({"a": "2"})
    assert reader.get("a") == "2"


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path)
    state.set_volatile({"a": "1"})
    assert state.get("a") == "1"
    monkeypatch.setattr(Path, "read_text", lambda *_args, **_kwargs: pytest.fail("read again"))
    assert state.get("a") == "1"


def test_the_environment_names_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACKSERVE_SIMULATED_ROOT", str(tmp_path))
    assert State().root == tmp_path
    monkeypatch.delenv("RACKSERVE_SIMULATED_ROOT")
    assert State().root == Path("/")


def test_a_broken_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path)
    state.set_volatile({"a": "1"})

    def fail(_handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        state.set_volatile({"a": "2"})
    assert State(tmp_path).get("a") == "1"


def count_up(root: str, key: str) -> None:
    for number in range(40):
        State(Path(root)).set_volatile({f"{key}.{number}": "1"})


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=count_up, args=(str(tmp_path), key)) for key in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(State(tmp_path).all()) == 80
    assert sorted(path.name for path in (tmp_path / VOLATILE).iterdir()) == ["state", "state.lock"]
