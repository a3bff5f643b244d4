"""Start one engine, ask it the golden questions, stop it. Run by the release's own python inside the sandbox.

Reads one JSON object from the file named on the command line ({argv, env, model, port, prompts, messages, max_tokens,
concurrency, ready_timeout_s, log}) and prints one: {ready_s, single[], batched[], chat}. Standard library only, and
nothing of this package, because it stands alone in the sandbox.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def ask(port: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST ``body`` to the engine and return its JSON answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - the URL above is http to loopback
        return dict(json.load(answer))


def complete(port: int, model: str, prompt: str, max_tokens: int) -> dict[str, Any]:
    """One greedy completion: {text, token_logprobs[], margins[] (nats, best minus second)}."""
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": 2}
    choice = ask(port, "/v1/completions", body)["choices"][0]
    steps = [sorted(step.values(), reverse=True) for step in choice["logprobs"]["top_logprobs"]]
    return {
        "text": choice["text"],
        "token_logprobs": choice["logprobs"]["token_logprobs"],
        "margins": [best - second for best, second, *_rest in steps],
    }


def converse(port: int, model: str, messages: list[dict[str, str]], max_tokens: int) -> dict[str, Any]:
    """The same as ``complete`` through the chat endpoint."""
    body = {
        "model": model,
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 2,
    }
    choice = ask(port, "/v1/chat/completions", body)["choices"][0]
    steps = [[top["logprob"] for top in step["top_logprobs"]] for step in choice["logprobs"]["content"]]
    return {
        "text": choice["message"]["content"],
        "token_logprobs": [step["logprob"] for step in choice["logprobs"]["content"]],
        "margins": [best - second for best, second, *_rest in steps],
    }


def causes(log: Path) -> str:
    """What the engine's log says went wrong first; its last lines where it names no error."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    named = [line for line in lines if re.search(r"(Worker|EngineCore).*\w(Error|Compiler): ", line)]
    return " | ".join(named[:3] or lines[-6:])


def wait_ready(engine: subprocess.Popen[bytes], port: int, timeout_s: float, log: Path) -> float:
    """Seconds until /health answers 200. Exits with the log's last lines when the engine ends or time is up."""
    started = time.monotonic()
    while time.monotonic() - started < timeout_s and engine.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return time.monotonic() - started
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    state = "is not ready" if engine.poll() is None else f"ended with {engine.poll()}"
    engine.kill()
    sys.exit(f"the engine {state} after {time.monotonic() - started:.0f} s: {causes(log)}")


def main() -> int:
    """Ask the golden questions of one engine."""
    job = json.loads(Path(sys.argv[1]).read_text())
    log = Path(job["log"])
    with log.open("wb") as sink:
        engine = subprocess.Popen(job["argv"], stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **job["env"]})
        try:
            ready_s = wait_ready(engine, job["port"], job["ready_timeout_s"], log)
            fixed = (job["port"], job["model"])
            single = [complete(*fixed, prompt, job["max_tokens"]) for prompt in job["prompts"]]
            chat = converse(*fixed, job["messages"], job["max_tokens"])
            with ThreadPoolExecutor(job["concurrency"]) as pool:
                asked = [job["prompts"][index % len(job["prompts"])] for index in range(job["concurrency"])]
                batched = list(pool.map(lambda prompt: complete(*fixed, prompt, job["max_tokens"]), asked))
        except OSError as refused:
            sys.exit(f"the engine did not answer: {refused}: {causes(log)}")
        finally:
            engine.terminate()
            try:
                engine.wait(60)
            except subprocess.TimeoutExpired:
                engine.kill()
    sys.stdout.write(json.dumps({"ready_s": ready_s, "single": single, "batched": batched, "chat": chat}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
