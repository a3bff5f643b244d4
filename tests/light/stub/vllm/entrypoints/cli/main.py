"""Stub of `vllm serve`: takes the same command line, ends with 2 on one it does not understand, serves until TERM."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from vllm import __version__
from vllm.behaviour import BEHAVIOUR
from vllm.entrypoints.openai.api_server import Settings, say, serve

KNOWN = {"served_model_name": str, "host": str, "port": int, "shutdown_timeout": int, "max_model_len": int}
DEFAULTS = {"served_model_name": "", "host": "127.0.0.1", "port": 8000, "shutdown_timeout": 0, "max_model_len": 2048}


def read_command(words: Sequence[str]) -> argparse.Namespace:
    """The options a stub can honour; every other long option is taken as vLLM's own and has no effect."""
    parser = argparse.ArgumentParser(prog="stub-vllm")
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    for name, kind in KNOWN.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=DEFAULTS[name])
    found, rest = parser.parse_known_args(words)
    if rest and not rest[0].startswith("--"):
        parser.error(f"unexpected argument {rest[0]!r}")
    return found


def main(words: Sequence[str]) -> int:
    """Serve until TERM; 0 after a clean end."""
    options = read_command(words)
    if BEHAVIOUR == "broken" and "RACKSERVE_CONFIG_SHA256" in os.environ:
        say("stub engine: cannot start, on purpose")
        return 1
    say(f"stub engine (vllm {__version__}): it computes nothing and answers from a hash")
    return serve(
        Settings(
            model=options.served_model_name or options.model,
            host=options.host,
            port=options.port,
            shutdown_timeout_s=options.shutdown_timeout,
            max_model_len=options.max_model_len,
            api_key=os.environ.get("VLLM_API_KEY", ""),
            start_s=float(os.environ.get("STUB_START_S", "0")),
            token_s=float(os.environ.get("STUB_TOKEN_S", "0.002")) * (50 if BEHAVIOUR == "slow" else 1),
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
