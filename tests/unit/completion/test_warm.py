"""Warm-up: every length and concurrency once, in time, and no failure passes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rackserve.completion.client import Ask, CompletionError, Endpoint
from rackserve.completion.warm import (
    Engine,
    Round,
    WarmError,
    Warming,
    engines_of,
    prompt_of,
    read_key,
    rounds_of,
    warm_engine,
    warm_work,
    words_of,
)
from rackserve.progress.report import Report

ENGINE = Engine("tiny-0", "http://127.0.0.1:1", "tiny", 2048, 32)
WARMING = Warming(limit_s=60, timeout_s=5, tokens=8)


def test_lengths_grow_to_the_longest_and_requests_to_the_most() -> None:
    rounds = rounds_of(ENGINE, 8)
    assert [one.length for one in rounds if one.concurrency == 1] == [16, 64, 256, 1024, 2040]
    assert [one.concurrency for one in rounds if one.concurrency > 1] == [2, 4, 8, 16, 32]
    assert {one.length for one in rounds if one.concurrency > 1} == {16}
    assert rounds_of(ENGINE, 8, most=6)[-2:] == [Round(16, 4), Round(16, 6)]
    assert rounds_of(Engine("a", "u", "m", 12, 1), 8) == [Round(4, 1)]


def test_a_site_may_name_them() -> None:
    assert rounds_of(ENGINE, 8, [100, 20], [3]) == [Round(20, 1), Round(100, 1), Round(16, 3)]


@pytest.mark.parametrize(
    ("lengths", "concurrencies", "tokens", "said"),
    [
        ([2041], [], 8, "a prompt of 2041 tokens is outside 1-2040: correct vllm_warm_lengths"),
        ([], [33], 8, "33 requests at once are outside 1-32: correct vllm_warm_concurrencies"),
        ([], [], 2048, "leave no room in max_model_len 2048"),
    ],
)
def test_what_an_engine_cannot_take_is_said(
    lengths: list[int], concurrencies: list[int], tokens: int, said: str
) -> None:
    with pytest.raises(WarmError, match=said):
        rounds_of(ENGINE, tokens, lengths, concurrencies)


def test_no_prompt_begins_like_another() -> None:
    prompts = [prompt_of(16, number) for number in range(200)]
    assert len({tuple(prompt[:2]) for prompt in prompts}) == 200
    assert all(10 <= one < 99 for prompt in prompts for one in prompt)
    assert len(prompt_of(2040, 3)) == 2040


def test_every_round_is_asked_with_as_many_at_once() -> None:
    asked: list[Ask] = []
    most, lock = [0, 0], threading.Lock()
    gate = threading.Barrier(2, timeout=10)

    def answer(_endpoint: Endpoint, ask: Ask) -> None:
        with lock:
            asked.append(ask)
            most[0] += 1
            most[1] = max(most)
        if len(ask.prompt) == 7:
            gate.wait()  # both are there at the same time, or this breaks
        with lock:
            most[0] -= 1

    counted: list[int] = []
    warming = WARMING._replace(lengths=(30, 7), concurrencies=(2,))
    engine = Engine("tiny-0", "u", "tiny", 15, 4)
    said = warm_engine(engine, warming._replace(lengths=(1,)), counted.append, answer=answer)
    assert [(row["length"], row["concurrency"]) for row in said["rows"]] == [(1, 1), (7, 2)]
    assert (counted, said["left"], len(asked)) == ([1, 2], [], 3)
    assert all(ask.extra == {"ignore_eos": True, "min_tokens": 8} and ask.max_tokens == 8 for ask in asked)


def test_a_request_that_fails_names_engine_and_round() -> None:
    def answer(_endpoint: Endpoint, ask: Ask) -> None:
        if len(ask.prompt) > 1000:
            raise CompletionError("HTTP 500: out of memory")

    with pytest.raises(WarmError, match="tiny-0 does not take its warm-up: 1 at once with 1024 tokens each: HTTP 500"):
        warm_engine(ENGINE, WARMING, lambda _amount: None, answer=answer)


def test_what_the_time_does_not_reach_is_told() -> None:
    now = [0.0]

    def answer(_endpoint: Endpoint, _ask: Ask) -> None:
        now[0] += 25

    said = warm_engine(ENGINE, WARMING, lambda _amount: None, answer=answer, clock=lambda: now[0])
    assert len(said["rows"]) == 3
    assert said["left"][0] == [1024, 1]
    [line] = words_of([said])
    assert line.startswith("tiny-0: 3 rounds in 75 s, slowest 25 s (1 x 16 tokens); out of time, not warmed: 1 x 1024")


def test_the_key_comes_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.secret.env"
    path.write_text("A=b\nVLLM_API_KEY=abc\n")
    assert read_key(str(path)) == "abc"
    assert read_key("") == ""
    path.write_text("A=b\n")
    with pytest.raises(WarmError, match="has no line VLLM_API_KEY="):
        read_key(str(path))
    with pytest.raises(WarmError, match=r"cannot be read \(No such file"):
        read_key(str(tmp_path / "none"))


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({**body, "key": self.headers.get("Authorization")})
            answer = json.dumps({"choices": [{"text": "x"}], "usage": {"completion_tokens": 8}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            return

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_address[1]}", seen
    made.shutdown()
    made.server_close()


def test_engines_of_a_host_are_asked_over_http(server: tuple[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    url, seen = server
    (tmp_path / "key").write_text("VLLM_API_KEY=abc\n")
    engine = {"url": url, "model": "tiny", "max_model_len": 64, "max_num_seqs": 4, "key_file": str(tmp_path / "key")}
    payload = {
        "engines": [{"name": "a", **engine}, {"name": "b", **engine}],
        "limit_s": 60, "timeout_s": 10, "tokens": 8, "most": 512, "lengths": [], "concurrencies": [],
    }  # fmt: skip
    report = Report()
    said = warm_work(payload, report)
    assert [one["engine"] for one in said["engines"]] == ["a", "b"]
    assert len(seen) == 2 * (1 + 1 + 2 + 4)
    assert {one["key"] for one in seen} == {"Bearer abc"}
    assert {len(one["prompt"]) for one in seen} == {16, 56}
    assert all(one["ignore_eos"] is True for one in seen)


def test_engines_out_of_the_plan() -> None:
    instance = {"name": "a", "address": "fd00::1", "port": 8000, "served_model_name": "m", "max_model_len": 10}
    [six, four] = engines_of(
        [{**instance, "argv": ["x", "--max-num-seqs", "7"]}, {**instance, "address": "10.0.0.1", "argv": []}], "/etc/x"
    )
    assert six == {
        "name": "a", "url": "http://[fd00::1]:8000", "model": "m", "max_model_len": 10, "max_num_seqs": 7,
        "key_file": "/etc/x/a.secret.env",
    }  # fmt: skip
    assert (four["url"], four["max_num_seqs"]) == ("http://10.0.0.1:8000", 256)
