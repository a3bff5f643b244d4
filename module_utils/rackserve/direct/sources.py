"""What a core consists of: its own file and all of rackserve that it may import, found without importing anything."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "rackserve"
# Statements that import. To parse the whole text costs ten times as much, on the way of every run.
_IMPORTS = re.compile(r"^[ \t]*(?:from[ \t]+[.\w]+[ \t]+import[ \t]+(?:\([^)]*\)|.*)|import[ \t]+.*)", re.MULTILINE)


def sources_of(entry: str, root: Path) -> dict[str, str]:
    """{path below `root`: text} of the module `entry` and of all that it imports of its package, wherever in its code.

    entry: a dotted name, "rackserve.converge.answer". root: the folder that holds the package. Packages' own
    __init__.py are among them. Raises FileNotFoundError when there is no such module.
    """
    found: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        path = _path(name, root)
        if path is None:
            raise FileNotFoundError(f"no module {name} below {root}")
        key = path.relative_to(root).as_posix()
        if key in found:
            continue
        found[key] = path.read_text(encoding="utf-8")
        waiting += [".".join(name.split(".")[:count]) for count in range(1, name.count(".") + 1)]
        within = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += _imported(found[key], within, root)
    return found


def _path(name: str, root: Path) -> Path | None:
    place = root.joinpath(*name.split("."))
    return next((path for path in (place.with_name(f"{place.name}.py"), place / "__init__.py") if path.is_file()), None)


def _imported(text: str, within: str, root: Path) -> Iterator[str]:
    """Dotted names of this package's modules that a text imports; within: the package it lies in."""
    for node in ast.walk(ast.parse("\n".join(map(str.lstrip, _IMPORTS.findall(text))))):
        if isinstance(node, ast.ImportFrom):
            parts = within.split(".")
            base = ".".join([*parts[: len(parts) + 1 - node.level], *filter(None, [node.module])])
            if not node.level:
                base = node.module or ""
            if base.split(".")[0] == PACKAGE:
                yield base
                yield from (name for name in (f"{base}.{each.name}" for each in node.names) if _path(name, root))
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.split(".")[0] == PACKAGE)
