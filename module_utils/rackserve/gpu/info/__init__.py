"""Facts of GPUs, read through NVML; nothing is set."""

from __future__ import annotations

from .facts import gpu_info

__all__ = ["gpu_info"]
