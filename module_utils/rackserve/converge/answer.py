"""One whole comparison or application, from the options of `converge` to its result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .engine import converge
from .errors import ConvergeError
from .runner import host_runner

ARGUMENTS: dict[str, dict[str, Any]] = {
    "documents": {"type": "list", "elements": "dict", "required": True},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "root": {"type": "path", "default": "/"},
    "apply_gated": {"type": "list", "elements": "str", "default": []},
}


def answer(given: Mapping[str, Any], *, check: bool, diff: bool) -> dict[str, Any]:
    """The module's result; `failed` and `msg` where the document is wrong or the host does not follow.

    given: every option of ARGUMENTS. check: compare only. diff: with what differs as text, else `diff` is empty.
    """
    root = Path(given["root"])
    try:
        result = converge(
            given["documents"],
            secrets=given["secrets"],
            root=root,
            run=host_runner(root),
            apply_gated=given["apply_gated"],
            check=check,
        )
    except ConvergeError as problem:
        return {"failed": True, "msg": str(problem), **problem.partial}
    return result if diff else {**result, "diff": []}
