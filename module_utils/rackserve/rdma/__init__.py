"""The network between GPUs of different hosts: packages, kernel modules, adapters, memory that may be locked."""

from __future__ import annotations

from .check import check_fabric
from .info import rdma_info

__all__ = ["check_fabric", "rdma_info"]
