"""What modules take, out of the slice's `gateway`."""

from __future__ import annotations

from typing import Any

from .notes import ON_PURPOSE
from .runtime import NO_ADDRESS

DEPTHS = ("full", "quick")
QUICK_KINDS = ("stream",)
SLOT_KINDS = ("plain", "stream")
CHAT_KINDS = ("chat", "chat_stream")


def backends_of(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    """The deployment's own backend, and the one of its engines where a router stands before them."""
    return [deployment, deployment["engines"]] if deployment.get("engines") else [deployment]


def gateway_slots(gateway: dict[str, Any]) -> list[dict[str, Any]]:
    """Every planned slot as `gateway_servers` takes it: {backend, probe_backend, slot, address, port}."""
    return [
        {
            "backend": part["backend"],
            "probe_backend": part["probe_backend"],
            "slot": slot["slot"],
            "address": slot["address"],
            "port": slot["port"],
        }
        for deployment in gateway["deployments"]
        for part in backends_of(deployment)
        for slot in part["slots"]
    ]


def acceptance_targets(
    gateway: dict[str, Any], golden: dict[str, Any], chat: bool = True, depth: str = "full"
) -> list[dict[str, Any]]:
    """What `completion_check` proves: each filled slot, plain and streamed, and chat once a deployment.

    `golden` is {deployment name: {cases: [...]}}. The depth "quick" is one golden answer, streamed, of every filled
    slot: what a run that found nothing to do asks. Raises ValueError for another depth than "full" and "quick".
    """
    if depth not in DEPTHS:
        raise ValueError(f"depth {depth!r}: one of {', '.join(DEPTHS)}")
    if depth == "quick":
        golden = {name: {**answers, "cases": answers["cases"][:1]} for name, answers in golden.items()}
    kinds = QUICK_KINDS if depth == "quick" else SLOT_KINDS
    targets: list[dict[str, Any]] = []
    for deployment in gateway["deployments"]:
        common = {"model": deployment["served_model_name"], "golden": golden.get(deployment["name"]) or {}}
        targets += [
            {"server": f"{part['backend']}/{slot['slot']}", "kinds": list(kinds), **common}
            for part in backends_of(deployment)
            for slot in part["slots"]
            if slot["address"] not in (None, "", NO_ADDRESS)
        ]
        if chat and depth == "full":
            targets.append({"server": "", "kinds": list(CHAT_KINDS), **common})
    return targets


def smoke_targets(gateway: dict[str, Any], golden: dict[str, Any], chat: bool = True) -> list[dict[str, Any]]:
    """What a smoke test asks: every model by whichever engine answers, one golden answer, in every kind."""
    found = []
    for deployment in gateway["deployments"]:
        answers = golden.get(deployment["name"]) or {}
        golden_one = {**answers, "cases": answers["cases"][:1]} if answers else {}
        kinds = [*SLOT_KINDS, *(CHAT_KINDS if chat else ())]
        found.append({"server": "", "kinds": kinds, "model": deployment["served_model_name"], "golden": golden_one})
    return found


def wrong_doors(results: list[dict[str, Any]]) -> list[str]:
    """A line for each request that did not get the status that was meant for it."""
    return [
        f"{one['item']['what']}: HTTP {one.get('status', -1)}, {one['item']['wanted']} is meant"
        for one in results
        if one.get("status") != one["item"]["wanted"]
    ]


def engine_targets(instances: list[dict[str, Any]], golden: dict[str, Any]) -> list[dict[str, Any]]:
    """What `completion_check` proves of engines that are asked directly, without the gateway."""
    return [
        {
            "url": f"http://{instance['address']}:{instance['port']}",
            "model": instance["served_model_name"],
            "golden": golden.get(instance["deployment"]) or {},
        }
        for instance in instances
    ]


def instance_names(gateway: dict[str, Any]) -> dict[str, str]:
    """{"backend/slot": "host instance"} of the filled slots."""
    return {
        f"{part['backend']}/{slot['slot']}": f"{slot['host']} {slot['instance']}"
        for deployment in gateway["deployments"]
        for part in backends_of(deployment)
        for slot in part["slots"]
        if slot["instance"]
    }


def out_on_purpose(servers: list[dict[str, Any]]) -> list[str]:
    """A line for each server that an operation took out until somebody asks for it back, with what does that."""
    return [
        f"{row['backend']}/{row['slot']} is out ({row['admin']}) by {row['drained_by']}; "
        f"playbooks/{ON_PURPOSE[row['drained_by']]}.yml brings it back"
        for row in servers
        if row["drained_by"] in ON_PURPOSE
    ]


def still_out(servers: list[dict[str, Any]]) -> list[str]:
    """A line for each server that gets no requests by somebody's will, with who that is."""
    return [
        f"{row['backend']}/{row['slot']} is still out ({row['admin']}), by {row['drained_by'] or 'a person'}"
        for row in servers
        if row["address"] and row["admin"] != "ready"
    ]


def cut_off(servers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The servers that an operation drained and did not give back; not those out on purpose, and no empty slots."""
    return [row for row in servers if row["address"] and row["drained_by"] and row["drained_by"] not in ON_PURPOSE]


def unproven(rows: list[dict[str, Any]], servers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of completion_check that failed, less those of servers that are out on purpose."""
    excused = {f"{row['backend']}/{row['slot']}" for row in servers if row["drained_by"] in ON_PURPOSE}
    return [row for row in rows if not row["ok"] and row["server"] not in excused]
