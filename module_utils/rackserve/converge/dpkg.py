"""What dpkg's record says of a package."""

from __future__ import annotations

from .host import Package

UNFINISHED = ("unpacked", "half-configured", "triggers-awaited", "triggers-pending")
_GONE = ("", "not-installed", "config-files")


def present(package: Package | None) -> bool:
    """Whether dpkg has files of a package, configured or not."""
    return package is not None and package.present not in _GONE


def installed(package: Package | None) -> bool:
    """Whether a package is there and configured."""
    return package is not None and package.present == "installed"


def held(package: Package | None) -> bool:
    """Whether dpkg holds a package."""
    return package is not None and package.wanted == "hold"
