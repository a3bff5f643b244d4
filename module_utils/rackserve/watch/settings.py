"""What the engine watch of a host is told, out of the host's slice of the plan."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

SHORTEST_HANG_S = 15


class WatchError(Exception):
    """The watch cannot be told this; one line says why."""


def watch_settings(
    instances: Iterable[dict[str, Any]], patience: tuple[float, float, int], files: list[str], unit: str
) -> str:
    """The watch's configuration as JSON.

    ``patience`` is (seconds between looks, seconds to a hang, restarts an hour), ``files`` are paths whose change makes
    the watch start anew, ``unit`` is the digest of its unit file. Raises WatchError when the seconds do not leave three
    looks before an engine is ended.
    """
    interval_s, hang_s, restarts = patience
    if hang_s < SHORTEST_HANG_S or hang_s < 3 * interval_s:
        raise WatchError(
            f"vllm_hang_s is {hang_s:g}: it must be at least {SHORTEST_HANG_S} and three times vllm_watch_interval_s "
            f"({interval_s:g}), or a busy engine would be taken for a hung one"
        )
    engines = [
        {
            "unit": instance["unit"],
            "name": instance["name"],
            "address": instance["address"],
            "port": instance["port"],
            "model": instance["served_model_name"],
        }
        for instance in instances
    ]
    told = {"interval_s": interval_s, "hang_s": hang_s, "restarts": restarts, "files": files, "unit": unit}
    return json.dumps({**told, "engines": engines}, indent=1) + "\n"
