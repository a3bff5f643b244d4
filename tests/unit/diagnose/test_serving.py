"""Engines asked for one token, HAProxy's servers, the certificate's end, the lease."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from rackserve.diagnose import serving
from rackserve.gateway.runtime import GatewayError

STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
3 be_a 1 r0 10.0.0.11 2 0 1 1 100 6 3 4 6 0 0 0 - 8000 - 0 0 - - 0
3 be_a 2 r1 10.0.0.12 2 8 1 1 100 6 3 4 6 0 0 0 - 8000 - 0 0 - - 0
"""  # noqa: E501 - HAProxy's own line
STAT = """# pxname,svname,qcur,scur,status,check_status,last_chk
be_a,r0,0,2,UP,L7OK,
be_a,r1,0,0,DRAIN,L7OK,
be_a,BACKEND,0,2,UP,,
"""


class Engine(BaseHTTPRequestHandler):
    """Answers as `status` says; 0 never answers."""

    status, wait_s, keys = 200, 0.0, list[str]()

    def do_POST(self) -> None:
        self.keys.append(str(self.headers["Authorization"]))
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.wait_s)
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def engine() -> Iterator[Callable[..., dict[str, Any]]]:
    servers: list[HTTPServer] = []

    def start(status: int, wait_s: float = 0.0) -> dict[str, Any]:
        handler = type("Answer", (Engine,), {"status": status, "wait_s": wait_s, "keys": []})
        server = HTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return {"unit": "vllm-a.service", "name": "a", "address": "127.0.0.1", "port": server.server_port, "model": "m",
                "keys": handler.keys}  # type: ignore[attr-defined]  # fmt: skip

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "state"),
    [(200, "fine"), (401, "refused"), (403, "refused"), (429, "fine"), (503, "fine"), (500, "failed")],
)
def test_an_engine_is_asked_for_one_token(engine: Any, status: int, state: str) -> None:
    one = engine(status)
    assert serving.ask(one, "the-key", 5.0)[0] == state
    assert one["keys"] == ["Bearer the-key"]


def test_an_engine_that_hangs_and_one_that_is_not_there(engine: Any) -> None:
    assert serving.ask(engine(200, 2.0), "k", 0.2) == ("hung", "no completion within 0.2 s")
    free = {"address": "127.0.0.1", "port": 1, "model": "m"}
    assert serving.ask(free, "k", 1.0)[0] == "down"


def test_an_engine_that_just_started_is_not_called_hung(tmp_path: Path) -> None:
    (tmp_path / "etc/rackserve/vllm").mkdir(parents=True)
    (tmp_path / "etc/rackserve/vllm/a.secret.env").write_text("# x\nVLLM_API_KEY=the-key\n")
    keys = []

    def silent(_engine: Any, key: str, _timeout_s: float) -> tuple[str, str]:
        keys.append(key)
        return "down", "refused"

    plan = {"engines": [{"unit": "vllm-a.service", "name": "a", "start_timeout_s": 600}]}

    def state(**unit: Any) -> str:
        return str(serving.engines(tmp_path, plan, {"vllm-a.service": unit}, silent)[0]["state"])

    assert state(active="active", active_s=300.0) == "loading"
    assert state(active="active", active_s=900.0) == "hung"
    assert keys == ["the-key", "the-key"]
    assert state(active="failed") == "inactive"
    assert len(keys) == 2, "one that does not run is not asked"
    assert serving.engines(tmp_path, {}, {}) == []


def gateway(tmp_path: Path, answers: Callable[[str], str]) -> dict[str, Any]:
    given = {"stats_socket": "/run/x.sock", "server_state_file": "/var/lib/x/server-state", "tls": False}
    return serving.gateway(tmp_path, {"gateway": given}, 1000.0, answers)


def test_servers_of_the_gateway(tmp_path: Path) -> None:
    (tmp_path / "var/lib/x").mkdir(parents=True)
    (tmp_path / "var/lib/x/drained-by.json").write_text(json.dumps({"be_a/r1": "roll-serving"}))
    found = gateway(tmp_path, lambda text: STATE if "state" in text else STAT)
    assert [(one["slot"], one["admin"], one["drained_by"], one["status"]) for one in found["servers"]] == [
        ("r0", "ready", "", "UP"), ("r1", "drain", "roll-serving", "DRAIN"),
    ]  # fmt: skip
    assert found["lease"] == {}
    assert serving.gateway(tmp_path, {}, 1000.0) == {}


def test_a_gateway_that_does_not_answer(tmp_path: Path) -> None:
    def refuse(_text: str) -> str:
        raise GatewayError("cannot ask HAProxy")

    assert gateway(tmp_path, refuse)["problem"] == "cannot ask HAProxy"
    given = {"stats_socket": "/run/x.sock", "server_state_file": "/var/x", "tls": True}
    found = serving.gateway(tmp_path, {"gateway": given}, 1000.0)
    assert "is rackserve-gateway.service active?" in found["problem"]
    assert found["tls"]["problem"] == "No such file or directory"


def test_what_the_gateway_loaded(tmp_path: Path) -> None:
    for name, text in (("etc/rackserve/gateway/haproxy.cfg", "# x\n# config-sha256 abc\n"),
                       ("run/haproxy/rackserve.config-sha256", "def\n")):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert serving.configuration(tmp_path, "/run/haproxy/x.sock") == {"wanted": "abc", "running": "def"}
    assert serving.configuration(tmp_path, "/run/gone/x.sock") == {}


def test_who_holds_the_lease(tmp_path: Path) -> None:
    path = tmp_path / serving.LEASE
    path.parent.mkdir(parents=True)
    lease = {"owner": "ada@ops1", "plan_hash": "x", "operation": "site", "acquired_at": 900, "expires_at": 1100}
    path.write_text(json.dumps(lease))
    assert serving.held(tmp_path, 1000.0) == {"owner": "ada@ops1", "operation": "site", "left_s": 100, "age_s": 100}
    path.write_text("no json")
    assert "cannot read the lease" in serving.held(tmp_path, 1000.0)["problem"]


def made(tmp_path: Path, days: int) -> Path:
    openssl = shutil.which("openssl")
    assert openssl, "openssl is among the tools of the tests (make tools)"
    key, cert = tmp_path / "k.pem", tmp_path / "c.pem"
    words = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
             str(key), "-out", str(cert), "-days", str(days), "-subj", "/CN=gw"]  # fmt: skip
    subprocess.run(words, check=True, capture_output=True)
    path = tmp_path / serving.PEM
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(cert.read_text() + key.read_text())
    return path


@pytest.mark.parametrize("days", [1, 30, 20000])
def test_until_when_a_certificate_is_good(tmp_path: Path, days: int) -> None:
    """20000 days end after 2049, which is written otherwise."""
    made(tmp_path, days)
    found = serving.certificate(tmp_path, time.time())
    assert abs(found["left_s"] - days * 86400) < 600
    assert "problem" not in found


def test_a_certificate_that_cannot_be_used(tmp_path: Path) -> None:
    path = made(tmp_path, 1)
    whole = path.read_text()
    begin, _, rest = whole.partition("-----END CERTIFICATE-----")
    for text, says in (
        ("nothing\n", "it holds no certificate"),
        (f"{begin}-----END CERTIFICATE-----\n", "it holds no private key"),
        (f"{begin[:200]}\n-----END CERTIFICATE-----\n{rest}", "the certificate cannot be read"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "the certificate cannot be read"),
    ):
        path.write_text(text)
        assert says in serving.certificate(tmp_path, 0.0)["problem"]


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x82", b"\x30\x03\x30\x01\x02", b"\x30\x02\x30\x00"])
def test_a_broken_certificate_is_no_crash(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"too early|no validity"):
        serving.not_after(data)
