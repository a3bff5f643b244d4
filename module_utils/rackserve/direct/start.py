"""What a host runs: it takes an order from its standard input, imports the sources in it, and prints the answer.

A host gets this file as text and runs it by itself, so it imports nothing of rackserve but what the order holds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MARK = "rackserve answers: "


class Sources:
    """An importer of modules from texts; sources: {"rackserve/converge/engine.py": text}."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        """Find a module or package of this name among the texts."""
        place = name.replace(".", "/")
        for path, package in ((f"{place}.py", False), (f"{place}/__init__.py", True)):
            if path in self._sources:
                return ModuleSpec(name, self, origin=path, is_package=package)  # type: ignore[arg-type]
        return None

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        """Let Python make the module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's text in it."""
        path = str(module.__spec__.origin) if module.__spec__ else ""
        exec(compile(self._sources[path], path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - an importer


def main(order: Mapping[str, Any]) -> None:
    """Print what the core answers; order: {sources, entry, given, check, diff}."""
    sys.meta_path.insert(0, Sources(order["sources"]))
    core = import_module(order["entry"])
    answer = core.answer(order["given"], check=order["check"], diff=order["diff"])
    sys.stdout.write(f"{MARK}{json.dumps(answer)}\n")
