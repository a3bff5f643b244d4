"""A small client of the OpenAI-compatible API: plain and streamed, completions and chat, standard library only."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

KINDS = ("plain", "stream", "chat", "chat_stream")
OK = 200


class CompletionError(Exception):
    """No usable answer; one line says why. ``status`` is that of an HTTP refusal, None where there was no response."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Endpoint:
    """Where to ask: base_url like https://10.0.0.1:8443, CA bundle, bearer key, headers, seconds for an answer."""

    base_url: str
    ca_file: str = ""
    api_key: str = field(default="", repr=False)
    headers: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 30.0


@dataclass(frozen=True)
class Ask:
    """What to ask; `kind` is one of KINDS, `logprobs` requests the log probability of each token.

    A prompt may be token ids where it is no chat; `extra` goes into the request as it is.
    """

    model: str
    prompt: str | list[int]
    kind: str = "plain"
    max_tokens: int = 8
    logprobs: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Answer:
    """What came back; `ttft_s` is None without streaming, `gaps_s` are the pauses between streamed chunks."""

    text: str = ""
    token_logprobs: list[float] = field(default_factory=list)
    tokens: int = 0
    ttft_s: float | None = None
    total_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)
    served_by: str = ""


def _body(ask: Ask) -> tuple[str, dict[str, Any]]:
    streamed = ask.kind in ("stream", "chat_stream")
    body: dict[str, Any] = {
        "model": ask.model,
        "max_tokens": ask.max_tokens,
        "temperature": 0,
        "seed": 0,
        "stream": streamed,
        **ask.extra,
    }
    if streamed:
        body["stream_options"] = {"include_usage": True}
    if ask.kind.startswith("chat"):
        body["messages"] = [{"role": "user", "content": ask.prompt}]
        if ask.logprobs:
            body["logprobs"] = True
        return "/v1/chat/completions", body
    body["prompt"] = ask.prompt
    if ask.logprobs:
        body["logprobs"] = 1
    return "/v1/completions", body


def _connect(endpoint: Endpoint) -> tuple[http.client.HTTPConnection, str]:
    url = urlsplit(endpoint.base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise CompletionError(f"{endpoint.base_url!r} is not an http or https address")
    if url.scheme == "http":
        return http.client.HTTPConnection(url.hostname, url.port, timeout=endpoint.timeout_s), url.path.rstrip("/")
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise CompletionError(f"cannot read the CA file {endpoint.ca_file}: {error}") from error
    return (
        http.client.HTTPSConnection(url.hostname, url.port, timeout=endpoint.timeout_s, context=context),
        url.path.rstrip("/"),
    )


def _refusal(status: int, raw: bytes) -> str:
    """One line out of an error answer: the API's message where it is one, else the first characters."""
    try:
        content = json.loads(raw)
        message = str(content["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = raw[:120].decode(errors="replace")
    return f"HTTP {status}: {' '.join(message.split())}"


def _events(response: http.client.HTTPResponse, deadline: float) -> Iterator[dict[str, Any]]:
    """The JSON objects of a server-sent event stream, until [DONE].

    Raises CompletionError when the stream ends without [DONE] or the deadline passes.
    """
    while True:
        line = response.readline()
        if time.monotonic() > deadline:
            raise CompletionError("the stream did not end in time")
        if not line:
            raise CompletionError("the stream broke off before [DONE]")
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise CompletionError(f"the engine failed in the stream: {event['error']}")
        yield event


def _take(answer: Answer, choice: dict[str, Any]) -> str:
    """Add one choice (whole or a streamed piece) to the answer; return the text it brought."""
    message = choice.get("message") or choice.get("delta") or {}
    piece = choice.get("text") or message.get("content") or message.get("reasoning_content") or ""
    logprobs = choice.get("logprobs") or {}
    found = logprobs.get("token_logprobs") or [token["logprob"] for token in logprobs.get("content") or []]
    answer.text += piece
    answer.token_logprobs += found
    return str(piece)


def _read_stream(response: http.client.HTTPResponse, answer: Answer, started: float, deadline: float) -> None:
    previous, pieces, usage = started, 0, None
    for event in _events(response, deadline):
        usage = event.get("usage") or usage
        for choice in event.get("choices") or []:
            if not _take(answer, choice):
                continue
            moment = time.monotonic()
            pieces += 1
            if answer.ttft_s is None:
                answer.ttft_s = moment - started
            else:
                answer.gaps_s.append(moment - previous)
            previous = moment
    answer.tokens = int((usage or {}).get("completion_tokens") or pieces)


def complete(endpoint: Endpoint, ask: Ask) -> Answer:
    """Ask once and return the answer with its times in seconds.

    Raises CompletionError with one line: refused, HTTP status with the API's message, broken stream, too late.
    """
    path, body = _body(ask)
    connection, prefix = _connect(endpoint)
    headers = {"Content-Type": "application/json", "Accept": "application/json", **endpoint.headers}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    answer, started = Answer(), time.monotonic()
    try:
        connection.request("POST", prefix + path, json.dumps(body), headers)
        response = connection.getresponse()
        answer.served_by = response.headers.get("X-Served-By", "")
        if response.status != OK:
            raise CompletionError(_refusal(response.status, response.read(4096)), response.status)
        if body["stream"]:
            _read_stream(response, answer, started, started + endpoint.timeout_s)
        else:
            content = json.loads(response.read())
            _take(answer, content["choices"][0])
            answer.tokens = int((content.get("usage") or {}).get("completion_tokens") or len(answer.token_logprobs))
    except (TimeoutError, socket.timeout) as error:
        raise CompletionError(f"no answer within {endpoint.timeout_s:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise CompletionError(f"{endpoint.base_url}: {error or type(error).__name__}") from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise CompletionError(f"the answer is not a completion: {type(error).__name__} {error}") from error
    finally:
        connection.close()
    answer.total_s = time.monotonic() - started
    return answer
