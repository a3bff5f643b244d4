"""What is known of the versions that a set puts together. A version that is not here is not refused.

Sources: vLLM's and torch's package metadata; NVIDIA's CUDA release notes (table "CUDA Toolkit and Corresponding Driver
Versions"), its note on open kernel modules, and the first builds of cuDNN and NCCL for a CUDA; Ray's release notes.
"""

from __future__ import annotations

from typing import NamedTuple

# The interpreter of an engine is copied from the distribution it is built on; these bring one to build with.
DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "ubuntu-22.04": ("3.10", "3.11"),
    "ubuntu-24.04": ("3.12",),
    "debian-12": ("3.11",),
}


class Engine(NamedTuple):
    """What a vLLM asks for: torch exactly, Python from `python_from` up to, not including, `python_below`."""

    torch: str
    python_from: str = ""
    python_below: str = ""


VLLM = {
    "0.24.0": Engine("2.11.0"),
    "0.32.0": Engine("2.13.0"),
    "0.33.0": Engine("2.14.0", "3.11", "3.15"),
}
# CUDA of torch's wheels on PyPI.
TORCH_CUDA = {"2.11.0": "13.0", "2.13.0": "13.0", "2.14.0": "13.0"}

# Ray asks for this Python, and has had the token that keeps strangers out since this version.
RAY_PYTHON = "3.10"
RAY_OLDEST = "2.52.0"

# The driver a toolkit was made with. Any driver from the first of the toolkit's major version on can run it, without
# what the newer one added.
TOOLKIT_DRIVER = {
    "12.8.0": "570.26",
    "12.8.1": "570.124.06",
    "12.9.0": "575.51.03",
    "12.9.1": "575.57.08",
    "13.0.0": "580.65.06",
    "13.0.1": "580.82.07",
    "13.0.2": "580.95.05",
    "13.1.0": "590.44.01",
    "13.1.1": "590.48.01",
    "13.2.0": "595.45.04",
    "13.2.1": "595.58.03",
    "13.2.2": "595.71.05",
}
MAJOR_DRIVER = {12: "525.60.13", 13: "580.65.06"}

# First builds for a CUDA's major version.
FIRST_FOR_CUDA = {13: {"cudnn": "9.12.0", "nccl": "2.27.7"}}

# Compute capability (major) from which on only the open modules drive a GPU, and from which on they can.
OPEN_ONLY_FROM = 10
OPEN_FROM = "7.5"
