"""The module completion_check; on the controller without packing it and starting another Python."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.completion.prove import ARGUMENTS, command_output, prove  # noqa: E402 - needs the path above


class ActionModule(ActionBase):
    """Documented in library/completion_check.py."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask from this process where the task runs on the controller as its user, as a module elsewhere."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._connection.transport != "local" or self._connection.become is not None:
            return {**result, **self._execute_module(task_vars=task_vars)}
        _, given = self.validate_argument_spec(argument_spec=ARGUMENTS)
        return {**result, **prove(given, command_output)}
