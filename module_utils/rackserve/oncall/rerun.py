"""`fab rerun`: the one command it may run, shown before it is run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Callable

from .hosts import Host, choose

YES = "yes"


def command(inventory: str, hosts: Sequence[Host], limit: str, check: bool) -> list[str]:
    """site.yml for the hosts of a limit and the gateway, which has the lease. HostError where the limit fits none."""
    words = ["ansible-playbook", "-i", inventory, "playbooks/site.yml"]
    if limit:
        names = [host.name for host in choose(hosts, limit)]
        names += [host.name for host in hosts if "gateway" in host.groups and host.name not in names]
        words += ["--limit", ",".join(names)]
    return words + (["--check", "--diff"] if check else [])


def agreed(words: Sequence[str], ask: Callable[[str], str], tell: Callable[[str], None]) -> bool:
    """Show the command and let a person say yes; whoever cannot answer has not agreed."""
    tell(shlex.join(words))
    tell("It starts what is inactive and restarts nothing. What it calls stale, roll-serving applies.")
    try:
        return ask(f"Run it? Type {YES}: ").strip() == YES
    except EOFError:
        return False
