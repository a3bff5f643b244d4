"""What the checks take from the role rdma_fabric. The one place to change when rdma_info says the same."""

from __future__ import annotations

from pathlib import Path

from ..rdma.gdr import peer_memory_missing
from ..rdma.look import missing_modules
from ..rdma.sysfs import text
from .check import Unreadable

__all__ = ["missing_modules", "peer_memory"]


def peer_memory(root: Path, wanted: str) -> list[tuple[str, str]]:
    """(what is missing, fix) where adapters cannot reach the memory of GPUs as planned."""
    if wanted == "dmabuf":
        for path in ("proc/sys/kernel/osrelease", "proc/driver/nvidia/version"):
            if not text(root / path):
                raise Unreadable(f"/{path} cannot be read: is the driver loaded?")
    return [(item["why"], item["fix"]) for item in peer_memory_missing(root, wanted)]
