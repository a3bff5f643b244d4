"""What stands between the gateway and engines: routers, and deployments that take another's requests."""

from __future__ import annotations

from typing import Any

from .deployment import ROUTER_SETTINGS
from .findings import Findings, did_you_mean
from .schema import validate
from .shapes import Resolved

_KIND = "vllm-router"


def check_routers(deployments: list[Resolved], gateway: bool, findings: Findings) -> None:
    """Report routers and fallbacks that cannot be."""
    by_name = {item.name: item for item in deployments}
    for item in deployments:
        spec, where = item.spec, item.where
        if spec["layout"] == "prefill_decode" and spec["router"] != _KIND:
            why = "only vllm-router leads a request from prefill to decode."
            findings.error("router-needed", f"{where}.router", why, f"Use router: {_KIND}.")
        if not gateway:
            for key in (key for key in ("router", "fallback") if spec[key] not in ("haproxy", [])):
                why = "there is no gateway, which it belongs to."
                findings.error("needs-gateway", f"{where}.{key}", why, "Describe a gateway.")
        _check_fallback(item, by_name, findings)


def router_release(release: dict[str, Any], folder: str) -> dict[str, str] | None:
    """{id, path, lock} of the small release that gateways get their router from; None when the set has none."""
    if not release["router"]:
        return None
    name = f"router-{release['router']['version']}"
    return {"id": name, "path": f"{folder}/{name}", "lock": release["router"]["lock"]}


def check_router_release(deployments: list[Resolved], release: dict[str, Any], findings: Findings) -> None:
    """Report deployments whose router the release does not bring."""
    for item in deployments:
        if item.spec["router"] == _KIND and not release["router"]:
            why = f"release {release['id']} brings no {_KIND}."
            fix = "Give files/releases/<release>.yml a router, or use router: haproxy."
            findings.error("release-without-router", f"{item.where}.router", why, fix)


def _check_fallback(item: Resolved, by_name: dict[str, Resolved], findings: Findings) -> None:
    for index, name in enumerate(item.spec["fallback"]):
        spot = f"{item.where}.fallback[{index}]"
        if name == item.name:
            findings.error("fallback-to-itself", spot, f"{name} would fall back to itself.", "Name another deployment.")
        elif name in item.spec["fallback"][:index]:
            findings.error("fallback-twice", spot, f"{name} is named twice.", "Name it once.")
        elif name not in by_name:
            known = [other for other in by_name if other != item.name]
            fix = did_you_mean(name, known, f"Deployments: {', '.join(known) or 'no other'}.")
            findings.error("unknown-deployment", spot, f'no deployment is called "{name}".', fix)
        elif by_name[name].max_model_len < item.max_model_len:
            why = f"{name} takes {by_name[name].max_model_len} tokens, {item.name} {item.max_model_len}."
            findings.note("fallback-shorter", spot, why, "It refuses longer requests.")


def aliases(deployments: list[Resolved]) -> dict[str, list[str]]:
    """{deployment: names of models that others send it when they have no engine}."""
    found: dict[str, list[str]] = {}
    for item in deployments:
        for name in item.spec["fallback"]:
            if name != item.name:
                found.setdefault(name, []).append(item.spec["served_model_name"])
    return {name: list(dict.fromkeys(names)) for name, names in found.items()}


def build_router(item: Resolved, instances: list[dict[str, Any]], taken: set[int]) -> dict[str, Any] | None:
    """The router as its role reads it; None where the gateway chooses itself. ``taken``: routers' ports so far."""
    if item.spec["router"] != _KIND:
        return None
    settings = item.spec["router_settings"] or validate(ROUTER_SETTINGS, {}, "", Findings())
    router: dict[str, Any] = {
        "kind": _KIND,
        "unit": f"rackserve-router-{item.name}.service",
        "address": "127.0.0.1",
        **settings,
        "port": _free(settings["port"], taken),
        "metrics_port": _free(settings["metrics_port"], taken),
    }
    if item.spec["layout"] != "prefill_decode":
        return {**router, "workers": _urls(instances, None)}
    return {**router, "prefill": _urls(instances, "prefill"), "decode": _urls(instances, "decode")}


def _free(port: int, taken: set[int]) -> int:
    while port in taken:
        port += 1
    taken.add(port)
    return port


def _urls(instances: list[dict[str, Any]], pool: str | None) -> list[str]:
    served = (item for item in instances if item["serves"] and item["pool"] == pool)
    return [f"http://{in_url(item['address'])}:{item['port']}" for item in served]


def in_url(address: str) -> str:
    """An address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address
