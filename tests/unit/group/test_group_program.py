"""The agent on loopback: two members, real processes, real pages."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rackserve import group, watch
from rackserve.group.judge import Answer, Patience
from rackserve.group.members import Ear, Mouth, Peer, read_answer
from rackserve.group.program import Kept, Supervisor, Units
from rackserve.group.settings import GroupError, group_settings, member_addresses, parts

GROUP = {
    "name": "m-0", "nodes": ["n1", "n2"], "agent_port": 8700, "master_port": 29550,
    "units": [
        {"unit": "vllm-m-0.service", "instance": "m-0", "host": "n1", "address": "127.0.0.1", "part": "head"},
        {"unit": "vllm-m-0-n1.service", "instance": "m-0-n1", "host": "n2", "address": "127.0.0.2", "part": "headless"},
    ],
}  # fmt: skip
ADDRESSES = {"n1": "127.0.0.1", "n2": "127.0.0.2"}


def settings(host: str, **changes: Any) -> dict[str, Any]:
    given = {**GROUP, **changes}
    told: dict[str, Any] = json.loads(
        group_settings(host, [given], None, ADDRESSES, patience=(1, 15), files=["/a"], unit="digest")
    )
    return told


def test_a_host_is_told_its_own_units_and_its_peers() -> None:
    told = settings("n2")
    assert told["groups"] == [
        {
            "name": "m-0", "member": "n2", "address": "127.0.0.2", "port": 8700,
            "own": {"vllm-m-0-n1.service": "vllm-m-0-n1.service"},
            "peers": [{"member": "n1", "address": "127.0.0.1", "units": ["vllm-m-0.service"]}],
        }
    ]  # fmt: skip
    assert (told["interval_s"], told["lost_s"], told["files"], told["unit"]) == (1, 15, ["/a"], "digest")
    assert member_addresses([GROUP], ADDRESSES) == ["127.0.0.1", "127.0.0.2"]


def test_units_of_ray_go_with_their_engine() -> None:
    ray = {"name": "m-0", "hosts": ["n1", "n2"]}
    only_head = {**GROUP, "units": GROUP["units"][:1]}  # type: ignore[index]
    labels = [part["label"] for part in parts(only_head, ray, ADDRESSES)]
    assert labels == ["vllm-m-0.service", "ray-m-0.service@n1", "ray-m-0.service@n2"]
    assert len(parts(only_head, {**ray, "name": "other-0"}, ADDRESSES)) == 1
    told = json.loads(group_settings("n2", [only_head], ray, ADDRESSES, patience=(1, 15), files=[], unit=""))
    assert told["groups"][0]["own"] == {"ray-m-0.service@n2": "ray-m-0.service"}


def test_settings_refuse_what_an_agent_would_not_survive() -> None:
    for patience in ((1, 5), (4, 15)):
        with pytest.raises(GroupError, match="vllm_group_lost_s is"):
            group_settings("n1", [GROUP], None, ADDRESSES, patience=patience, files=[], unit="")


def test_pages_of_others_are_no_answers() -> None:
    answer = read_answer(b'{"group": "m-0", "units": {"a": "1", "b": null}, "joined": {"a": "1"}}', "m-0")
    assert answer == Answer({"a": "1", "b": None}, {"a": "1"})
    pages = [b"", b"[]", b"\xff", b'{"group": "m-1", "units": {}, "joined": null}', b'{"group": "m-0"}']
    pages += [b'{"group": "m-0", "units": [], "joined": null}', b'{"group": "m-0", "units": {}, "joined": 1}']
    for page in pages:
        assert read_answer(page, "m-0") is None


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_member_is_asked_over_http() -> None:
    port = free_port()
    ear = Ear("m-0", Peer("n1", "127.0.0.1", ("a",)), port, 1)
    assert not ear.ask()
    mouth = Mouth("127.0.0.1", port)
    mouth.start()
    try:
        assert not ear.ask()
        mouth.say("n1", "m-0", Answer({"a": "1"}, None))
        assert ear.ask()
        assert ear.ask()
        assert ear.heard == (2, Answer({"a": "1"}, None))
    finally:
        mouth.shutdown()
        mouth.server_close()


def test_what_is_kept_ends_with_the_folder(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "m-0.json")
    assert kept.read(["a"]) is None
    kept.write({"a": "1", "b": "2"})
    kept.write({"a": "1", "b": "2"})
    assert Kept(tmp_path / "m-0.json").read(["a", "c"]) == {"a": "1"}
    kept.write(None)
    assert Kept(tmp_path / "m-0.json").read(["a"]) is None
    kept.path.write_text("[1")
    assert kept.read(["a"]) is None


class Host:
    """One member with real processes: /proc of its own, in which a sleeping process is its engine."""

    def __init__(self, folder: Path, name: str, port: int) -> None:
        self.proc = folder / name
        (self.proc / "sys/kernel/random").mkdir(parents=True)
        (self.proc / "sys/kernel/random/boot_id").write_text("b\n")
        [given] = settings(name, agent_port=port)["groups"]
        [self.unit] = given["own"]
        self.engine: subprocess.Popen[bytes] | None = None
        self.talks = False
        self.start()
        self.supervisor = Supervisor(given, Patience(0.1, 10), folder, self.proc)
        # Both members are this test: each keeps its own file.
        self.supervisor.kept = Kept(folder / f"{name}.json")

    def start(self) -> None:
        self.engine = subprocess.Popen(["/bin/sleep", "60"])
        folder = self.proc / str(self.engine.pid)
        folder.mkdir()
        (folder / "cgroup").write_text(f"0::/system.slice/{self.unit}\n")
        pid = self.engine.pid
        (folder / "stat").write_text(f"{pid} (vllm) S 1 {pid} {pid} 0 0 0 0 0 0 0 1 1 0 0 20 0 1 0 {pid} 0\n")

    def end(self) -> None:
        """What the kernel and systemd do when the engine is gone."""
        assert self.engine is not None
        self.engine.kill()
        self.engine.wait()
        folder = self.proc / str(self.engine.pid)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

    def talk(self) -> None:
        self.supervisor.mouth.start()
        self.talks = True

    def close(self) -> None:
        # A thread left behind would poll the descriptor's number, and keep whatever is opened under it next.
        if self.talks:
            self.supervisor.mouth.shutdown()
        self.supervisor.mouth.server_close()
        assert self.engine is not None
        self.engine.kill()
        self.engine.wait()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    port = free_port()
    hosts = (Host(tmp_path, "n1", port), Host(tmp_path, "n2", port))
    yield hosts
    for host in hosts:
        host.close()


def rounds(pair: tuple[Host, Host], count: int, began_s: float) -> None:
    """Rounds of both, each having asked the other."""
    for number in range(count):
        for host in pair:
            for ear in host.supervisor.ears:
                ear.ask()
            host.supervisor.round(began_s + number / 10)


def test_a_part_that_ends_takes_the_other_with_it(pair: tuple[Host, Host], capsys: pytest.CaptureFixture[str]) -> None:
    for host in pair:
        host.talk()
    rounds(pair, 3, 100.0)
    vector = pair[0].supervisor.memory.joined
    assert vector is not None
    assert vector == pair[1].supervisor.memory.joined
    assert capsys.readouterr().out.count("m-0: all 2 parts are up and joined") == 2
    pair[1].end()
    rounds(pair, 2, 101.0)
    head = pair[0].engine
    assert head is not None
    assert head.wait(5) == -9
    said = capsys.readouterr().out
    assert "<4>m-0: vllm-m-0-n1.service on n2 ended; ended vllm-m-0.service (1 processes), systemd starts" in said
    pair[0].end()
    rounds(pair, 2, 102.0)
    assert [host.supervisor.memory.joined for host in pair] == [None, None]
    for host in pair:
        host.start()
    rounds(pair, 3, 103.0)
    again = pair[0].supervisor.memory.joined
    assert again == pair[1].supervisor.memory.joined
    assert again is not None
    assert again != vector
    for host in pair:
        assert Kept(host.supervisor.kept.path).read(list(again)) == again


def test_what_a_group_waits_for_is_told_once_a_minute(
    pair: tuple[Host, Host], capsys: pytest.CaptureFixture[str]
) -> None:
    one = pair[0].supervisor
    for at_s in range(100, 230):
        one.round(float(at_s))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["<4>m-0: not joined for 60 s, it waits for an answer of n2"] * 2


@pytest.mark.parametrize(("state", "ended"), [("active", True), ("deactivating", False)])
def test_a_unit_that_lost_a_process_and_goes_on_is_ended(pair: tuple[Host, Host], state: str, ended: bool) -> None:
    host, units = pair[0], pair[0].supervisor.units
    assert host.engine is not None
    core = host.proc / "7"
    core.mkdir()
    (core / "cgroup").write_text(f"0::/system.slice/{host.unit}\n")
    (core / "stat").write_text(
        f"7 (VLLM::EngineCor) S {host.engine.pid} 0 {host.engine.pid} 0 0 0 0 0 0 0 1 1 {'0 ' * 9}"
    )
    units.look()
    [core_process] = [one for one in units.watched() if one.pid == 7]
    for path in core.iterdir():
        path.unlink()
    core.rmdir()
    units.lose(core_process, 100.0)
    units.look()
    assert units.crippled(101.0, lambda _unit: state) == []
    assert units.crippled(103.0, lambda _unit: state) == ([host.unit] if ended else [])
    assert units.crippled(104.0, lambda _unit: state) == []


def test_what_is_left_of_a_unit_is_not_taken_for_it(pair: tuple[Host, Host]) -> None:
    units = pair[0].supervisor.units
    assert isinstance(units, Units)
    [found] = units.look().values()
    assert found is not None
    assert found.endswith(".b")
    assert units.look() == {pair[0].unit: found}
    engine = pair[0].engine
    assert engine is not None
    stat = pair[0].proc / str(engine.pid) / "stat"
    text = stat.read_text()
    stat.write_text(text.replace(f" S 1 {engine.pid} {engine.pid} ", " S 1 7 7 "))
    units.mains.clear()
    assert units.look() == {pair[0].unit: None}
    stat.write_text(text.replace(" S 1 ", " Z 1 "))
    assert units.look() == {pair[0].unit: None}


def wait_for(what: Callable[[], bool], limit_s: float = 20) -> None:
    until_s = time.monotonic() + limit_s
    while not what() and time.monotonic() < until_s:
        time.sleep(0.1)
    assert what()


def test_the_program_supervises_until_its_files_change(tmp_path: Path) -> None:
    """As on a host: a folder that Python runs in isolated mode, without anything else of ours."""
    package = tmp_path / "group/rackserve"
    for module in (group, watch):
        folder = package / Path(str(module.__file__)).parent.name
        folder.mkdir(parents=True)
        for source in Path(str(module.__file__)).parent.glob("*.py"):
            (folder / source.name).write_bytes(source.read_bytes())
    (package / "__init__.py").touch()
    (tmp_path / "group/__main__.py").write_text(
        "import sys\n\nfrom rackserve.group.program import main\n\nsys.exit(main())\n"
    )
    port, config = free_port(), tmp_path / "group.json"
    given = {**GROUP, "agent_port": port}
    text = group_settings("n1", [given], None, ADDRESSES, patience=(0.2, 15), files=[], unit="digest")
    config.write_text(text)
    (tmp_path / "m-0.json").write_text("null")
    environment = {"RUNTIME_DIRECTORY": str(tmp_path), "RACKSERVE_UNIT": "digest", "PATH": os.environ["PATH"]}
    command = [sys.executable, "-I", str(tmp_path / "group"), "--config", str(config)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "supervises m-0\n"
        ear = Ear("m-0", Peer("n1", "127.0.0.1", ("vllm-m-0.service",)), port, 1)
        wait_for(ear.ask)
        assert ear.heard is not None
        assert ear.heard[1] == Answer({"vllm-m-0.service": None}, None)
        config.write_text(text + "\n")
        assert running.wait(20) == 0
        assert "has changed" in running.stdout.read()
