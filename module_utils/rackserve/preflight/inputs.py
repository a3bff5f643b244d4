"""What preflight asks of a host, derived from the host's slice of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GATEWAY_UNIT = "rackserve-gateway.service"
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
    units = [i["unit"] for i in instances]
    return {"ports": ports, "units": units, "disk": disk, "written": written, "models": present}
