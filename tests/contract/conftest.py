"""Make modules importable the way Ansible imports them."""

from __future__ import annotations

import sys

import ansible.module_utils
from contract_support import REPO

for folder in ("library", "filter_plugins", "module_utils"):
    if str(REPO / folder) not in sys.path:
        sys.path.insert(0, str(REPO / folder))
if str(REPO / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(REPO / "module_utils"))
