"""One comparison per kind: what differs between an item and the host, without touching either."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Callable

from .contents import Content, without_lines
from .document import Item
from .errors import ItemError
from .finding import Finding, Seen
from .host import Host
from .kernel import compare_irq, compare_knob

READ_LIMIT_BYTES = 16 * 1024 * 1024
DIFF_LIMIT_BYTES = 256 * 1024
_WORLD_READABLE = 0o004


def compare_item(item: Item, seen: Seen) -> Finding | None:
    """The difference of one item, None where the host is as wanted."""
    try:
        return _COMPARE[item.kind](item, seen)
    except OSError as problem:
        raise ItemError(item.role, item.id, f"{item.target} cannot be read ({problem.strerror}); run as root") from None


def ids_of(item: Item, host: Host) -> tuple[int | None, int | None, str]:
    """Wanted numeric owner and group, and a reason where a name does not exist. Unnamed: whoever runs converge."""
    owner, group = item.spec["owner"], item.spec["group"]
    uid = os.geteuid() if owner is None else host.uid(owner)
    gid = os.getegid() if group is None else host.gid(group)
    missing = [f"owner {owner}"] if uid is None else []
    missing += [f"group {group}"] if gid is None else []
    return uid, gid, f"{' and '.join(missing)} not on this host" if missing else ""


def type_name(mode: int) -> str:
    """What a file mode says the thing is, in words."""
    for test, word in ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "symbolic link")):
        if test(mode):
            return word
    return "special file"


def status_of(path: Path) -> os.stat_result | None:
    """lstat, None where nothing is there."""
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _refused(item: Item, found: os.stat_result, fix: str) -> Finding:
    text = f"{item.target} is a {type_name(found.st_mode)}, wanted a {item.kind}; {fix}"
    return Finding(item, text, refusal=text, gates=True)


def _metadata(item: Item, found: os.stat_result, host: Host) -> list[tuple[str, str, str]]:
    """(what, before, after) of mode, owner and group where they differ."""
    uid, gid, missing = ids_of(item, host)
    pairs = [("mode", f"{stat.S_IMODE(found.st_mode):04o}", f"{item.spec['mode']:04o}")]
    pairs += [("owner", str(found.st_uid), str(uid))] if uid is not None else []
    pairs += [("group", str(found.st_gid), str(gid))] if gid is not None else []
    differing = [pair for pair in pairs if pair[1] != pair[2]]
    return [*differing, ("account", "", missing)] if missing else differing


def _words(differing: list[tuple[str, str, str]]) -> list[str]:
    return [after if what == "account" else f"{what} {before}, wanted {after}" for what, before, after in differing]


def _lines(differing: list[tuple[str, str, str]], column: int) -> str:
    return "".join(f"{row[0]}: {row[column]}\n" for row in differing if row[0] != "account")


def _digest(data: bytes) -> str:
    return f"sha256 {hashlib.sha256(data).hexdigest()}\n"


def _diff_texts(seen: Seen, before: bytes | None, content: Content, private: bool) -> tuple[str, str]:
    """Both sides for a diff: text, or digests where either may hold a secret or is too large to show."""
    sides = [content.data] if before is None else [before, content.data]
    secret = (
        private or content.secret or any(value.encode() in side for value in seen.secrets.values() for side in sides)
    )
    hidden = secret or max(map(len, sides)) > DIFF_LIMIT_BYTES
    texts = [_digest(side) if hidden else side.decode("utf-8", "replace") for side in sides]
    return texts[0] if before is not None else "", texts[-1]


def compare_file(item: Item, seen: Seen) -> Finding | None:
    """File: type, bytes, mode, owner, group. Never through a symbolic link."""
    content = seen.contents.files[(item.role, item.id)]
    path = seen.host.at(item.target)
    found = status_of(path)
    private = not item.spec["mode"] & _WORLD_READABLE
    if found is None:
        missing = ids_of(item, seen.host)[2]
        before, after = _diff_texts(seen, None, content, private)
        return Finding(item, "; ".join(filter(None, ["missing", missing])), before, after, gates=True, content=True)
    if not stat.S_ISREG(found.st_mode):
        return _refused(item, found, "move it away by hand")
    private = private or not found.st_mode & _WORLD_READABLE
    present = path.read_bytes() if found.st_size <= READ_LIMIT_BYTES else None
    same = present is not None and content.matches(present)
    differing = _metadata(item, found, seen.host)
    if same and not differing:
        return None
    words = _words(differing)
    if same:
        return Finding(item, "; ".join(words), _lines(differing, 1), _lines(differing, 2))
    why = "; ".join(["content differs", *words])
    if present is None:
        return Finding(item, why, "more than 16 MiB\n", _digest(content.data), gates=True, content=True)
    before, after = _diff_texts(seen, present, content, private)
    excludes = item.spec["hash_excludes"]
    gates = without_lines(present, excludes) != without_lines(content.data, excludes)
    return Finding(item, why, before, after, gates=gates, content=True)


def compare_directory(item: Item, seen: Seen) -> Finding | None:
    """Directory: type, mode, owner, group."""
    found = status_of(seen.host.at(item.target))
    if found is None:
        missing = ids_of(item, seen.host)[2]
        return Finding(item, "; ".join(filter(None, ["missing", missing])), "", "directory\n")
    if not stat.S_ISDIR(found.st_mode):
        return _refused(item, found, "move it away by hand")
    differing = _metadata(item, found, seen.host)
    if not differing:
        return None
    return Finding(item, "; ".join(_words(differing)), _lines(differing, 1), _lines(differing, 2))


def compare_link(item: Item, seen: Seen) -> Finding | None:
    """Link: its own target text, whatever that points to."""
    path = seen.host.at(item.target)
    wanted = item.spec["target"]
    found = status_of(path)
    if found is None:
        return Finding(item, "missing", "", f"-> {wanted}\n", gates=True)
    if not stat.S_ISLNK(found.st_mode):
        return _refused(item, found, "move it away by hand")
    present = str(path.readlink())
    if present == wanted:
        return None
    return Finding(item, f"points to {present}, wanted {wanted}", f"-> {present}\n", f"-> {wanted}\n", gates=True)


def compare_absent(item: Item, seen: Seen) -> Finding | None:
    """Absent: nothing there. A file, a link or an empty directory can be removed, anything else is refused."""
    path = seen.host.at(item.target)
    found = status_of(path)
    if found is None:
        return None
    what = type_name(found.st_mode)
    refusal = None
    if what == "special file":
        refusal = f"{item.target} is a special file; remove it by hand"
    return Finding(item, f"present ({what})", f"{what}\n", "", refusal=refusal, gates=True)


def enablement_met(file_state: str, wanted: bool) -> bool:
    """Whether systemd's UnitFileState is as wanted; enabled only until the next boot is neither."""
    return file_state == "enabled" if wanted else file_state not in ("enabled", "enabled-runtime")


def compare_unit(item: Item, seen: Seen) -> Finding | None:
    """Unit: enablement and activity. What its processes run on is the gate's business."""
    unit = seen.host.units.get(item.target)
    if unit is None:
        return None
    enabled, active = item.spec["enabled"], item.spec["active"]
    words: list[str] = []
    before = after = ""
    if enabled is not None and not enablement_met(unit.file_state, enabled):
        state = unit.file_state or "not installed"
        words.append(f"{state}, wanted {'enabled' if enabled else 'disabled'}")
        before, after = f"{state}\n", "enabled\n" if enabled else "disabled\n"
    if active is not None and unit.running != active:
        state = f"{unit.active} ({unit.load})" if unit.load != "loaded" else unit.active
        words.append(f"{state}, wanted {'active' if active else 'inactive'}")
    return Finding(item, "; ".join(words), before, after, content=bool(before)) if words else None


def compare_package(item: Item, seen: Seen) -> Finding | None:
    """Package: installed, in one version where one is named."""
    package = seen.host.packages.get(item.target)
    if package is None or package.present != "installed":
        return Finding(item, "not installed")
    wanted = item.spec["version"]
    if wanted is not None and package.version != wanted:
        return Finding(item, f"version {package.version}, wanted {wanted}")
    return None


def compare_hold(item: Item, seen: Seen) -> Finding | None:
    """Hold: dpkg keeps the package's version."""
    package = seen.host.packages.get(item.target)
    return None if package is not None and package.wanted == "hold" else Finding(item, "not held")


def compare_user(item: Item, seen: Seen) -> Finding | None:
    """User: the fields the item names."""
    host, spec = seen.host, item.spec
    user = host.users.get(item.target)
    if user is None:
        return Finding(item, "no such user")
    words: list[str] = []
    for field in ("uid", "home", "shell"):
        present = getattr(user, field)
        if spec[field] is not None and present != spec[field]:
            words.append(f"{field} {present}, wanted {spec[field]}")
    if spec["group"] is not None and host.gid(spec["group"]) != user.gid:
        words.append(f"primary group is not {spec['group']}")
    for group in spec["groups"] or []:
        members = host.groups.get(group, (None, ()))
        if item.target not in members[1] and members[0] != user.gid:
            words.append(f"not in group {group}")
    return Finding(item, "; ".join(words)) if words else None


def compare_repository(item: Item, seen: Seen) -> Finding | None:
    """Repository: an apt source's bytes, and its mode where one is named."""
    path = seen.host.at(item.target)
    found = status_of(path)
    if found is None:
        return Finding(item, "missing")
    if not stat.S_ISREG(found.st_mode):
        return Finding(item, f"is a {type_name(found.st_mode)}, wanted a file")
    wanted = seen.contents.files[(item.role, item.id)]
    if found.st_size > READ_LIMIT_BYTES or not wanted.matches(path.read_bytes()):
        return Finding(item, "content differs")
    mode = stat.S_IMODE(found.st_mode)
    if item.spec["mode"] is not None and mode != item.spec["mode"]:
        return Finding(item, f"mode {mode:04o}, wanted {item.spec['mode']:04o}")
    return None


def compare_key(item: Item, seen: Seen) -> Finding | None:
    """Key: the digest of a file."""
    path = seen.host.at(item.target)
    found = status_of(path)
    if found is None:
        return Finding(item, "missing")
    if not stat.S_ISREG(found.st_mode) or found.st_size > READ_LIMIT_BYTES:
        return Finding(item, "is no key file")
    present = hashlib.sha256(path.read_bytes()).hexdigest()
    return None if present == item.spec["sha256"] else Finding(item, f"sha256 {present}, wanted {item.spec['sha256']}")


def compare_gpu(item: Item, seen: Seen) -> Finding | None:
    """GPU: each of its settings as the driver says it. A copied tree has no driver to ask."""
    if seen.host.run is None:
        return None
    look = seen.host.gpus.look(item.spec["index"], item.spec["settings"])
    if look.problem:
        return Finding(item, look.problem)
    words = "; ".join(map(str, look.differences))
    return Finding(item, words, gates=True) if words else None


_COMPARE: dict[str, Callable[[Item, Seen], Finding | None]] = {
    "file": compare_file,
    "directory": compare_directory,
    "link": compare_link,
    "absent": compare_absent,
    "knob": compare_knob,
    "irq": compare_irq,
    "unit": compare_unit,
    "package": compare_package,
    "hold": compare_hold,
    "user": compare_user,
    "repository": compare_repository,
    "key": compare_key,
    "gpu": compare_gpu,
}
