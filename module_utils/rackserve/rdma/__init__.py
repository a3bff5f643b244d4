"""The network between GPUs of different hosts: packages, kernel modules, adapters, memory that may be locked.

Nothing is imported here: a module that needs one file of the package brings and compiles all that this names.
"""

from __future__ import annotations
