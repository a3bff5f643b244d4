"""A folder of files and links, made in memory, written at once."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import shutil
from dataclasses import dataclass, field
from pathlib import Path

OPAQUE = "trusted.overlay.opaque"


@dataclass
class Folder:
    """Contents by path; ``opaque`` folders hide the same folder of lower layers when they lie in an overlay."""

    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    empty: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)

    def write(self, path: str, value: str | int | bytes) -> None:
        """A file as the kernel shows it: text ends with a line break."""
        self.files[path] = value if isinstance(value, bytes) else f"{value}\n".encode()

    def write_all(self, folder: str, values: dict[str, str | int]) -> None:
        for name, value in values.items():
            self.write(f"{folder}/{name}", value)

    def link(self, path: str, target: str) -> None:
        """A relative link to another path of this folder."""
        self.links[path] = posixpath.relpath(target, posixpath.dirname(path))

    def class_link(self, kind: str, name: str, device: str) -> None:
        """sys/class/<kind>/<name> for a folder that a device has for this class, and back."""
        here = f"{device}/{kind}/{name}"
        self.link(f"sys/class/{kind}/{name}", here)
        self.link(f"{here}/subsystem", f"sys/class/{kind}")
        self.link(f"{here}/device", device)

    def digest(self) -> str:
        """12 characters that name this content."""
        total = hashlib.sha256()
        for path, content in sorted(self.files.items()):
            total.update(f"file {path} {len(content)}\n".encode() + content)
        for path, target in sorted(self.links.items()):
            total.update(f"link {path} {target}\n".encode())
        total.update("\n".join([*sorted(self.empty), "", *sorted(self.opaque)]).encode())
        return total.hexdigest()[:12]

    def save(self, path: Path) -> None:
        """Write everything to a new folder: first beside it, then renamed.

        Opaque folders are marked with an attribute that only root may set; without root the marks are left out, and
        the folder is good for reading only, not for an overlay.
        """
        part = path.with_name(f"{path.name}.part")
        if part.exists():
            shutil.rmtree(part)
        for name in sorted(self.empty | self.opaque):
            (part / name).mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            target = part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        for name, goal in self.links.items():
            link = part / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(goal)
        for name in sorted(self.opaque):
            _mark_opaque(part / name)
        part.replace(path)


def _mark_opaque(folder: Path) -> None:
    try:
        os.setxattr(folder, OPAQUE, b"y")
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES) or os.geteuid() == 0:
            raise
