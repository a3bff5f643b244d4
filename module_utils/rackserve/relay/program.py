"""The relay as the unit of a host runs it, without privileges:

    python3 -I -c '...' --config relay.json --token FILE --state DIR

Writes state.json while it works and result.json when this host has everything, then serves the hosts behind it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..progress.report import Report
from ..progress.worker import RESULT, STATE, write_json
from .fetch import RelayError
from .node import Node, clear_stray, held, read_settings
from .shelf import ShelfError

_SHORTEST_TOKEN = 32


def read_token(path: Path) -> bytes:
    """The one-time token. Raises RelayError for one that anybody could guess."""
    token = path.read_bytes().strip()
    if len(token) < _SHORTEST_TOKEN:
        raise RelayError(f"the token has {len(token)} characters, {_SHORTEST_TOKEN} at least: run the playbook again")
    return token


def work(config: Path, token: Path, state: Path) -> int:
    """Do one host's part; the exit status. What went wrong stands in result.json too."""
    report = Report(state / STATE)
    try:
        settings = read_settings(json.loads(config.read_text("utf-8")))
        with held(settings.staging) if settings.staging else contextlib.nullcontext():
            if settings.staging:
                clear_stray(settings.staging, set(settings.wanted))
            node = Node(settings, read_token(token), report)
            report.phase("waiting for the host before")
            with report.kept():
                result = node.bring()
        write_json(state / RESULT, {"result": result, "step_s": report.step_s})
    except (RelayError, ShelfError, OSError, ValueError, KeyError, TypeError) as problem:
        readable = isinstance(problem, (RelayError, ShelfError, OSError))
        said = str(problem) if readable else f"the relay's settings are not readable: {problem!r}"
        write_json(state / RESULT, {"error": said})
        sys.stderr.write(f"{said}\n")
        return 1
    node.linger()
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Read the options and work."""
    parser = argparse.ArgumentParser(prog="relay", description="One host of a chain that copies weights.")
    parser.add_argument("--config", type=Path, required=True, help="settings of this host, JSON")
    parser.add_argument("--token", type=Path, required=True, help="file of the one-time token")
    parser.add_argument("--state", type=Path, required=True, help="folder of state.json and result.json")
    given = parser.parse_args(words)
    return work(given.config, given.token, given.state)


if __name__ == "__main__":
    sys.exit(main())
