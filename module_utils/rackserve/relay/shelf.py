"""The files of a model on one host while they arrive: how much of each is there, where, and waiting for more."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PART = ".part"
FOLDER_MODE = 0o755


class ShelfError(Exception):
    """A file that is asked for is none of the model, or is never going to come; one line."""


class File(NamedTuple):
    """What the manifest says of a file."""

    size: int
    sha256: str


class _Place:
    """Where one file is. ``there``: bytes that may be passed on; ``round``: grows when they are begun again;
    ``right``: its digest is."""

    def __init__(self, path: Path | None, there: int, whole: bool) -> None:
        self.path, self.there, self.whole, self.round, self.right = path, there, whole, 0, whole


class View(NamedTuple):
    """Bytes of a file that may be read now, which attempt at it they belong to, and whether its digest is right."""

    there: int
    round: int
    right: bool


class Shelf:
    """All files of one manifest; safe for several threads.

    ``folder`` has what was there before, ``staging`` gets what comes: NAME.part while it arrives, NAME when its digest
    is right and it is on disk. Names come from the manifest alone, which `parse_manifest` has checked. What an earlier
    copy left in ``staging`` counts for nothing until it is hashed here: it may be of another manifest, or rotten.
    """

    def __init__(self, folder: Path, staging: Path | None, files: dict[str, File], wanted: Iterable[str]) -> None:
        """``wanted``: what this host lacks; the others are in ``folder``, whole."""
        self.files, self._staging, self._folder = files, staging, folder
        self._change = threading.Condition()
        self._places: dict[str, _Place] = {}
        self._progress = 0
        lacking = set(wanted)
        for name, file in files.items():
            if name not in lacking:
                self._places[name] = _Place(folder / name, file.size, True)
                continue
            self._places[name] = _Place(None, 0, False)

    def missing(self) -> list[str]:
        """Files that are not whole, in the order in which every host of a chain brings them."""
        with self._change:
            return [name for name in sorted(self.files) if not self._places[name].whole]

    def staged(self) -> list[str]:
        """Files that are whole in the staging folder."""
        with self._change:
            return sorted(name for name, place in self._places.items() if place.whole and self._in_staging(place.path))

    def _in_staging(self, path: Path | None) -> bool:
        return path is not None and self._staging is not None and self._staging in path.parents

    @property
    def progress(self) -> int:
        """Bytes that came since the start; it grows as long as this host gets anywhere."""
        return self._progress

    def gets_on(self) -> None:
        """This host gets on, although no byte can be passed on yet."""
        with self._change:
            self._progress += 1

    def partial(self, name: str) -> Path:
        """Where ``name`` arrives, with what an earlier copy left of it; its folder is made. Raises OSError."""
        if self._staging is None:
            raise ShelfError(f"{name} cannot be received here: this host only serves")
        staged = self._staging / name
        path = staged.with_name(staged.name + PART)
        path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        if _size(staged) == self.files[name].size:
            staged.replace(path)
        return path

    def begin(self, name: str, path: Path, there: int) -> None:
        """``name`` arrives at ``path``, ``there`` bytes are good; those who read an earlier attempt are told."""
        with self._change:
            place = self._places[name]
            if there < place.there:
                place.round += 1
            place.path, place.there, place.right = path, there, False
            self._change.notify_all()

    def grow(self, name: str, amount: int) -> None:
        """``amount`` more bytes of ``name`` are in its file."""
        with self._change:
            self._places[name].there += amount
            self._progress += amount
            self._change.notify_all()

    def approve(self, name: str) -> None:
        """The digest of ``name`` is right; it need not be on disk yet for those behind to have it."""
        with self._change:
            self._places[name].right = True
            self._change.notify_all()

    def finish(self, name: str, path: Path) -> None:
        """``name`` is whole at ``path``: its digest is right."""
        with self._change:
            place = self._places[name]
            if place.path != path and place.path is not None:
                with suppress(FileNotFoundError):
                    place.path.replace(path)
            place.path, place.there, place.whole, place.right = path, self.files[name].size, True, True
            self._progress += 1
            self._change.notify_all()

    def open(self, name: str) -> tuple[int, int] | None:
        """(descriptor, round) of the file as far as it is there, None where nothing is. Raises ShelfError, OSError."""
        with self._change:
            if name not in self._places:
                raise ShelfError(f"{name[:200]!r} is no file of this model")
            place = self._places[name]
            if place.path is None:
                return None
            flags = os.O_RDONLY | (os.O_NOFOLLOW if place.path.suffix == PART else 0)
            return os.open(str(place.path), flags), place.round

    def wait(self, name: str, above: int, round_: int | None, timeout_s: float) -> View:
        """What is there of ``name``, once it is more than ``above`` bytes or begun again; at the latest in time."""
        with self._change:
            place = self._places[name]
            self._change.wait_for(
                lambda: place.there > above or place.right or round_ not in (None, place.round), timeout_s
            )
            return View(place.there, place.round, place.right)


def _size(path: Path) -> int:
    """Size of a regular file that is no link, -1 for everything else."""
    try:
        return path.stat().st_size if path.is_file() and not path.is_symlink() else -1
    except OSError:
        return -1
