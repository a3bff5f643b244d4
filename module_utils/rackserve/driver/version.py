"""Versions of the driver and of its packages."""

from __future__ import annotations


def upstream(package_version: str) -> str:
    """The driver's own version in a Debian version: 580.65.06 of 1:580.65.06-0ubuntu1."""
    without_epoch = package_version.rpartition(":")[2]
    return without_epoch.partition("-")[0]
