"""`python3 -m rackserve.converge DOCUMENT.json [--root DIR]`: print what differs; exit 0 none, 1 some, 2 error."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .engine import converge
from .errors import ConvergeError
from .runner import host_runner


def main(arguments: list[str]) -> int:
    """Compare only; secrets are not known here, so files that hold one are compared around it."""
    parser = argparse.ArgumentParser(prog="python3 -m rackserve.converge", description="Print what differs.")
    parser.add_argument("document", type=Path, help="JSON: one document {role, items}, or a list of them")
    parser.add_argument("--root", type=Path, default=Path("/"), help="judge this tree instead of the running host")
    chosen = parser.parse_args(arguments)
    try:
        documents = json.loads(chosen.document.read_text(encoding="utf-8"))
        if isinstance(documents, dict):
            documents = [documents]
        result = converge(documents, secrets=None, root=chosen.root, run=host_runner(chosen.root))
    except (ConvergeError, OSError, ValueError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    lines = report(result)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if result["dirty_roles"] or result["stale"] or result["inactive"] else 0


def report(result: dict[str, Any]) -> list[str]:
    """The result of converge as lines for people."""
    lines = [
        f"differs  {role}: {entry['id']} ({entry['kind']}): {entry['why']}"
        for role, found in result["roles"].items()
        for entry in found["differs"]
    ]
    lines += [f"stale    {entry['role']}: {entry['unit']}: {entry['why']}" for entry in result["stale"]]
    lines += [f"inactive {entry['role']}: {entry['unit']}" for entry in result["inactive"]]
    lines += [f"unjudged {entry['role']}: {entry['id']}: {entry['why']}" for entry in result["not_judged"]]
    return lines or ["no difference"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
