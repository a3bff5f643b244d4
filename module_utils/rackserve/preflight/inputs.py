"""What preflight asks of a host, derived from the host's slice of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GATEWAY_UNIT, GROUP_UNIT = "rackserve-gateway.service", "rackserve-group.service"
# Each node of a Ray cluster opens these; the head opens `port` as well.
_RAY_NODE = ("node_manager_port", "object_manager_port", "runtime_env_agent_port", "metrics_export_port")
# Toolkit, cuDNN and NCCL with their packages in apt's cache: an estimate. Simulated ones need next to nothing.
CUDA_MIB = 12288
_WRITTEN = ("/etc/rackserve", "/etc/systemd/system", "/var/lib/rackserve")


def host_inputs(piece: Mapping[str, Any], release_mib: int) -> dict[str, Any]:
    """Return {ports, units, disk, written, models} of a slice; an empty slice (a builder) asks for nothing.

    `release_mib`: what an unpacked release with its archive needs. Weights count where the slice knows their bytes.
    """
    instances = list(piece.get("instances") or [])
    gateway, release = piece.get("gateway") or {}, piece.get("release") or {}
    ports = [{"port": i["port"], "unit": i["unit"]} for i in instances if i["port"]]
    ports += _group_ports(piece) + _ray_ports(piece.get("ray"))
    for key in ("port", "metrics_port"):
        if gateway.get(key):
            ports.append({"port": gateway[key], "unit": GATEWAY_UNIT})
    disk: list[dict[str, Any]] = []
    if release.get("path"):
        disk.append({"path": release["path"], "needed_mib": release_mib, "unless": release["path"]})
    toolkit = ((piece.get("cuda") or {}).get("parts") or {}).get("cuda")
    if toolkit and not piece.get("simulated_hardware"):
        folder = f"/usr/local/cuda-{'.'.join(toolkit['version'].split('.')[:2])}"
        disk.append({"path": folder, "needed_mib": CUDA_MIB, "unless": f"{folder}/bin/nvcc"})
    written = [*_WRITTEN, release["path"]] if release.get("path") else list(_WRITTEN if piece else ())
    present = []
    for model in piece.get("models") or []:
        if (model.get("source") or {}).get("kind") == "present":
            present.append({"name": model.get("name") or model.get("card") or model["path"], "path": model["path"]})
            continue
        written.append(model["path"])
        if model.get("bytes"):
            disk.append(
                {"path": model["path"], "needed_mib": int(model["bytes"]) >> 20, "unless": f"{model['path']}/READY"}
            )
    units = [i["unit"] for i in instances] + ([piece["ray"]["unit"]] if piece.get("ray") else [])
    return {"ports": ports, "units": units, "disk": disk, "written": written, "models": present}


def _group_ports(piece: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Ports of groups: the agent's on every host, the meeting point of an engine's parts where its head runs."""
    ports: list[dict[str, Any]] = []
    for group in piece.get("groups") or []:
        ports.append({"port": group["agent_port"], "unit": GROUP_UNIT})
        [head, *_] = group["units"]
        if group["master_port"] and head["host"] == piece["host"]:
            ports.append({"port": group["master_port"], "unit": head["unit"]})
    return ports


def _ray_ports(ray: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    names = [*_RAY_NODE, *(["port"] if ray and ray["part"] == "head" else [])]
    return [{"port": ray["ports"][name], "unit": ray["unit"]} for name in names] if ray else []
