"""What root does around the relay: the unit it starts, the door it opens, what it takes over."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rackserve.model.verify import verify
from rackserve.relay import unit
from rackserve.relay.door import DoorError, close, open_for
from rackserve.relay.unit import Asked, HostError, adopt, finish, follow, settings_of, start, step

CONTENT = {"config.json": b"{}", "model.safetensors": b"w" * 9000, "sub/extra.json": b"[]"}
MANIFEST = json.dumps({
    "version": 1,
    "files": {n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in CONTENT.items()},
})  # fmt: skip
TOKEN = "s" * 64


class Commands:
    """Records commands and answers them."""

    def __init__(self, **answers: tuple[int, str, str]) -> None:
        self.said: list[list[str]] = []
        self.answers = answers
        self.token_seen = ""
        self.secret: Path | None = None

    def __call__(self, words: Sequence[str]) -> tuple[int, str, str]:
        self.said.append(list(words))
        if words[0] == "systemd-run" and self.secret:
            assert self.secret.stat().st_mode & 0o777 == 0o600
            self.token_seen = self.secret.read_text()
        key = words[0].replace("-", "_") if words[0] != "nft" else "nft_" + ("list" if "list" in words else words[1])
        return self.answers.get(key, (1, "", "no table") if key == "nft_list" else (0, "", ""))

    def of(self, program: str) -> list[list[str]]:
        return [words for words in self.said if words[0] == program]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setattr(unit, "USER", pwd.getpwuid(os.getuid()).pw_name)
    (tmp_path / "run").mkdir()
    return Asked(
        model="tiny v3",
        role="receiver",
        folder=tmp_path / "models/tiny",
        manifest=MANIFEST,
        wanted=list(CONTENT),
        address="10.0.0.2",
        port=8690,
        peers=["10.0.0.1", "10.0.0.2", "10.0.0.3"],
        parents=[{"name": "node1", "address": "10.0.0.1", "port": 8690}],
        group="vllm",
        streams=4,
        limit_mib_s=0,
        linger_s=300,
        longest_s=3600,
        root=tmp_path,
    )


def write(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(CONTENT[name])


def test_a_unit_without_privileges_is_started_and_the_token_is_gone(asked: Asked) -> None:
    run = Commands(nft_list=(0, "table inet rackserve {\n set relay4 { }\n}", ""))
    run.secret = asked.work / "token"
    assert step(asked, "started", {"token": TOKEN}, run) == {"changed": True, "door": "opened"}
    [words] = run.of("systemd-run")
    assert run.token_seen == TOKEN
    assert not run.secret.exists()
    assert TOKEN not in " ".join(word for line in run.said for word in line)
    assert TOKEN not in (asked.work / "relay.json").read_text()
    said = " ".join(words)
    parts = ["User=", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "IPAddressDeny=any"]
    for part in [*parts, "LoadCredential=token:", f"ReadWritePaths={asked.staging}", "rackserve-relay-tiny-v3"]:
        assert part in said
    settings = json.loads((asked.work / "relay.json").read_text())
    peers = "relay4 { 10.0.0.1, 10.0.0.3 }"
    close_it = f"add element inet rackserve {peers}; delete element inet rackserve {peers}"
    assert f'--property=ExecStopPost=-+/usr/bin/env nft "{close_it}"' in words, "the port closes however the unit ends"
    assert settings["peers"] == ["10.0.0.1", "10.0.0.3"]
    assert settings["parents"] == asked.parents
    assert settings["staging"] == str(asked.staging)
    assert "rackserve.relay.program import main" in said


def test_a_source_has_a_user_without_a_name_and_writes_nothing(asked: Asked) -> None:
    source = asked._replace(role="source", parents=[], wanted=[])
    write(asked.folder, list(CONTENT))
    with pytest.raises(HostError, match="is not proven for this manifest"):
        start(source, TOKEN, Commands())
    assert verify(asked.folder, MANIFEST).ready
    run = Commands()
    assert step(source, "started", {"token": TOKEN}, run)["changed"] is False
    said = " ".join(run.of("systemd-run")[0])
    assert "DynamicUser=yes" in said
    assert "ExecStopPost" not in said, "no firewall of ours was opened"
    assert "ReadWritePaths" not in said
    assert not asked.staging.exists()
    os.utime(asked.folder / "config.json")
    with pytest.raises(HostError, match="is not proven"):
        start(source, TOKEN, Commands())


def test_where_there_is_no_room_nothing_is_started(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 100})())
    run = Commands()
    with pytest.raises(HostError, match=r"has 0\.0 GiB free.*make room"):
        start(asked, TOKEN, run)
    assert run.of("systemd-run") == []


def test_a_unit_that_does_not_start_says_why(asked: Asked) -> None:
    run = Commands(systemd_run=(1, "", "Failed to start: no"))
    with pytest.raises(HostError, match="does not start: Failed to start: no"):
        start(asked, TOKEN, run)
    assert [words[1] for words in run.of("nft")][-2:] == ["delete", "delete"], "the firewall closes again"
    assert not (asked.work / "token").exists()


def test_without_the_user_the_role_is_named(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "USER", "nobody-of-this-name")
    with pytest.raises(HostError, match=r"run playbooks/site\.yml --tags model_store"):
        start(asked, TOKEN, Commands())


def test_progress_result_and_a_killed_unit(asked: Asked) -> None:
    asked.state.mkdir()
    (asked.state / "state.json").write_text(json.dumps({"phase": "receiving", "done": 5, "total": 9, "unit": "B"}))
    result, progress = follow(asked, Commands(systemctl=(0, "active\n", "")), 0)
    assert (result, progress["phase"], progress["done"], progress["finished"]) == ({}, "receiving", 5, False)
    with pytest.raises(HostError, match=r"ended before it had everything \(boom\)"):
        follow(asked, Commands(systemctl=(3, "inactive\n", ""), journalctl=(0, "boom\n", "")), 0)
    (asked.state / "result.json").write_text(json.dumps({"error": "the disk is full"}))
    with pytest.raises(HostError, match="the disk is full"):
        follow(asked, Commands(), 0)
    (asked.state / "result.json").write_text(json.dumps({"result": {"bytes": 9}, "step_s": {"receiving": 1.0}}))
    said = step(asked, "followed", {"progress_s": 0}, Commands())
    assert said == {
        "changed": False, "progress": {"finished": True}, "relay": {"bytes": 9}, "step_s": {"receiving": 1.0},
    }  # fmt: skip


def proven_of(folder: Path, names: Sequence[str]) -> dict[str, list[int]]:
    return {name: [(folder / name).stat().st_size, (folder / name).stat().st_mtime_ns] for name in names}


def test_what_came_is_moved_into_the_folder_and_not_hashed_again(asked: Asked) -> None:
    write(asked.folder, ["config.json"])
    (asked.folder / "sub").mkdir()
    names = ["model.safetensors", "sub/extra.json"]
    write(asked.staging, names)
    asked.state.mkdir()
    proven = proven_of(asked.staging, names)
    (asked.state / "result.json").write_text(json.dumps({"result": {"proven": proven}, "step_s": {}}))
    owned: list[str] = []
    run = Commands()
    done = finish(asked, run, owned.append)
    assert done == {"taken": names, "proven": proven}
    assert owned == [str(asked.staging / name) for name in names]
    assert not asked.staging.exists()
    assert not asked.state.exists()
    assert ["systemctl", "stop", "rackserve-relay-tiny-v3.service"] in run.said
    assert len([words for words in run.of("nft") if "delete" in words]) == 2
    verdict = verify(asked.folder, MANIFEST, proven={name: tuple(value) for name, value in proven.items()})
    assert verdict.ready
    assert verdict.hashed == 1, "the one that was there before"


def test_what_is_not_proven_stays_where_it_is(asked: Asked) -> None:
    write(asked.staging, ["model.safetensors"])
    (asked.staging / "config.json.part").write_bytes(b"{")
    (asked.staging / "sub").mkdir()
    (asked.staging / "sub/extra.json").symlink_to("/etc/hosts")
    taken = adopt(asked, {"sub/extra.json": [2, 1], "../x": [1, 1]}, lambda _path: None)
    assert taken == []
    assert (asked.staging / "model.safetensors").is_file()
    assert (asked.staging / "config.json.part").is_file()


def test_the_mark_of_a_shared_file_system(asked: Asked) -> None:
    with pytest.raises(HostError, match="the mark of this copy is gone"):
        step(asked, "looked", {"nonce": "a"}, Commands())
    step(asked, "marked", {"nonce": "a"}, Commands())
    assert step(asked, "looked", {"nonce": "a"}, Commands()) == {"changed": False, "shared": False}
    # Another host, of the same folder: the last mark is that of the host that copies.
    step(asked, "marked", {"nonce": "b"}, Commands())
    assert step(asked, "looked", {"nonce": "a"}, Commands())["shared"] is True
    assert step(asked, "looked", {"nonce": "b"}, Commands())["shared"] is False
    write(asked.staging, ["config.json"])
    step(asked, "unmarked", {}, Commands())
    assert list(asked.folder.iterdir()) == [asked.staging], "the next run goes on with it"
    step(asked._replace(role="fed"), "unmarked", {}, Commands())
    assert list(asked.folder.iterdir()) == []


def test_a_fed_host_awaits_and_asks_nobody(asked: Asked) -> None:
    settings = settings_of(asked._replace(role="fed"))
    assert (settings["fed"], settings["staging"], settings["parents"]) == (True, "", [])
    assert settings["wanted"] == sorted(CONTENT)


def test_the_door_opens_for_a_time_and_closes() -> None:
    listed = "table inet rackserve {\n\tset relay4 {\n\t}\n\tset relay6 {\n\t}\n}"
    run = Commands(nft_list=(0, listed, ""))
    assert open_for(run, ["10.0.0.2", "10.0.0.1", "fd00::1"], 60) == "opened"
    added = [words[-2:] for words in run.of("nft") if "add" in words]
    assert added == [
        ["relay4", "{ 10.0.0.1 timeout 60s, 10.0.0.2 timeout 60s }"],
        ["relay6", "{ fd00::1 timeout 60s }"],
    ]
    run.said.clear()
    close(run, ["10.0.0.2"])
    assert run.said == [["nft", "delete", "element", "inet", "rackserve", "relay4", "{ 10.0.0.2 }"]]


@pytest.mark.parametrize(
    ("status", "listed", "door"),
    [(1, "", "unfiltered"), (127, "", "unfiltered"), (0, "policy accept;", "unfiltered"), (0, "policy drop;", "")],
)
def test_a_firewall_that_has_no_door(status: int, listed: str, door: str) -> None:
    run = Commands(nft_list=(status, listed, ""))
    if door:
        assert open_for(run, ["10.0.0.2"], 60) == door
    else:
        with pytest.raises(DoorError, match="--tags firewall first"):
            open_for(run, ["10.0.0.2"], 60)


def test_a_door_that_does_not_open_stops_the_copy() -> None:
    run = Commands(nft_list=(0, "set relay4 {", ""), nft_add=(1, "", "Error: no\n such"))
    with pytest.raises(DoorError, match="cannot be opened for the relay: Error: no such"):
        open_for(run, ["10.0.0.2"], 60)


def test_result_that_is_a_link_of_systemd_is_removed(asked: Asked) -> None:
    private: Any = asked.root / "run/private/x"
    private.mkdir(parents=True)
    asked.state.symlink_to(private)
    unit.stop(asked, Commands())
    assert not asked.state.is_symlink()
    assert not private.exists()
