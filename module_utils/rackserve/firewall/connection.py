"""The argument list of an SSH connection that shares nothing with the ones already open."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from .rules import FirewallError

FRESH = (
    "-o",
    "ControlPath=none",
    "-o",
    "ControlMaster=no",
    "-o",
    "BatchMode=yes",
    "-o",
    "ConnectTimeout=5",
    "-o",
    "ServerAliveInterval=2",
    "-o",
    "ServerAliveCountMax=2",
)


def fresh_ssh_argv(connection: Mapping[str, Any], command: list[str]) -> list[str]:
    """Build `ssh … host -- command` from Ansible's connection variables.

    connection: {host, port, user, private_key, executable, args: [common_args, extra_args], become, connection};
    empty values are left out. SSH takes the first value of an option, so ours stand first. With `become` and another
    user than root the command runs through `sudo -n`. A `local` connection gives the command itself: no SSH exists
    there that the rules could cut. Raises FirewallError without a host.
    """
    user = str(connection.get("user") or "")
    command = [*(["sudo", "-n"] if connection.get("become") and user != "root" else []), *command]
    if connection.get("connection") == "local":
        return command
    host = str(connection.get("host") or "")
    if not host or host.startswith("-"):
        raise FirewallError(f"no usable ansible_host ({host!r}); the new connection needs an address")
    argv = [str(connection.get("executable") or "ssh"), *FRESH]
    if connection.get("port"):
        argv += ["-p", str(connection["port"])]
    if user:
        argv += ["-l", user]
    if connection.get("private_key"):
        argv += ["-i", str(connection["private_key"])]
    for args in connection.get("args") or []:
        argv += shlex.split(str(args or ""))
    return [*argv, host, " ".join(shlex.quote(word) for word in command)]
