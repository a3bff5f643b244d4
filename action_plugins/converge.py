"""The module converge; comparing without it being packed, sent and compiled with Ansible's library on each host."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.converge.answer import ARGUMENTS  # noqa: E402 - needs the path above
from rackserve.converge.contents import redact  # noqa: E402 - as above
from rackserve.direct.ask import Core, ask_host  # noqa: E402 - as above

# Here, because Ansible's main process loads a plugin before it forks.
CORE = Core("rackserve.converge.answer")


class ActionModule(ActionBase):
    """Documented in library/converge.py."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compare without Ansible's module library; apply as the module."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self._task.args
        late = {}
        if isinstance(arguments.get("documents"), str):
            try:
                late = {"documents": json.loads(arguments["documents"])}
            except ValueError as problem:
                return {**result, "failed": True, "msg": f"documents: a text that is not JSON: {problem}"}
            # The core judges documents itself; to validate them here as well copies all of them.
            self._task.args = {**arguments, "documents": []}
        found = None
        if self._task.check_mode:
            _, given = self.validate_argument_spec(argument_spec=ARGUMENTS)
            python = constants.config.get_config_value("INTERPRETER_PYTHON", variables=task_vars)
            secrets = {name: str(value) for name, value in given["secrets"].items()}
            found = ask_host(self, CORE, python, {**given, **late}, lambda text: redact(text, secrets))
        if found is None:
            found = self._execute_module(module_args={**arguments, **late}, task_vars=task_vars)
        return {**result, **found}
