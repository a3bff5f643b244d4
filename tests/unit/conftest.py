"""Make the repository's own module_utils, modules and filters importable the way Ansible imports them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest

REPO = Path(__file__).resolve().parents[2]

ansible.module_utils.__path__.append(str(REPO / "module_utils"))
for folder in ("library", "filter_plugins", "module_utils"):
    sys.path.insert(0, str(REPO / folder))


@pytest.fixture
def ansible_here() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a module by hand on this machine: name, options, further words of the command line."""

    def run(module: str, options: dict[str, Any], *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("ansible")), "-i", "localhost,", "localhost", "-c", "local"]
        return subprocess.run(
            [*command, "-m", module, "-vvv", "-a", json.dumps(options), *words],
            cwd=REPO,
            env={**os.environ, "ANSIBLE_CONFIG": str(REPO / "ansible.cfg")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run
