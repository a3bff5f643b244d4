"""Compare a host with its desired-state documents in one pass, and apply what may be applied.

Nothing is imported here: a module that needs one file of the package brings and compiles all that this names.
"""

from __future__ import annotations
