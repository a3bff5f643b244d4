"""All evidence of this host in one call. It only reads, and is bounded in time and size."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from . import readings, serving
from .collect import Collector, Run, evidence
from .redact import Redactor, known_here


def look_at_host(root: Path, run: Run, plan: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """{version, sources, readings, plan, redacted}; asked: {since_s, lines, budget_s, controller_epoch_s}.

    What cannot be read is named in readings.missed.
    """
    now_s = time.time()
    since_s = now_s - float(asked["since_s"])
    collector = Collector(root, run, Redactor(known_here(root)), since_s, float(asked["budget_s"]))
    missed: list[str] = []
    found: dict[str, Any] = {"missed": missed, "taken_at": round(now_s)}
    if asked.get("controller_epoch_s"):
        # The controller's moment is of before the module travelled: a clock ahead by that time is right.
        offset = now_s - float(asked["controller_epoch_s"])
        found["clock"] = {"offset_s": round(offset if offset < 0 else max(0.0, offset - _TRAVEL_S), 1)}

    def read(name: str, what: Callable[[], Any]) -> None:
        try:
            found[name] = what()
        except Exception as problem:
            missed.append(f"{name}: {problem or type(problem).__name__}")

    read("units", lambda: readings.unit_states(root, run, plan.get("units") or [], time.monotonic()))
    units = found.get("units") or {}
    read("engines", lambda: serving.engines(root, plan, units))
    read("behind_plan", lambda: readings.behind_plan(root, plan.get("argv") or {}))
    read("gateway", lambda: serving.gateway(root, plan, now_s))
    read("processes", lambda: readings.with_stuck(root, list(units)))
    paths = [*readings.ALWAYS, *(plan.get("written") or []), *(str(one["path"]) for one in plan.get("models") or [])]
    read("volumes", lambda: readings.volumes(root, paths))
    read("weights", lambda: readings.weights(root, plan.get("models") or []))
    user = next((str(one["user"]) for name, one in units.items() if name.startswith("vllm-") and one.get("user")), "")
    read("preflight", lambda: readings.preflight(root, run, plan, user))
    read("firewall", lambda: readings.firewall(root, run))
    if plan.get("health"):
        read("health", lambda: readings.health(root, plan["health"], since_s))
    return evidence(collector, found, plan, int(asked["lines"]))


_TRAVEL_S = 30.0
