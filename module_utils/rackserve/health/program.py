"""The program: by hand on a host, and as a timer. It reads; it writes its own two files only where it is told to.

Exit status: 0 nothing or info, 1 a warning, 2 something critical, 3 something could not be read; 4 a wrong call.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import counters, report, routine
from .catalogue import SelectionError, chosen
from .check import DEEP, FAST
from .host_tools import tools_for
from .judge import check_host
from .look import Look, Tools

CONFIG = Path("/etc/rackserve/host-health.json")
STATE = Path("/var/lib/rackserve-health/state.json")
REPORTS = Path("/var/lib/rackserve-health/reports")
WRONG_CALL = 4


def look_at(
    root: Path, expect: Mapping[str, Any], tools: Tools, state: Path | None, selection: Mapping[str, Any]
) -> dict[str, Any]:
    """Check a host. Returns check_host's result and `kept`, what the next run is given. Raises SelectionError."""
    look = Look(root, expect, tools, counters.read(state))
    result = check_host(look, chosen(selection["level"], selection["only"], selection["skip"]))
    return {**result, "kept": look.counters.kept()}


def report_on(look: Look, given: argparse.Namespace, skip: Sequence[str]) -> dict[str, Any]:
    """The page of a routine, written; the result of its checks. Raises OSError, SelectionError."""
    result = check_host(look, chosen(FAST, given.only, skip))
    kind, now_s = routine.ROUTINES[given.routine], time.time()
    looks = routine.parts(look, kind, routine.last_kept(given.reports, given.routine))
    text = routine.page(given.routine, result, looks, os.uname().nodename, now_s)
    routine.write_pages(given.reports, given.routine, text, looks, now_s)
    return result


def main(words: Sequence[str] | None = None, tools: Tools | None = None) -> int:
    """Check, tell, and keep what the next run compares with."""
    given = _arguments().parse_args(words)
    try:
        expect = json.loads(given.config.read_text("utf-8")) if given.config.exists() else {}
    except (OSError, ValueError) as problem:
        sys.stderr.write(f"host-health: {given.config}: {problem}\n")
        return WRONG_CALL
    selection = {"level": DEEP if given.deep else FAST, "only": given.only, "skip": given.skip + expect.get("skip", [])}
    ways = tools or tools_for(given.root)
    try:
        if given.routine:
            report_on(Look(given.root, expect, ways, counters.read(given.state)), given, selection["skip"])
            return 0
        result = look_at(given.root, expect, ways, given.state, selection)
    except SelectionError as problem:
        sys.stderr.write(f"host-health: {problem}\n")
        return WRONG_CALL
    except OSError as problem:
        sys.stderr.write(f"host-health: cannot write {problem.filename}: {problem.strerror}\n")
        return WRONG_CALL
    kept = result.pop("kept")
    if given.json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    else:
        name = "here" if given.root == Path("/") else str(given.root)
        told = report.costs(result) if given.costs else report.lines({name: result})
        sys.stdout.writelines(f"{line}\n" for line in told)
    try:
        if given.keep:
            counters.write(given.keep, json.dumps(kept))
        if given.textfile:
            counters.write(given.textfile, report.textfile(result, time.time()))
    except OSError as problem:
        sys.stderr.write(f"host-health: cannot write {problem.filename}: {problem.strerror}\n")
        return WRONG_CALL
    return 0 if given.timer else int(result["exit_code"])


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="host-health", description="Check the health of this host; reads only.")
    parser.add_argument("--config", type=Path, default=CONFIG, help="what the plan says of this host, JSON")
    parser.add_argument("--root", type=Path, default=Path("/"), help="another tree to judge, with sys/ and proc/")
    parser.add_argument("--deep", action="store_true", help="also measure: loads the host, only on a drained one")
    parser.add_argument("--only", action="append", default=[], metavar="CHECK", help="this check; may be repeated")
    parser.add_argument("--skip", action="append", default=[], metavar="CHECK", help="not this check; may be repeated")
    parser.add_argument("--state", type=Path, default=STATE, help="counters of an earlier run, to compare with")
    parser.add_argument("--keep", type=Path, help="write counters there for the next run")
    parser.add_argument("--textfile", type=Path, help="write metrics for node_exporter there")
    parser.add_argument(
        "--routine", choices=sorted(routine.ROUTINES), help="write its page; exit with 0 whatever is found"
    )
    parser.add_argument("--reports", type=Path, default=REPORTS, help="folder of the pages")
    parser.add_argument("--timer", action="store_true", help="exit with 0 whatever was found: metrics carry it")
    parser.add_argument("--json", action="store_true", help="the whole result as JSON")
    parser.add_argument("--costs", action="store_true", help="what each check cost")
    return parser
