"""A small systemd, and a tree to converge, for the tests of this folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.rackserve.converge.engine import converge

Answer = tuple[int, str, str]
RELOAD = ["systemctl", "daemon-reload"]


class FakeSystemd:
    """Answers show, enable, disable and daemon-reload from `units`; fails the test on any other systemctl verb.

    Other programs answer from `programs`: name to a function of the words.
    """

    def __init__(self, **units: dict[str, str]) -> None:
        self.units = {name.replace("_", "-") + ".service": values for name, values in units.items()}
        self.calls: list[list[str]] = []
        self.programs: dict[str, Any] = {}
        self.failing: dict[str, Answer] = {}

    def __call__(self, words: list[str]) -> Answer:
        self.calls.append(words)
        if words[0] != "systemctl":
            return self.programs[words[0]](words)
        verb, names = words[1], words[2:]
        if verb in self.failing:
            return self.failing[verb]
        if verb == "show":
            return 0, "\n".join(self._block(name) for name in names[2:]), ""
        if verb == "daemon-reload":
            for unit in self.units.values():
                unit["NeedDaemonReload"] = "no"
            return 0, "", ""
        assert verb in ("enable", "disable"), f"converge must never call systemctl {verb}"
        for name in names:
            unit = self.units.setdefault(name, {"LoadState": "loaded"})
            if unit.get("UnitFileState") != "static":
                unit["UnitFileState"] = f"{verb}d"
        return 0, "", ""

    def _block(self, name: str) -> str:
        known = self.units.get(name, {"LoadState": "not-found"})
        values = {"Id": name, "LoadState": "loaded", "ActiveState": "inactive", "SubState": "dead", "MainPID": "0"}
        values.update({"UnitFileState": "", "NeedDaemonReload": "no", **known})
        return "".join(f"{key}={value}\n" for key, value in values.items())

    def verbs(self) -> list[str]:
        """The systemctl verbs called so far, in order."""
        return [words[1] for words in self.calls if words[0] == "systemctl"]


def one(item: dict[str, Any], role: str = "vllm") -> list[dict[str, Any]]:
    """Documents with one item; its id is `it` unless it names one."""
    return [{"role": role, "items": [{"id": "it", **item}]}]


def go(root: Path, documents: Any, *, check: bool = False, **options: Any) -> dict[str, Any]:
    """converge with a quiet systemd and no secrets unless the test brings its own."""
    options.setdefault("run", FakeSystemd())
    options.setdefault("secrets", {})
    return converge(documents, root=root, check=check, **options)


def snapshot(root: Path) -> str:
    """Digest over every name, type, mode, owner, mtime, link target and byte below `root`."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        found = path.lstat()
        digest.update(f"{path}\0{found.st_mode}\0{found.st_uid}\0{found.st_gid}\0{found.st_mtime_ns}\0".encode())
        if path.is_symlink():
            digest.update(os.fsencode(path.readlink()))
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def put(root: Path, path: str, text: str, mode: int = 0o644) -> Path:
    """A file below `root` with its parents."""
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    target.chmod(mode)
    return target
