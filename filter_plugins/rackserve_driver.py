"""Filter over module_utils/rackserve/driver: the key of a package repository."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from rackserve.driver.key import key_digest


def repository_key_digest(path: Any) -> str:
    """Return the sha256 of a public OpenPGP key on the controller; .asc must be ASCII, .gpg binary."""
    try:
        return key_digest(Path(str(path)))
    except ValueError as problem:
        raise AnsibleFilterError(f"nvidia_driver: {problem}") from None


class FilterModule:
    """Name the filters for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"repository_key_digest": repository_key_digest}
