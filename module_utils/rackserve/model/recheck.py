"""Read all weights of a host now and then, and report files that are not what was proven. It mends nothing.

Runs on a host by itself, from a timer, without privileges:

    python3 -I recheck.py --report report.json --textfile weights.prom --mib-s 200 /srv/models/x ...

The digests are those of READY.stat.json, which root wrote when the weights were proven. It is one file on
purpose: it is copied to hosts as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

_CHUNK = 1 << 22


def digest_of(path: Path, pause: Callable[[int], None]) -> str:
    """sha256 of a file, read without keeping it in memory; ``pause`` is told of every piece. Raises OSError."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        at = 0
        while piece := stream.read(_CHUNK):
            total.update(piece)
            # What the engines need stays in the page cache.
            os.posix_fadvise(stream.fileno(), at, len(piece), os.POSIX_FADV_DONTNEED)
            at += len(piece)
            pause(len(piece))
    return total.hexdigest()


def slowly(mib_s: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> Callable[[int], None]:
    """Something to tell of bytes read, that waits so that they are ``mib_s`` a second at most; 0 never waits."""
    started, done = clock(), 0

    def pause(size: int) -> None:
        nonlocal done
        done += size
        ahead_s = done / (mib_s * (1 << 20)) - (clock() - started) if mib_s else 0.0
        if ahead_s > 0:
            sleep(ahead_s)

    return pause


def look_at(folder: Path, pause: Callable[[int], None]) -> dict[str, Any]:
    """{path, files, bytes, problems: [{file, why}]}; ``unproven`` says why a folder could not be judged."""
    row: dict[str, Any] = {"path": str(folder), "files": 0, "bytes": 0, "problems": [], "unproven": ""}
    try:
        noted = json.loads((folder / "READY.stat.json").read_text("utf-8"))
        digests, sizes = dict(noted["sha256"]), {name: int(one[0]) for name, one in noted["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as missing:
        return {**row, "unproven": f"it was not proven yet ({type(missing).__name__}): run playbooks/site.yml"}
    for name in sorted(digests):
        try:
            right = digest_of(folder / name, pause) == digests[name]
            why = "" if right else "other content than was proven"
        except OSError as problem:
            why = f"cannot be read ({problem.strerror})"
        row["files"] += 1
        row["bytes"] += sizes.get(name, 0)
        if why:
            row["problems"].append({"file": name, "why": why})
    return row


def metrics(report: dict[str, Any]) -> str:
    """The report as node_exporter reads it."""
    lines = [
        "# HELP rackserve_weights_damaged Files of a model that are not what was proven.",
        "# TYPE rackserve_weights_damaged gauge",
    ]
    for row in report["models"]:
        quoted = row["path"].replace("\\", "\\\\").replace('"', '\\"')
        lines.append('rackserve_weights_damaged{path="' + quoted + '"} ' + str(len(row["problems"])))
    lines += [
        "# HELP rackserve_weights_checked_timestamp_seconds When all weights were read last.",
        "# TYPE rackserve_weights_checked_timestamp_seconds gauge",
        f"rackserve_weights_checked_timestamp_seconds {report['checked_at']:.0f}",
    ]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def main(words: Sequence[str] | None = None) -> int:
    """Look, report, say it; 1 where something is damaged."""
    parser = argparse.ArgumentParser(prog="recheck", description="Read weights and report what is damaged.")
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--textfile", type=Path, required=True)
    parser.add_argument("--mib-s", type=float, default=0, help="MiB a second at most; 0 is no limit")
    parser.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args(words)
    pause = slowly(given.mib_s, time.monotonic, time.sleep)
    rows = [look_at(folder, pause) for folder in given.folders]
    report = {"version": 1, "checked_at": time.time(), "models": rows}
    write(given.report, json.dumps(report, indent=1) + "\n")
    write(given.textfile, metrics(report))
    for row in rows:
        for one in row["problems"]:
            sys.stderr.write(f"{row['path']}/{one['file']}: {one['why']}: run playbooks/repair-weights.yml\n")
        if row["unproven"]:
            sys.stderr.write(f"{row['path']}: {row['unproven']}\n")
    return 1 if any(row["problems"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
