"""Refuse the start of an engine whose weights are not those that were proven.

Runs on a host by itself, as root, before each start:

    python3 -I start_check.py --model /srv/models/x

Files that nobody wrote to since they were proven are not read. One that was is hashed; when it differs, READY is taken
away, so that the next run of site proves the model, copies what is corrupt and starts the engine. It is one file on
purpose: it is copied to hosts as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CHUNK = 1 << 22


def hash_file(path: Path) -> str:
    """sha256 of a file. Raises OSError."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()


def what_changed(folder: Path, proven: dict[str, Any]) -> list[str]:
    """What differs from ``proven``, the content of READY.stat.json, as words; names without a digest by their date."""
    found = []
    digests = proven.get("sha256") or {}
    for name, (size, written_ns) in sorted(proven["files"].items()):
        try:
            seen = (folder / name).stat()
            if seen.st_size != size:
                found.append(f"{name} has {seen.st_size} bytes instead of {size}")
            elif seen.st_mtime_ns != written_ns and (name not in digests or hash_file(folder / name) != digests[name]):
                found.append(f"{name} was written to and has other content")
        except OSError as problem:
            found.append(f"{name} cannot be read ({problem.strerror})")
    return found


def check(folder: Path) -> list[str]:
    """What changed; READY is taken away when something did. Nothing where the folder was proven without a table."""
    try:
        proven = json.loads((folder / "READY.stat.json").read_text("utf-8"))
        found = what_changed(folder, proven)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    if found:
        (folder / "READY").unlink(missing_ok=True)
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Decide, and say it."""
    parser = argparse.ArgumentParser(prog="start-check", description="Refuse a start on weights that changed.")
    parser.add_argument("--model", type=Path, required=True, help="the folder of the weights")
    folder = parser.parse_args(words).model
    found = check(folder)
    if found:
        fix = "playbooks/site.yml proves the model, copies what is corrupt and starts the engine"
        sys.stderr.write(f"{folder} is not what was proven: {'; '.join(found)}: {fix}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
