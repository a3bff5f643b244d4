"""The program on a host: `gpu-settings apply|check|restore`, also run at boot.

Exit status 0: as wanted, or (apply, restore) nothing left to do but on GPUs that serve; 1: not as wanted; 2: an error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Callable

from .nvml import Nvml, NvmlError
from .reading import Library
from .record import RecordError
from .session import Outcome, SettingError, Wanted, read_wanted, settle

CONFIG = Path("/etc/rackserve/gpu-settings.json")
_DOWN = ("inactive", "failed", "")
Run = Callable[[Sequence[str]], "tuple[int, str, str]"]


def run_command(words: Sequence[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command in the C locale."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return 127, "", str(problem)
    return done.returncode, done.stdout, done.stderr


def running_units(units: list[str], run: Run = run_command) -> list[str]:
    """Those of ``units`` that run, come up or go down. Raises SettingError where systemd does not answer."""
    if not units:
        return []
    code, out, err = run(["systemctl", "show", "-p", "ActiveState", *units])
    states = [line.partition("=")[2] for line in out.splitlines() if line.startswith("ActiveState=")]
    if code != 0 or len(states) != len(units):
        said = " ".join((err or out).split())
        raise SettingError(f"systemctl show {' '.join(units)} failed ({code}): {said}")
    return [unit for unit, state in zip(units, states) if state not in _DOWN]


def lines(wanted: Wanted, outcome: Outcome, check: bool) -> list[str]:
    """An outcome for people."""
    found = [f"refused: {line}" for line in outcome.refusals]
    verb = "would set" if check else "set"
    found += [f"{verb}: {wanted.noun} {one.gpu.index}: {one}" for one in outcome.changed]
    found += [f"waits for {', '.join(units)}: {wanted.noun} {one.gpu.index}: {one}" for one, units in outcome.waiting]
    return [*found, *outcome.notes] or [f"every {wanted.noun} is as wanted"]


def main(
    words: Sequence[str] | None = None,
    make_nvml: Callable[[], Library] = Nvml,
    root: Path = Path("/"),
    running: Callable[[list[str]], Collection[str]] = running_units,
) -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="gpu-settings", description="Clocks, power limits and modes of GPUs.")
    parser.add_argument("command", choices=("apply", "check", "restore"))
    parser.add_argument("--config", type=Path, default=CONFIG, help="what is wanted, JSON")
    given = parser.parse_args(words)
    try:
        wanted = read_wanted(json.loads(given.config.read_text("utf-8")))
        if given.command == "restore":
            wanted = Wanted({}, wanted.units, wanted.noun)
        outcome = settle(wanted, make_nvml(), root, running, check=given.command == "check")
    except (NvmlError, SettingError, RecordError, OSError, ValueError, KeyError, TypeError) as problem:
        sys.stderr.write(f"gpu-settings: {problem}\n")
        return 2
    sys.stdout.writelines(f"{line}\n" for line in lines(wanted, outcome, given.command == "check"))
    if given.command == "check":
        return 1 if outcome.refusals or outcome.waiting or outcome.changed else 0
    return 1 if outcome.refusals else 0
