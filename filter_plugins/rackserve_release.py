"""Filters for building releases; the work is done in module_utils/rackserve/release."""

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

from rackserve.release import recordings  # noqa: E402 - needs the path above


def golden_instances(plan: Any) -> list[dict[str, Any]]:
    """[{card, instance}] of a plan: one engine of each deployment."""
    try:
        return recordings.golden_instances(json.loads(json.dumps(plan)))
    except (KeyError, TypeError, ValueError) as problem:
        raise AnsibleFilterError(f"golden_instances: {problem}") from None


def golden_answers(plan: Any, folder: str, release: str = "") -> dict[str, Any]:
    """{deployment: recorded answers} of a plan; a deployment nothing was recorded for is left out."""
    # The plan as it is: a plain copy of a large one takes longer than the few values that are read of it.
    return recordings.golden_answers(plan, Path(folder), str(release))


def built_release(description: Any, unbuilt: Any) -> dict[str, Any]:
    """What the build of a release wrote of it in the file `description`; `unbuilt` says what to do where it is not."""
    try:
        built: dict[str, Any] = json.loads(Path(str(description)).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AnsibleFilterError(str(unbuilt)) from None
    except (OSError, ValueError) as problem:
        raise AnsibleFilterError(f"{description}: {problem}") from None
    return built


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {
            "golden_instances": golden_instances,
            "golden_answers": golden_answers,
            "built_release": built_release,
        }
