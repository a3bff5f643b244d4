"""Make the repository's own module_utils, modules and filters importable the way Ansible imports them."""

from __future__ import annotations

import sys
from pathlib import Path

import ansible.module_utils

REPO = Path(__file__).resolve().parents[2]

ansible.module_utils.__path__.append(str(REPO / "module_utils"))
for folder in ("library", "filter_plugins", "module_utils"):
    sys.path.insert(0, str(REPO / folder))
