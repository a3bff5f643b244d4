"""Write what documents say about files below a folder of the controller, for people to read; no host is involved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .contents import resolve_contents, secret_names
from .document import parse_documents
from .errors import DocumentError

LISTING = "desired-state.json"
_NAMED = 4
HEADER = ("file", "role", "mode", "bytes", "hosts")


def render_documents(documents: list[dict[str, Any]], folder: Path, check: bool = False) -> dict[str, Any]:
    """Write every file of `documents` to `folder`/<its path>, and all their items, less contents, to LISTING.

    A secret becomes `<secret:name>`, and a configuration's digest is taken over that. Files that an earlier call wrote
    and these documents do not name are removed; nothing else in the folder is touched.

    Returns {changed, files: [{role, path, mode, bytes}], diff: [{before_header, after_header, before, after}]};
    `check` writes nothing and returns the same. Raises DocumentError for a document that converge would refuse.
    """
    items = parse_documents(documents)
    contents = resolve_contents(items, {name: f"<secret:{name}>" for name in secret_names(documents)}).files
    wanted: dict[str, str] = {}
    files = []
    for item in items:
        content = contents.get((item.role, item.id))
        if content is None:
            continue
        if item.target == f"/{LISTING}":
            where = f"role {item.role}, item {item.id}"
            raise DocumentError(f"{where}: {item.target} is the listing's own name; choose another path")
        wanted[item.target] = content.data.decode()
        mode = item.spec["mode"]
        shown = "" if mode is None else f"{mode:04o}"
        files.append({"role": item.role, "path": item.target, "mode": shown, "bytes": len(content.data)})
    lines = [
        json.dumps({"role": document["role"], **{key: value for key, value in raw.items() if key != "content"}})
        for document in documents
        for raw in document["items"]
    ]
    wanted[f"/{LISTING}"] = "[\n" + ",\n".join(lines) + "\n]\n"
    diff = _write(folder, wanted, check)
    return {"changed": bool(diff), "files": files, "diff": diff}


def _earlier(folder: Path) -> list[str]:
    """Paths of the files that an earlier call wrote here."""
    try:
        items = json.loads((folder / LISTING).read_text("utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as problem:
        raise DocumentError(f"{folder / LISTING}: not what an earlier rendering wrote; remove it") from problem
    return [item["path"] for item in items if item["kind"] in ("file", "repository")]


def _write(folder: Path, wanted: Mapping[str, str], check: bool) -> list[dict[str, str]]:
    diff = []
    for path in sorted({*wanted, *_earlier(folder)}):
        target = folder / path.lstrip("/")
        before = target.read_text("utf-8") if target.is_file() else None
        after = wanted.get(path)
        if before == after:
            continue
        diff.append(
            {"before_header": str(target), "after_header": str(target), "before": before or "", "after": after or ""}
        )
        if check:
            continue
        if after is None:
            target.unlink()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(after, "utf-8")
    return diff


def render_table(files: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Lines of a table: one row a path, with the hosts that get it; `files` is {host: what render_documents said}."""
    merged: dict[tuple[str, str, str], tuple[list[int], list[str]]] = {}
    for host in sorted(files):
        for row in files[host]:
            sizes, hosts = merged.setdefault((str(row["path"]), str(row["role"]), str(row["mode"])), ([], []))
            sizes.append(int(row["bytes"]))
            hosts.append(host)
    rows = [HEADER]
    for (path, role, mode), (sizes, hosts) in sorted(merged.items()):
        least, most = min(sizes), max(sizes)
        size = str(most) if least == most else f"{least}-{most}"
        named = f"all {len(files)}" if 1 < len(hosts) == len(files) else ", ".join(hosts[:_NAMED])
        named += f" and {len(hosts) - _NAMED} more" if _NAMED < len(hosts) < len(files) else ""
        rows.append((path, role, mode, size, named))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows]
