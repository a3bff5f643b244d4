"""A real HAProxy on loopback with small stub engines behind it; every process and thread ends with its test."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jinja2
import yaml
from rackserve.gateway.membership import read_slots
from rackserve.gateway.runtime import socket_command

REPO = Path(__file__).resolve().parents[3]
ROLE = REPO / "roles/load_balancer"
ENGINE_KEY = "engine-key-for-tests"
KEYS = {"operator": "operator-key", "team-a": "team-key"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Engine(ThreadingHTTPServer):
    """A stub engine: completions, streams, refusals and hangs on demand; it remembers what it was asked."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, name: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), EngineHandler)
        self.name = name
        self.port = self.server_address[1]
        self.delay_s = 0.0
        self.chunks = 3
        self.fail_status = 0
        self.thaw = threading.Event()
        self.thaw.set()
        self.seen: list[dict[str, Any]] = []
        self.connections: set[socket.socket] = set()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def close(self) -> None:
        self.thaw.set()
        self.shutdown()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class EngineHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def log_message(self, *args: Any) -> None:
        """Keep test output clean."""

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _send(self, status: int, content: dict[str, Any]) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self) -> None:
        self._send(200, {"served": self.server.name})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        engine = self.server
        headers = {name.lower(): value for name, value in self.headers.items()}
        engine.thaw.wait(30)
        if headers.get("host") != "rackserve-probe":
            engine.seen.append({"headers": headers, "body": body, "path": self.path})
            time.sleep(engine.delay_s)
        if headers.get("authorization") != f"Bearer {ENGINE_KEY}":
            return self._send(401, {"error": {"message": "the engine key is wrong"}})
        if engine.fail_status and headers.get("host") != "rackserve-probe":
            return self._send(engine.fail_status, {"error": {"message": "told to fail"}})
        if body.get("stream"):
            return self._stream()
        return self._send(200, {"choices": [{"text": "Paris"}], "usage": {"completion_tokens": 1}, "by": engine.name})

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        events = [json.dumps({"choices": [{"text": f"t{i} "}]}) for i in range(self.server.chunks)] + ["[DONE]"]
        for event in events:
            raw = f"data: {event}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
            self.wfile.flush()
            time.sleep(0.005)
        self.wfile.write(b"0\r\n\r\n")


def render(template: str, role: Path = ROLE, **overrides: Any) -> str:
    """A template of a role with the role's own defaults, rendered the way Ansible does (trim_blocks)."""
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    plain = {name: value for name, value in defaults.items() if "{{" not in str(value)}
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)  # noqa: S701  (no HTML)
    environment.filters["to_json"] = json.dumps
    environment.filters["hash"] = lambda text, _kind: sha256(text.encode()).hexdigest()
    environment.filters["dirname"] = os.path.dirname
    environment.filters["regex_replace"] = lambda text, pattern, by: re.sub(pattern, by, text)
    return environment.from_string((role / "templates" / template).read_text()).render(**{**plain, **overrides})


class Gateway:
    """HAProxy with the role's configuration in a folder of the test."""

    def __init__(self, folder: Path, deployments: list[dict[str, Any]], **options: Any) -> None:
        self.folder, self.port, self.metrics_port = folder, free_port(), free_port()
        self.socket, self.state_file = folder / "rackserve.sock", folder / "server-state"
        self.process: subprocess.Popen[bytes] | None = None
        self.overrides = {"load_balancer_config_dir": str(folder), "load_balancer_close_spread_s": 1}
        self.overrides.update(options.pop("overrides", {}))
        self.slice = {
            "host": "gw",
            "address": "127.0.0.1",
            "port": self.port,
            "tls": False,
            "metrics_port": self.metrics_port,
            "stats_socket": str(self.socket),
            "server_state_file": str(self.state_file),
            "api_keys": list(KEYS),
            "max_queue": 4,
            "queue_timeout_s": 1,
            "deployments": deployments,
            **options,
        }
        self.config = folder / "haproxy.cfg"
        self.write()

    def write(self) -> None:
        (self.folder / "keys.map").write_text("".join(f"{key} {name}\n" for name, key in KEYS.items()) + " empty\n")
        (self.folder / "engine-key.map").write_text(f"engine Bearer {ENGINE_KEY}\n")
        self.config.write_text(render("haproxy.cfg.j2", load_balancer_gateway=self.slice, **self.overrides))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self, text: str) -> str:
        return socket_command(self.socket)(text)

    def slots(self) -> Any:
        return read_slots(
            [
                {"backend": d["backend"], "probe_backend": d["probe_backend"], **slot}
                for d in self.slice["deployments"]
                for slot in d["slots"]
            ]
        )

    def start(self) -> None:
        with (self.folder / "haproxy.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["/usr/sbin/haproxy", "-W", "-f", str(self.config)], stdout=log, stderr=subprocess.STDOUT
            )
        self.wait_for(lambda: self.socket.exists() and bool(self.command("show info")))

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None
        self.socket.unlink(missing_ok=True)

    def reload(self) -> None:
        assert self.process is not None
        before = self.pid()
        # Until the master is in its loop it drops signals, and the first worker may answer long before that.
        self.wait_for(self._hears_signals)
        self.process.send_signal(signal.SIGUSR2)
        self.wait_for(lambda: self.pid() != before)

    def _hears_signals(self) -> bool:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        masks = {line.split(":")[0]: line.split()[-1] for line in status.splitlines() if line.startswith("Sig")}
        caught, blocked = (int(masks[name], 16) >> (signal.SIGUSR2 - 1) & 1 for name in ("SigCgt", "SigBlk"))
        return bool(caught and not blocked)

    def pid(self) -> str:
        try:
            return next(line for line in self.command("show info").splitlines() if line.startswith("Pid:"))
        except Exception:  # the socket is away for a moment while workers change
            return ""

    def wait_for(self, condition: Any, limit_s: float = 8.0) -> float:
        started = time.monotonic()
        while time.monotonic() - started < limit_s:
            try:
                if condition():
                    return time.monotonic() - started
            except Exception:  # not there yet
                time.sleep(0.02)
            time.sleep(0.02)
        raise AssertionError("waited in vain; log:\n" + (self.folder / "haproxy.log").read_text())


def deployment(name: str, engines: list[Engine | None], **options: Any) -> dict[str, Any]:
    return {
        "name": name,
        "served_model_name": name,
        "backend": f"be_{name}",
        "probe_backend": f"probe_{name}",
        "max_inflight_per_server": 2,
        "slots": [
            {
                "slot": f"r{number}",
                "instance": engine and engine.name,
                "host": engine and "node",
                "address": engine and "127.0.0.1",
                "port": engine and engine.port,
            }
            for number, engine in enumerate(engines)
        ],
        "check": {"interval_s": 1, "timeout_s": 1, "fall": 2, "rise": 1},
        **options,
    }


@contextmanager
def running(gateway: Gateway) -> Iterator[Gateway]:
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()
