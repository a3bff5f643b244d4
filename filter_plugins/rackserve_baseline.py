"""Filters over module_utils/rackserve/baseline: kernel settings as a file and as items."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from rackserve.baseline.knobs import BaselineError, knob_items, merge_knobs, sysctl_text


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def baseline_knobs(base: Any, *layers: Any) -> dict[str, str]:
    """Return the knobs of `base` with the later layers laid over it; null removes one."""
    try:
        return merge_knobs(*[_plain(dict(layer or {})) for layer in (base, *layers)])
    except BaselineError as exc:
        raise AnsibleFilterError(str(exc)) from exc


def baseline_knob_items(knobs: Any, optional: Any = ()) -> list[dict[str, Any]]:
    """Return the knob items of a desired-state document; a kernel may lack the keys in `optional`."""
    return knob_items(_plain(dict(knobs)), _plain(list(optional)))


def baseline_sysctl(knobs: Any, take_over: Any = None) -> str:
    """Return the sysctl.d text of the knobs; with `take_over`, only of the keys it names as `sysctl:<key>`."""
    if take_over is None:
        return sysctl_text(_plain(dict(knobs)))
    names = [name.partition(":") for name in _plain(list(take_over))]
    return sysctl_text(_plain(dict(knobs)), [key for kind, _, key in names if kind == "sysctl"])


class FilterModule:
    """Name the filters for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "baseline_knobs": baseline_knobs,
            "baseline_knob_items": baseline_knob_items,
            "baseline_sysctl": baseline_sysctl,
        }
