"""The link /usr/local/cuda: whose it is, and what makes it lead to the release's toolkit.

It is an alternative (`update-alternatives`). Ours is the choice with `OUR_PRIORITY`; a choice that a person made, or
that another toolkit's package brought, is left alone.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from ..converge.host import Host

LINK = "/usr/local/cuda"
NAME = "cuda"
ADMIN_FILE = "/var/lib/dpkg/alternatives/cuda"
CURRENT = "/etc/alternatives/cuda"
OUR_PRIORITY = 1000
TAKE_OVER = "alternative:cuda"


class Alternative(NamedTuple):
    """What update-alternatives keeps: whether it chooses itself, and priorities by choice."""

    automatic: bool
    priorities: dict[str, int]


class Link(NamedTuple):
    """Where the link leads ("" where there is none), whether it is ours to set, and the commands that set it."""

    target: str
    ours: bool
    commands: list[list[str]]


def toolkit_folder(version: str) -> str:
    """Folder of a toolkit: /usr/local/cuda-13.0 of 13.0.2."""
    return f"{LINK}-{'.'.join(version.split('.')[:2])}"


def read_alternative(text: str) -> Alternative | None:
    """The content of update-alternatives' file; None where it is empty or in no form we know."""
    lines = text.split("\n")
    if len(lines) < 3 or lines[0] not in ("auto", "manual"):  # noqa: PLR2004 - mode, link, end of the slaves
        return None
    end = lines.index("", 2) if "" in lines[2:] else len(lines)
    width = 2 + (end - 2) // 2  # a choice is a path, a priority, and a path for each slave
    rest = lines[end + 1 :]
    priorities: dict[str, int] = {}
    for start in range(0, len(rest) - 1, width):
        if not rest[start] or not rest[start + 1].lstrip("-").isdigit():
            break
        priorities[rest[start]] = int(rest[start + 1])
    return Alternative(lines[0] == "auto", priorities)


def judge_link(root: Path, version: str, take_over: Collection[str] = ()) -> Link:
    """Look at the link of a host whose toolkit should be `version`; nothing is changed."""
    host, folder = Host(root, None), toolkit_folder(version)
    known = read_alternative(host.read_text(ADMIN_FILE))
    path = host.at(LINK)
    target = str(path.readlink()) if path.is_symlink() else (LINK if path.exists() else "")
    if target == CURRENT:
        current = host.at(CURRENT)
        target = str(current.readlink()) if current.is_symlink() else ""
    taken = TAKE_OVER in take_over
    if target and not known:  # a link or folder that somebody made without update-alternatives
        return Link(target, target == folder, [])
    if known and not known.automatic and not taken:
        return Link(target, False, [])
    priorities = known.priorities if known else {}
    if target not in ("", folder) and priorities.get(target) != OUR_PRIORITY and not taken:
        return Link(target, False, [])
    commands = []
    if priorities.get(folder) != OUR_PRIORITY:
        commands.append(_install(folder, OUR_PRIORITY))
    for other in sorted(priorities):
        if other != folder and priorities[other] >= OUR_PRIORITY:
            commands.append(_install(other, _own_priority(other)))
    if known and not known.automatic:
        commands.append(["update-alternatives", "--auto", NAME])
    return Link(target, True, commands)


def _install(folder: str, priority: int) -> list[str]:
    return ["update-alternatives", "--install", LINK, NAME, folder, str(priority)]


def _own_priority(folder: str) -> int:
    """What NVIDIA's packages give a toolkit: 130 for 13.0."""
    digits = folder.rpartition("-")[2].replace(".", "")
    return int(digits) if digits.isdigit() else 0
