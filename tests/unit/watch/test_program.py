"""The program: a stub engine that hangs is ended, within bounds; what changed makes it start anew."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rackserve.watch import program
from rackserve.watch.client import Client, Engine
from rackserve.watch.judge import Patience
from rackserve.watch.processes import processes_of
from rackserve.watch.program import Budget, Files, Watch, key_of, notify
from rackserve.watch.settings import WatchError, watch_settings
from test_processes import UNIT, add

PATIENCE = Patience(5, 30, 1)


class Stub(ThreadingHTTPServer):
    """An engine on loopback: counts steps, answers completions unless frozen."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.steps, self.status, self.thaw = 3, 200, threading.Event()
        self.thaw.set()
        self.keys: list[str] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def log_message(self, *args: object) -> None:
        """Keep test output clean."""

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self) -> None:
        self._send(200, f'vllm:iteration_tokens_total_count{{engine="0"}} {self.server.steps}\n')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.keys.append(self.headers["Authorization"])
        self.server.thaw.wait(20)
        self._send(self.server.status, "{}")


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    yield made
    made.thaw.set()
    made.shutdown()
    made.server_close()


@pytest.fixture
def client(stub: Stub) -> Client:
    return Client(Engine(UNIT, "m-0", "127.0.0.1", stub.server_address[1], "m"), "the-key", 20)


def settled(client: Client) -> None:
    """Wait for the request that is under way."""
    assert client._thread is not None
    client._thread.join(5)


def test_a_token_is_asked_for_with_the_key(client: Client, stub: Stub) -> None:
    assert client.state() == (False, 0.0)
    client.ask()
    settled(client)
    assert client.state() == (True, 0.0)
    assert client.state() == (False, 0.0)
    assert stub.keys == ["Bearer the-key"]


@pytest.mark.parametrize(("status", "answers"), [(401, True), (500, True), (429, False), (503, False)])
def test_only_a_refusal_for_want_of_room_leaves_it_open(client: Client, stub: Stub, status: int, answers: bool) -> None:
    stub.status = status
    client.ask()
    settled(client)
    answered, waiting_s = client.state()
    assert answered is answers
    assert (waiting_s > 0) is not answers


def test_a_request_unanswered_waits_and_a_closed_port_does_not(client: Client, stub: Stub) -> None:
    stub.thaw.clear()
    client.ask()
    client.ask()
    time.sleep(0.2)
    answered, waiting_s = client.state()
    assert not answered
    assert 0.1 < waiting_s < 5
    assert len(stub.keys) == 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = Client(Engine(UNIT, "m-0", "127.0.0.1", free.getsockname()[1], "m"), "k", 5)
        closed.ask()
        settled(closed)
        assert closed.state() == (False, 0.0)
        assert closed.metrics() is None


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["/bin/sleep", "60"])
    (tmp_path / "proc").mkdir(exist_ok=True)
    add(tmp_path / "proc", process.pid)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def watch(client: Client, tmp_path: Path) -> Watch:
    (tmp_path / "proc").mkdir(exist_ok=True)
    budget = Budget(tmp_path / "m-0.json", PATIENCE.restarts, time.monotonic)
    return Watch(PATIENCE, client, budget, tmp_path / "proc")


def hang(watch: Watch, stub: Stub, began_s: float) -> None:
    """Rounds over 40 seconds of an engine that leaves a request unanswered; the time is told, not waited for."""
    stub.thaw.clear()
    watch.client.clock = lambda: began_s
    for at_s in range(0, 45, 5):
        watch.client.clock = lambda at_s=at_s: began_s + at_s
        watch.round(began_s + at_s)


def test_a_hung_engine_is_ended_and_said_to_be(
    watch: Watch, stub: Stub, engine: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    hang(watch, stub, 1000.0)
    assert engine.wait(5) == -9
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"<4>{UNIT} hangs: its scheduler made no step for ")
    assert f"python3 {engine.pid} (S, 2 s of CPU); ended 1 processes, systemd starts it again (1 of 1" in said[0]


def test_an_engine_that_hangs_too_often_is_left(
    watch: Watch, stub: Stub, engine: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch.budget.take() == 1
    hang(watch, stub, 1000.0)
    assert engine.poll() is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"<3>{UNIT} hangs: ")
    assert line.endswith(f"so it is left: look at its journal, then: systemctl kill -s KILL {UNIT}")


def test_an_engine_at_work_is_left_alone(watch: Watch, stub: Stub, engine: subprocess.Popen[bytes]) -> None:
    for at_s in range(0, 300, 5):
        stub.steps += 1
        watch.round(1000.0 + at_s)
    assert engine.poll() is None
    assert stub.keys == []


@pytest.mark.parametrize(("state", "ended"), [("active", True), ("deactivating", False)])
def test_what_lost_a_process_is_ended_unless_it_is_being_stopped(
    watch: Watch, engine: subprocess.Popen[bytes], state: str, ended: bool
) -> None:
    watch.round(1000.0)
    lost = processes_of(watch.proc, UNIT, os.getuid())[0]._replace(pid=1, name="VLLM::Worker")
    watch.lose(lost, lambda _unit: state)
    if ended:
        assert engine.wait(5) == -9
    else:
        assert engine.poll() is None


def test_an_engine_that_dies_before_it_computed_may_say_why(
    watch: Watch, stub: Stub, engine: subprocess.Popen[bytes]
) -> None:
    stub.steps = 0
    watch.round(1000.0)
    watch.lose(processes_of(watch.proc, UNIT, os.getuid())[0], lambda _unit: "active")
    assert engine.poll() is None


def test_the_budget_is_of_one_hour_and_outlives_the_watch(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "x.json"

    def take() -> int:
        return Budget(path, 2, lambda: now[0]).take()

    assert [take(), take(), take()] == [1, 2, 0]
    now[0] = 3599.0
    assert take() == 0
    now[0] = 3601.0
    assert take() == 1
    path.write_text("no json")
    assert take() == 1


def test_a_change_counts_when_it_has_settled(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("a")
    files = Files([path, tmp_path / "missing"])
    assert not files.settled_change()
    path.write_text("b")
    assert [files.settled_change(), files.settled_change()] == [False, True]
    path.write_text("a")
    assert [files.settled_change(), files.settled_change()] == [False, False]


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("WATCHDOG=1")
        assert listener.recv(100) == b"WATCHDOG=1"


INSTANCE = {"unit": UNIT, "name": "m-0", "address": "127.0.0.1", "port": 1, "served_model_name": "m", "argv": ["x"]}


def test_settings_refuse_what_a_busy_engine_would_not_survive() -> None:
    told = json.loads(watch_settings([INSTANCE], (5, 30, 3), ["/a"], "digest"))
    assert told["engines"] == [{"unit": UNIT, "name": "m-0", "address": "127.0.0.1", "port": 1, "model": "m"}]
    for patience in ((5, 10, 3), (20, 30, 3)):
        with pytest.raises(WatchError, match="vllm_hang_s is"):
            watch_settings([INSTANCE], patience, [], "digest")


def test_the_program_watches_until_its_files_change(tmp_path: Path) -> None:
    """As on a host: a folder that Python runs in isolated mode."""
    folder = tmp_path / "engine-watch"
    (folder / "watch").mkdir(parents=True)
    for source in Path(program.__file__).parent.glob("*.py"):
        (folder / "watch" / source.name).write_bytes(source.read_bytes())
    (folder / "__main__.py").write_text("import sys\n\nfrom watch.program import main\n\nsys.exit(main())\n")
    (tmp_path / "m-0").write_text("VLLM_API_KEY=secret\n")
    assert key_of(tmp_path, "m-0") == "secret"
    config = tmp_path / "engine-watch.json"
    text = watch_settings([INSTANCE], (0.2, 30, 3), [str(tmp_path / "m-0")], "digest")
    config.write_text(text)
    environment = {
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "RUNTIME_DIRECTORY": str(tmp_path),
        "RACKSERVE_UNIT": "digest",
    }
    command = [sys.executable, "-I", str(folder), "--config", str(config)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == f"watches {UNIT}: 30 s\n"
        config.write_text(text + "\n")
        assert running.wait(20) == 0
        assert "has changed" in running.stdout.read()
