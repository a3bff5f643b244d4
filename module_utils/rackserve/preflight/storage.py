"""File systems that cannot be written, and weights that are not whole. Everything here only reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from .findings import Finding, finding

INDEX = "model.safetensors.index.json"
_LENGTH_BYTES = 8
# The format's own limit for a header.
_MOST_HEADER_BYTES = 100_000_000

StatVfs = Callable[[str], "os.statvfs_result"]


def existing(path: Path) -> Path:
    """Return ``path``, or the nearest folder above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def check_writable(root: Path, paths: Sequence[str], statvfs: StatVfs = os.statvfs) -> list[Finding]:
    """Check that the file systems that ``paths`` lie on, or will lie on, may be written. One finding a file system."""
    closed: dict[int, list[str]] = {}
    for path in paths:
        place = existing(root / path.lstrip("/"))
        if statvfs(str(place)).f_flag & os.ST_RDONLY:
            closed.setdefault(place.stat().st_dev, []).append(path)
    return [
        finding(
            "error",
            "read-only",
            ", ".join(found),
            "the file system is mounted read-only",
            "see journalctl -k for errors of the disk; when it is sound: mount -o remount,rw",
        )
        for found in closed.values()
    ]


def _shards_of_index(folder: Path) -> set[str]:
    """Names of the files that the index refers to; none where there is no index. Raises ValueError for a broken one."""
    path = folder / INDEX
    if not path.is_file():
        return set()
    weights = json.loads(path.read_text(encoding="utf-8")).get("weight_map")
    if not isinstance(weights, dict):
        raise ValueError("it has no weight_map")
    return {str(name) for name in weights.values()}


def wanted_bytes(path: Path) -> int:
    """Return how many bytes a safetensors file must have by its own header. Raises ValueError for a broken header."""
    with path.open("rb") as shard:
        length = int.from_bytes(shard.read(_LENGTH_BYTES), "little")
        if length > _MOST_HEADER_BYTES:
            raise ValueError("it does not begin like a safetensors file")
        text = shard.read(length)
    if len(text) < length:
        raise ValueError("it ends inside its header")
    try:
        tensors = json.loads(text)
        ends = [int(part["data_offsets"][1]) for name, part in tensors.items() if name != "__metadata__"]
    except (ValueError, AttributeError, KeyError, TypeError, IndexError):
        raise ValueError("its header is not that of a safetensors file") from None
    return _LENGTH_BYTES + length + max(ends, default=0)


def shard_problems(folder: Path, names: Iterable[str]) -> list[str]:
    """What is wrong with these files of ``folder``, by their presence, size and header alone."""
    found = []
    for name in sorted(names):
        path = folder / name
        try:
            wanted, there = wanted_bytes(path), path.stat().st_size
        except FileNotFoundError:
            found.append(f"{name} is not there")
        except (OSError, ValueError) as problem:
            found.append(f"{name}: {problem}")
        else:
            if there != wanted:
                found.append(f"{name} has {there} bytes, its header says {wanted}")
    return found


def check_shards(root: Path, models: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Check that weights [{name, path}] said to be present are whole, reading headers and the index only.

    A bit that flipped inside a shard is not seen here: the role model_store hashes it against the manifest.
    """
    found = []
    for model in models:
        where = str(model["path"])
        folder = root / where.lstrip("/")
        if not folder.is_dir():
            continue
        try:
            names = _shards_of_index(folder) | {path.name for path in folder.glob("*.safetensors")}
        except (OSError, ValueError) as problem:
            wrong = [f"{INDEX}: {problem}"]
        else:
            wrong = shard_problems(folder, names)
        if wrong:
            why = f"{len(wrong)} file(s) of model {model['name']} are not whole, first: {wrong[0]}"
            fix = "copy it there again; the copy was cut off or another file was taken for it"
            found.append(finding("error", "model-incomplete", where, why, fix))
    return found
