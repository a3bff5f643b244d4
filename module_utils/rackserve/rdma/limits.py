"""Logins that may lock all memory, as lines of limits.d."""

from __future__ import annotations

import re
from collections.abc import Iterable

_DOMAIN = re.compile(r"(\*|@?[A-Za-z0-9_][A-Za-z0-9_.-]*)\Z")


def memlock_limits(domains: Iterable[object]) -> list[dict[str, str]]:
    """Return [{domain, type, item, value}] for these users, @groups or `*`; ValueError names what is none."""
    wanted = [str(domain) for domain in domains]
    for domain in wanted:
        if not _DOMAIN.match(domain):
            raise ValueError(f"rdma_fabric_memlock_domains: {domain!r} is no user, @group or *; write root or @rdma")
    return [{"domain": domain, "type": "-", "item": "memlock", "value": "unlimited"} for domain in wanted]
