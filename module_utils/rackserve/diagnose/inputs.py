"""What the plan says of a host that a diagnosis needs: its part of the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..preflight.inputs import GATEWAY_UNIT, host_inputs

WATCH_UNIT = "rackserve-engine-watch.service"
_KEPT = ("cluster", "plan_hash", "host", "address", "hosts", "roles", "network", "release", "driver", "nccl", "fabric",
         "gateway", "groups", "ray", "firewall")  # fmt: skip


def host_question(
    piece: Mapping[str, Any], health: Mapping[str, Any] | None = None, skip: Sequence[str] = ()
) -> dict[str, Any]:
    """The plan's part for the module host_evidence, from the host's slice; plain data without secrets.

    ``health``: what the site expects, where that is not the plan's; ``skip``: checks that say nothing there.

    {units, gpus, engines, ports, written, models, release, user, gateway, health, and parts of the slice as they are}
    """
    instances = list(piece.get("instances") or [])
    asked = host_inputs(piece, 0) if piece else {"ports": [], "units": [], "written": [], "models": []}
    gateway = piece.get("gateway") or {}
    engines = [
        {
            "unit": one["unit"], "name": one["name"], "address": one["address"], "port": one["port"],
            "model": one["served_model_name"], "start_timeout_s": one.get("start_timeout_s") or 0,
        }
        for one in instances
        if one.get("serves") and one.get("port")
    ]  # fmt: skip
    units = [*asked["units"]]
    units += [WATCH_UNIT] if engines else []
    units += [GATEWAY_UNIT] if gateway else []
    wanted = dict(health if health is not None else piece.get("health") or {})
    gpus = (wanted.get("gpus") or {}).get("count") or 0
    return {
        **{name: piece[name] for name in _KEPT if piece.get(name)},
        "units": list(dict.fromkeys(units)),
        "gpus": gpus,
        "engines": engines,
        "ports": asked["ports"],
        "written": asked["written"],
        "models": [{"name": one["name"], "path": one["path"]} for one in piece.get("models") or []],
        "argv": {one["unit"]: one["argv"] for one in instances},
        "health": {**wanted, "skip": list(skip)} if wanted else {},
    }
