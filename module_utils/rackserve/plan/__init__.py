"""The plan compiler: a cluster's description in, everything hosts need out (docs/cluster.md)."""

from __future__ import annotations

from .catalog import Library, LibraryError, load_library
from .compiler import compile_plan, plan_hash
from .tables import plan_errors, plan_tables

__all__ = ["Library", "LibraryError", "compile_plan", "load_library", "plan_errors", "plan_hash", "plan_tables"]
