"""The plan as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def plan_errors(plan: dict[str, Any]) -> list[str]:
    """The error findings, one line each; empty when the plan may be applied."""
    return [_finding_line(item) for item in plan["findings"] if item["severity"] == "error"]


def plan_tables(plan: dict[str, Any]) -> list[str]:
    """Lines: instances, gateway slots, flows, capacity, overrides and findings, each under its heading."""
    release, gateway = plan["release"] or {}, plan["gateway"]
    lines = [f"cluster {plan['cluster']}, release {release.get('id')}, plan {plan['hash'][:12]}"]
    if plan["proof"]:
        lines += [f"release set {plan['proof']['set']}: {plan['proof']['text']}"]
    simulated = bool(plan["hardware"] and plan["hardware"]["simulated"])
    if simulated:
        lines += [f"hardware {plan['hardware']['id']}: its GPUs are simulated"]
    if plan["driver"]:
        driver = plan["driver"]
        origin = f"{len(driver['packages'])} packages from {(driver['repository'] or {}).get('uri')}"
        origin = f"runfile {driver['runfile']['path']}" if driver["runfile"] else origin
        lines += [f"driver {driver['version']}, {origin}"]
    if plan["cuda"]:
        parts = plan["cuda"]["parts"]
        named = ", ".join(f"{part} {said['version']}" for part, said in parts.items())
        count = sum(len(said["packages"]) for said in parts.values())
        lines += [f"{named}: {count} packages from {plan['cuda']['repository']['uri']}"]
    lines += _table(
        "Instances",
        ("unit", "part", "host", "address", "port", "simulated GPUs" if simulated else "GPUs", "model", "context"),
        [
            (
                item["unit"],
                item["part"],
                item["host"],
                item["address"],
                item["port"] or "-",
                ",".join(map(str, item["gpu_ids"])) or "-",
                item["served_model_name"],
                item["max_model_len"],
            )
            for item in plan["instances"]
        ],
    )
    lines += _groups(plan)
    if gateway:
        scheme = "https" if gateway["tls"] else "http"
        lines += ["", f"Gateway {scheme}://{gateway['address']}:{gateway['port']} on {gateway['host']}"]
        lines += _table(
            "Gateway slots",
            ("backend", "slot", "instance", "host", "server"),
            [
                (part["backend"], slot["slot"], slot["instance"], slot["host"], f"{slot['address']}:{slot['port']}")
                if slot["instance"]
                else (part["backend"], slot["slot"], "(spare)", "-", "-")
                for part in gateway["deployments"]
                for slot in part["slots"]
            ],
        )
    lines += _table(
        "Flows",
        ("to", "port", "from", "why"),
        [
            (flow["to"], f"{flow['port']}/{flow['proto']}", ", ".join(flow["from"]), flow["why"])
            for flow in plan["firewall"]["flows"]
        ],
    )
    for name, part in plan["capacity"].items():
        lines += ["", f"Capacity of {name}", *("  " + text for text in part["text"])]
    if plan["overrides"]:
        lines += ["", "Overrides", *(f"  {o['path']}: {o['old']!r} -> {o['new']!r}" for o in plan["overrides"])]
    lines += ["", "Findings"]
    lines += ["  " + _finding_line(item) for item in plan["findings"]] or ["  none"]
    return [line.rstrip() for line in lines]


def _groups(plan: dict[str, Any]) -> list[str]:
    """Groups of several units and Ray clusters; nothing where there are none."""
    lines: list[str] = []
    if plan["groups"]:
        heads = ("group", "layout", "executor", "hosts", "units", "serve")
        rows = [
            (
                *(group["name"], group["layout"], group["executor"], ", ".join(group["nodes"])),
                *(len(group["units"]), ", ".join(group["serving_units"])),
            )
            for group in plan["groups"]
        ]
        lines += _table("Groups", heads, rows)
    if plan["ray"]:
        clusters = [
            (item["unit"], f"{item['head']}:{item['ports']['port']}", ", ".join(item["hosts"]), item["gpus_per_host"])
            for item in plan["ray"]
        ]
        lines += _table("Ray", ("unit", "head", "hosts", "GPUs a host"), clusters)
    return lines


def _finding_line(item: dict[str, str]) -> str:
    # Some reasons begin with the place themselves.
    why = item["why"] if item["why"].startswith(item["where"]) else f"{item['where']}: {item['why']}"
    return f"{item['severity']} [{item['code']}] {why} {item['fix']}".rstrip()


def _table(title: str, heads: Sequence[str], rows: list[tuple[Any, ...]]) -> list[str]:
    if not rows:
        return ["", title, "  none"]
    cells = [tuple(heads), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    return ["", title, *("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in cells)]
