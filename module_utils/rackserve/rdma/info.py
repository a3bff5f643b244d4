"""What a host has of RDMA: devices, ports, what each is for, and what NCCL should take of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..preflight.findings import Finding, finding
from .gdr import read_gdr
from .netdevs import master, operstate, slaves
from .purpose import COMPUTE, PURPOSES, Adapter, purposes
from .sysfs import CLASS, ETHERNET, INFINIBAND, Hca, Port, entries, inside, read_hcas, value
from .usable import Verdict, best_gid, judge_port

_NCCL_LIMIT = 32
_LINK_FIX = "look at the cable and the switch port; ip link and mlxlink say more"
_FIXES = {"INIT": "start a subnet manager on the fabric (opensm, or the switch's)", "DOWN": _LINK_FIX}
_FIXES["ARMED"] = _FIXES["INIT"]
NamedPort = tuple[Hca, Port]
_NO_PARTNER = "00:00:00:00:00:00"


def rdma_info(root: Path, named: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read ``root`` (sys, proc) and judge it; nothing is changed and no program is started.

    named: adapter to `compute`, `storage`, `management` or `unknown`, where the operator knows it. ValueError for
    another word. Returns {hcas, nccl_ib_hca, gdr, findings}.
    """
    wrong = sorted(f"{name}: {word}" for name, word in (named or {}).items() if word not in PURPOSES)
    if wrong:
        raise ValueError(f"purposes: {', '.join(wrong)}: write one of {', '.join(PURPOSES)}")
    hcas = read_hcas(root)
    verdicts = {hca.name: [judge_port(root, hca, port) for port in hca.ports] for hca in hcas}
    adapters = [
        Adapter(hca, all_netdevs(root, hca), [p for p, v in zip(hca.ports, verdicts[hca.name]) if v.usable])
        for hca in hcas
    ]
    meant, findings = purposes(root, adapters, named or {})
    gdr, unknown = read_gdr(root)
    for adapter in adapters:
        findings += _adapter_findings(root, adapter, verdicts[adapter.hca.name])
    chosen, left_out = nccl_ports([adapter for adapter in adapters if meant[adapter.hca.name].purpose == COMPUTE])
    findings += _none(root, adapters) + _list_findings(chosen, left_out, adapters) + unknown
    return {
        "hcas": [_shown(root, adapter, verdicts[adapter.hca.name], meant[adapter.hca.name]) for adapter in adapters],
        "nccl_ib_hca": "=" + ",".join(f"{hca.name}:{port.number}" for hca, port in chosen) if chosen else "",
        "gdr": gdr,
        "findings": findings,
    }


def all_netdevs(root: Path, hca: Hca) -> list[str]:
    """The adapter's own network interfaces, those that its GIDs name (VLANs, a bond), and the slaves of its bond."""
    named = [gid.netdev for port in hca.ports for gid in port.gids if gid.netdev]
    found = [*hca.netdevs, *(port.netdev for port in hca.ports if port.netdev), *named]
    bond = bond_of(root, hca)
    return list(dict.fromkeys([bond, *found, *slaves(root, bond)] if bond else found))


def bond_of(root: Path, hca: Hca) -> str | None:
    """The bond that the device stands for; None where it does not stand for one.

    The kernel calls such a device mlx5_bond_N. Where it was renamed, a bond of ports of one card is one whose other
    ports have no device of their own.
    """
    named = dict.fromkeys(gid.netdev for port in hca.ports for gid in port.gids if gid.netdev)
    masters = [name for name in named if slaves(root, name)]
    masters += [name for name in (master(root, own) for own in hca.netdevs) if name and slaves(root, name)]
    if not masters:
        return None
    if "_bond_" in hca.name:
        return masters[0]
    places = [inside(root, f"/sys/class/net/{slave}/device") for slave in slaves(root, masters[0])]
    card = (hca.bus_id or "").rpartition(".")[0]
    of_card = [place for place in places if card and place.name.rpartition(".")[0] == card]
    silent = [place for place in of_card if place.name != hca.bus_id and not entries(place / "infiniband")]
    return masters[0] if silent and len(of_card) == len(places) else None


def kind_of(root: Path, hca: Hca) -> str:
    """`soft`, `bond`, `vf` or `pf`."""
    if hca.soft:
        return "soft"
    if "_bond_" in hca.name or bond_of(root, hca):
        return "bond"
    return "vf" if hca.virtual else "pf"


def nccl_ports(adapters: Sequence[Adapter]) -> tuple[list[NamedPort], list[NamedPort]]:
    """(ports for NCCL_IB_HCA: usable, of the link layer with most Gb/s; those of the other layer).

    EFA is in neither, its own plugin drives it.
    """
    verbs = [
        (adapter.hca, port)
        for adapter in adapters
        for port in adapter.usable
        if adapter.hca.driver != "efa" and port.link_layer in (INFINIBAND, ETHERNET)
    ]
    total = {
        layer: sum(p.rate_gbps or 0 for _, p in verbs if p.link_layer == layer) for layer in (INFINIBAND, ETHERNET)
    }
    layer = INFINIBAND if total[INFINIBAND] >= total[ETHERNET] else ETHERNET
    chosen = [named for named in verbs if named[1].link_layer == layer]
    return chosen, [named for named in verbs if named not in chosen]


def _number(rate: float | None) -> float | None:
    return int(rate) if rate is not None and rate == int(rate) else rate


def _shown(root: Path, adapter: Adapter, verdicts: Sequence[Verdict], meant: tuple[str, str]) -> dict[str, Any]:
    hca = adapter.hca
    return {
        "name": hca.name,
        "driver": hca.driver,
        "bus_id": hca.bus_id,
        "numa_node": hca.numa_node,
        "kind": kind_of(root, hca),
        "netdevs": list(adapter.netdevs),
        "purpose": meant[0],
        "purpose_reason": meant[1],
        **hca.facts,
        "ports": [_port_shown(port, verdict) for port, verdict in zip(hca.ports, verdicts)],
    }


def _port_shown(port: Port, verdict: Verdict) -> dict[str, Any]:
    return {
        "port": port.number,
        "state": port.state,
        "phys_state": port.phys_state,
        "link_layer": port.link_layer,
        "rate_gbps": _number(port.rate_gbps),
        "lid": port.lid,
        "sm_lid": port.sm_lid,
        "gids": [
            {"index": gid.index, "gid": gid.gid, "type": gid.kind, "netdev": gid.netdev, "ipv4": gid.ipv4}
            for gid in port.gids
        ],
        "gid_index": verdict.gid_index,
        "netdev": port.netdev,
        "usable": verdict.usable,
        "reason": verdict.reason,
    }


def _adapter_findings(root: Path, adapter: Adapter, verdicts: Sequence[Verdict]) -> list[Finding]:
    hca = adapter.hca
    where = f"adapter {hca.name}"
    found = []
    if hca.unread:
        found.append(_unknown(where, hca.unread))
    if not hca.ports:
        found.append(_unknown(where, ("ports",)))
    for port, verdict in zip(hca.ports, verdicts):
        here = f"{where} port {port.number}"
        if port.unread:
            found.append(_unknown(here, port.unread))
        if verdict.usable is False and not hca.soft:
            severity = "note" if port.state == "DOWN" else "warning"
            fix = _FIXES.get(port.state or "", _port_fix(port))
            found.append(finding(severity, "rdma-port", here, verdict.reason, fix))
        best = best_gid(port)
        if verdict.usable and port.link_layer == ETHERNET and best and not best.ipv4:
            fix = "give the interface an IPv4 address, or set NCCL_IB_ADDR_FAMILY=AF_INET6"
            found.append(finding("warning", "rdma-ipv6-only", here, "its GIDs are IPv6 only, NCCL looks for IPv4", fix))
    bond = bond_of(root, hca)
    return [*found, *(_bond_findings(root, where, bond) if bond else [])]


def _port_fix(port: Port) -> str:
    if port.link_layer == ETHERNET:
        return f"give {port.netdev or 'its interface'} an IP address; cma_roce_mode and show_gids say which RoCE is on"
    return "see the fabric's subnet manager; sminfo and ibstat say more"


def _unknown(where: str, names: Sequence[str]) -> Finding:
    why = f"unknown: {', '.join(names)} cannot be read"
    return finding(
        "warning", "rdma-unknown", where, why, "read it on the host itself; see journalctl -k for its driver"
    )


def _bond_findings(root: Path, where: str, bond: str) -> list[Finding]:
    """A bond with one working slave still says ACTIVE."""
    found = []
    states = {name: operstate(root, name) for name in slaves(root, bond)}
    down = [f"{name} is {state or 'unknown'}" for name, state in states.items() if state != "up"]
    if down:
        why = f"half of {bond}: {', '.join(down)}; the device still says ACTIVE"
        found.append(finding("warning", "rdma-bond", where, why, _LINK_FIX))
    folder = inside(root, f"/sys/class/net/{bond}/bonding")
    if (value(folder / "mode") or "").startswith("802.3ad") and value(folder / "ad_partner_mac") == _NO_PARTNER:
        fix = "set up LACP on the switch's ports"
        found.append(finding("warning", "rdma-bond", where, f"no LACP partner answers on {bond}", fix))
    return found


def _none(root: Path, adapters: Sequence[Adapter]) -> list[Finding]:
    """That there is no RDMA is no error by itself."""
    if any(adapter.usable for adapter in adapters):
        return []
    fix = "nothing, where the host is meant to have none; else lspci and journalctl -k name the adapter that is gone"
    where = f"/{CLASS}"
    if not (root / CLASS).is_dir():
        return [finding("note", "rdma-none", where, "no usable RDMA: no such directory, ib_core is not loaded", fix)]
    if not adapters:
        return [finding("note", "rdma-none", where, "no usable RDMA: directory empty", fix)]
    fix = "see the findings of its adapters"
    names = ", ".join(adapter.hca.name for adapter in adapters)
    return [finding("warning", "rdma-none", where, f"no usable RDMA: no port of {names} can be used", fix)]


def _list_findings(
    chosen: Sequence[NamedPort], left_out: Sequence[NamedPort], adapters: Sequence[Adapter]
) -> list[Finding]:
    found = []
    if left_out:
        names = ", ".join(f"{hca.name}:{port.number}" for hca, port in left_out)
        why = f"{names} left out: NCCL takes one link layer, and the others are {chosen[0][1].link_layer}"
        found.append(finding("warning", "rdma-mixed-layers", "NCCL_IB_HCA", why, "say in purposes what they are for"))
    efa = [adapter.hca.name for adapter in adapters if adapter.hca.driver == "efa"]
    if efa:
        why = f"{', '.join(efa)}: NCCL reaches EFA by the plugin aws-ofi-nccl, NCCL_IB_HCA does not name them"
        found.append(finding("note", "rdma-efa", "EFA", why, "see that the engine's image has the plugin"))
    if not chosen and not efa and any(adapter.usable for adapter in adapters):
        why = "adapters work, but none is known to be for GPUs"
        fix = "say it in purposes; else NCCL takes what it finds, or sockets"
        found.append(finding("warning", "rdma-no-compute", "NCCL_IB_HCA", why, fix))
    if len(chosen) > _NCCL_LIMIT:
        why = f"{len(chosen)} ports, NCCL reads the first {_NCCL_LIMIT}"
        found.append(finding("warning", "rdma-too-many", "NCCL_IB_HCA", why, "name the others in purposes"))
    rates = sorted({port.rate_gbps for _, port in chosen if port.rate_gbps})
    if len(rates) > 1:
        why = f"ports of {', '.join(f'{rate:g}' for rate in rates)} Gb/s: the slowest holds up the others"
        found.append(finding("warning", "rdma-rates", "NCCL_IB_HCA", why, _LINK_FIX))
    return found
