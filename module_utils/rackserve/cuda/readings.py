"""What the files of toolkit, cuDNN and NCCL say of their versions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from ..converge.host import Host, Run
from .link import toolkit_folder

_CACHE_LINE = re.compile(r"^\s*(\S+) \(([^)]*)\) => (\S+)$", re.MULTILINE)
_DATE_DIGITS = 8
_LIBRARIES = {"cudnn": "libcudnn.so.{}", "nccl": "libnccl.so.{}"}
_HEADERS = {
    "cudnn": ("usr/include/*-linux-gnu/cudnn_version_v{}.h", "usr/include/cudnn_version.h"),
    "nccl": ("usr/include/nccl.h",),
}
_MACROS = {
    "cudnn": ("CUDNN_MAJOR", "CUDNN_MINOR", "CUDNN_PATCHLEVEL"),
    "nccl": ("NCCL_MAJOR", "NCCL_MINOR", "NCCL_PATCH"),
}


class Reading(NamedTuple):
    """One file that says a version: `kind` is file, header or library; `version` is "" where it is missing."""

    kind: str
    path: str
    version: str


def read_part(root: Path, part: str, version: str, cache: dict[str, str]) -> list[Reading]:
    """The readings of a part that should be of `version`; `cache` is what the dynamic linker finds by name."""
    if part == "cuda":
        return _read_toolkit(root, version)
    major = version.split(".", maxsplit=1)[0]
    found = [_read_header(root, part, major)]
    name = _LIBRARIES[part].format(major)
    path = cache.get(name, "")
    return [*found, Reading("library", path or name, _library_version(root, path) if path else "")]


def linker_cache(run: Run) -> dict[str, str]:
    """Library to path as the dynamic linker finds it for this machine's own programs; the first of a name counts."""
    code, out, _ = run(["ldconfig", "-p"])
    found: dict[str, str] = {}
    for name, flags, path in _CACHE_LINE.findall(out) if code == 0 else []:
        if "64" in flags:
            found.setdefault(name, path)
    return found


def agrees(found: str, wanted: str) -> bool:
    """Whether a version that a file says is `wanted`; a file may know two numbers only, or a date for the third."""
    parts, own = found.split("."), wanted.split(".")
    if len(parts) > 2 and len(parts[2]) == _DATE_DIGITS:  # noqa: PLR2004 - major, minor, date
        parts = parts[:2]
    return parts[: len(own)] == own if len(parts) >= len(own) else len(parts) > 1 and own[: len(parts)] == parts


def toolkit_library(version: str) -> str:
    """The runtime that a toolkit's programs link to."""
    return f"libcudart.so.{version.split('.', maxsplit=1)[0]}"


def in_cache(root: Path, version: str, cache: dict[str, str]) -> bool:
    """Whether the dynamic linker finds the runtime of this very toolkit."""
    path = cache.get(toolkit_library(version), "")
    folder = toolkit_folder(version)
    if not path:
        return False
    return path.startswith(f"{folder}/") or str(Host(root, None).at(path).resolve()).startswith(
        f"{Host(root, None).at(folder).resolve()}/"
    )


def _read_toolkit(root: Path, version: str) -> list[Reading]:
    folder = toolkit_folder(version)
    host, file = Host(root, None), f"{folder}/version.json"
    try:
        said = str(json.loads(host.read_text(file))["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        said = ""
    header = f"{folder}/include/cuda.h"
    code = re.search(r"^#define CUDA_VERSION (\d+)", host.read_text(header), re.MULTILINE)
    number = int(code.group(1)) if code else 0
    return [
        Reading("file", file, said),
        Reading("header", header, f"{number // 1000}.{number % 1000 // 10}" if code else ""),
    ]


def _read_header(root: Path, part: str, major: str) -> Reading:
    patterns = [pattern.format(major) for pattern in _HEADERS[part]]
    found = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    if not found:
        return Reading("header", "/" + patterns[-1], "")
    text = found[0].read_text("utf-8", "replace")
    numbers = [re.search(rf"^#define {name} (\d+)", text, re.MULTILINE) for name in _MACROS[part]]
    version = ".".join(number.group(1) for number in numbers if number)
    return Reading("header", f"/{found[0].relative_to(root)}", version)


def _library_version(root: Path, path: str) -> str:
    """2.27.7 of a library that is a link to libnccl.so.2.27.7; "" where its name says nothing more."""
    real = Host(root, None).at(path).resolve().name
    return real.partition(".so.")[2]
