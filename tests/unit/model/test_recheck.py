"""The timer's look at all weights: what it reads, finds, says and never does."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rackserve.health.check import NotHere, Unreadable
from rackserve.health.checks_weights import CHECKS, REPORT
from rackserve.model.recheck import main, slowly
from rackserve.model.verify import verify

CONTENT = {"config.json": b"{}", "sub/model.safetensors": b"w" * 5000}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "models/tiny"
    for name, data in CONTENT.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    files = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in CONTENT.items()}
    assert verify(place, json.dumps({"files": files})).ready
    return place


def run(folder: Path, *more: str) -> tuple[int, Any, str]:
    report, textfile = folder.parent / "report.json", folder.parent / "x.prom"
    code = main(["--report", str(report), "--textfile", str(textfile), *more, str(folder)])
    return code, json.loads(report.read_text()), textfile.read_text()


def test_whole_weights_are_read_in_full(folder: Path) -> None:
    code, report, prom = run(folder, "--mib-s", "100000")
    [row] = report["models"]
    assert (code, row["files"], row["bytes"], row["problems"], row["unproven"]) == (0, 2, 5002, [], "")
    assert f'rackserve_weights_damaged{{path="{folder}"}} 0' in prom


def test_bits_that_rot_without_a_date_are_found_and_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "sub/model.safetensors"
    state = path.stat()
    path.write_bytes(b"w" * 4999 + b"v")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    (folder / "config.json").unlink()
    code, report, prom = run(folder)
    assert code == 1
    assert [(one["file"], one["why"].partition(" (")[0]) for one in report["models"][0]["problems"]] == [
        ("config.json", "cannot be read"),
        ("sub/model.safetensors", "other content than was proven"),
    ]
    assert f'rackserve_weights_damaged{{path="{folder}"}} 2' in prom
    assert "run playbooks/repair-weights.yml" in capsys.readouterr().err
    assert (folder / "READY").is_file(), "it reports and never applies"


def test_weights_that_were_not_proven_are_said_to_be(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "READY.stat.json").unlink()
    code, report, _ = run(folder)
    assert (code, report["models"][0]["files"]) == (0, 0)
    assert "was not proven yet" in capsys.readouterr().err


def test_it_reads_no_faster_than_it_may() -> None:
    slept: list[float] = []
    pause = slowly(1, lambda: 0.0, slept.append)
    pause(1 << 20)
    pause(1 << 20)
    assert slept == [1.0, 2.0]
    slowly(0, lambda: 0.0, slept.append)(1 << 30)
    assert len(slept) == 2


class Look:
    def __init__(self, root: Path) -> None:
        self.root = root


def test_health_tells_what_the_timer_found(folder: Path, tmp_path: Path) -> None:
    judge: Any = CHECKS[0].judge
    with pytest.raises(NotHere):
        judge(Look(tmp_path))
    kept = tmp_path / REPORT
    kept.parent.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"[]")
    _, report, _ = run(folder)
    kept.write_text(json.dumps(report))
    [problem] = judge(Look(tmp_path))
    assert (problem.subject, problem.seen) == (str(folder), "damaged when read 0 days ago: config.json")
    report["models"][0]["problems"] = []
    kept.write_text(json.dumps(report))
    assert judge(Look(tmp_path)) == []
    kept.write_text("{")
    with pytest.raises(Unreadable, match="is no report"):
        judge(Look(tmp_path))
