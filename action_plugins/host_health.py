"""The module host_health; without it being packed, sent and compiled with Ansible's library on each host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.direct.ask import Core, ask_host  # noqa: E402 - as above
from rackserve.health.answer import ARGUMENTS  # noqa: E402 - needs the path above

# Here, because Ansible's main process loads a plugin before it forks.
CORE = Core("rackserve.health.answer")


class ActionModule(ActionBase):
    """Documented in library/host_health.py."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look without Ansible's module library."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(argument_spec=ARGUMENTS)
        python = constants.config.get_config_value("INTERPRETER_PYTHON", variables=task_vars)
        found = ask_host(self, CORE, python, given)
        return {**result, **(self._execute_module(task_vars=task_vars) if found is None else found)}
