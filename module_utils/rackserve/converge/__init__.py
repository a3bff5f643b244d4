"""Compare a host with its desired-state documents in one pass, and apply what may be applied."""

from __future__ import annotations

from .contents import secret_names
from .engine import converge
from .errors import ConvergeError, DocumentError, ItemError
from .overlay import overlay_document

__all__ = ["ConvergeError", "DocumentError", "ItemError", "converge", "overlay_document", "secret_names"]
