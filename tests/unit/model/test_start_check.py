"""An engine does not start on weights that changed after they were proven."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from rackserve.model.start_check import main
from rackserve.model.verify import verify

FILES = {"a.safetensors": b"a" * 5000, "b.safetensors": b"b" * 7000}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder of weights, proven."""
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    files = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in FILES.items()}
    assert verify(tmp_path, json.dumps({"version": 1, "files": files})).ready
    return tmp_path


def start(model: Path) -> int:
    return main(["--model", str(model)])


def test_what_nobody_wrote_to_is_not_read(model: Path) -> None:
    content = model / "a.safetensors"
    times = content.stat()
    content.write_bytes(b"z" * 5000)
    os.utime(content, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert start(model) == 0


def test_a_file_written_anew_with_the_same_content_is_fine(model: Path) -> None:
    (model / "a.safetensors").write_bytes(FILES["a.safetensors"])
    assert start(model) == 0
    assert (model / "READY").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_bytes(b"z" * 7000), "b.safetensors was written to and has other content"),
        (lambda path: path.write_bytes(b"b" * 6999), "b.safetensors has 6999 bytes instead of 7000"),
        (lambda path: path.unlink(), "b.safetensors cannot be read (No such file or directory)"),
    ],
)
def test_a_corrupt_shard_stops_the_start_and_waits_for_site(
    model: Path, change: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(model / "b.safetensors")  # type: ignore[operator]
    assert start(model) == 1
    assert not (model / "READY").exists()
    line = capsys.readouterr().err
    assert line.startswith(f"{model} is not what was proven: {said}: playbooks/site.yml proves the model")
    assert line.count("\n") == 1


def test_a_table_without_digests_goes_by_dates(model: Path) -> None:
    table = json.loads((model / "READY.stat.json").read_text())
    del table["sha256"]
    (model / "READY.stat.json").write_text(json.dumps(table))
    assert start(model) == 0
    (model / "a.safetensors").write_bytes(FILES["a.safetensors"])
    assert start(model) == 1


@pytest.mark.parametrize("content", [None, "no json", "{}", '{"files": 1}'])
def test_a_folder_without_a_table_is_left_to_ready(model: Path, content: str | None) -> None:
    (model / "READY.stat.json").unlink()
    if content is not None:
        (model / "READY.stat.json").write_text(content)
    assert start(model) == 0
