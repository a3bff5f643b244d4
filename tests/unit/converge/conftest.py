"""Shared fixtures of the converge tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small host tree: accounts of its own, so that no test depends on the machine's."""
    tree = tmp_path / "host"
    (tree / "etc").mkdir(parents=True)
    me = f"me:x:{os.geteuid()}:{os.getegid()}::/home/me:/bin/bash\n"
    (tree / "etc/passwd").write_text(f"{me}vllm:x:64100:64100::/var/lib/vllm:/bin/false\nbroken:line\n")
    (tree / "etc/group").write_text(f"me:x:{os.getegid()}:\nvllm:x:64100:\nrender:x:105:vllm,prom\nodd:x:y:\n")
    return tree
