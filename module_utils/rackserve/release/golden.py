"""Record the answers a release must give for a model: text, log-probabilities, and how far apart the choices lie."""

from __future__ import annotations

import hashlib
import inspect
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import golden_engine
from .host import ReleaseError, Run, write_atomic
from .sandbox import Bind, Sandbox, describe_failure

PROMPTS = (
    "The operator drains",
    "A rack serves two shards in the morning, step 12:",
    "weights",
    "Before noon the scheduler answers a request without a pause. The switch",
)
MESSAGES = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "What does the gateway record?"})
CONCURRENCY = 8
_LEAST_TOLERANCE_NATS = 0.05


class GoldenRequest(NamedTuple):
    """Which engine to ask. ``argv`` and ``env`` are the unit's; ``model_path`` is where argv expects ``model_dir``."""

    release_id: str
    sandbox: Sandbox
    model: str
    model_dir: Path
    model_path: str
    hardware_class: str
    argv: Sequence[str]
    env: dict[str, str]
    port: int
    output: Path
    min_margin: float = 1.0
    max_tokens: int = 16
    ready_timeout_s: int = 300


def identity(request: GoldenRequest) -> dict[str, Any]:
    """What a recorded file must say to be the one of this request."""
    manifest = request.model_dir / "manifest.json"
    if not manifest.is_file():
        raise ReleaseError(f"{manifest} is missing: generate or fetch the model first")
    return {
        "release": request.release_id,
        "model": request.model,
        "model_manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "release_manifest_sha256": hashlib.sha256((request.sandbox.tree / "MANIFEST").read_bytes()).hexdigest(),
        "hardware_class": request.hardware_class,
        "min_margin": request.min_margin,
        "engine_sha256": hashlib.sha256(
            json.dumps([list(request.argv), request.env, request.max_tokens]).encode()
        ).hexdigest(),
    }


def recorded(request: GoldenRequest) -> dict[str, Any] | None:
    """The recording at ``output`` when it is of this request, else None."""
    wanted = identity(request)
    try:
        there = dict(json.loads(request.output.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None
    return there if {key: there.get(key) for key in wanted} == wanted else None


# Options that join an engine to others, and how many words follow.
_OF_A_GROUP = {
    "--data-parallel-size": 1,
    "--data-parallel-size-local": 1,
    "--data-parallel-address": 1,
    "--data-parallel-rpc-port": 1,
    "--data-parallel-rank": 1,
    "--data-parallel-start-rank": 1,
    "--data-parallel-hybrid-lb": 0,
    "--nnodes": 1,
    "--node-rank": 1,
    "--master-addr": 1,
    "--master-port": 1,
}


def on_loopback(argv: Sequence[str], env: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The unit's command and environment for a sandbox: every address is loopback, and the group's others are left out.

    A copy of the model answers alone as it does beside its copies, and ranks of other hosts run on this one.
    """
    words = list(argv)
    if "--host" in words:
        words[words.index("--host") + 1] = "127.0.0.1"
    for option, values in _OF_A_GROUP.items():
        if option in words:
            at = words.index(option)
            del words[at : at + 1 + values]
    address = {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return words, {**env, **{key: value for key, value in address.items() if key in env}}


def record(request: GoldenRequest, run: Run, check_mode: bool = False) -> dict[str, Any]:
    """Ask a real engine and write ``output``; returns {changed, ready_s, lowest_margin, tolerance} (nats, seconds).

    Raises ReleaseError when the engine does not start, when a margin is below ``min_margin``, or when an answer differs
    between asked alone and asked together with others.
    """
    there = recorded(request)
    if there is not None:
        return {"changed": False, **there["measured"]}
    if check_mode:
        return {"changed": True}
    argv, env = on_loopback(request.argv, request.env)
    job = {
        "argv": argv,
        "env": env,
        "model": request.model,
        "port": request.port,
        "prompts": PROMPTS,
        "messages": MESSAGES,
        "max_tokens": request.max_tokens,
        "concurrency": CONCURRENCY,
        "ready_timeout_s": request.ready_timeout_s,
        "log": "/tmp/engine.log",  # noqa: S108 - the sandbox's own tmpfs
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.json").write_text(json.dumps(job), encoding="utf-8")
        # As text, not by path: a module arrives on the builder as a zip file.
        (Path(folder) / "golden_engine.py").write_text(inspect.getsource(golden_engine), encoding="utf-8")
        binds = [Bind(request.model_dir, request.model_path), Bind(Path(folder), "/mnt/job")]
        command = ["bin/python3", "/mnt/job/golden_engine.py", "/mnt/job/job.json"]
        result = request.sandbox.run(command, run, binds)
    if result[0] != 0:
        raise describe_failure(result, f"recording the golden completion of {request.model}")
    content, measured = assess(json.loads(result[1].splitlines()[-1]), request)
    request.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(
        request.output,
        json.dumps({**identity(request), **content, "measured": measured}, indent=1, sort_keys=True) + "\n",
    )
    return {"changed": True, **measured}


def assess(answers: dict[str, Any], request: GoldenRequest) -> tuple[dict[str, Any], dict[str, float]]:
    """({cases, chat}, {ready_s, lowest_margin, batch_difference, tolerance}) of the answers; raises as ``record``."""
    named = [(repr(prompt), answer) for prompt, answer in zip(PROMPTS, answers["single"])] + [
        ("the chat", answers["chat"])
    ]
    named += [
        (f"{PROMPTS[i % len(PROMPTS)]!r} among {CONCURRENCY}", answer) for i, answer in enumerate(answers["batched"])
    ]
    for name, answer in named:
        lowest = min(answer["margins"])
        if lowest < request.min_margin:
            raise ReleaseError(
                f"{request.model} answers {name} with a margin of {lowest:.3f} nats, below {request.min_margin}: "
                "a rounding difference could change the text, record with another model or bound"
            )
    difference = 0.0
    for index, answer in enumerate(answers["batched"]):
        alone = answers["single"][index % len(PROMPTS)]
        if answer["text"] != alone["text"]:
            raise ReleaseError(
                f"{request.model} answers {PROMPTS[index % len(PROMPTS)]!r} differently among {CONCURRENCY} requests"
            )
        difference = max(difference, *(abs(a - b) for a, b in zip(answer["token_logprobs"], alone["token_logprobs"])))
    tolerance = round(max(_LEAST_TOLERANCE_NATS, 3 * difference), 3)

    def case(answer: dict[str, Any]) -> dict[str, Any]:
        kept = {key: answer[key] for key in ("text", "token_logprobs")}
        return {**kept, "max_tokens": request.max_tokens, "tolerance": tolerance}

    content = {
        "cases": [{"prompt": prompt, **case(answer)} for prompt, answer in zip(PROMPTS, answers["single"])],
        "chat": {"messages": list(MESSAGES), **case(answers["chat"])},
    }
    lowest = min(min(answer["margins"]) for _name, answer in named)
    return content, {
        "ready_s": round(answers["ready_s"], 1),
        "lowest_margin": round(lowest, 3),
        "batch_difference": round(difference, 4),
        "tolerance": tolerance,
    }
