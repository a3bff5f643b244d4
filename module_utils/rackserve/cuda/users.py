"""Who has the libraries loaded that packages would exchange."""

from __future__ import annotations

import re
from pathlib import Path

_LIBRARY = re.compile(r" (/usr/local/cuda-[^/]+/\S+|/usr/lib/(?:\S+/)?lib(?:nccl|cudnn\w*)\.so\S*)")


def library_users(root: Path) -> list[str]:
    """Processes that mapped a library of the toolkit, cuDNN or NCCL, as "name (pid 1)"; engines bring their own.

    Processes that end meanwhile, or that may not be looked at, are left out.
    """
    found = []
    for process in sorted((root / "proc").glob("[0-9]*"), key=lambda path: path.name):
        try:
            if _LIBRARY.search((process / "maps").read_text("utf-8", "replace")):
                name = (process / "comm").read_text("utf-8", "replace").strip()
                found.append(f"{name} (pid {process.name})")
        except OSError:
            continue
    return found
