"""All checks, in the order in which they run: what explains others comes first."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from . import (
    checks_deep,
    checks_gpu,
    checks_gpu_memory,
    checks_host,
    checks_kernel,
    checks_link,
    checks_rdma,
    checks_weights,
)
from .check import DEEP, FAST, Check

CHECKS: tuple[Check, ...] = (
    *checks_link.CHECKS,
    *checks_gpu.CHECKS,
    *checks_gpu_memory.CHECKS,
    *checks_rdma.CHECKS,
    *checks_host.CHECKS,
    *checks_kernel.CHECKS,
    *checks_weights.CHECKS,
    *checks_deep.CHECKS,
)
BY_ID = {check.id: check for check in CHECKS}


class SelectionError(ValueError):
    """A check is named that is not there; one line with the nearest name."""


def chosen(level: str = FAST, only: Iterable[str] = (), skip: Iterable[str] = ()) -> Sequence[Check]:
    """The checks of a level; ``only`` some, without those to ``skip``. Raises SelectionError."""
    only, skip = list(only), set(skip)
    for name in (*only, *skip):
        if name not in BY_ID:
            near = difflib.get_close_matches(name, BY_ID, n=1)
            raise SelectionError(f"no check {name!r}{f'; did you mean {near[0]}?' if near else ''}")
    levels = (FAST, DEEP) if level == DEEP or only else (FAST,)
    return [
        check for check in CHECKS if check.level in levels and (not only or check.id in only) and check.id not in skip
    ]
