"""The lab's cluster, healthy, as host_evidence shows it; tests change one thing of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from rackserve.diagnose.case import Case, read_host
from rackserve.diagnose.catalogue import RULES
from rackserve.diagnose.inputs import host_question
from rackserve.diagnose.rank import diagnose
from rackserve.gateway.runtime import NO_ADDRESS

REPO = Path(__file__).resolve().parents[3]
DIGEST = "a" * 64
GATEWAY = "rackserve-gateway.service"


def plan() -> dict[str, Any]:
    """The lab's plan, as its golden file has it."""
    found: dict[str, Any] = json.loads((REPO / "tests/golden/lab/plan.json").read_text("utf-8"))
    return found


def running(**other: Any) -> dict[str, Any]:
    """A unit that does what it should."""
    good = {
        "load": "loaded", "active": "active", "sub": "running", "result": "success", "status": 0, "pid": 4100,
        "restarts": 0, "enabled": "enabled", "drop_ins": [], "reload": "no", "asserted": "yes", "since": "",
        "active_s": 4000.0, "wanted_digest": DIGEST, "running_digest": DIGEST,
    }  # fmt: skip
    return {**good, **other}


def healthy_cluster() -> dict[str, Any]:
    """{host: evidence} of five healthy hosts."""
    found = {}
    for name, piece in plan()["slices"].items():
        question = host_question(piece)
        found[name] = {"sources": [], "plan": question, "readings": _readings(question)}
    return found


def _readings(question: dict[str, Any]) -> dict[str, Any]:
    engines = [{"unit": one["unit"], "state": "fine", "said": "one token"} for one in question["engines"]]
    passed = [{"id": name, "status": "pass"} for name in ("driver-versions", "gpu-count")]
    readings = {
        "missed": [],
        "units": {name: running() for name in question["units"]},
        "engines": engines,
        "processes": [{"pid": 4100, "name": "python3", "state": "S", "unit": name} for name in question["units"]],
        "volumes": [{"mount": "/", "size_mib": 1000000, "free_mib": 700000, "inodes": 10**7, "inodes_free": 9 * 10**6,
                     "read_only": False, "written": True}],
        "weights": [{"path": one["path"], "present": True, "ready": True, "changed": []} for one in question["models"]],
        "preflight": [],
        "firewall": {"lost": False},
        "clock": {"offset_s": 0.1},
        "health": {"status": "pass", "findings": [], "unknown": [], "checks": passed, "wall_s": 0.2},
    }  # fmt: skip
    if question.get("gateway"):
        readings["gateway"] = {"lease": {}, "tls": {"path": "/x", "left_s": 8e6, "not_after": "2027"},
                               "servers": list(_servers(question["gateway"]))}  # fmt: skip
    return readings


def _servers(gateway: dict[str, Any]) -> Any:
    for deployment in gateway["deployments"]:
        for backend in (deployment["backend"], deployment["probe_backend"]):
            for slot in deployment["slots"]:
                filled = slot["address"] != NO_ADDRESS
                yield {"backend": backend, "slot": slot["slot"], "address": slot["address"] if filled else None,
                       "port": slot["port"] if filled else None, "admin": "ready" if filled else "maint",
                       "drained_by": "", "status": "UP" if filled else "MAINT",
                       "check": "L7OK", "sessions": 0, "queued": 0}  # fmt: skip


def engine_of(host: str) -> str:
    """The unit of a host's engine."""
    return str(plan()["slices"][host]["instances"][0]["unit"])


def server_of(cluster: dict[str, Any], host: str) -> dict[str, Any]:
    """What the gateway says of that engine."""
    address = plan()["slices"][host]["address"]
    servers = cluster["gw"]["readings"]["gateway"]["servers"]
    return next(one for one in servers if one["address"] == address and one["backend"].startswith("be_"))


def down(cluster: dict[str, Any], host: str) -> None:
    """What the gateway shows of an engine that does not answer."""
    server_of(cluster, host).update(status="DOWN", check="L4CON")


def causes(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """Ranked causes of a cluster."""
    return diagnose(Case(read_host(name, given) for name, given in cluster.items()), RULES, "inventories/lab/hosts.yml")


def changed(base: dict[str, Any]) -> dict[str, Any]:
    """A cluster of one's own to change."""
    return copy.deepcopy(base)
