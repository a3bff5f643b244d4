"""Filters of the GPU guard: shims over module_utils/rackserve/gpu."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.gpu.command import guard_argv  # noqa: E402 - needs the path above
from rackserve.gpu.sweep import lines  # noqa: E402 - needs the path above


def gpu_guard_argv(
    instance: Any, instances: Any, folder: str, ignored: Any = None, simulated: Any = False
) -> list[str]:
    """The guard's command line for an engine; ``folder`` holds a copy of the guard by each engine's name."""
    one, others, names = json.loads(json.dumps([instance, instances, ignored or []]))
    return guard_argv(one, others, f"{folder}/{one['name']}", names, bool(simulated))


def swept_lines(processes: Any) -> list[str]:
    """What gpu_process_sweep saw, a line a process."""
    return lines(json.loads(json.dumps(processes)))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {"gpu_guard_argv": gpu_guard_argv, "swept_lines": swept_lines}
