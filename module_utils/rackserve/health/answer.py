"""One look at a host, from the options of `host_health` to its result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .catalogue import SelectionError
from .check import DEEP, FAST
from .host_tools import tools_for
from .program import STATE, look_at

_NAMES = {"type": "list", "elements": "str", "default": []}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "expect": {"type": "dict", "default": {}},
    "level": {"type": "str", "choices": [FAST, DEEP], "default": FAST},
    "only": _NAMES,
    "skip": _NAMES,
    "state": {"type": "path", "default": str(STATE)},
    "root": {"type": "path", "default": "/"},
}


def answer(given: Mapping[str, Any], *, check: bool = True, diff: bool = False) -> dict[str, Any]:
    """The module's result, the same with `check` and `diff` as without; `failed` and `msg` for a check unknown.

    given: every option of ARGUMENTS.
    """
    del check, diff
    root = Path(given["root"])
    try:
        result = look_at(root, given["expect"], tools_for(root), Path(given["state"]), given)
    except SelectionError as problem:
        return {"failed": True, "msg": f"host_health: {problem}"}
    del result["kept"]
    return {"changed": False, **result}
