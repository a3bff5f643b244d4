"""Turn the flows a host serves into nftables rules, and answer whom those rules admit."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Flow = dict[str, Any]

MODES = ("owned_ports", "strict")
MAX_PORT = 65535
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9 ._:/-]{0,63}$")
_INTERFACE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,14}$")


class FirewallError(Exception):
    """What is wrong, where, and how to mend it, in one line."""


def network(text: Any) -> Network:
    """Parse an address or a CIDR; a host inside a network stands for that network. Raises FirewallError."""
    try:
        return ipaddress.ip_network(str(text).split("%", 1)[0], strict=False)
    except ValueError as exc:
        raise FirewallError(f"firewall source {text!r} is no address or CIDR; write 10.0.0.1 or 10.0.0.0/24") from exc


def _ports(name: str, value: Any) -> tuple[int, int]:
    low, _, high = str(value).partition("-")
    if not low.isdigit() or (high and not high.isdigit()):
        raise FirewallError(f"flow {name}: port {value!r} is no port; write 8000 or 20000-20199")
    first, last = int(low), int(high or low)
    if not 1 <= first <= last <= MAX_PORT:
        raise FirewallError(f"flow {name}: port {value!r} is outside 1-{MAX_PORT} or runs backwards")
    return first, last


def _collapse(networks: Iterable[Network]) -> list[str]:
    listed = list(networks)
    four = ipaddress.collapse_addresses(n for n in listed if isinstance(n, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(n for n in listed if isinstance(n, ipaddress.IPv6Network))
    return [str(n) for n in four] + [str(n) for n in six]


def _flow(entry: Mapping[str, Any], names: Mapping[str, str]) -> Flow:
    name, proto = str(entry.get("name", "")), str(entry.get("proto", "tcp"))
    if not _NAME.match(name):
        raise FirewallError(f"flow name {name!r} is empty or has characters nftables would misread")
    if proto not in ("tcp", "udp"):
        raise FirewallError(f"flow {name}: proto {proto!r} is neither tcp nor udp")
    low, high = _ports(name, entry.get("port"))
    sources = entry.get("sources")
    if sources is None:
        sources = ["0.0.0.0/0", "::/0"]
    if isinstance(sources, str):
        raise FirewallError(f"flow {name}: sources is a string; write a list")
    return {
        "name": name,
        "proto": proto,
        "low": low,
        "high": high,
        "sources": _collapse(network(names.get(str(s), s)) for s in sources),
    }


def merge_flows(entries: Iterable[Mapping[str, Any]], peers: Iterable[Mapping[str, Any]] = ()) -> list[Flow]:
    """Normalise flows {name, port, proto, sources} to one per protocol and port range, sorted.

    A source may be an address, a CIDR or the name of a peer {name, address}. `port` is 8000 or "20000-20199".
    No `sources` key means any address, an empty list none. Raises FirewallError.
    """
    names = {str(p["name"]): str(p["address"]) for p in peers}
    merged: dict[tuple[str, int, int], Flow] = {}
    for flow in (_flow(entry, names) for entry in entries):
        key = (flow["proto"], flow["low"], flow["high"])
        known = merged.get(key)
        if known is None:
            merged[key] = flow
            continue
        if flow["name"] not in known["name"].split("+"):
            known["name"] = f"{known['name']}+{flow['name']}"
        known["sources"] = _collapse(network(s) for s in [*known["sources"], *flow["sources"]])
    return [merged[key] for key in sorted(merged)]


def admits(flows: Sequence[Flow], mode: str, address: str, port: int, proto: str = "tcp") -> bool:
    """Tell whether the rules built from `flows` let a new connection from `address` reach `port`."""
    source = network(address)
    mapped = getattr(source.network_address, "ipv4_mapped", None)
    if mapped is not None:
        source = network(str(mapped))
    filtered = [f for f in flows if f["proto"] == proto and f["low"] <= port <= f["high"]]
    if not filtered:
        return mode == "owned_ports"
    wanted = (network(s) for f in filtered for s in f["sources"])
    return any(n.version == source.version and source.subnet_of(n) for n in wanted)  # type: ignore[arg-type]


def _set(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else "{ " + ", ".join(values) + " }"


def _match(flow: Flow) -> str:
    port = str(flow["low"]) if flow["low"] == flow["high"] else f"{flow['low']}-{flow['high']}"
    return f"{flow['proto']} dport {port}"


def _accepts(flow: Flow) -> list[str]:
    four = [s for s in flow["sources"] if ":" not in s]
    six = [s for s in flow["sources"] if ":" in s]
    lines = []
    for family, nfproto, sources, everything in (("ip", "ipv4", four, "0.0.0.0/0"), ("ip6", "ipv6", six, "::/0")):
        if not sources:
            continue
        who = f"meta nfproto {nfproto}" if everything in sources else f"{family} saddr {_set(sources)}"
        lines.append(f'{_match(flow)} {who} accept comment "{flow["name"][:100]}"')
    return lines


# Sets of our table whose elements have a timeout: who may reach the relay just now.
RELAY_SETS = {"ip": "relay4", "ip6": "relay6"}
STRICT_HEAD = (
    "ct state invalid drop",
    "meta l4proto { icmp, ipv6-icmp } accept",
    "udp sport 67 udp dport 68 accept",
    "udp sport 547 udp dport 546 accept",
)


def _pinned(interface: str, peers: Sequence[Mapping[str, Any]]) -> list[str]:
    if not _INTERFACE.match(interface):
        raise FirewallError(f"cannot pin peers to interface {interface!r}: no such name is possible")
    addresses = _collapse(network(p["address"]) for p in peers)
    families = (("ip", [a for a in addresses if ":" not in a]), ("ip6", [a for a in addresses if ":" in a]))
    return [
        f'iifname != "{interface}" {family} saddr {_set(sources)} counter drop comment "peer, wrong interface"'
        for family, sources in families
        if sources
    ]


def build_rules(
    inbound: Sequence[Mapping[str, Any]],
    mode: str,
    management_cidrs: Sequence[str],
    *,
    ssh_ports: Sequence[int] = (22,),
    peers: Sequence[Mapping[str, Any]] = (),
    exempt: Sequence[Mapping[str, Any]] = (),
    pin_interface: str = "",
    relay_port: int = 0,
) -> dict[str, Any]:
    """Return {mode, policy, flows[], rules[], relay_sets[], digest}: the body of chain input of `table inet rackserve`.

    `owned_ports` filters only the ports named in `inbound`; `strict` drops everything nobody listed, and adds
    `exempt` (storage clients that are called back). `relay_port` admits the addresses in the sets relay4 and relay6,
    which a copy of weights fills while it runs; 0 is none. SSH from `management_cidrs` is part of both.
    Raises FirewallError for a mode, flow or address that cannot be meant, and when no management network is named
    although SSH would be filtered.
    """
    if mode not in MODES:
        raise FirewallError(f"firewall mode {mode!r} is none of {', '.join(MODES)}")
    ports = [int(p) for p in ssh_ports]
    flows = merge_flows(inbound, peers)
    guarded = [
        p for p in ports if mode == "strict" or any(f["proto"] == "tcp" and f["low"] <= p <= f["high"] for f in flows)
    ]
    if guarded and not management_cidrs:
        raise FirewallError("management_cidrs is empty and the rules filter SSH; name the networks operators come from")
    management = [{"name": "ssh-management", "port": p, "sources": list(management_cidrs)} for p in guarded]
    extra = list(exempt) if mode == "strict" else []
    relay = [{"name": "weights-relay", "port": relay_port, "sources": []}] if relay_port else []
    flows = merge_flows([*inbound, *management, *extra, *relay], peers)
    rules = ['iifname "lo" accept', "ct state established,related accept"]
    if mode == "strict":
        rules += STRICT_HEAD
    if pin_interface and peers:
        rules += _pinned(pin_interface, peers)
    for flow in flows:
        rules += _accepts(flow)
    for family, name in RELAY_SETS.items() if relay_port else ():
        rules.append(f'tcp dport {relay_port} {family} saddr @{name} accept comment "weights-relay"')
    if mode == "owned_ports":
        rules += [f"{_match(flow)} counter drop" for flow in flows]
    else:
        rules.append("counter drop")
    policy = "drop" if mode == "strict" else "accept"
    sets = list(RELAY_SETS.values()) if relay_port else []
    built: dict[str, Any] = {"mode": mode, "policy": policy, "flows": flows, "rules": rules, "relay_sets": sets}
    built["digest"] = digest(built)
    return built


def digest(built: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) over what decides a packet's fate: mode, policy, flows and rules."""
    decisive = {key: built[key] for key in ("mode", "policy", "flows", "rules")}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
