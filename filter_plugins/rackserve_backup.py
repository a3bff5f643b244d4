"""Filter of backups: what hosts sent, and the plan, as files of the archive."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any, Callable

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.backup import archive  # noqa: E402 - needs the path above


def backup_files(hostvars: Any, plan: Any) -> dict[str, str]:
    """{name in the archive: base64}: the plan, and below hosts/<host> what each host sent."""
    text = json.dumps(json.loads(json.dumps(plan)), indent=1, sort_keys=True) + "\n"
    found = {"plan.json": base64.b64encode(text.encode()).decode()}
    for name in hostvars:
        sent = (hostvars[name].get("backup_configuration_host") or {}).get("files") or {}
        found.update({f"hosts/{name}/{path}": str(content) for path, content in sent.items()})
    return found


def backup_secrets(hostvars: Any, secrets: Any) -> list[str]:
    """Values that may stand in no file: the site's secrets, and passwords of connections that are no words."""
    found = {str(value) for value in dict(secrets).values()}
    for name in hostvars:
        values = [hostvars[name][key] for key in hostvars[name] if archive.is_password(str(key))]
        found.update(str(value) for value in values if len(str(value)) >= archive.SHORTEST_SECRET)
    return sorted(found)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {"backup_files": backup_files, "backup_secrets": backup_secrets}
