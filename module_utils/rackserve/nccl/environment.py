"""What an engine tells NCCL, NVSHMEM and UCX: as little as its place needs, each variable with its reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from .parser import Element

TOPOLOGY_FILE = "/etc/rackserve/nccl/topology.xml"
TOPOLOGY_USES = ("observe", "measure", "inject")
_ROCE_TIMEOUT = "22"
_DISTANCES = ("PIX", "PXB", "PHB", "SYS")


class Variable(NamedTuple):
    """A variable, why it is set, and where that is known from."""

    name: str
    value: str
    reason: str
    source: str


class Detected(NamedTuple):
    """What a host shows: adapters as NCCL_IB_HCA takes them, empty without RDMA, and the way of GPUs to them."""

    ib_hca: str = ""
    distance: str = ""


def engine_variables(
    *,
    hosts: int,
    interface: str,
    fabric: str = "none",
    detected: Detected | None = None,
    topology_use: str = "observe",
    parts: Collection[str] = (),
) -> list[Variable]:
    """Variables of an engine whose ranks are on `hosts` hosts.

    interface: where ranks meet, lo on one host. fabric: none, infiniband or roce. detected: what rdma_info and
    nccl_topology found, None where nothing was asked yet. topology_use: observe, measure or inject, of the hardware
    profile. parts: `deepep` (expert parallelism over NVSHMEM), `nixl` (KV cache over UCX).
    """
    found = [
        Variable("NCCL_DEBUG", "WARN", "says why NCCL stops; without it only an error code is left", "NCCL guide"),
    ]
    exact = interface if hosts == 1 else f"={interface}"
    why = "ranks of one host meet on its loopback, where nobody else can connect"
    if hosts > 1:
        why = "ranks meet on the cluster's interface; without it NCCL prefers ib*, then any that is up"
    found.append(Variable("NCCL_SOCKET_IFNAME", exact, why, "socket.cc of NCCL"))
    if topology_use != "observe":
        why = f"the hardware profile says {topology_use}; until a measurement put it there NCCL detects by itself"
        found.append(Variable("NCCL_TOPO_FILE", TOPOLOGY_FILE, why, "docs/nccl.md"))
    known = detected or Detected()
    if hosts > 1 and fabric != "none":
        found += _across_hosts(fabric, known)
    if hosts > 1 and "deepep" in parts:
        found += _nvshmem(fabric, interface)
    if "nixl" in parts and known.ib_hca:
        devices = known.ib_hca.lstrip("^=")
        why = "KV cache goes over the compute adapters alone, in UCX's own form"
        found.append(Variable("UCX_NET_DEVICES", devices, why, "UCX"))
    return found


def _across_hosts(fabric: str, known: Detected) -> list[Variable]:
    why = "the description names a fabric: falling back to TCP without a word is an error"
    found = [Variable("NCCL_NET", "IB", why, "net.cc of NCCL")]
    if known.ib_hca:
        why = "these compute ports, of one link layer; without = names match as prefixes"
        found.append(Variable("NCCL_IB_HCA", known.ib_hca, why, "net_ib of NCCL"))
    if known.distance == "PHB":
        why = "adapters hang on the root complex, beyond the default distance PXB of GPUDirect RDMA"
        found.append(Variable("NCCL_NET_GDR_LEVEL", "PHB", why, "paths.cc of NCCL"))
    if fabric == "roce":
        why = "four times the default wait: Ethernet may drop what InfiniBand holds back"
        found.append(Variable("NCCL_IB_TIMEOUT", _ROCE_TIMEOUT, why, "recommended for RoCE"))
    return found


def _nvshmem(fabric: str, interface: str) -> list[Variable]:
    found = [Variable("NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME", interface, "the same interface as NCCL's", "NVSHMEM")]
    if fabric != "none":
        why = "GPUs ring the adapters' doorbells themselves, which DeepEP's low-latency kernels need"
        found.append(Variable("NVSHMEM_IB_ENABLE_IBGDA", "1", why, "DeepEP"))
    return found


def as_environment(variables: list[Variable]) -> dict[str, str]:
    """{name: value}."""
    return {variable.name: variable.value for variable in variables}


def reasons(variables: list[Variable]) -> dict[str, str]:
    """{name: reason (source)}."""
    return {variable.name: f"{variable.reason} ({variable.source})" for variable in variables}


def detect(rdma: Mapping[str, Any], observed: Element | None) -> Detected:
    """From what rdma_info returns and an observed topology."""
    return Detected(str(rdma.get("nccl_ib_hca") or ""), distance(observed) if observed else "")


def distance(observed: Element) -> str:
    """How far the nearest pair of a GPU and an adapter is apart: PIX, PXB, PHB or SYS; empty without either.

    PHB: every adapter hangs on the root complex. GPUs that are farther than another reach its adapters over NVLink.
    """
    gpus: list[tuple[str, ...]] = []
    nets: list[tuple[str, ...]] = []

    def go(element: Element, above: tuple[str, ...]) -> None:
        key = {"cpu": "numaid", "pci": "busid"}.get(element.name)
        inside = (*above, element.attributes.get(key, "")) if key else above
        if element.name in ("gpu", "net"):
            (gpus if element.name == "gpu" else nets).append(inside)
        for child in element.children:
            go(child, inside)

    go(observed, ())
    if not gpus or not nets:
        return ""
    return min((_between(gpu, net) for gpu in gpus for net in nets), key=_DISTANCES.index)


def _between(one: tuple[str, ...], other: tuple[str, ...]) -> str:
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    if shared == 0:
        return "SYS"
    if shared == 1:
        return "PHB"
    # Switches between the one they share and the farther of both.
    return "PIX" if max(len(one), len(other)) - shared <= 1 else "PXB"
