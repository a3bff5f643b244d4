"""Layouts on this machine's GPUs: real vLLM with dummy weights, started with the words and variables of the plan.

python3 tests/device/layouts_on_device.py LAYOUT                  replica, tensor, experts, ray or prefill-decode
python3 tests/device/layouts_on_device.py throughput [--rounds 3] `tensor` three times: as planned, with the defaults of
                                                                  `vllm serve`, and with the client's flags
  --without OPTION, at most twice                                  instead: the plan, and the plan without each
  --gpus N (2 or 4)   --models FOLDER (written)   --limit-s 300 (until all answer)

Only the interpreter is another than the plan's: the one this program runs with. Needs vLLM with CUDA, PyYAML, numpy and
tokenizers; `ray` needs Ray, `prefill-decode` NIXL. It changes no setting of the GPUs. Prints a table; writes JSON with
all versions below $OUT where that is set. Exit status 0: every engine answered.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import layouts_plan

# This machine's own: no NVLink multicast, no compiler for FlashInfer's sampler.
MACHINE = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "VLLM_USE_FLASHINFER_SAMPLER": "0"}
PACKAGES = ("vllm", "torch", "ray", "nixl", "flashinfer-python", "transformers")
# Three engines share each GPU: a third of it, and the same KV cache for all.
THIRD = {"gpu_memory_utilization": 0.3, "kv_cache_memory_bytes": "4096M"}
INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, AT_ONCE = 256, 128, 256, 64


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def ask(port: int, body: dict[str, Any], timeout_s: float = 60) -> dict[str, Any]:
    """One completion. Raises OSError (an HTTP error too) where there is none."""
    data = json.dumps({"model": "dummy", "temperature": 0, **body}).encode()
    request = urllib.request.Request(
        f"http://{layouts_plan.ADDRESS}:{port}/v1/completions", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - as above
        found: dict[str, Any] = json.loads(answer.read())
        return found


def tokens(port: int) -> int:
    """Tokens of a short completion; 0 while there is none."""
    try:
        return int(ask(port, {"prompt": "a b c", "max_tokens": 8, "ignore_eos": True})["usage"]["completion_tokens"])
    except (OSError, ValueError, KeyError):
        return 0


def handed_over(instances: list[dict[str, Any]]) -> dict[str, Any]:
    """One request led from the prefill engine to the decode engine, as a router does it."""
    prefill, decode = (next(item for item in instances if item["pool"] == pool) for pool in ("prefill", "decode"))
    wanted = {"do_remote_decode": True, "do_remote_prefill": False}
    wanted.update(dict.fromkeys(("remote_engine_id", "remote_block_ids", "remote_host", "remote_port")))
    prompt = "a b c d e f g h " * 40
    first = ask(prefill["port"], {"prompt": prompt, "max_tokens": 1, "kv_transfer_params": wanted})
    given = first["kv_transfer_params"]
    last = ask(decode["port"], {"prompt": prompt, "max_tokens": 16, "ignore_eos": True, "kv_transfer_params": given})
    alone = ask(decode["port"], {"prompt": prompt, "max_tokens": 16, "ignore_eos": True})
    return {
        "remote_blocks": len(given["remote_block_ids"] or []),
        "completion_tokens": last["usage"]["completion_tokens"],
        "same_text_as_alone": last["choices"][0]["text"] == alone["choices"][0]["text"],
    }


@contextlib.contextmanager
def processes(commands: list[tuple[str, list[str], dict[str, str]]], logs: Path) -> Iterator[list[Any]]:
    """(name, argv, environment) started together; all of their groups end with the block."""
    started = []
    try:
        for name, argv, env in commands:
            log = (logs / f"{name}.log").open("wb")
            started.append(
                subprocess.Popen(argv, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            )
        yield started
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def command(instance: dict[str, Any], more: dict[str, str]) -> tuple[str, list[str], dict[str, str]]:
    """An engine of the plan as this machine starts it."""
    own = {key: value for key, value in os.environ.items() if key in ("PATH", "PYTHONPATH", "HOME", "LD_LIBRARY_PATH")}
    return instance["name"], [sys.executable, *instance["argv"][1:]], {**own, **MACHINE, **instance["env"], **more}


def wait(ports: list[int], started: list[Any], limit_s: float) -> dict[int, float]:
    """Seconds until each port's first whole completion. RuntimeError where one ends or the limit does."""
    began_s, ready = time.monotonic(), {}
    while len(ready) < len(ports):
        for port in ports:
            if port not in ready and tokens(port):
                ready[port] = round(time.monotonic() - began_s, 1)
                say(f"port {port} answers after {ready[port]} s")
        ended = [process.args[0] for process in started if process.poll() is not None]
        if ended or time.monotonic() - began_s > limit_s:
            raise RuntimeError("an engine ended" if ended else f"not all answer after {limit_s:g} s: {ready}")
        time.sleep(1)
    return ready


@contextlib.contextmanager
def ray_head(plan: dict[str, Any], gpus: int, folder: Path) -> Iterator[dict[str, str]]:
    """A Ray node with all GPUs and a token; the variables its engines need."""
    if not plan["ray"]:
        yield {}
        return
    [cluster] = plan["ray"]
    token = folder / "ray-token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    more = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    argv = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--head", "--include-dashboard", "false"]
    argv += ["--port", str(cluster["ports"]["port"]), "--node-ip-address", layouts_plan.ADDRESS]
    argv += ["--num-gpus", str(gpus), "--temp-dir", str(folder / "ray")]
    env = {**os.environ, **MACHINE, **cluster["env"], **more}
    with processes([("ray", argv, env)], folder):
        time.sleep(15)
        yield more


def layout(name: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start a layout, wait for its answers."""
    plan = layouts_plan.plan_of(name, given.gpus, given.models, {})
    found: dict[str, Any] = {"instances": [{key: one[key] for key in ("argv", "env")} for one in plan["instances"]]}
    with ray_head(plan, given.gpus, folder) as more:
        commands = [command(item, more) for item in plan["instances"]]
        ports = [item["port"] for item in plan["instances"] if item["serves"]]
        with processes(commands, folder) as started:
            found["ready_s"] = wait(ports, started, given.limit_s)
            if name == "prefill-decode":
                found["handed_over"] = handed_over(plan["instances"])
                say(str(found["handed_over"]))
    return found


def variants(given: argparse.Namespace) -> dict[str, tuple[str, list[str], dict[str, str]]]:
    """The engine three times, on a port each."""
    plan = layouts_plan.plan_of("tensor", given.gpus, given.models, THIRD)
    [ours] = plan["instances"]
    name, argv, env = command(ours, {})
    plain = {key: env[key] for key in env if key in os.environ or key in MACHINE or key == "CUDA_VISIBLE_DEVICES"}
    words = [*argv[: argv.index("serve") + 2], "--served-model-name", "dummy", "--host", layouts_plan.ADDRESS]
    words += ["--tensor-parallel-size", str(given.gpus), "--load-format", "dummy"]
    words += ["--gpu-memory-utilization", "0.3", "--kv-cache-memory-bytes", "4096M"]
    client = ["--port", str(ours["port"] + 2), "--enforce-eager", "--disable-custom-all-reduce"]
    if given.without:
        less = {f"without {one}": (one.strip("-"), without(argv, one), env) for one in given.without}
        for number, (_, one, _) in enumerate(less.values(), 1):
            one[one.index("--port") + 1] = str(ours["port"] + number)
        return {"plan": (name, argv, env), **less}
    return {
        "plan": (name, argv, env),
        "defaults": ("defaults", [*words, "--port", str(ours["port"] + 1)], plain),
        "client": ("client", [*words, *client], {**plain, "NCCL_PROTO": "Simple"}),
    }


def without(argv: list[str], option: str) -> list[str]:
    """``argv`` without an option and its value."""
    at = argv.index(option)
    valued = at + 1 < len(argv) and not argv[at + 1].startswith("--")
    return argv[:at] + argv[at + 1 + valued :]


def measure(port: int, model: Path) -> float:
    """Output tokens per second by vLLM's own benchmark."""
    serve = importlib.import_module("vllm.benchmarks.serve")
    parser = argparse.ArgumentParser()
    serve.add_cli_args(parser)
    words = ["--backend", "vllm", "--host", layouts_plan.ADDRESS, "--port", str(port), "--model", "dummy"]
    words += ["--tokenizer", str(model), "--dataset-name", "random", "--random-input-len", str(INPUT_TOKENS)]
    words += ["--random-output-len", str(OUTPUT_TOKENS), "--num-prompts", str(REQUESTS), "--ignore-eos"]
    words += ["--max-concurrency", str(AT_ONCE), "--disable-tqdm", "--ready-check-timeout-sec", "0"]
    with contextlib.redirect_stdout(None):
        seen = serve.main(parser.parse_args(words))
    if seen["completed"] != REQUESTS:
        raise RuntimeError(f"{seen['completed']} of {REQUESTS} requests ended well")
    return float(seen["output_throughput"])


def throughput(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Interleaved rounds against the three engines: {variant: tokens per second of each round}."""
    engines = variants(given)
    ports = {name: int(argv[argv.index("--port") + 1]) for name, (_, argv, _) in engines.items()}
    rates: dict[str, list[float]] = {name: [] for name in engines}
    with processes(list(engines.values()), folder) as started:
        ready = wait(list(ports.values()), started, given.limit_s)
        order = list(ports)
        for number in range(given.rounds + 1):
            # Whoever is first in a round may pay for what the one before left running.
            order.append(order.pop(0))
            for name in order:
                rate = measure(ports[name], given.models / "llama-8b")
                # The first round warms up.
                if number:
                    rates[name].append(round(rate, 1))
            say(f"round {number}: " + ", ".join(f"{name} {values[-1:]}" for name, values in rates.items()))
    base = statistics.median(rates["plan" if given.without else "defaults"])
    for name, values in rates.items():
        middle = statistics.median(values)
        say(f"{name:<10} {middle:>9.1f} tokens/s ({min(values):.1f} to {max(values):.1f})  {middle / base:.3f} x")
    return {"ready_s": ready, "rates": rates, "commands": {name: one[1] for name, one in engines.items()}}


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    found["gpus"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*layouts_plan.LAYOUTS, "throughput"))
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", action="append", default=[], metavar="OPTION")
    parser.add_argument("--limit-s", type=float, default=300.0)
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "layout-models")
    given = parser.parse_args()
    folder = Path(os.environ.get("OUT") or tempfile.mkdtemp(prefix="layouts-"))
    layouts_plan.write_models(given.models)
    result: dict[str, Any] = {"what": given.what, "gpus": given.gpus, "versions": versions()}
    say(json.dumps(result))
    try:
        result.update(throughput(given, folder) if given.what == "throughput" else layout(given.what, given, folder))
    except (RuntimeError, OSError) as error:
        result["error"] = str(error)
        for log in sorted(folder.glob("*.log")):
            say(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}")
    (folder / f"{given.what}.json").write_text(json.dumps(result, indent=1) + "\n")
    say(result.get("error", f"{given.what}: well"))
    return 1 if "error" in result else 0


if __name__ == "__main__":
    sys.exit(main())
