"""Sending with rsync, told by its own count."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from rackserve.progress.report import Report
from rackserve.release.host import ReleaseError
from rackserve.release.send import bytes_of, command, send_work, size_of

REST = {"options": ["--times"], "rsync_path": "sudo rsync", "rsh": "ssh -p 2222"}


@pytest.mark.parametrize(
    ("piece", "done"),
    [
        (b"      4,096 100%", None),
        (b"        32768   7%   31.25MB/s    0:00:00", 32768),
        (b"       458752 100%  437.50MB/s    0:00:00 (xfr#1, to-chk=0/1)", 458752),
        (b"sent 45 bytes", None),
        (b"", None),
    ],
)
def test_the_pieces_of_its_progress(piece: bytes, done: int | None) -> None:
    assert bytes_of(piece) == done


def test_the_command_line() -> None:
    payload = {"source": "a", "target": "h:b", "files": [], **REST}
    expected = ["rsync", "--times", "--info=progress2", "--no-human-readable", "--rsync-path=sudo rsync"]
    assert command(payload) == [*expected, "--rsh=ssh -p 2222", "a", "h:b"]
    assert "--files-from=-" in command({**payload, "files": ["x"]})


def test_files_arrive_and_their_bytes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "from/sub").mkdir(parents=True)
    (tmp_path / "from/sub/a").write_bytes(b"a" * 3000)
    (tmp_path / "from/b").write_bytes(b"b" * 2000)
    (tmp_path / "from/c").write_bytes(b"c")
    reached: list[float] = []
    monkeypatch.setattr(Report, "reach", lambda _report, done: reached.append(done))
    files = {"source": f"{tmp_path}/from/", "target": f"{tmp_path}/to/", "files": ["sub/a", "b"], "options": ["-r"]}
    assert send_work({**REST, **files}, Report()) == {"bytes": 5000}
    assert (tmp_path / "to/sub/a").read_bytes() == b"a" * 3000 and not (tmp_path / "to/c").exists()
    assert reached[-1] == 5000


def test_an_interrupted_transfer_goes_on(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(content[: 1 << 19])
    options = ["--partial", "--inplace", "--times", "--no-whole-file", "--stats"]
    payload = {"source": f"{tmp_path}/a", "target": f"{tmp_path}/b", "files": [], **REST, "options": options}
    said = subprocess.run(command(payload), capture_output=True, text=True, check=True).stdout
    assert int(re.search(r"Literal data: (\d+) bytes", said)[1]) <= 1 << 19
    assert (tmp_path / "b").read_bytes() == content


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReleaseError, match=r"/x cannot be read on the controller \(No such file"):
        size_of(f"{tmp_path}/", ["x"])
    (tmp_path / "a").write_text("a")
    payload = {"source": f"{tmp_path}/a", "target": f"{tmp_path}/no/where/b", "files": [], **REST, "options": []}
    with pytest.raises(ReleaseError, match=r"rsync of .*/a to .*/b failed \(exit \d+\): .* run again"):
        send_work(payload, Report())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ReleaseError, match="not installed on the controller"):
        send_work(payload, Report())
