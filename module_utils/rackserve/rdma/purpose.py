"""What an adapter is for: traffic of GPUs, storage, management. Where nothing decides it, it is unknown: ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..preflight.findings import Finding, finding
from .netdevs import all_below, default_netdevs, mounted_from
from .sysfs import ETHERNET, INFINIBAND, Hca, Port, gpu_addresses, inside, pci_parts, value

COMPUTE, STORAGE, MANAGEMENT, UNKNOWN = "compute", "storage", "management", "unknown"
PURPOSES = (COMPUTE, STORAGE, MANAGEMENT, UNKNOWN)
_BLUEFIELD = ("MT41682", "MT41686", "MT41692")
_SLOW = 0.5
_NAME_IT = "say what it is for in purposes: {NAME: compute, storage, management or unknown}"


class Purpose(NamedTuple):
    """What it is for, and what says so."""

    purpose: str
    reason: str


class Adapter(NamedTuple):
    """An adapter, all its network interfaces, and its ports that can be used."""

    hca: Hca
    netdevs: Sequence[str]
    usable: Sequence[Port]

    @property
    def rate_gbps(self) -> float | None:
        """Of its fastest usable port; None where no rate could be read."""
        return max((port.rate_gbps for port in self.usable if port.rate_gbps is not None), default=None)


def purposes(
    root: Path, adapters: Sequence[Adapter], named: Mapping[str, str]
) -> tuple[dict[str, Purpose], list[Finding]]:
    """What each adapter is for; ``named`` is what the operator says, and it wins."""
    findings = [_no_such(name) for name in named if name not in {adapter.hca.name for adapter in adapters}]
    if adapters and not (root / "proc/net/route").is_file():
        why = "proc/net/route cannot be read, so nothing tells which adapters carry the default route"
        findings.append(finding("warning", "rdma-unknown", "purpose of adapters", why, "copy it with the tree"))
    carried, mounted = all_below(root, default_netdevs(root)), all_below(root, mounted_from(root))
    places = mounted_from(root)
    in_guest = " hypervisor" in (value(root / "proc/cpuinfo") or "")
    found: dict[str, Purpose] = {}
    for adapter in adapters:
        known = _by_itself(adapter, named, carried, in_guest)
        if known:
            found[adapter.hca.name] = known
    left = [adapter for adapter in adapters if adapter.hca.name not in found]
    for adapter, netdev in _of_storage(left, mounted):
        found[adapter.hca.name] = Purpose(STORAGE, f"{netdev} leads to what is mounted on {places[mounted[netdev]]}")
    left = [adapter for adapter in left if adapter.hca.name not in found]
    decided, more = _by_comparison(root, left)
    return {**found, **decided}, findings + more


def _of_storage(adapters: Sequence[Adapter], mounted: Mapping[str, str]) -> list[tuple[Adapter, str]]:
    """(adapter, interface) of those that lead to mounted storage, where most others of that rate do not.

    Where few adapters carry everything, storage is no reason to take them from the GPUs.
    """
    leads = {adapter.hca.name: next((name for name in adapter.netdevs if name in mounted), "") for adapter in adapters}
    found = []
    for adapter in adapters:
        equal = [leads[other.hca.name] for other in adapters if _rate(other) >= _rate(adapter)]
        if leads[adapter.hca.name] and equal.count("") > len(equal) - equal.count(""):
            found.append((adapter, leads[adapter.hca.name]))
    return found


def _no_such(name: str) -> Finding:
    fix = "correct the name; ls /sys/class/infiniband lists them"
    return finding("warning", "rdma-no-such", f"adapter {name}", "purposes names it, the host does not have it", fix)


def _rate(adapter: Adapter) -> float:
    return adapter.rate_gbps or 0.0


def _by_itself(
    adapter: Adapter, named: Mapping[str, str], carried: Mapping[str, str], in_guest: bool
) -> Purpose | None:
    hca = adapter.hca
    if hca.name in named:
        return Purpose(named[hca.name], "the operator says so")
    if hca.soft:
        return Purpose(UNKNOWN, "a software device is for tests")
    if hca.has_physical and not in_guest:
        return Purpose(UNKNOWN, "a virtual function on the host of its card is for a guest")
    for netdev in adapter.netdevs:
        if netdev in carried:
            part = "" if carried[netdev] == netdev else f"is part of {carried[netdev]}, which "
            return Purpose(MANAGEMENT, f"{netdev} {part}carries the default route")
    return None if adapter.usable and adapter.rate_gbps is not None else Purpose(UNKNOWN, _silent(adapter))


def _silent(adapter: Adapter) -> str:
    if adapter.usable:
        return "its rate cannot be read"
    return "none of its ports can be used, so nothing tells what it is for"


def _by_comparison(root: Path, adapters: Sequence[Adapter]) -> tuple[dict[str, Purpose], list[Finding]]:
    """Adapters that could all be for GPUs: by rate, by distance, by kind, by link layer."""
    if not adapters:
        return {}, []
    found: dict[str, Purpose] = {}
    findings: list[Finding] = []
    rates = Counter(_rate(adapter) for adapter in adapters)
    common, highest = max(rates, key=lambda rate: (rates[rate], rate)), max(rates)
    gpus = _gpus(root)
    for adapter in adapters:
        name, rate = adapter.hca.name, _rate(adapter)
        if rate < _SLOW * common:
            found[name] = Purpose(STORAGE, f"{rate:g} Gb/s, below half of the most common {common:g}")
        elif rate < _SLOW * highest:
            found[name] = Purpose(UNKNOWN, f"{rate:g} Gb/s is the most common rate, and others have {highest:g}")
            findings.append(_ask(name, found[name].reason))
        elif _outdone(adapter, adapters, gpus):
            found[name] = Purpose(STORAGE, f"{rate:g} Gb/s, and every GPU has a nearer adapter of a higher rate")
        elif _bluefield(adapter) and not all(_bluefield(other) for other in adapters):
            found[name] = Purpose(UNKNOWN, "a BlueField beside other adapters; in DPU mode it is not the host's")
            findings.append(_ask(name, found[name].reason))
    left = [adapter for adapter in adapters if adapter.hca.name not in found]
    layer, other_layer = _one_layer(left)
    for adapter in left:
        name = adapter.hca.name
        if layer and not any(port.link_layer == layer for port in adapter.usable):
            found[name] = Purpose(UNKNOWN, f"it has no {layer} port, as most adapters for GPUs have")
            findings.append(_ask(name, f"{found[name].reason}, and NCCL takes one link layer{other_layer}"))
        else:
            found[name] = Purpose(COMPUTE, f"{_rate(adapter):g} Gb/s, no default route, no reason to leave it out")
    return found, findings


def _ask(name: str, reason: str) -> Finding:
    return finding("warning", "rdma-purpose", f"adapter {name}", reason, _NAME_IT.replace("NAME", name))


def _bluefield(adapter: Adapter) -> bool:
    return (adapter.hca.facts["hca_type"] or "").startswith(_BLUEFIELD)


def _one_layer(adapters: Collection[Adapter]) -> tuple[str, str]:
    """(the link layer with the most Gb/s, a remark where both have as many); empty where there are not two."""
    total: Counter[str] = Counter()
    for adapter in adapters:
        for port in adapter.usable:
            if port.link_layer in (INFINIBAND, ETHERNET):
                total[port.link_layer] += round(port.rate_gbps or 0)
    if len(total) <= 1:
        return "", ""
    same = total[INFINIBAND] == total[ETHERNET]
    layer = INFINIBAND if total[INFINIBAND] >= total[ETHERNET] else ETHERNET
    return layer, f"; both have {total[layer]} Gb/s, {layer} is taken" if same else ""


def _gpus(root: Path) -> list[tuple[tuple[str, ...], str | None]]:
    """(bridges above and address, NUMA node) of each NVIDIA GPU."""
    places = (inside(root, f"/sys/bus/pci/devices/{name}") for name in gpu_addresses(root))
    return [(pci_parts(place), value(place / "numa_node")) for place in places]


def _outdone(adapter: Adapter, adapters: Sequence[Adapter], gpus: Sequence[tuple[tuple[str, ...], str | None]]) -> bool:
    faster = [other for other in adapters if _rate(other) > _rate(adapter)]
    return bool(faster and gpus) and all(
        any(_nearness(other, gpu) > _nearness(adapter, gpu) for other in faster) for gpu in gpus
    )


def _nearness(adapter: Adapter, gpu: tuple[tuple[str, ...], str | None]) -> tuple[int, bool]:
    """Shared bridges, then the same NUMA node: more is nearer."""
    ours, shared = pci_parts(adapter.hca.place), 0
    while shared < min(len(ours), len(gpu[0])) and ours[shared] == gpu[0][shared]:
        shared += 1
    node = adapter.hca.numa_node
    return shared, node is not None and node >= 0 and str(node) == gpu[1]
