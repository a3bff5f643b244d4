"""What a lab is: names, addresses, folders. Pure data, checked once."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

Result = tuple[int, str, str]
Run = Callable[[list[str]], Result]

NAME = re.compile(r"[a-z][a-z0-9-]{0,10}")


class LabError(Exception):
    """One line for the person at the terminal: what, where, how to fix."""


@dataclass(frozen=True)
class Host:
    """A lab host; `address` is inside the lab's subnet.

    `machine` names the hardware profile it simulates, if any; `binds` are folders of this machine that it sees read
    only, as `source:target`.
    """

    name: str
    address: str
    machine: str = ""
    binds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lab:
    """Everything the lab touches on the machine.

    `subnet` holds the hosts and the bridge (its first address); `uplink` is the /30 between the machine (first
    address) and the lab (second address).
    """

    prefix: str
    hosts: tuple[Host, ...]
    subnet: str
    uplink: str
    state_dir: Path
    image_dir: Path
    client_dir: Path
    control_dir: Path

    @property
    def hub(self) -> str:
        """The network namespace that holds the bridge and routes between machine and hosts."""
        return self.prefix

    @property
    def uplink_interface(self) -> str:
        return f"{self.prefix}0"

    @property
    def bridge_address(self) -> str:
        return str(next(ipaddress.ip_network(self.subnet).hosts()))

    @property
    def machine_address(self) -> str:
        return str(next(ipaddress.ip_network(self.uplink).hosts()))

    @property
    def hub_address(self) -> str:
        return str(list(ipaddress.ip_network(self.uplink).hosts())[1])

    @property
    def prefix_length(self) -> int:
        return ipaddress.ip_network(self.subnet).prefixlen

    @property
    def client_key(self) -> Path:
        """The private key that may log in to the hosts as root."""
        return self.client_dir / "id_ed25519"

    def namespace(self, host: Host) -> str:
        return f"{self.prefix}-{host.name}"

    def host_dir(self, host: Host) -> Path:
        return self.state_dir / "hosts" / host.name

    def root_dir(self, host: Host) -> Path:
        return self.host_dir(host) / "root"

    def pid_file(self, host: Host) -> Path:
        return self.host_dir(host) / "supervisor.pid"

    def boot_record(self, host: Host) -> Path:
        """What the running host was booted with."""
        return self.host_dir(host) / "boot.json"


def check(lab: Lab) -> None:
    """Raise LabError on a lab that cannot be."""
    if not NAME.fullmatch(lab.prefix):
        raise LabError(f"lab_host_prefix {lab.prefix!r} must match {NAME.pattern}: it names interfaces and namespaces")
    try:
        subnet, uplink = ipaddress.ip_network(lab.subnet), ipaddress.ip_network(lab.uplink)
    except ValueError as error:
        raise LabError(f"lab_host_subnet / lab_host_uplink: {error}; write a network such as 10.77.0.0/24") from error
    if uplink.prefixlen != 30:  # noqa: PLR2004 - a point-to-point net has two addresses
        raise LabError(f"lab_host_uplink {lab.uplink} must be a /30: one address for the machine, one for the lab")
    if subnet.overlaps(uplink):
        raise LabError(f"lab_host_subnet {lab.subnet} and lab_host_uplink {lab.uplink} overlap; choose two ranges")
    seen: dict[str, str] = {lab.bridge_address: "the bridge"}
    for host in lab.hosts:
        if not NAME.fullmatch(host.name):
            raise LabError(f"lab host name {host.name!r} must match {NAME.pattern}")
        try:
            inside = ipaddress.ip_address(host.address) in subnet
        except ValueError as error:
            raise LabError(f"lab host {host.name}: '{host.address}' is not an address; set ansible_host") from error
        if not inside:
            raise LabError(f"lab host {host.name}: address {host.address} is outside lab_host_subnet {lab.subnet}")
        if host.address in seen:
            raise LabError(f"lab host {host.name}: address {host.address} is taken by {seen[host.address]}")
        seen[host.address] = host.name
        for bind in host.binds:
            source, _, target = bind.partition(":")
            if not (source.startswith("/") and target.startswith("/") and ":" not in target):
                raise LabError(f"lab host {host.name}: bind {bind!r} must be /source:/target")
