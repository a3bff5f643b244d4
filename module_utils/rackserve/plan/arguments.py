"""The command line and environment of an engine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..nccl.environment import Variable, as_environment, engine_variables
from .findings import Findings, did_you_mean, show
from .known import argument_advice, environment_advice

_LENGTH = re.compile(r"(\d+)([kKmM]?)")
# vLLM's own reading of suffixes: 32k is decimal, 32K is binary.
_FACTOR = {"": 1, "k": 1000, "K": 1024, "m": 10**6, "M": 2**20}
_MAX_SAFE_UTILIZATION = 0.95


def drop_nulls(args: dict[str, Any]) -> dict[str, Any]:
    """The arguments that have a value."""
    return {name: value for name, value in args.items() if value is not None}


def check_arguments(args: dict[str, Any], device: str, where: str, findings: Findings) -> dict[str, Any]:
    """Report dead, harmful and managed arguments under ``where``; return the ones that may be passed."""
    good: dict[str, Any] = {}
    for name, value in args.items():
        advice = argument_advice(name, value, device)
        if advice:
            findings.add(advice[0], advice[1], f"{where}.{name}", advice[2], advice[3])
        if _looks_like_option(value):
            why = f"{where}.{name}: a value that starts with - would be read as another option."
            findings.error("bad-argument-value", f"{where}.{name}", why, "Write options as keys of engine_args.")
        elif not advice or (advice[0] != "error" and name != "trust_remote_code"):
            good[name] = value
    _check_ranges(good, where, findings)
    return good


def check_names(args: dict[str, Any], options: Mapping[str, list[str] | None], where: str, findings: Findings) -> None:
    """Report arguments the engine does not have, and values that are none of an option's choices.

    ``options`` are all it knows, with underscores, each with its choices (None: any value).
    """
    for name, value in args.items():
        wanted = f"no_{name}" if value is False else name
        if wanted not in options:
            why = f"{where}.{name}: this vLLM has no --{wanted.replace('_', '-')}."
            fix = did_you_mean(wanted, list(options), "Leave it out.")
            findings.error("unknown-argument", f"{where}.{name}", why, fix)
            continue
        choices = options[wanted]
        for one in value if isinstance(value, list) else [value]:
            if choices and not isinstance(one, bool) and str(one) not in choices:
                why = f"{where}.{name} is {show(one)}, which this vLLM does not know."
                fix = did_you_mean(str(one), choices, f"One of: {', '.join(choices)}.")
                findings.error("unknown-choice", f"{where}.{name}", why, fix)


def _looks_like_option(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(isinstance(item, str) and item.startswith("-") for item in values)


def _check_ranges(args: dict[str, Any], where: str, findings: Findings) -> None:
    share = args.get("gpu_memory_utilization")
    if share is not None:
        spot = f"{where}.gpu_memory_utilization"
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
            findings.error("out-of-range", spot, f"{spot} is {show(share)}, not between 0 and 1.", "Try 0.92.")
            del args["gpu_memory_utilization"]
        elif share > _MAX_SAFE_UTILIZATION:
            why = f"{spot} is {share:g}: too little is left for allocations outside vLLM."
            findings.warning("risky-argument", spot, why, f"Stay at {_MAX_SAFE_UTILIZATION:g} or below.")
    for name, high in (("max_num_seqs", 10**5), ("shutdown_timeout", 3600), ("max_num_batched_tokens", 10**7)):
        value = args.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high):
            spot = f"{where}.{name}"
            why = f"{spot} is {show(value)}; it must be a whole number from 1 to {high}."
            findings.error("out-of-range", spot, why, "Correct it.")
            del args[name]
    for name in ("max_model_len", "kv_cache_memory_bytes"):
        if name in args and parse_size(args[name]) is None:
            spot = f"{where}.{name}"
            why = f"{spot} is {show(args[name])}; it must be a number, or digits with k, K, m or M."
            findings.error("out-of-range", spot, why, "Write it out: 32768.")
            del args[name]


def parse_size(value: object) -> int | None:
    """A positive size as vLLM reads it: 32768, "32768", "32k" = 32000, "32K" = 32768; else None."""
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    match = _LENGTH.fullmatch(text)
    if not match or len(text) > len(str(10**15)):
        return None
    return int(match[1]) * _FACTOR[match[2]] or None


def check_environment(
    env: dict[str, str], fabric: str, kv_connector: bool, where: str, findings: Findings
) -> dict[str, str]:
    """Report dead, harmful and managed variables under ``where``; return the ones that may be set."""
    good: dict[str, str] = {}
    for name, value in env.items():
        advice = environment_advice(name, value, fabric, kv_connector)
        if advice:
            findings.add(advice[0], advice[1], f"{where}.{name}", advice[2], advice[3])
        if not advice or advice[0] != "error":
            good[name] = value
    return good


def option_words(args: dict[str, Any]) -> list[str]:
    """Arguments as words of a command line, sorted by name: true is a flag, false its ``--no-`` form."""
    words: list[str] = []
    for name in sorted(args):
        value, option = args[name], "--" + name.replace("_", "-")
        if value is True:
            words.append(option)
        elif value is False:
            words.append("--no-" + option[2:])
        elif isinstance(value, list):
            words += [option, *(str(item) for item in value)]
        elif isinstance(value, dict):
            words += [option, json.dumps(value, sort_keys=True, separators=(",", ":"))]
        else:
            words += [option, str(value)]
    return words


def engine_argv(
    release: dict[str, Any], instance: dict[str, Any], names: list[str], parallel: list[str], args: dict[str, Any]
) -> list[str]:
    """The whole command of an engine, one word an item; no word is quoted or escaped.

    ``names``: what clients may write as model, the engine's own first; ``parallel``: how the engine is cut.
    """
    command = list(release["engine_command"])
    if not command[0].startswith("/"):
        command[0] = f"{release['path']}/{command[0]}"
    served = ["--host", instance["address"], "--port", str(instance["port"])] if instance["serves"] else []
    return [
        *command,
        "serve",
        instance["model_path"],
        *("--served-model-name", *names),
        *served,
        *parallel,
        *option_words(args),
        *("--disable-access-log-for-endpoints", "/health,/metrics"),
        "--enable-server-load-tracking",
        "--fail-on-environ-validation",
    ]


class Place(NamedTuple):
    """Where an engine's ranks are: on how many hosts, and what those share.

    ``topology_use``: what the hardware profile says of NCCL's topology, observe, measure or inject.
    """

    hosts: int
    interface: str
    fabric: str = "none"
    topology_use: str = "observe"


def _meets_outside(args: dict[str, Any], place: Place) -> bool:
    return place.hosts > 1 or bool(args.get("kv_transfer_config"))


def communication(args: dict[str, Any], device: str, place: Place) -> list[Variable]:
    """What an engine tells NCCL and its like, with reasons; nothing on CPUs."""
    if device != "cuda":
        return []
    interface = place.interface if _meets_outside(args, place) else "lo"
    parts = ["deepep"] if str(args.get("all2all_backend")).startswith("deepep") else []
    parts += ["nixl"] if "Nixl" in str(args.get("kv_transfer_config")) else []
    return engine_variables(
        hosts=place.hosts, interface=interface, fabric=place.fabric, topology_use=place.topology_use, parts=parts
    )


def engine_environment(
    instance: dict[str, Any],
    args: dict[str, Any],
    device: str,
    place: Place,
    *,
    omp_threads: int,
    ready_timeout_s: int,
) -> dict[str, str]:
    """The environment of an engine: what every engine needs, then the device's.

    What ranks of one host open among each other (unauthenticated, on ports nobody plans) stays on its loopback. Ranks
    of several hosts meet at the cluster's addresses, and so does a KV connector, which other engines talk to.
    """
    outside = _meets_outside(args, place)
    env = {
        "VLLM_HOST_IP": instance["address"] if outside else "127.0.0.1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(ready_timeout_s),
        "HF_HUB_OFFLINE": "1",
        "GLOO_SOCKET_IFNAME": place.interface if outside else "lo",
    }
    env.update(as_environment(communication(args, device, place)))
    if device == "cuda":
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        env["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in instance["gpu_ids"])
    else:
        env["OMP_NUM_THREADS"] = str(omp_threads)
        env["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        # A request for logprobs compiles a kernel, which kills the engine on a host without a C++ compiler.
        env["TORCHDYNAMO_DISABLE"] = "1"
    return env
