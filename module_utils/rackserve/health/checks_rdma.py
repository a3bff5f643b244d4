"""Checks of RDMA adapters: whether ports work as described, and how their counters grow."""

from __future__ import annotations

from collections import Counter
from typing import Callable

from ..rdma.sysfs import ETHERNET, INFINIBAND, Hca, text
from ..rdma.usable import best_gid
from .check import CRITICAL, HOST, INFO, WARNING, Check, NotHere, Problem, Unreadable
from .counters import Growth
from .fabric import missing_modules, peer_memory
from .look import Look, Port

DOWN = ("rdma-lost", "rdma-port-down", "rdma-link-layer")
_LAYERS = {"infiniband": INFINIBAND, "roce": ETHERNET}
_MODERN_MTU = 4000
_DAY_S = 86400.0
# Growth within an hour that is a finding: (counter, most).
_ERRORS = (
    ("counters/symbol_error", 120), ("counters/port_rcv_errors", 10), ("counters/link_error_recovery", 5),
    ("counters/excessive_buffer_overrun_errors", 0), ("counters/local_link_integrity_errors", 0),
    ("counters/port_rcv_remote_physical_errors", 10),
)  # fmt: skip
_TRANSPORT = (
    ("hw_counters/local_ack_timeout_err", 60), ("hw_counters/packet_seq_err", 600),
    ("hw_counters/out_of_sequence", 36_000), ("hw_counters/implied_nak_seq_err", 600),
    ("hw_counters/rnr_nak_retry_err", 0), ("hw_counters/req_transport_retries_exceeded", 0),
)  # fmt: skip
_DISCARDS = (("counters/port_xmit_discards", 3600), ("hw_counters/roce_slow_restart", 36_000))


def each(judge: Callable[[Port, Look], list[Problem]]) -> Callable[[Look], list[Problem]]:
    """A check of each port."""
    return lambda look: look.over(look.ports(), lambda port: judge(port, look))


def _hca_dead(look: Look, hca: Hca) -> bool:
    try:
        return (look.pci(hca) / "config").read_bytes()[:4] == b"\xff" * 4
    except OSError:
        raise Unreadable(f"{hca.name}: its PCI configuration space cannot be read") from None


def _lost(look: Look) -> list[Problem]:
    def judge(hca: Hca) -> list[Problem]:
        dead = _hca_dead(look, hca)
        return [Problem(hca.name, "its configuration space reads ff: it fell off the bus")] if dead else []

    return look.over(look.hcas(), judge)


def _count(look: Look) -> list[Problem]:
    wanted = look.wanted("fabric", "hcas")
    layer = _LAYERS[look.expect["fabric"]["kind"]]
    try:
        ports = look.ports()
    except NotHere:
        ports = []
    names = {port.hca.name for port in ports if port.link_layer == layer and port.state == "ACTIVE"}
    short = wanted is not None and len(names) < wanted
    return [Problem(HOST, f"{len(names)} active {layer} adapters, the plan says {wanted}")] if short else []


def _watched(look: Look) -> list[Port]:
    """Ports that shall work: with a plan those with a cable-carrying kind, without one those that have a link."""
    return [port for port in look.ports() if not _spare(look, port)]


def _spare(look: Look, port: Port) -> bool:
    """A port that nobody counts on: down while as many adapters as described are up."""
    wanted = (look.expect.get("fabric") or {}).get("hcas")
    up = {other.hca.name for other in look.ports() if other.state == "ACTIVE"}
    return port.state == "DOWN" and (wanted is None or len(up) >= wanted or port.hca.name in up)


def _down(look: Look) -> list[Problem]:
    def judge(port: Port) -> list[Problem]:
        if not port.state or not port.phys_state:
            raise Unreadable(f"{port.subject}: its state cannot be read")
        if port.state in ("ACTIVE", "INIT", "ARMED") and port.phys_state == "LinkUp":
            return []
        why = {"Polling": "no cable or no partner", "Disabled": "switched off"}.get(port.phys_state, "no link")
        return [Problem(port.subject, f"{port.state}, {port.phys_state}: {why}")]

    return look.over(_watched(look), judge)


def _manager(port: Port, _: Look) -> list[Problem]:
    if port.link_layer != INFINIBAND or port.phys_state != "LinkUp":
        return []
    if port.state in ("INIT", "ARMED"):
        return [Problem(port.subject, f"{port.state}: no subnet manager brings it up")]
    lids = {"lid": port.seen.lid, "sm_lid": port.seen.sm_lid}
    if None in lids.values():
        raise Unreadable(f"{port.subject}: its lid or sm_lid cannot be read")
    none = [name for name, value in lids.items() if not value]
    return [Problem(port.subject, f"{' and '.join(none)} is 0")] if none else []


def _rate(look: Look) -> list[Problem]:
    wanted = (look.expect.get("fabric") or {}).get("rate_gbps")
    rates = Counter(port.rate_gbps for port in look.ports() if port.state == "ACTIVE")
    goal = wanted or (rates.most_common(1)[0][0] if rates else 0)

    def judge(port: Port) -> list[Problem]:
        if port.state == "ACTIVE" and port.seen.rate_gbps is None:
            raise Unreadable(f"{port.subject}: its rate cannot be read")
        slow = port.state == "ACTIVE" and port.rate_gbps < goal
        said = "the plan says" if wanted else "most ports run at"
        return [Problem(port.subject, f"{port.rate_gbps:g} Gb/s, {said} {goal:g}")] if slow else []

    return look.over(look.ports(), judge)


def _layer(look: Look) -> list[Problem]:
    wanted = _LAYERS.get(look.wanted("fabric", "kind") or "")
    others = [port for port in look.ports() if wanted and port.link_layer != wanted]
    fits = {port.hca.name for port in look.ports() if port.link_layer == wanted}
    if len(fits) >= (look.expect["fabric"].get("hcas") or 0):
        return []  # the others are for storage or management
    return [Problem(port.subject, f"{port.link_layer or '?'}, the plan says {wanted}") for port in others]


def _gid(port: Port, _: Look) -> list[Problem]:
    if port.state != "ACTIVE":
        return []
    blind = [name for name in port.seen.unread if name.startswith("gid")]
    if blind or not (port.path / "gids").is_dir():
        raise Unreadable(f"{port.subject}: its {blind[0] if blind else 'gids'} cannot be read")
    if port.link_layer == INFINIBAND:
        return [] if any(gid.index == 0 for gid in port.seen.gids) else [Problem(port.subject, "GID 0 is empty")]
    return [] if best_gid(port.seen) else [Problem(port.subject, "no RoCE v2 GID with an address of its interface")]


def _width(look: Look) -> list[Problem]:
    def judge(hca: Hca) -> list[Problem]:
        device = look.pci(hca)
        widths = [text(device / name) for name in ("current_link_width", "max_link_width")]
        above = text(device.parent / "max_link_width")
        if not all(width.isdigit() for width in widths):
            raise Unreadable(f"{hca.name}: its PCIe width cannot be read")
        now, most = map(int, widths)
        most = min(most, int(above)) if above.isdigit() and int(above) else most
        return [Problem(hca.name, f"{now} of {most} PCIe lanes")] if 0 < now < most else []

    return look.over(look.hcas(), judge)


def _firmware(look: Look) -> list[Problem]:
    by_board: dict[str, list[tuple[str, str]]] = {}
    for hca in look.hcas():
        version = hca.facts["fw_ver"]
        if version:
            by_board.setdefault(hca.facts["board_id"] or "", []).append((hca.name, version))
        else:
            look.unread.append(f"{hca.name}: its firmware's version cannot be read")
    found = []
    for rows in by_board.values():
        most = Counter(version for _, version in rows).most_common(1)[0][0]
        found += [Problem(name, f"{version}, equal cards have {most}") for name, version in rows if version != most]
    return found


def _mtu(look: Look) -> list[Problem]:
    def judge(hca: Hca) -> list[Problem]:
        found = []
        for interface in look.interfaces(hca):
            mtu, up = text(interface / "mtu"), text(interface / "operstate") == "up"
            layer = next((port.link_layer for port in look.ports() if port.hca.name == hca.name), "")
            least = 2044 if layer == INFINIBAND else _MODERN_MTU
            if not mtu.isdigit():
                raise Unreadable(f"{interface.name}: its MTU cannot be read")
            if up and int(mtu) < least:
                found.append(Problem(hca.name, f"{interface.name} has an MTU of {mtu}, less than {least}"))
        return found

    return look.over(look.hcas(), judge)


def _grown(look: Look, port: Port, counters: tuple[tuple[str, int], ...]) -> list[str]:
    """What grew more than it may. A first look says nothing: the counters are since the driver was loaded."""
    found = []
    for name, most in counters:
        value = text(port.path / name)
        if not value.isdigit():
            continue
        growth = look.counters.grew(f"{name}/{port.subject}", int(value))
        if growth.grown and growth.per_hour > most:
            found.append(f"{name.rpartition('/')[2]} +{growth.grown} within {growth.seconds:.0f} s")
    return found


def _counting(counters: tuple[tuple[str, int], ...]) -> Callable[[Look], list[Problem]]:
    def judge(port: Port, look: Look) -> list[Problem]:
        if not text(port.path / counters[0][0]).isdigit():
            raise Unreadable(f"{port.subject}: its {counters[0][0]} cannot be read")
        grown = _grown(look, port, counters)
        return [Problem(port.subject, ", ".join(grown))] if grown else []

    return each(judge)


def _flap(port: Port, look: Look) -> list[Problem]:
    found: list[str] = []
    downed = text(port.path / "counters/link_downed")
    if not downed.isdigit():
        raise Unreadable(f"{port.subject}: its counter link_downed cannot be read")
    found += _times("link_downed", look.counters.grew(f"link_downed/{port.subject}", int(downed)))
    for interface in look.interfaces(port.hca):
        changes = text(interface / "carrier_changes")
        if changes.isdigit():
            growth = look.counters.grew(f"carrier_changes/{interface.name}", int(changes))
            found += [f"carrier_changes +{growth.grown}"] if growth.grown and growth.grown > 1 else []
        said = [line for line in look.lines() if f"{interface.name}: Link down" in line.text and line.age_s < _DAY_S]
        found += [f"{len(said)} times 'Link down' in the kernel log, last {said[-1].age_s:.0f} s ago"] if said else []
    return [Problem(port.subject, ", ".join(found))] if found and port.state == "ACTIVE" else []


def _times(name: str, growth: Growth) -> list[str]:
    if growth.grown is None:
        return [f"{name} is {growth.total} since its driver was loaded"] if growth.total else []
    return [f"{name} +{growth.grown} within {growth.seconds:.0f} s"] if growth.grown else []


def _modules(look: Look) -> list[Problem]:
    wanted = look.wanted("fabric", "modules") or []
    look.entries("sys/module", above="sys/module")
    return [
        Problem(HOST, f"{name} is not loaded", fix=f"modprobe {name}") for name in missing_modules(look.root, wanted)
    ]


def _peer_memory(look: Look) -> list[Problem]:
    wanted = look.wanted("fabric", "peer_memory")
    if not wanted:
        raise NotHere("the plan asks for no way from adapters to the memory of GPUs")
    return [Problem(HOST, why, fix=fix) for why, fix in peer_memory(look.root, wanted)]


CHECKS = (
    Check(
        "rdma-lost", CRITICAL, "any adapter whose PCI space reads ff", "as for GPUs", "The adapter answers nothing.",
        "drain the host, power it off and on; reseat {subject} if it comes back", _lost,
    ),
    Check(
        "rdma-link-layer", CRITICAL, "not the plan's, on adapters that are needed", "cluster.network.fabric.kind",
        "NCCL never mixes InfiniBand and Ethernet: the adapter is left out.",
        "mlxconfig -d {subject} set LINK_TYPE_P1=1 (InfiniBand) or 2 (Ethernet), then a cold reboot", _layer,
    ),
    Check(
        "rdma-port-down", CRITICAL, "not LinkUp, where the plan counts on it", "nccl-ib 4",
        "Traffic between hosts has one adapter less, or none.",
        "ibstat; Polling: cable and switch port; Disabled: ibportstate or ip link set <netdev> up", _down,
        ("rdma-lost",),
    ),
    Check(
        "rdma-subnet-manager", CRITICAL, "INIT, or LID or SM LID 0", "nccl-ib 4: INIT means no subnet manager",
        "The port has a link and cannot send.",
        "sminfo; start opensm or the switch's subnet manager, and look for the port's GUID in its log",
        each(_manager), DOWN,
    ),
    Check(
        "rdma-rate", CRITICAL, "below the plan's rate; without one, below most ports", "cluster.network.fabric",
        "All hosts of a job wait for the slowest port.",
        "reseat or replace the cable of {subject}: mlxlink -d {hca} -m; look at the switch's port, too", _rate, DOWN,
    ),
    Check(
        "rdma-count", CRITICAL, "fewer active adapters than the plan says", "cluster.network.fabric.hcas",
        "NCCL uses what is left, and nobody is told.", "ibstat and lspci -d 15b3: name the one that is missing", _count,
        (*DOWN, "rdma-subnet-manager"),
    ),
    Check(
        "rdma-gid", CRITICAL, "InfiniBand: GID 0 empty; Ethernet: no RoCE v2 GID with an address", "nccl-ib 4",
        "No connection can be made from that port.",
        "show_gids; Ethernet: give the interface its IPv4 address again; InfiniBand: restart the subnet manager",
        each(_gid), (*DOWN, "rdma-subnet-manager"),
    ),
    Check(
        "rdma-link-flap", WARNING,
        "link_downed grew; more than 1 carrier change; 'Link down' within 24 h; at the first look link_downed over 0",
        "nccl-ib 4.1; Azure: 5 in 24 h; OCI: any in 6 h",
        "Each flap stops all traffic for seconds, and NCCL may give up.",
        "clean or replace the cable of {subject}; mlxlink -d {hca} -c shows the error rate", each(_flap), DOWN,
    ),
    Check(
        "rdma-errors", WARNING,
        "an hour: symbol_error 120, port_rcv_errors 10, link_error_recovery 5, others any",
        "nccl-ib 4.1, NVSentinel", "Packets are lost on the cable and sent again.",
        "clean or replace the cable of {subject}; compare with the switch's counters (perfquery)",
        _counting(_ERRORS), ("rdma-link-flap", *DOWN),
    ),
    Check(
        "rdma-transport", WARNING,
        "an hour: local_ack_timeout_err 60, packet_seq_err 600, rnr_nak_retry_err and transport retries any",
        "nccl-ib 4.1, NVSentinel (1/s, eased)",
        "Sent messages are not answered: loss in the fabric, or a dead partner.",
        "find the partner: NCCL_DEBUG=WARN names it; look at switch counters on the way", _counting(_TRANSPORT),
        ("rdma-link-flap", "rdma-errors", *DOWN),
    ),
    Check(
        "rdma-discards", WARNING, "an hour: port_xmit_discards 3600, roce_slow_restart 36000",
        "nccl-ib 4.1, NVSentinel",
        "The fabric is congested, or flow control is not set the same everywhere.",
        "Ethernet: compare PFC and ECN of host (mlnx_qos) and switch; InfiniBand: ibdiagnet --pc",
        _counting(_DISCARDS), ("rdma-link-flap", *DOWN),
    ),
    Check(
        "rdma-pcie-width", CRITICAL, "fewer lanes than both ends can", "nccl-ib 4 (step 6), 5",
        "The adapter cannot carry its rate into memory.", "drain the host, power off, reseat {subject} or its riser",
        _width, ("rdma-lost",),
    ),
    Check(
        "rdma-firmware", INFO, "equal cards with different firmware", "imbue cluster-health",
        "Different firmware explains different behaviour under load.",
        "mlxfwmanager --query; burn the same version on the drained host", _firmware, ("rdma-lost",),
    ),
    Check(
        "rdma-mtu", WARNING, "below 2044 (IPoIB) or 4000 (Ethernet)", "nccl-ib 4: RoCE path MTU 4096 needs it",
        "RoCE falls back to small packets: more of them, more CPU.",
        "ip link set <netdev> mtu 4200 (switch first), and "
        "write it into the host's network configuration", _mtu, DOWN,
    ),
    Check(
        "rdma-modules", CRITICAL, "one of the plan's is not loaded", "the plan (fabric.modules)",
        "User programs cannot open the adapters.", "modprobe what is named; playbooks/site.yml loads them at boot",
        _modules,
    ),
    Check(
        "rdma-peer-memory", WARNING, "neither DMA-BUF nor nvidia_peermem, as planned", "nccl-ib 3, GDR prerequisites",
        "Every transfer between hosts goes through the CPU's memory.", "as named", _peer_memory, ("driver-versions",),
    ),
)  # fmt: skip
