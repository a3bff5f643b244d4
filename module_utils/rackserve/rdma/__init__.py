"""The network between GPUs of different hosts: packages, kernel modules, adapters, memory that may be locked."""

from __future__ import annotations

from .check import check_fabric

__all__ = ["check_fabric"]
