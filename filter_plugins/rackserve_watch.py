"""Filters of the engine watch: shims over module_utils/rackserve/watch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.watch.settings import WatchError, watch_settings  # noqa: E402 - needs the path above


def engine_watch_settings(instances: Any, patience: Any, files: Any, unit: str) -> str:
    """The watch's configuration; ``patience`` is [seconds between looks, seconds to hang, restarts an hour]."""
    engines, (interval_s, hang_s, restarts), paths = json.loads(json.dumps([instances, patience, files]))
    try:
        return watch_settings(engines, (float(interval_s), float(hang_s), int(restarts)), paths, str(unit))
    except WatchError as problem:
        raise AnsibleFilterError(str(problem)) from problem


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {"engine_watch_settings": engine_watch_settings}
