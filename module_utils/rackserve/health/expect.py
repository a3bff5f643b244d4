"""What the plan says of a host, as the checks want it: a small dict without a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FABRIC_MANAGER, PERSISTENCED = "nvidia-fabricmanager.service", "nvidia-persistenced.service"
_DRIVER = ("version", "packages", "kernel_modules", "fabric_manager")
NOFILE = 65536


def expectations(part: Mapping[str, Any], hardware: Mapping[str, Any] | None) -> dict[str, Any]:
    """From a host's slice of the plan and the plan's hardware profile.

    Keys: gpus {count, model, memory_mib, nvlinks, fabric, persistence, power_limit_w, application_clocks, ecc,
    allocated}, driver {version, packages, kernel_modules, fabric_manager}, fabric {kind, hcas, rate_gbps, modules,
    peer_memory}, units, gpu_units, paths, limits, memory_mib, governor. What the plan does not say is left out.
    """
    driver, fabric = part.get("driver"), part.get("fabric")
    settings = (part.get("gpu_settings") or {}).get("settings") or {}
    engines = part.get("instances") or []
    ray = part.get("ray")
    # Ray's unit holds the GPUs of the engines that run over it.
    users = [*engines, {"unit": ray["unit"], "gpu_ids": ray["gpu_ids"][part["host"]]}] if ray else engines
    found: dict[str, Any] = {"gpus": {"count": 0}, "units": [user["unit"] for user in users]}
    if driver:
        found["gpus"] = {
            "count": driver["gpus"],
            **(driver.get("expect") or {}),
            "allocated": sorted({index for user in users for index in user.get("gpu_ids") or []}),
        }
        found["driver"] = {name: driver.get(name) for name in _DRIVER}
        found["units"] += [PERSISTENCED] if driver.get("source") == "packages" else []
        found["units"] += [FABRIC_MANAGER] if driver.get("fabric_manager") else []
    elif part.get("distributions") and hardware:
        # The site brings its own driver, or there are no GPUs at all.
        has_gpus = hardware.get("device") == "cuda"
        found["gpus"] = {"count": hardware["slots"] if has_gpus else 0}
        if has_gpus:
            found["gpus"].update(model=hardware.get("gpu"), memory_mib=hardware.get("memory_mib"))
    if settings:
        found["gpus"]["persistence"] = bool(settings.get("persistence_mode"))
        found["gpus"]["power_limit_w"] = settings.get("power_limit_w")
        found["gpus"]["application_clocks"] = bool(settings.get("application_clocks"))
        found["gpus"]["ecc"] = settings.get("ecc")
    if fabric:
        found["fabric"] = {name: fabric.get(name) for name in ("kind", "hcas", "rate_gbps", "modules", "peer_memory")}
    found["gpu_units"] = [user["unit"] for user in users]
    found["paths"] = [model["path"] for model in part.get("models") or []]
    if users:
        found["limits"] = {"memlock": "unlimited", "nofile": NOFILE}
        found["governor"] = "performance"
    if any(engine["port"] for engine in engines):
        found["units"].append("rackserve-engine-watch.service")
    if part.get("groups"):
        found["units"].append("rackserve-group.service")
    if part.get("gateway"):
        routers = [item["router"] for item in part["gateway"].get("deployments") or []]
        found["units"] += [router["unit"] for router in routers if router]
        found["units"].append("rackserve-gateway.service")
    if hardware and part.get("distributions"):
        found["memory_mib"] = hardware.get("host_memory_mib")
    return found
