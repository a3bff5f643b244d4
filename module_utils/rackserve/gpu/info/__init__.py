"""Facts of GPUs, read through NVML; nothing is set.

Nothing is imported here: a module that needs one file of the package brings and compiles all that this names.
"""

from __future__ import annotations
