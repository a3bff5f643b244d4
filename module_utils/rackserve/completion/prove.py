"""One whole check of engines, from the options of `completion_check` to its result."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from ..progress.report import FINISHED
from .check import STOPPED, check, failure_line, read_targets, too_late, wait_until, write_report
from .client import KINDS, Endpoint
from .golden import GoldenError
from .start import note_starts, refuses, start_progress

# Takes words, returns what the command prints, whatever its exit status.
Output = Callable[[Sequence[str]], str]

ARGUMENTS: dict[str, dict[str, Any]] = {
    "base_url": {"type": "str", "default": ""},
    "ca_file": {"type": "path"},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "headers": {"type": "dict", "default": {}},
    "model": {"type": "str", "default": ""},
    "golden": {"type": "dict", "default": {}},
    "kinds": {"type": "list", "elements": "str", "choices": list(KINDS), "default": ["plain"]},
    "servers": {"type": "list", "elements": "raw", "default": []},
    "timeout_s": {"type": "float", "default": 30},
    "attempts": {"type": "int", "default": 1},
    "parallel": {"type": "int", "default": 16},
    "wait_s": {"type": "float", "default": 0},
    "progress_s": {"type": "float", "default": 0},
    "poll_s": {"type": "float", "default": 1},
    "units": {"type": "list", "elements": "str", "default": []},
    "crashes": {"type": "int", "default": 0},
    "report": {"type": "path"},
    "report_head": {"type": "dict", "default": {}},
    "report_only": {"type": "bool", "default": False},
}


def command_output(command: Sequence[str]) -> str:
    """What a command prints, whatever its exit status; the `output` of hosts that have one to ask."""
    return subprocess.run(list(command), capture_output=True, text=True, errors="replace", check=False).stdout


def prove(given: Mapping[str, Any], output: Output) -> dict[str, Any]:
    """Ask what the options say, write the report, and return the module's result; `failed` and `msg` where it fails.

    given: every option of ARGUMENTS. Raises OSError when the report cannot be written.
    """
    url = given["base_url"]
    endpoint = Endpoint(url, given["ca_file"] or "", given["api_key"], given["headers"], given["timeout_s"])
    try:
        targets = read_targets(given["servers"], given["model"], given["golden"], given["kinds"])
    except GoldenError as error:
        return {"failed": True, "msg": str(error)}
    limit_s = min(given["wait_s"], given["progress_s"] or given["wait_s"])
    rows, waited_s, gave_up = wait_until(
        lambda: check(endpoint, targets, given["attempts"], given["parallel"]),
        limit_s,
        given["poll_s"],
        lambda rows: _hopeless(rows, given["units"], output, given["crashes"]),
    )
    line = failure_line(rows, url)
    result = {"changed": False, "rows": rows, "waited_s": round(waited_s, 3), "failed_line": line}
    if line and given["progress_s"] and gave_up == too_late(limit_s):
        good = len(targets) - len({row["server"] for row in rows if not row["ok"]})
        told = start_progress(given["units"], good, len(targets), output, time.monotonic())
        return {"msg": f"{line} ({too_late(given['wait_s'])})", "progress": told, **result}
    if not line and given["progress_s"]:
        note_starts(given["units"], output, time.monotonic())
    result["progress"] = FINISHED
    if given["report"]:
        write_report(Path(given["report"]), {**given["report_head"], "passed": not line, "failed": line, "rows": rows})
    if line and not given["report_only"]:
        return {"failed": True, "msg": f"{line} ({gave_up})" if given["wait_s"] else line, **result}
    return result


def _hopeless(rows: Sequence[Mapping[str, Any]], units: Sequence[str], output: Output, crashes: int) -> str:
    """Why waiting for engines of this host does not help; "" where it may."""
    return _stopped(units, output, crashes) or (refuses(rows, time.monotonic()) if units else "")


def _stopped(units: Sequence[str], output: Output, crashes: int = 0) -> str:
    """The first unit that will not come by waiting, and why; "" when there is none."""
    for unit in units:
        state = output(["systemctl", "is-active", unit]).strip()
        if state in STOPPED:
            return f"{unit}: {state}"
        if crashes:
            said = output(["systemctl", "show", "--property=NRestarts", "--value", unit]).strip()
            if said.isdigit() and int(said) >= crashes:
                return f"{unit}: ended by itself {said} times since it was started"
    return ""
