"""From a dict of sysctl keys to the drop-in file and to the live values that `converge` compares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_KEY = re.compile(r"^[a-z0-9_]+([./][A-Za-z0-9_.-]+)+$")


class BaselineError(Exception):
    """What is wrong, where, and how to mend it, in one line."""


def proc_path(key: str) -> str:
    """Return the file of a key under /proc/sys: dots are slashes, unless the key is written with slashes already."""
    return "/proc/sys/" + (key if "/" in key else key.replace(".", "/"))


def merge_knobs(*layers: Mapping[str, Any]) -> dict[str, str]:
    """Merge dicts of key to value, later ones win, null removes; values come out as text with single blanks.

    Raises BaselineError for a key that is no sysctl name and a value that is neither text nor a number.
    """
    merged: dict[str, str] = {}
    for layer in layers:
        for key, value in layer.items():
            if not _KEY.match(key) or ".." in key:
                raise BaselineError(f"host_baseline_knobs: {key!r} is no sysctl key; write vm.swappiness")
            if value is None:
                merged.pop(key, None)
            elif isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
                raise BaselineError(f"host_baseline_knobs: {key} has the value {value!r}; write text or a whole number")
            else:
                merged[key] = " ".join(str(value).split())
    return dict(sorted(merged.items()))


def knob_items(knobs: Mapping[str, str], optional: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return the `knob` items of the desired-state document: {id, kind, path, value}.

    Keys in `optional` may be missing from a kernel: their items have `optional`.
    """
    may_miss = set(optional)
    return [
        {
            "id": f"sysctl-{key}",
            "kind": "knob",
            "path": proc_path(key),
            "value": value,
            **({"optional": True} if key in may_miss else {}),
        }
        for key, value in knobs.items()
    ]


def sysctl_text(knobs: Mapping[str, str], only: Iterable[str] | None = None) -> str:
    """Return a sysctl.d file of these knobs, or of the keys in `only` that are among them."""
    chosen = knobs if only is None else {key: knobs[key] for key in sorted(set(only)) if key in knobs}
    lines = [f"{key} = {value}" for key, value in chosen.items()]
    return "\n".join(["# Managed by rackserve: the role host_baseline writes this file.", *lines]) + "\n"
