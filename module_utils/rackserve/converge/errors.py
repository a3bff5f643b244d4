"""What can go wrong, each as one line that names the place and the fix."""

from __future__ import annotations

from typing import Any


class ConvergeError(Exception):
    """Something on the host kept converge from comparing or applying."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.partial: dict[str, Any] = {}


class DocumentError(ConvergeError):
    """The desired-state document is wrong; nothing was touched."""


class ItemError(ConvergeError):
    """One item could not be applied; items before it are finished, items after it untouched."""

    def __init__(self, role: str, item_id: str, message: str) -> None:
        super().__init__(f"role {role}, item {item_id}: {message}")
        self.role = role
        self.item_id = item_id
