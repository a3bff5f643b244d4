"""The client against a stub engine: kinds, times, refusals, golden comparison, waiting."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rackserve.completion.check import check, failure_line, read_targets, wait_until, write_report
from rackserve.completion.client import Answer, Ask, CompletionError, Endpoint, complete
from rackserve.completion.golden import Case, GoldenError, differs, read_cases
from rackserve.completion.table import HEADER, acceptance_table


class Stub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: dict[str, Any] = {}
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up are part of the tests."""

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"http://127.0.0.1:{self.server_address[1]}/", api_key="k", timeout_s=2)


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def log_message(self, *args: Any) -> None:
        """Keep test output clean."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.path, headers, body))
        script = self.server.script
        time.sleep(script.get("delay_s", 0))
        failures = script.get("failures") or []
        status, raw = failures.pop(0) if failures else (200, script.get("raw") or self.answer(body))
        self.send_response(status)
        if script.get("served_by"):
            wanted = headers.get("x-rackserve-server", "")
            self.send_header("X-Served-By", script["served_by"].replace("{}", wanted))
        self.send_header("Connection", "close")
        self.end_headers()
        for line in raw.splitlines(keepends=True):
            self.wfile.write(line)
            self.wfile.flush()
            time.sleep(script.get("gap_s", 0))

    def answer(self, body: dict[str, Any]) -> bytes:
        chat, pieces = "messages" in body, ["Pa", "ris"]
        if body["stream"]:
            events: list[dict[str, Any]] = [{"choices": [{"delta": {"role": "assistant"}}]}] if chat else []
            events += [{"choices": [{"delta": {"content": p}} if chat else {"text": p}]} for p in pieces]
            events.append({"choices": [], "usage": {"completion_tokens": 2}})
            lines = [f"data: {json.dumps(event)}\n\n" for event in events]
            return ("".join([": comment\n\n", *lines, "data: [DONE]\n\n"])).encode()
        choice: dict[str, Any] = {"message": {"content": "Paris"}} if chat else {"text": "Paris"}
        if body.get("logprobs"):
            choice["logprobs"] = {"token_logprobs": [-0.1, -0.2]}
        return json.dumps({"choices": [choice], "usage": {"completion_tokens": 2}}).encode()


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", ["plain", "stream", "chat", "chat_stream"])
def test_every_kind_is_read(stub: Stub, kind: str) -> None:
    stub.script = {"gap_s": 0.05}
    answer = complete(stub.endpoint, Ask("m", "hello", kind))
    assert (answer.text, answer.tokens) == ("Paris", 2)
    path, headers, body = stub.requests[0]
    assert path == ("/v1/chat/completions" if kind.startswith("chat") else "/v1/completions")
    assert headers["authorization"] == "Bearer k" and body["temperature"] == 0
    if "stream" in kind:
        assert answer.ttft_s is not None and 0 < answer.ttft_s < answer.total_s
        assert len(answer.gaps_s) == 1 and answer.gaps_s[0] > 0.004
    else:
        assert answer.ttft_s is None


def test_chat_log_probabilities_are_read(stub: Stub) -> None:
    content = [{"token": "a", "logprob": -0.5}]
    choice = {"message": {"content": None, "reasoning_content": "hm"}, "logprobs": {"content": content}}
    stub.script = {"raw": json.dumps({"choices": [choice]}).encode()}
    answer = complete(stub.endpoint, Ask("m", "hello", "chat", logprobs=True))
    assert (answer.text, answer.token_logprobs, answer.tokens) == ("hm", [-0.5], 1)
    assert stub.requests[0][2]["logprobs"] is True


@pytest.mark.parametrize(
    ("script", "kind", "why"),
    [
        ({"failures": [(401, b'{"error": {"message": "no\\nkey"}}')]}, "plain", "HTTP 401: no key"),
        ({"failures": [(502, b"<html>bad")]}, "plain", "HTTP 502: <html>bad"),
        ({"raw": b"{}"}, "plain", "not a completion: KeyError"),
        ({"raw": b"nonsense"}, "plain", "not a completion"),
        ({"raw": b"[]"}, "plain", "not a completion"),
        ({"raw": b'data: {"choices": [{"text": "a"}]}\n\n'}, "stream", "broke off before"),
        ({"raw": b'data: {"error": "engine died"}\n\n'}, "stream", "engine died"),
        ({"delay_s": 0.3}, "plain", "no answer within 0.1 s"),
        ({"raw": b": a\n" * 100, "gap_s": 0.02}, "stream", "did not end in time"),
    ],
)
def test_no_usable_answer_is_one_line(stub: Stub, script: dict[str, Any], kind: str, why: str) -> None:
    stub.script = script
    endpoint = Endpoint(
        stub.endpoint.base_url, timeout_s=0.1 if "delay_s" in script else 0.8 if "gap_s" in script else 2
    )
    with pytest.raises(CompletionError, match=why) as failure:
        complete(endpoint, Ask("m", "hello", kind))
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        (Endpoint("127.0.0.1:8000"), "is not an http"),
        (Endpoint("http://127.0.0.1:9"), "Connection refused"),
        (Endpoint("https://127.0.0.1:9", ca_file="/no/such/ca.pem"), "cannot read the CA file"),
        (Endpoint("https://127.0.0.1:9"), "Connection refused"),
    ],
)
def test_unreachable(endpoint: Endpoint, why: str) -> None:
    with pytest.raises(CompletionError, match=why):
        complete(endpoint, Ask("m", "hello"))


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(Endpoint("http://x", api_key="secret"))


@pytest.mark.parametrize(
    ("answer", "case", "why"),
    [
        (Answer("a"), Case("p", text="a"), ""),
        (Answer("a"), Case("p", text="b"), "said 'a', golden 'b'"),
        (Answer("a", [-1.0]), Case("p", text="a", token_logprobs=(-1.04,)), ""),
        (Answer("a", [-1.0]), Case("p", token_logprobs=(-1.06,)), "token 0 is -1.0000"),
        (Answer("a", [float("nan")]), Case("p", token_logprobs=(-1.0,)), "token 0 is nan"),
        (Answer("a", []), Case("p", token_logprobs=(-1.0,)), "0 log probabilities, golden 1"),
    ],
)
def test_golden(answer: Answer, case: Case, why: str) -> None:
    found = differs(answer, case)
    assert (why in found) if why else found == ""


def test_golden_cases_are_read() -> None:
    assert read_cases(None) == read_cases({"cases": []}) == [Case("The capital of France is")]
    row = {"prompt": "p", "max_tokens": 3, "text": "t", "token_logprobs": [-1], "tolerance": 0.1}
    assert read_cases({"cases": [row]}) == [Case("p", 3, "t", (-1.0,), 0.1)]
    for bad in ({"text": "t"}, {"prompt": "p", "token_logprobs": "x"}, None):
        with pytest.raises(GoldenError, match="golden case 0"):
            read_cases({"cases": [bad]})


GOLDEN = {"cases": [{"prompt": "p", "text": "Paris", "token_logprobs": [-0.1, -0.2]}]}


def test_servers_are_proven_one_by_one(stub: Stub) -> None:
    stub.script = {"served_by": "be_m/{}"}
    targets = read_targets(["be_m/r0", {"server": "be_m/r1", "golden": {}, "kinds": ["chat"]}], "m", GOLDEN, ["plain"])
    rows = check(stub.endpoint, targets)
    assert [(row["server"], row["kind"], row["ok"], row["match"]) for row in rows] == [
        ("be_m/r0", "plain", True, True),
        ("be_m/r1", "chat", True, None),
    ]
    assert sorted(headers["x-rackserve-server"] for _, headers, _ in stub.requests) == ["r0", "r1"]
    assert failure_line(rows, "gw") == ""


@pytest.mark.parametrize(
    ("served_by", "why"),
    [("", "not the operator's"), ("be_m/r9", "answered by be_m/r9: the gateway has be_m/r0 out")],
)
def test_an_answer_of_another_server_proves_nothing(stub: Stub, served_by: str, why: str) -> None:
    stub.script = {"served_by": served_by}
    rows = check(stub.endpoint, read_targets(["be_m/r0"], "m", {}, ["plain"]))
    assert not rows[0]["ok"] and why in rows[0]["why"]
    assert failure_line(rows, "gw").startswith("1 of 1 checks failed: be_m/r0 (plain): ")


def test_wrong_and_empty_answers_fail_and_are_asked_once(stub: Stub) -> None:
    wrong = {"cases": [{"prompt": "p", "text": "London"}]}
    rows = check(stub.endpoint, read_targets([], "m", wrong, ["plain"]), attempts=3)
    assert rows[0]["match"] is False and len(stub.requests) == 1
    stub.script = {"raw": b'{"choices": [{"text": ""}]}'}
    rows = check(stub.endpoint, read_targets([], "m", {}, ["plain"]))
    assert rows[0]["why"] == "an empty answer"


def test_refusals_are_asked_again(stub: Stub) -> None:
    stub.script = {"failures": [(503, b"{}")] * 3}
    targets = read_targets([], "m", {}, ["plain"])
    assert check(stub.endpoint, targets, attempts=2)[0]["why"].startswith("HTTP 503")
    assert check(stub.endpoint, targets, attempts=2)[0]["ok"]


def test_waiting_ends_with_a_correct_answer(stub: Stub) -> None:
    stub.script = {"failures": [(503, b"{}")] * 2}
    targets = read_targets([], "m", GOLDEN, ["plain"])
    rows, waited_s, gave_up = wait_until(lambda: check(stub.endpoint, targets), 5, 0.05)
    assert rows[0]["ok"] and gave_up == "" and 0.1 <= waited_s < 3


@pytest.mark.parametrize(
    ("stopped", "match", "gave_up"),
    [
        ("vllm-x.service: failed", None, "vllm-x.service: failed"),
        ("", None, "not correct within 0.1 s"),
        ("", False, "a wrong answer"),
        ("vllm-x.service: failed", False, "a wrong answer"),
    ],
)
def test_waiting_gives_up_when_it_cannot_help(stopped: str, match: bool | None, gave_up: str) -> None:
    tries: list[int] = []

    def probe() -> list[dict[str, Any]]:
        tries.append(1)
        return [{"ok": False, "match": match}]

    _, waited_s, why = wait_until(probe, 0.1, 0.04, lambda _rows: stopped)
    assert why == gave_up
    assert (len(tries) > 1) == why.startswith("not correct") and waited_s < 1


def test_an_engine_is_asked_directly_at_its_own_address(stub: Stub) -> None:
    rows = [{"url": stub.endpoint.base_url, "model": "m", "golden": GOLDEN}, {"url": "http://127.0.0.1:9"}]
    up, down = check(Endpoint("http://127.0.0.1:9"), read_targets(rows, "m", {}, ["plain"]))
    assert (up["ok"], up["match"], up["server"]) == (True, True, stub.endpoint.base_url)
    assert not down["ok"] and down["server"] == "http://127.0.0.1:9" and "refused" in down["why"]
    assert "x-rackserve-server" not in stub.requests[0][1]
    assert failure_line([up, down], "").startswith("1 of 2 checks failed: http://127.0.0.1:9 (plain): ")


def test_the_table_names_engines_failures_and_a_stream(stub: Stub) -> None:
    stub.script = {"served_by": "be_m/r0"}
    rows = check(stub.endpoint, read_targets(["be_m/r0", "be_m/r1"], "m", {}, ["plain", "stream"]))
    lines = acceptance_table(rows, {"be_m/r0": "node1 tiny-0"})
    assert lines[0].split() == [word for title in HEADER for word in title.split()]
    assert lines[1].split()[:5] == ["be_m/r0", "node1", "tiny-0", "plain", "ok"]
    assert lines[1].index("plain") == lines[3].index("plain")
    assert lines[-2].startswith("be_m/r1 stream: answered by be_m/r0")
    assert lines[-1] == "streamed by be_m/r0: 'Paris'"
    assert len(acceptance_table([])) == 1


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "lab.json"
    write_report(target, {"passed": True, "rows": []})
    assert json.loads(target.read_text()) == {"passed": True, "rows": []}
    assert [entry.name for entry in target.parent.iterdir()] == ["lab.json"]
