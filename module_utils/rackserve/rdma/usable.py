"""Whether a port can carry the traffic of GPUs now, and why not."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .netdevs import operstate
from .sysfs import ETHERNET, INFINIBAND, Gid, Hca, Port

ROCE_V2 = "RoCE v2"
_IWARP = "4:"
_NOT_UP = {
    ("DOWN", "Polling"): "DOWN/Polling: no cable, or nothing answers at its other end",
    ("DOWN", "Disabled"): "DOWN/Disabled: somebody switched the port off",
}


class Verdict(NamedTuple):
    """``usable`` is None where something that decides it cannot be read; ``gid_index`` is what NCCL would choose."""

    usable: bool | None
    reason: str
    gid_index: int | None = None


def judge_port(root: Path, hca: Hca, port: Port) -> Verdict:
    """Judge one port by facts that need no program: states, subnet manager, GIDs."""
    refused = _refused(hca, port)
    if refused:
        return refused
    if hca.driver == "efa":
        return _efa(root, port)
    if port.link_layer == INFINIBAND:
        return _infiniband(port)
    if port.link_layer == ETHERNET:
        return _roce(port)
    return Verdict(False, f"link layer {port.link_layer} is neither InfiniBand nor Ethernet")


def _refused(hca: Hca, port: Port) -> Verdict | None:
    """What no fabric mends: the wrong kind of device, a link that is not up, or states that cannot be read."""
    if hca.soft:
        over = f" over {', '.join(hca.netdevs)}" if hca.netdevs else ""
        return Verdict(False, f"a software device{over}: the CPU moves every byte")
    if (hca.node_type or "").startswith(_IWARP):
        return Verdict(False, "it speaks iWARP, which NCCL does not")
    deciding = [name for name in ("state", "phys_state", "link_layer") if getattr(port, name) is None]
    if deciding:
        return Verdict(None, f"unknown: {', '.join(deciding)} cannot be read")
    return None if port.up else Verdict(False, _not_up(port))


def _not_up(port: Port) -> str:
    if port.link_layer == INFINIBAND and port.state in ("INIT", "ARMED"):
        return f"{port.state}/{port.phys_state}: no subnet manager has brought it up"
    return _NOT_UP.get((port.state or "", port.phys_state or ""), f"{port.state}/{port.phys_state}: the link is not up")


def _infiniband(port: Port) -> Verdict:
    missing = [name for name in ("lid", "sm_lid") if getattr(port, name) is None]
    if missing:
        return Verdict(None, f"unknown: {', '.join(missing)} cannot be read")
    if port.sm_lid == 0:
        return Verdict(False, "no subnet manager: sm_lid is 0")
    if port.lid == 0:
        return Verdict(False, "the subnet manager gave it no address: lid is 0")
    return Verdict(True, f"ACTIVE/LinkUp, subnet manager at LID {port.sm_lid}", 0)


def _roce(port: Port) -> Verdict:
    best = best_gid(port)
    if best:
        return Verdict(True, f"ACTIVE/LinkUp, {ROCE_V2} GID {best.index} ({best.ipv4 or best.gid})", best.index)
    kinds = [name for name in port.unread if name.startswith("gid")]
    if kinds:
        return Verdict(None, f"unknown: {', '.join(kinds)} cannot be read")
    where = f"interface {port.netdev} has no IP address" if port.netdev else "its interface has no IP address"
    return Verdict(False, f"no {ROCE_V2} GID with an address: {where}, or {ROCE_V2} is off")


def best_gid(port: Port) -> Gid | None:
    """The GID that NCCL looks for: RoCE v2, not link-local, for IPv4 before IPv6, the first of them."""
    routable = [gid for gid in port.gids if gid.kind == ROCE_V2 and not gid.address.is_link_local]
    return next((gid for gid in routable if gid.ipv4), routable[0] if routable else None)


def _efa(root: Path, port: Port) -> Verdict:
    """EFA says ACTIVE whatever happens, so that only its interface can tell."""
    state = operstate(root, port.netdev) if port.netdev else None
    if state is None:
        return Verdict(None, "unknown: EFA always says ACTIVE, and it has no network interface to ask")
    return Verdict(state == "up", f"EFA, interface {port.netdev} is {state}")
