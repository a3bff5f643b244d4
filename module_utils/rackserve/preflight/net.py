"""Addresses of an interface, and who listens on a port."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from .findings import Finding, finding
from .host import at, read

Run = Callable[[list[str]], tuple[int, str, str]]
_LISTEN = "0A"


def check_address(run: Run, interface: str, address: str) -> list[Finding]:
    """Check that `address` stands on `interface`; names where it stands instead."""
    code, out, err = run(["ip", "-j", "address", "show"])
    if code != 0:
        return [
            finding(
                "error", "no-ip-tool", "ip -j address show", (err or out).strip() or f"exit {code}", "install iproute2"
            )
        ]
    places = {
        entry["ifname"]: [a["local"] for a in entry.get("addr_info", []) if "local" in a]
        for entry in json.loads(out or "[]")
        if "ifname" in entry
    }
    if address in places.get(interface, []):
        return []
    where = f"interface {interface}"
    if interface not in places:
        why = f"there is no such interface; this host has {', '.join(sorted(places))}"
    else:
        why = f"it carries {', '.join(places[interface]) or 'no address'}, not {address}"
    elsewhere = [name for name, addresses in places.items() if address in addresses]
    if elsewhere:
        return [
            finding(
                "error",
                "address-elsewhere",
                where,
                f"{address} stands on {elsewhere[0]} ({why})",
                f"set cluster.network.cluster_interface to {elsewhere[0]} or move the address",
            )
        ]
    return [
        finding("error", "address-missing", where, why, "correct ansible_host or cluster.network.cluster_interface")
    ]


def listeners(root: Path, ports: set[int]) -> dict[int, set[str]]:
    """Return port to socket inodes of those of `ports` on which TCP listens, on any address."""
    found: dict[int, set[str]] = {}
    for name in ("tcp", "tcp6"):
        for line in read(at(root, f"/proc/net/{name}")).splitlines()[1:]:
            words = line.split()
            if len(words) > 9 and words[3] == _LISTEN:  # noqa: PLR2004 - the inode is column ten
                port = int(words[1].rpartition(":")[2], 16)
                if port in ports:
                    found.setdefault(port, set()).add(words[9])
    return found


def _held(process: Path) -> set[str]:
    """Return what the descriptors of a process point to; those that close meanwhile are left out."""
    held = set()
    try:
        for descriptor in os.listdir(process / "fd"):  # noqa: PTH208 - names suffice, thousands of them
            with contextlib.suppress(OSError):
                held.add(os.readlink(f"{process}/fd/{descriptor}"))  # noqa: PTH115 - as above
    except OSError:
        return held
    return held


def owners(root: Path, inodes: set[str]) -> dict[str, tuple[int, str, str]]:
    """Return inode to (pid, process name, unit) of the processes that hold these sockets; one walk of /proc."""
    found: dict[str, tuple[int, str, str]] = {}
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    pids = [p for p in at(root, "/proc").iterdir() if p.name.isdigit()] if inodes else []
    for process in sorted(pids, key=lambda p: int(p.name)):
        for target in _held(process) & set(wanted):
            groups = read(process / "cgroup").splitlines()
            units = [part for line in groups for part in line.split("/") if part.endswith((".service", ".scope"))]
            found.setdefault(wanted[target], (int(process.name), read(process / "comm").strip(), (units or [""])[-1]))
        if len(found) == len(wanted):
            break
    return found


def check_ports(root: Path, ports: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Check that our ports [{port, unit}] are free or held by that unit; a foreign holder is named.

    A socket without a holder in sight is looked at again: it may have been closed while the processes were walked.
    """
    units: dict[int, set[str]] = {}
    for entry in ports:
        units.setdefault(int(entry["port"]), set()).add(str(entry["unit"]))
    listening = listeners(root, set(units))
    holders = owners(root, {inode for inodes in listening.values() for inode in inodes})
    if any(inode not in holders for inodes in listening.values() for inode in inodes):
        still = listeners(root, set(units))
        listening = {port: inodes & still.get(port, set()) for port, inodes in listening.items()}
    found = []
    for port, inodes in sorted(listening.items()):
        for inode in sorted(inodes):
            pid, name, unit = holders.get(inode, (0, "unknown", ""))
            if unit not in units[port]:
                who = f"process {pid} ({name})" + (f" of {unit}" if unit else "") if pid else "a process out of sight"
                why = f"{who} listens on it, {', '.join(sorted(units[port]))} needs it"
                found.append(
                    finding(
                        "error",
                        "port-taken",
                        f"port {port}",
                        why,
                        "stop that process, or choose another port in the description",
                    )
                )
                break
    return found
