"""What a restart costs with and without what the engine compiled before: real vLLM with dummy weights.

python3 tests/device/restart_on_device.py [--gpus 2] [--rounds 2] [--models FOLDER (written)] [--limit-s 300]

The engine of `layouts_on_device.py tensor`, with the cache variables that its unit has. Each round: a start with an
empty cache folder, then one with what that start left. A start before the first round brings files into memory. Needs
what layouts_on_device.py needs; changes no setting of the GPUs. Prints seconds to the first whole completion and what
the log says of them; JSON below $OUT where that is set. Exit status 0: every start answered.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import layouts_on_device as device
import layouts_plan

UNIT = layouts_plan.REPO / "roles/vllm/templates/vllm.service.j2"
TOLD = re.compile(r"took [\d.]+ ?s|\d+\.\d+ (?:s|secs|seconds)\b")


def cache_variables(folder: Path) -> dict[str, str]:
    """The variables by which the unit keeps what an engine compiles, below ``folder``."""
    lines = re.findall(r"^Environment=(\w+)=\{\{ cache \}\}(\S*)$", UNIT.read_text("utf-8"), re.MULTILINE)
    return {name: f"{folder}{below}" for name, below in lines}


def start(instance: dict[str, Any], folder: Path, cache: Path, name: str, limit_s: float) -> float:
    """Seconds from a start to the first whole completion; ends the engine. RuntimeError where there is none."""
    cache.mkdir(parents=True, exist_ok=True)
    _, argv, env = device.command(instance, cache_variables(cache))
    with device.processes([(name, argv, env)], folder) as started:
        seconds = device.wait([instance["port"]], started, limit_s)[instance["port"]]
    for line in (folder / f"{name}.log").read_text("utf-8", "replace").splitlines():
        if TOLD.search(line):
            device.say(f"  {name}: {line[-160:]}")
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit-s", type=float, default=300.0)
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "layout-models")
    given = parser.parse_args()
    folder = Path(os.environ.get("OUT") or tempfile.mkdtemp(prefix="restart-"))
    layouts_plan.write_models(given.models)
    [instance] = layouts_plan.plan_of("tensor", given.gpus, given.models, {})["instances"]
    cache = Path(tempfile.mkdtemp(prefix="restart-cache-"))
    ready: dict[str, list[float]] = {"empty": [], "kept": []}
    start(instance, folder, cache / "first", "first", given.limit_s)
    for number in range(given.rounds):
        for state, seconds in ready.items():
            seconds.append(start(instance, folder, cache / str(number), f"{state}-{number}", given.limit_s))
    kept_bytes = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    shutil.rmtree(cache)
    for state, values in ready.items():
        device.say(f"cache {state}: {statistics.median(values):.1f} s to the first completion {values}")
    result = {"versions": device.versions(), "ready_s": ready, "cache_mib_of_all": kept_bytes // 2**20}
    (folder / "restart.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
