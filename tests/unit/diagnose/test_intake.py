"""Inputs from elsewhere: bundles, archives, folders and logs; nothing is unpacked, followed or read without end."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diagnose_support import REPO, causes, changed, healthy_cluster
from rackserve.diagnose.bundle import contents, pack, write_file
from rackserve.diagnose.case import ANY, ELSEWHERE, Case, read_host
from rackserve.diagnose.catalogue import RULES
from rackserve.diagnose.intake import IntakeError, Limits, read_input
from rackserve.diagnose.program import DiagnoseError, examine
from rackserve.diagnose.rank import diagnose
from rackserve.diagnose.redact import Redactor

OOM = "ValueError: 4.38 GiB KV cache is needed, which is larger than the available KV cache memory (1.0 GiB)\n"
SECRET = "canary-31b1f3a9c4d2"


def first(path: Path) -> str:
    found = diagnose(Case(read_input(path)), RULES)
    return str(found[0]["cause"]) if found else ""


def tar(path: Path, build: Callable[[tarfile.TarFile], Any], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        build(archive)
    return path


def member(archive: tarfile.TarFile, name: str, content: bytes, **other: Any) -> None:
    one = tarfile.TarInfo(name)
    one.size = len(content)
    for key, value in other.items():
        setattr(one, key, value)
    archive.addfile(one, io.BytesIO(content))


def cluster() -> dict[str, Any]:
    found = changed(healthy_cluster())
    source = {"name": "journal/vllm.log", "kind": "engine", "unit": "vllm-a-0.service", "state": "troubled", "cut": 3,
              "text": OOM}  # fmt: skip
    found["node2"]["sources"].append(source)
    found["node4"] = {"lost": f"no route to host, key {SECRET}"}
    return found


def packed(found: dict[str, Any]) -> bytes:
    case = Case(read_host(name, given) for name, given in found.items())
    files = contents(case, causes(found), [f"told {SECRET}"], Redactor([SECRET]), 1_764_169_200)
    return pack(files, 1_764_169_200)


def test_a_bundle_says_the_same_as_the_hosts_did(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    write_file(path, packed(cluster()))
    assert path.stat().st_mode & 0o777 == 0o600
    again = diagnose(Case(read_input(path)), RULES, "inventories/lab/hosts.yml")
    assert [one["cause"] for one in again] == [one["cause"] for one in causes(cluster())]
    assert again[1]["evidence"] == causes(cluster())[1]["evidence"]
    assert {host.name: bool(host.lost) for host in read_input(path)}["node4"]
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "folder", filter="data")
    assert first(tmp_path / "folder") == first(path)


def test_a_bundle_has_a_manifest_and_no_secret() -> None:
    found = cluster()
    found["node2"]["sources"][0]["text"] += f"key {SECRET}\n"
    found["node2"]["readings"]["missed"] = []
    whole = packed(found)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        files = {one.name: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]
    assert not any(SECRET.encode() in content for content in files.values())
    (name,) = [name for name in files if name.endswith("manifest.json")]
    manifest = json.loads(files[name])
    top = name.removesuffix("manifest.json")
    assert {f"{top}{one}" for one in manifest["files"]} == set(files) - {name}
    assert all(len(files[f"{top}{one}"]) == kept["bytes"] for one, kept in manifest["files"].items())
    assert manifest["redacted"] >= 3
    assert set(manifest["hosts"]) == set(healthy_cluster())


def test_logs_folders_and_archives_of_others(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_text(OOM)
    assert first(log) == "gpu-oom-kv"
    (tmp_path / "vllm.log.gz").write_bytes(gzip.compress(OOM.encode()))
    assert first(tmp_path / "vllm.log.gz") == "gpu-oom-kv"
    folder = tmp_path / "case"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/a.log.gz").write_bytes(gzip.compress(OOM.encode()))
    (folder / "core").write_bytes(b"\0" * 100)
    assert first(folder) == "gpu-oom-kv"
    for mode, name in (("w", "a.tar"), ("w:gz", "a.tgz"), ("w:xz", "a.tar.xz"), ("w:bz2", "a.tar.bz2")):
        path = tar(tmp_path / name, lambda archive: member(archive, "x/y.log", OOM.encode()), mode)
        assert first(path) == "gpu-oom-kv"
    (host,) = read_input(log)
    assert (host.name, host.sources[0].kind) == (ELSEWHERE, ANY)


def test_links_and_names_that_leave_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(OOM)

    def build(archive: tarfile.TarFile) -> None:
        member(archive, "fine.log", b"nothing\n")
        member(archive, "../out.log", OOM.encode())
        member(archive, "/etc/abs.log", OOM.encode())
        member(archive, "link", b"", type=tarfile.SYMTYPE, linkname=str(secret))
        member(archive, "hard", b"", type=tarfile.LNKTYPE, linkname="fine.log")
        member(archive, "fifo", b"", type=tarfile.FIFOTYPE)
        member(archive, "device", b"", type=tarfile.CHRTYPE)

    (host,) = read_input(tar(tmp_path / "a.tar.gz", build))
    assert [source.name for source in host.sources] == ["fine.log"]
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "a.tar.gz"}, "nothing was unpacked"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.log").symlink_to(secret)
    (folder / "dir").symlink_to(tmp_path)
    (folder / "real.log").write_text("nothing\n")
    (host,) = read_input(folder)
    assert [source.name for source in host.sources] == ["real.log"]


LIMITS = Limits(members=3, member_bytes=1000, total_bytes=2500, ratio=5, always_bytes=1500)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ([10] * 4, "more than 3 members"),
        ([1001], "has 1001 bytes, more than 1000"),
        ([900, 900], "it holds more than 1500 bytes (size, or how much it grows)"),
    ],
)
def test_limits_of_an_archive(tmp_path: Path, sizes: list[int], says: str) -> None:
    def build(archive: tarfile.TarFile) -> None:
        for number, size in enumerate(sizes):
            member(archive, f"{number}.log", b"a" * size)

    with pytest.raises(IntakeError, match=r"unpack what matters by hand") as refused:
        read_input(tar(tmp_path / "a.tar.gz", build), LIMITS)
    assert says in str(refused.value)


def test_limits_of_a_folder_and_of_a_packed_file(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.log").write_bytes(b"a" * 900)
    with pytest.raises(IntakeError, match="holds more than 2500 bytes"):
        read_input(tmp_path, LIMITS)
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(b"0" * 200_000))
    with pytest.raises(IntakeError, match="bytes"):
        read_input(bomb, LIMITS)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "there is no text in it"),
        (lambda path: path.write_bytes(b""), "there is no text in it"),
        (lambda path: path.write_bytes(b"\0\1\2" * 100), "there is no text in it"),
        (lambda path: path.write_bytes(b"\x1f\x8b" + b"x" * 40), "cannot be unpacked"),
        (os.mkfifo, "neither a file nor a folder"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(tmp_path: Path, make: Callable[[Path], Any], says: str) -> None:
    path = tmp_path / "x"
    make(path)
    with pytest.raises(IntakeError) as refused:
        read_input(path)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_cut_archive_is_one_clear_line(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", lambda archive: member(archive, "x.log", os.urandom(50_000)))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(IntakeError, match=r"damaged|cannot be unpacked|no text"):
        read_input(path)


def test_a_manifest_that_lies_is_survived(tmp_path: Path) -> None:
    first_host = {"sources": [{"file": 5}, 3, {"file": "gone"}], "readings": 7}
    manifest = {"kind": "rackserve-diagnosis", "hosts": {"a": first_host, "b": [], "c": {"lost": "gone"}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert {host.name for host in read_input(tmp_path)} == {"a", "b", "c"}


def test_everything_in_one_call(tmp_path: Path) -> None:
    output, bundle = tmp_path / "causes.json", tmp_path / "b.tar.gz"
    options = {"input": "", "output": str(output), "bundle": str(bundle), "inventory": "x"}
    result = examine(cluster(), {"a": SECRET}, options, check=False)
    assert json.loads(output.read_text()) == result["causes"]
    assert {"cause", "category", "confidence", "evidence", "fix", "run"} <= set(result["causes"][0])
    assert SECRET not in output.read_text() + "\n".join(result["lines"])
    again = examine({}, {}, {"input": str(bundle)}, check=False)
    assert [one["cause"] for one in again["causes"]] == [one["cause"] for one in result["causes"]]
    output.unlink()
    assert examine(cluster(), {}, options, check=True)["written"] == [str(bundle), str(output)]
    assert not output.exists()


def test_wrong_calls_are_one_clear_line(tmp_path: Path) -> None:
    for hosts, options, says in (
        ({}, {}, "no host was asked"),
        ({}, {"input": str(tmp_path / "gone")}, "diagnose_input="),
        (cluster(), {"output": str(tmp_path / "no/x.json")}, "name a file in a folder that exists"),
    ):
        with pytest.raises(DiagnoseError, match=says):
            examine(hosts, {}, options, check=False)


def test_the_facts_of_a_seed_need_no_host() -> None:
    """Logs of the repository itself are no fault of anybody."""
    assert first(REPO / "CHANGELOG.md") == ""
