"""Filter of backups: what hosts sent, and the plan, as files of the archive."""

from __future__ import annotations

import base64
import json
from typing import Any, Callable


def backup_files(hostvars: Any, plan: Any) -> dict[str, str]:
    """{name in the archive: base64}: the plan, and below hosts/<host> what each host sent."""
    text = json.dumps(json.loads(json.dumps(plan)), indent=1, sort_keys=True) + "\n"
    found = {"plan.json": base64.b64encode(text.encode()).decode()}
    for name in hostvars:
        sent = (hostvars[name].get("backup_configuration_host") or {}).get("files") or {}
        found.update({f"hosts/{name}/{path}": str(content) for path, content in sent.items()})
    return found


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {"backup_files": backup_files}
