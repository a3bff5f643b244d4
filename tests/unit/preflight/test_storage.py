"""File systems that cannot be written, weights that are not whole, and what is judged by header and index alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from rackserve.preflight.storage import INDEX, check_shards, check_writable, wanted_bytes

MODEL = [{"name": "m", "path": "/srv/m"}]


def shard(path: Path, data_bytes: int = 64) -> Path:
    header = json.dumps({"__metadata__": {"format": "pt"}, "w": {"data_offsets": [0, data_bytes]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(data_bytes))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "srv/m"
    folder.mkdir(parents=True)
    for name in ("a.safetensors", "b.safetensors"):
        shard(folder / name)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}))
    return folder


def why(tmp_path: Path) -> str:
    (found,) = check_shards(tmp_path, MODEL)
    assert (found["code"], found["where"]) == ("model-incomplete", "/srv/m")
    return str(found["why"])


@pytest.mark.usefixtures("folder")
def test_whole_weights_and_a_folder_that_is_not_there_say_nothing(tmp_path: Path) -> None:
    assert check_shards(tmp_path, MODEL) == []
    assert check_shards(tmp_path, [{"name": "n", "path": "/srv/n"}]) == []


def test_a_shard_that_is_cut_off_or_gone(tmp_path: Path, folder: Path) -> None:
    whole = (folder / "a.safetensors").stat().st_size
    os.truncate(folder / "a.safetensors", whole - 1)
    (folder / "b.safetensors").unlink()
    assert why(tmp_path) == (
        f"2 file(s) of model m are not whole, first: a.safetensors has {whole - 1} bytes, its header says {whole}"
    )
    shard(folder / "a.safetensors")
    assert why(tmp_path).endswith("first: b.safetensors is not there")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>not found</html>", "does not begin like a safetensors file"),
        ((90).to_bytes(8, "little") + b"{", "ends inside its header"),
        ((2).to_bytes(8, "little") + b"[]", "header is not that of a safetensors file"),
        ((8).to_bytes(8, "little") + b'{"w": 1}', "header is not that of a safetensors file"),
    ],
)
def test_another_file_in_its_place(tmp_path: Path, folder: Path, content: bytes, said: str) -> None:
    (folder / "a.safetensors").write_bytes(content)
    assert said in why(tmp_path)


def test_without_tensors_a_header_is_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert wanted_bytes(path) == 10


@pytest.mark.parametrize("index", ["{", '{"weight_map": 1}'])
def test_a_broken_index(tmp_path: Path, folder: Path, index: str) -> None:
    (folder / INDEX).write_text(index)
    assert f"first: {INDEX}: " in why(tmp_path)


def test_one_line_a_read_only_file_system(tmp_path: Path) -> None:
    asked: list[str] = []

    def statvfs(path: str) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(f_flag=os.ST_RDONLY)

    (found,) = check_writable(tmp_path, ["/etc/a", "/srv/b"], statvfs)
    assert (found["code"], found["where"]) == ("read-only", "/etc/a, /srv/b")
    assert asked == [str(tmp_path)] * 2
    assert check_writable(tmp_path, ["/etc/a"]) == []
