"""How each host is reached, from the same inventory variables that Ansible reads."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

MEMBERS = ("gpu", "gateway", "monitoring")
SSH_PORT = 22
# What host_from reads.
VARIABLES = (
    *(f"ansible_{name}" for name in ("host", "user", "port", "connection", "become")),
    *(f"ansible_ssh_{name}" for name in ("args", "common_args", "extra_args", "private_key_file")),
)
_TRUE = ("true", "yes", "1")
# Written into a command line and shown: a name that is none of these is refused.
_PATTERN = re.compile(r"[A-Za-z0-9_*?\[\]][A-Za-z0-9_.*?\[\]-]*")


class HostError(ValueError):
    """A host cannot be reached with what the inventory says of it, or none is meant; one line with the fix."""


class Host(NamedTuple):
    """A host and the way to it; ``known_hosts`` and ``key_file`` are empty where the user's own count."""

    name: str
    groups: tuple[str, ...]
    address: str
    user: str = ""
    port: int = SSH_PORT
    key_file: str = ""
    known_hosts: str = ""
    proxy: str = ""
    own_key_only: bool = False
    become: bool = False


def host_from(name: str, groups: Iterable[str], variables: Mapping[str, Any]) -> Host | None:
    """The way to a host; None where Ansible does not use SSH for it. Raises HostError."""
    if str(variables.get("ansible_connection") or "ssh") not in ("ssh", "smart", "paramiko", "paramiko_ssh"):
        return None
    texts = [str(variables.get(f"ansible_ssh_{part}") or "") for part in ("args", "common_args", "extra_args")]
    options = ssh_options(name, " ".join(texts))
    proxy = options.get("proxycommand", "")
    if not proxy and options.get("proxyjump"):
        proxy = f"ssh -W %h:%p {shlex.quote(options['proxyjump'])}"
    return Host(
        name,
        tuple(groups),
        str(variables.get("ansible_host") or name),
        str(variables.get("ansible_user") or options.get("user", "")),
        int(variables.get("ansible_port") or options.get("port") or SSH_PORT),
        str(variables.get("ansible_ssh_private_key_file") or options.get("identityfile", "")),
        options.get("userknownhostsfile", ""),
        proxy,
        options.get("identitiesonly", "").lower() == "yes",
        str(variables.get("ansible_become")).lower() in _TRUE,
    )


def ssh_options(name: str, text: str) -> dict[str, str]:
    """{option in lower case: value} of ssh's own arguments; what says nothing about the way is passed over."""
    try:
        words = shlex.split(text)
    except ValueError as problem:
        raise HostError(f"{name}: ansible_ssh_common_args cannot be read ({problem}); close its quotes") from None
    short = {"-J": "proxyjump", "-i": "identityfile", "-p": "port", "-l": "user"}
    found: dict[str, str] = {}
    place = 0
    while place < len(words):
        word, following = words[place], words[place + 1] if place + 1 < len(words) else ""
        place += 1
        if word == "-F":
            raise HostError(f"{name}: ssh is told to read {following}; say it in the inventory or in ~/.ssh/config")
        if word in short:
            found.setdefault(short[word], following)
            place += 1
        elif word.startswith("-o"):
            said = word[2:] or following
            place += not word[2:]
            key, _, value = said.partition("=") if "=" in said else said.partition(" ")
            # The first value counts, as for ssh.
            found.setdefault(key.strip().lower(), value.strip())
    return found


def choose(hosts: Sequence[Host], limit: str = "", groups: Iterable[str] = MEMBERS) -> list[Host]:
    """The hosts that a limit names, by name or group, wildcards and `!` as in Ansible; without one all of ``groups``.

    Raises HostError where a word fits no host.
    """
    wanted = set(groups)
    members = [host for host in hosts if wanted.intersection(host.groups)]
    parts = [part for part in re.split(r"[,:]", limit) if part]
    if not parts:
        return _some(members, "the inventory has no host in gpu, gateway or monitoring that is reached by SSH")
    picked: list[Host] = []
    if all(part.startswith("!") for part in parts):
        picked = list(members)
    for part in parts:
        word = part.lstrip("!")
        if not _PATTERN.fullmatch(word):
            raise HostError(f"limit {part!r}: give names or groups, such as node3 or gpu,!node3")
        fitting = [host for host in hosts if any(fnmatch.fnmatchcase(n, word) for n in (host.name, *host.groups))]
        if not fitting:
            raise HostError(f"limit {part!r} fits no host; there are {', '.join(host.name for host in hosts)}")
        if part.startswith("!"):
            picked = [host for host in picked if host not in fitting]
        else:
            picked += [host for host in fitting if host not in picked]
    return _some(picked, f"limit {limit!r} leaves no host")


def _some(hosts: list[Host], otherwise: str) -> list[Host]:
    if not hosts:
        raise HostError(otherwise)
    return hosts
