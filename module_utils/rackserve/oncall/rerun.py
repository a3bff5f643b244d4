"""`fab rerun`: the one command it may run, shown before it is run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Callable

from .hosts import Host, choose

YES = "yes"


def command(inventory: str, hosts: Sequence[Host], limit: str, check: bool) -> list[str]:
    """site.yml for the hosts of a limit. Raises HostError where the limit fits none."""
    words = ["ansible-playbook", "-i", inventory, "playbooks/site.yml"]
    if limit:
        words += ["--limit", ",".join(host.name for host in choose(hosts, limit))]
    return words + (["--check", "--diff"] if check else [])


def agreed(words: Sequence[str], ask: Callable[[str], str], tell: Callable[[str], None]) -> bool:
    """Show the command and let a person say yes; whoever cannot answer has not agreed."""
    tell(shlex.join(words))
    tell("It starts what is inactive and restarts nothing. What it calls stale, roll-serving applies.")
    try:
        return ask(f"Run it? Type {YES}: ").strip() == YES
    except EOFError:
        return False
