"""Filters for desired-state documents; the work is done in module_utils/rackserve/converge."""

from __future__ import annotations

import json
from typing import Any, Callable

import yaml
from ansible.errors import AnsibleFilterError
from ansible.module_utils.rackserve.converge import DocumentError, overlay_document

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def desired_document(text_or_items: Any, role: str, extra: Any = (), override: Any = None) -> dict[str, Any]:
    """A role's desired-state document from YAML text or items, with the site's extra items and overrides."""
    try:
        base = json.loads(json.dumps(text_or_items))
        if isinstance(base, str):
            base = yaml.load(base, Loader=_LOADER)  # noqa: S506 - _LOADER is a safe loader
        return overlay_document(
            base, str(role), json.loads(json.dumps(list(extra or []))), json.loads(json.dumps(override or {}))
        )
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise AnsibleFilterError(f"desired_document: role {role}: the text is no YAML{where}") from None
    except (DocumentError, TypeError, ValueError) as problem:
        raise AnsibleFilterError(f"desired_document: {problem}") from None


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {"desired_document": desired_document}
