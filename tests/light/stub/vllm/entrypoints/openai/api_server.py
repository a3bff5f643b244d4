"""The stub's HTTP side: the paths, shapes and keys of vLLM's API that rackserve uses, with answers from a hash.

Same prompt, same answer, on every host; alone or among others.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vllm import __version__
from vllm.behaviour import BEHAVIOUR

RUNNER_UP_NATS = 4.0


@dataclass(frozen=True)
class Settings:
    """What the command line and the environment say; `start_s` until healthy, `token_s` for each token."""

    model: str
    host: str
    port: int
    shutdown_timeout_s: int
    max_model_len: int
    api_key: str
    start_s: float = 0.0
    token_s: float = 0.0


def say(text: str) -> None:
    """A line for the journal."""
    sys.stderr.write(text + "\n")


def tokens(model: str, prompt: str, count: int) -> list[tuple[str, float]]:
    """`count` words and their log probabilities for a prompt."""
    chosen = []
    salt = "other" if BEHAVIOUR == "wrong" else ""
    for number in range(count):
        digest = hashlib.sha256(f"{salt}{model}\0{prompt}\0{number}".encode()).digest()
        chosen.append((f" stub{digest[0]:02x}", -0.1 - digest[1] / 1000))
    return chosen


class Engine(ThreadingHTTPServer):
    """The listening stub; `running` counts requests under way, `served` those done."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lock = threading.Lock()
        self.running = self.served = 0
        super().__init__((settings.host, settings.port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to report; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Engine

    def version_string(self) -> str:
        return f"stub-vllm/{__version__}"

    def log_message(self, *_: Any) -> None:
        """No access log: the real engine is run without one for what probes ask."""

    def do_GET(self) -> None:
        settings = self.server.settings
        if self.path == "/health":
            self.answer(200, b"")
        elif self.path == "/version":
            self.answer_json(200, {"version": __version__})
        elif self.path == "/load":
            self.answer_json(200, {"server_load": self.server.running})
        elif self.path == "/metrics":
            self.answer(200, self.metrics().encode(), "text/plain; version=0.0.4")
        elif self.path == "/v1/models" and self.allowed():
            card = {"id": settings.model, "object": "model", "created": 0, "owned_by": "stub"}
            self.answer_json(200, {"object": "list", "data": [{**card, "max_model_len": settings.max_model_len}]})
        elif self.path != "/v1/models":
            self.refuse(404, "Not Found")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path not in ("/v1/completions", "/v1/chat/completions"):
            self.refuse(404, "Not Found")
            return
        if not self.allowed():
            return
        try:
            body = json.loads(raw)
            wanted = body["model"]
            prompt = body["prompt"] if self.path == "/v1/completions" else json.dumps(body["messages"])
            count = int(body.get("max_tokens") or 16)
        except (ValueError, KeyError, TypeError) as error:
            self.refuse(400, f"stub: bad request: {error}")
            return
        if wanted != self.server.settings.model:
            self.refuse(404, f"stub: the model `{wanted}` does not exist")
            return
        with self.server.lock:
            self.server.running += 1
        try:
            self.complete(body, str(prompt), count)
        finally:
            with self.server.lock:
                self.server.running -= 1
                self.server.served += 1

    def allowed(self) -> bool:
        """Whether the request carries the key; answers 401 itself where it does not."""
        key = self.server.settings.api_key
        if not key or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self.refuse(401, "Unauthorized")
        return False

    def complete(self, body: dict[str, Any], prompt: str, count: int) -> None:
        """Answer whole, or as a stream of one event a token."""
        chat = self.path == "/v1/chat/completions"
        kind = "chat.completion" if chat else "text_completion"
        head = {"id": "stub-0", "object": kind, "created": 0, "model": self.server.settings.model}
        head["system_fingerprint"] = f"stub-{__version__}"
        chosen = tokens(self.server.settings.model, prompt, count)
        usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
        if not body.get("stream"):
            time.sleep(self.server.settings.token_s * count)
            choice = {"index": 0, "finish_reason": "length", **self.piece(chosen, body, chat, "message")}
            self.answer_json(200, {**head, "choices": [choice], "usage": usage})
            return
        if chat:
            head["object"] = "chat.completion.chunk"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, token in enumerate(chosen, 1):
            time.sleep(self.server.settings.token_s)
            end = "length" if number == count else None
            self.event(
                {**head, "choices": [{"index": 0, "finish_reason": end, **self.piece([token], body, chat, "delta")}]}
            )
        if (body.get("stream_options") or {}).get("include_usage"):
            self.event({**head, "choices": [], "usage": usage})
        self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def piece(self, chosen: list[tuple[str, float]], body: dict[str, Any], chat: bool, field: str) -> dict[str, Any]:
        """Text and log probabilities of some tokens, as a choice holds them."""
        text = "".join(word for word, _ in chosen)
        wanted = body.get("logprobs")
        if chat:
            content = [{"token": w, "logprob": p, "top_logprobs": list(runners(w, p))} for w, p in chosen]
            logprobs: Any = {"content": content} if wanted else None
            return {field: {"role": "assistant", "content": text}, "logprobs": logprobs}
        logprobs = {
            "tokens": [word for word, _ in chosen],
            "token_logprobs": [probability for _, probability in chosen],
            "top_logprobs": [{one["token"]: one["logprob"] for one in runners(w, p)} for w, p in chosen],
        }
        return {"text": text, "logprobs": logprobs if wanted else None}

    def event(self, content: dict[str, Any]) -> None:
        self.chunk(f"data: {json.dumps(content)}\n\n".encode())

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def answer_json(self, status: int, content: dict[str, Any]) -> None:
        self.answer(status, json.dumps(content).encode(), "application/json")

    def refuse(self, status: int, message: str) -> None:
        self.answer_json(status, {"error": {"message": message, "type": "stub", "param": None, "code": status}})

    def answer(self, status: int, data: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def metrics(self) -> str:
        label = f'{{engine="0",model_name="{self.server.settings.model}"}}'
        values = {"num_requests_running": self.server.running, "num_requests_waiting": 0, "kv_cache_usage_perc": 0}
        lines = ["# A stub engine: counts are real, nothing else is."]
        for name, value in values.items():
            lines += [f"# TYPE vllm:{name} gauge", f"vllm:{name}{label} {value}"]
        lines += ["# TYPE vllm:request_success_total counter"]
        lines += [f'vllm:request_success_total{label[:-1]},finished_reason="length"}} {self.server.served}']
        return "\n".join(lines) + "\n"


def runners(word: str, probability: float) -> Iterator[dict[str, Any]]:
    """The chosen token and one that is far behind it."""
    yield {"token": word, "logprob": probability}
    yield {"token": f"{word}?", "logprob": probability - RUNNER_UP_NATS}


def serve(settings: Settings) -> int:
    """Listen until TERM or INT; then take no more connections and let requests finish within the shutdown time."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    if ended.wait(settings.start_s):
        return 0
    engine = Engine(settings)
    threading.Thread(target=engine.serve_forever, daemon=True).start()
    say(f"stub engine: serving {settings.model} at http://{settings.host}:{settings.port}")
    ended.wait()
    engine.shutdown()
    engine.socket.close()
    deadline = time.monotonic() + settings.shutdown_timeout_s
    while engine.running and time.monotonic() < deadline:
        time.sleep(0.05)
    say("stub engine: ended")
    return 0
