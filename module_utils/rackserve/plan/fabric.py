"""What hosts need for the network between GPUs of different hosts: packages, kernel modules, memory of GPUs."""

from __future__ import annotations

from typing import Any

from .findings import Findings
from .sets.packages import chosen_distribution, packages_of

# By kind; ib_umad is for management datagrams, which Ethernet has none of.
MODULES = {
    "infiniband": ("ib_umad", "ib_uverbs", "mlx5_ib", "rdma_ucm"),
    "roce": ("ib_uverbs", "mlx5_ib", "rdma_ucm"),
}


def build_fabric(
    described: dict[str, Any], release: dict[str, Any] | None, hardware: dict[str, Any] | None, findings: Findings
) -> dict[str, Any] | None:
    """Return {kind, hcas, rate_gbps, packages: {name: version}, modules, peer_memory} of the hosts with GPUs.

    peer_memory: how adapters reach the memory of GPUs, `dmabuf` or `nvidia_peermem`; None without GPUs.
    None where the description has no fabric, or with an error finding about it.
    """
    fabric = described["network"]["fabric"]
    where = "cluster.network.fabric"
    if not release or not hardware or fabric["kind"] not in MODULES or findings.broken(where):
        return None
    part = "doca" if release["doca"] else "rdma_core"
    packages: dict[str, str] = {}
    if release["doca"] or release["rdma_core"]:
        distribution = chosen_distribution(described["distribution"], release, (part,), findings)
        packages = packages_of(release, part, distribution) if distribution else {}
    elif release["device"] == "cuda":  # engines on CPUs have no use for a fabric
        why = "the release names no packages for it; the hosts' own are used, whatever their version."
        findings.note("fabric-own-packages", where, why, "Write rdma_core and its packages into the release.")
    peer_memory = None
    if hardware["device"] == "cuda":
        peer_memory = "dmabuf" if release["kernel_modules"] == "open" else "nvidia_peermem"
    return {
        **{key: fabric[key] for key in ("kind", "hcas", "rate_gbps")},
        "packages": packages,
        "modules": list(MODULES[fabric["kind"]]),
        "peer_memory": peer_memory,
    }
