"""Who is in the cluster: groups, hosts and addresses, checked against each other."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any

from .findings import Findings, as_dict, did_you_mean, show

GROUPS = ("gpu", "gateway", "monitoring", "builder")
_PLANNED = ("gpu", "gateway", "monitoring")
_AUTOMATIC = ("all", "ungrouped")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass
class Inventory:
    """Groups (Ansible's automatic ones left out) and the hosts that carry a role, in inventory order."""

    groups: dict[str, list[str]] = field(default_factory=dict)
    hosts: list[str] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)

    def members(self, group: str) -> list[str]:
        """Hosts of a group; none when there is no such group."""
        return self.groups.get(group, [])

    def resolve(self, spec: Any, where: str, findings: Findings) -> list[str]:
        """Hosts meant by a group's name, a host's name or a list of hosts' names."""
        if isinstance(spec, str) and spec in self.groups:
            if not self.groups[spec]:
                findings.error("empty-group", where, f'group "{spec}" has no hosts.', "Add hosts to it.")
            return list(self.groups[spec])
        found: list[str] = []
        everyone = {host for members in self.groups.values() for host in members}
        for name in spec if isinstance(spec, list) else [spec]:
            if name in found:
                findings.error("duplicate-host", where, f'"{name}" is named twice.', "Name it once.")
            elif name in everyone:
                found.append(name)
            else:
                known = sorted(everyone) + ([] if isinstance(spec, list) else sorted(self.groups))
                fix = did_you_mean(name, known, "Groups: " + ", ".join(sorted(self.groups)) + ".")
                findings.error("unknown-host", where, f"{show(name)} is no host or group of the inventory.", fix)
        return found


def read_inventory(groups: Any, addresses: Any, findings: Findings) -> Inventory:
    """Check ``groups`` {group: [host]} and ``addresses`` {host: IP}; wrong parts become findings and are left out."""
    inventory = Inventory()
    if not isinstance(groups, dict):
        findings.error("bad-inventory", "inventory", "groups must be an object of lists.", "Pass Ansible's groups.")
    for group, members in as_dict(groups).items():
        good = isinstance(members, list) and all(isinstance(host, str) for host in members)
        if not isinstance(group, str) or not good:
            findings.error("bad-inventory", f"inventory.{group}", "a group must be a list of host names.", "Mend it.")
        elif group not in _AUTOMATIC:
            inventory.groups[group] = list(dict.fromkeys(members))
            if group not in GROUPS:
                known = ", ".join(GROUPS)
                fix = did_you_mean(group, GROUPS, f"Groups that mean something: {known}.")
                findings.warning("unknown-group", f"inventory.{group}", f'group "{group}" gives no role.', fix)
    planned = dict.fromkeys(host for group in _PLANNED for host in inventory.members(group))
    for host in planned:
        if _HOST.fullmatch(host):
            inventory.hosts.append(host)
        else:
            why = f"{show(host)} cannot be used as a host's name."
            findings.error("bad-host-name", f"inventory.{host}", why, "Use letters, digits and ._-; at most 63.")
    _read_addresses(inventory, as_dict(addresses), findings)
    return inventory


def _read_addresses(inventory: Inventory, addresses: dict[str, Any], findings: Findings) -> None:
    owner: dict[str, str] = {}
    for host in inventory.hosts:
        where = f"inventory.{host}.ansible_host"
        value = addresses.get(host)
        if value is None:
            fix = f"Give {host} a literal ansible_host: its IP address on the cluster interface."
            findings.error("missing-address", where, f"{host} has no address.", fix)
            continue
        try:
            address = str(ipaddress.ip_address(value if isinstance(value, str) else ""))
        except ValueError:
            why = f"{show(value)} is not an IP address; engines, gateway and firewall need one."
            findings.error("bad-address", where, why, "Write the IP address on the cluster interface.")
            continue
        if address in owner:
            why = f"{host} and {owner[address]} have the address {address}."
            fix = "Give every host its own; if two inventories were merged, use one: one inventory is one cluster."
            findings.error("duplicate-address", where, why, fix)
        owner.setdefault(address, host)
        inventory.addresses[host] = address


def check_sources(sources: Any, findings: Findings) -> None:
    """One inventory is one cluster: ``sources`` {host: folder of the inventory that it comes from} name one folder."""
    folders: dict[str, list[str]] = {}
    for host, folder in as_dict(sources).items():
        if isinstance(host, str) and isinstance(folder, str) and folder:
            folders.setdefault(folder, []).append(host)
    if len(folders) > 1:
        named = "; ".join(f"{folder}: {', '.join(hosts)}" for folder, hosts in folders.items())
        why = f"hosts of {len(folders)} inventories are merged ({named})."
        findings.error("inventories-merged", "inventory", why, "Give one -i: one inventory is one cluster.")


def check_networks(cidrs: list[str], where: str, findings: Findings) -> list[str]:
    """The networks in canonical form; what is no network becomes a finding and is left out."""
    good: list[str] = []
    for index, text in enumerate(cidrs):
        spot = f"{where}[{index}]"
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            findings.error("bad-network", spot, f"{show(text)} is not a network.", "Write it like 10.77.1.0/30.")
            continue
        if ipaddress.ip_interface(text).ip != network.network_address:
            findings.warning("host-bits", spot, f"{text} names a host; {network} is meant.", f"Write {network}.")
        if network.prefixlen == 0:
            why = f"{network} is everybody: SSH and metrics are open to the world."
            findings.warning("open-network", spot, why, "Name the networks the operators sit in.")
        good.append(str(network))
    return good
