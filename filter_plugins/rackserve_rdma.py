"""Filter over module_utils/rackserve/rdma: logins that may lock all memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from rackserve.rdma.limits import memlock_limits


def rdma_memlock_limits(domains: Any) -> list[dict[str, str]]:
    """Return limits, C({domain, type, item, value}), that let these logins lock all memory."""
    try:
        return memlock_limits(list(domains))
    except ValueError as problem:
        raise AnsibleFilterError(str(problem)) from None


class FilterModule:
    """Name the filters for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"rdma_memlock_limits": rdma_memlock_limits}
