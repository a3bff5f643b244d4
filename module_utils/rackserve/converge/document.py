"""Desired-state documents: what an item may say, checked completely before a host is looked at."""

from __future__ import annotations

import posixpath
import re
from typing import Any, NamedTuple

from .errors import DocumentError
from .fields import CHECKS, NAME_CHECKS

_ROLE = re.compile(r"[a-z][a-z0-9_]*\Z")
_ITEM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]*\Z")
_DOCUMENT_KEYS = {"role", "items", "overrides", "extras"}
_REQUIRED = object()
_OWNER: dict[str, Any] = {"owner": None, "group": None}
_GATE: dict[str, Any] = {"gated_by": None}


class Kind(NamedTuple):
    """Fields of one kind with their defaults; `target` is the field that says what on the host is meant."""

    fields: dict[str, Any]
    target: str
    applied: bool


class Item(NamedTuple):
    """One validated item; `spec` holds every field of its kind, defaults filled in."""

    role: str
    id: str
    kind: str
    spec: dict[str, Any]

    @property
    def applied(self) -> bool:
        """Whether converge itself puts this item right (otherwise it only compares)."""
        return KINDS[self.kind].applied and self.spec["applied_by"] is None

    @property
    def target(self) -> str:
        """The path or name on the host."""
        return str(self.spec[KINDS[self.kind].target])


KINDS: dict[str, Kind] = {
    "file": Kind(
        {
            "path": _REQUIRED,
            "content": _REQUIRED,
            "mode": 0o644,
            "validate": None,
            "hash_excludes": None,
            **_OWNER,
            **_GATE,
        },
        "path",
        True,
    ),
    "directory": Kind({"path": _REQUIRED, "mode": 0o755, **_OWNER}, "path", True),
    "link": Kind({"path": _REQUIRED, "target": _REQUIRED, **_GATE}, "path", True),
    "absent": Kind({"path": _REQUIRED, **_GATE}, "path", True),
    "knob": Kind({"path": _REQUIRED, "value": _REQUIRED, "optional": False}, "path", True),
    # CPUs that the interrupts of an RDMA adapter go to, by its name; `local`: those next to it.
    "irq": Kind({"device": _REQUIRED, "cpus": _REQUIRED}, "device", True),
    "unit": Kind({"name": _REQUIRED, "enabled": None, "active": None, "running_config": None}, "name", True),
    "package": Kind({"name": _REQUIRED, "version": None}, "name", False),
    "hold": Kind({"name": _REQUIRED}, "name", False),
    "user": Kind(
        {"name": _REQUIRED, "uid": None, "group": None, "groups": None, "home": None, "shell": None}, "name", False
    ),
    "repository": Kind({"path": _REQUIRED, "content": _REQUIRED, "mode": None}, "path", False),
    "key": Kind({"path": _REQUIRED, "sha256": _REQUIRED}, "path", False),
    # A GPU's settings, by its index in PCI order; `units` are those that use it.
    "gpu": Kind({"index": _REQUIRED, "settings": _REQUIRED, "units": []}, "index", False),
}
_PREFIXES = {"knob": ("/proc/sys/", "/sys/"), "repository": ("/etc/apt/sources.list.d/",)}
_ONLY_ONCE = ("file", "link", "absent")


def parse_documents(documents: Any) -> list[Item]:
    """Every item of `documents` (a list of {role, items}), validated, in document order.

    Raises DocumentError, one line, naming role, item, key and fix.
    """
    if not isinstance(documents, list):
        raise DocumentError("documents: must be a list of {role, items}")
    items: list[Item] = []
    roles: set[str] = set()
    for position, document in enumerate(documents):
        role = _document_role(document, position)
        if role in roles:
            raise DocumentError(f"role {role}: given twice in documents; merge the two documents")
        roles.add(role)
        seen: set[str] = set()
        for number, raw in enumerate(document["items"]):
            item = _parse_item(role, raw, number)
            if item.id in seen:
                raise DocumentError(f"role {role}, item {item.id}: id is used twice; ids are unique in a role")
            seen.add(item.id)
            items.append(item)
    _check_targets(items)
    _check_nesting(items)
    _check_gates(items)
    return items


def _document_role(document: Any, position: int) -> str:
    if not isinstance(document, dict):
        raise DocumentError(f"documents[{position}]: must be a dict with role and items")
    unknown = sorted(str(key) for key in set(document) - _DOCUMENT_KEYS)
    if unknown:
        raise DocumentError(
            f"documents[{position}]: unknown key {unknown[0]}; known: {', '.join(sorted(_DOCUMENT_KEYS))}"
        )
    role = document.get("role")
    if not isinstance(role, str) or not _ROLE.match(role):
        raise DocumentError(f"documents[{position}]: role must be a role name (lower case, digits, _)")
    if not isinstance(document.get("items"), list):
        raise DocumentError(f"role {role}: items must be a list")
    return role


def _parse_item(role: str, raw: Any, number: int) -> Item:
    where = f"role {role}, item {number}"
    if not isinstance(raw, dict):
        raise DocumentError(f"{where}: must be a dict with id and kind")
    item_id = raw.get("id")
    if not isinstance(item_id, str) or not _ITEM_ID.match(item_id):
        raise DocumentError(f"{where}: id must be a short name (letters, digits, . _ : @ / + -)")
    where = f"role {role}, item {item_id}"
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        shown = f" {kind}" if isinstance(kind, str) else ""
        raise DocumentError(f"{where}: unknown kind{shown}; known: {', '.join(KINDS)}")
    fields = {**KINDS[kind].fields, "applied_by": None}
    unknown = sorted(str(key) for key in set(raw) - set(fields) - {"id", "kind"})
    if unknown:
        raise DocumentError(f"{where}: {kind} has no key {unknown[0]}; known: {', '.join(fields)}")
    spec: dict[str, Any] = {}
    for name, default in fields.items():
        value = raw.get(name)
        if value is None:
            if default is _REQUIRED:
                raise DocumentError(f"{where}: {kind} needs {name}")
            spec[name] = default
            continue
        try:
            spec[name] = (NAME_CHECKS[kind] if name == "name" else CHECKS[name])(value)
        except ValueError as problem:
            raise DocumentError(f"{where}: {name} {problem}") from None
    prefixes = _PREFIXES.get(kind)
    if prefixes and not spec["path"].startswith(prefixes):
        raise DocumentError(f"{where}: path of a {kind} must lie under {' or '.join(prefixes)}")
    if spec.get("hash_excludes") and not spec["gated_by"]:
        raise DocumentError(f"{where}: hash_excludes means nothing without gated_by; add gated_by or drop it")
    if spec.get("gated_by") and spec["applied_by"]:
        raise DocumentError(f"{where}: gated_by and applied_by exclude each other; converge gates only what it writes")
    return Item(role, item_id, kind, spec)


def _check_targets(items: list[Item]) -> None:
    seen: dict[tuple[str, str], Item] = {}
    for item in items:
        is_path = KINDS[item.kind].target == "path"
        first = seen.setdefault(("path" if is_path else item.kind, item.target), item)
        if first is item:
            continue
        where = f"role {item.role}, item {item.id}: {item.target} is also item {first.id} of role {first.role}"
        if first.role == item.role or item.kind in _ONLY_ONCE or first.kind in _ONLY_ONCE:
            raise DocumentError(f"{where}; say it once")
        if (first.kind, first.spec) != (item.kind, item.spec):
            raise DocumentError(f"{where} and the two differ; make them equal or say it once")


def _check_nesting(items: list[Item]) -> None:
    closed = {item.target: item for item in items if item.kind in ("file", "absent")}
    for item in items:
        if KINDS[item.kind].target != "path":
            continue
        parent = posixpath.dirname(item.target)
        while parent != "/":
            if parent in closed and not (item.kind == "absent" and closed[parent].kind == "absent"):
                other = closed[parent]
                raise DocumentError(
                    f"role {item.role}, item {item.id}: {item.target} lies under {parent}, "
                    f"which item {other.id} of role {other.role} wants as {other.kind}; drop one of the two"
                )
            parent = posixpath.dirname(parent)


def _check_gates(items: list[Item]) -> None:
    """One role owns all files gated by a unit: a digest over half of them would change with the caller."""
    owners: dict[str, Item] = {}
    for item in items:
        unit = item.spec.get("gated_by")
        if unit is None:
            continue
        first = owners.setdefault(unit, item)
        if first.role != item.role:
            raise DocumentError(
                f"role {item.role}, item {item.id}: gated_by {unit}, as item {first.id} of role {first.role} is; "
                f"keep all files gated by one unit in one role"
            )
    for item in items:
        if item.kind != "unit" or item.spec["running_config"] is None:
            continue
        gated = owners.get(item.target)
        if gated is None or gated.role != item.role:
            raise DocumentError(
                f"role {item.role}, item {item.id}: running_config needs files of this role "
                f"with gated_by: {item.target}"
            )
