"""A role's document with a site's changes laid over it by item id."""

from __future__ import annotations

from typing import Any

from .document import parse_documents
from .errors import DocumentError


def overlay_document(base: Any, role: str, extra: Any = (), override: Any = None) -> dict[str, Any]:
    """{role, items, overrides: [ids changed or removed], extras: [ids added]}, validated.

    base: a list of items, or a dict with `items`. extra: items added. override: {id: fields to change, or None to
    remove the item}; a field set to None is dropped. Raises DocumentError.
    """
    items = _items(base, role)
    if not isinstance(extra, (list, tuple)):
        raise DocumentError(f"role {role}: {role}_items_extra must be a list of items")
    if not isinstance(override or {}, dict):
        raise DocumentError(f"role {role}: {role}_items_override must be a dict of id: changes")
    items = [*items, *extra]
    known = [item.get("id") for item in items if isinstance(item, dict)]
    changes = dict(override or {})
    for item_id, change in changes.items():
        if item_id not in known:
            raise DocumentError(f"role {role}: {role}_items_override names {item_id}, but there is no such item")
        if change is not None and (not isinstance(change, dict) or "id" in change):
            raise DocumentError(f"role {role}: {role}_items_override of {item_id} must be fields to change, or null")
    merged = [_merge(item, changes) for item in items]
    document = {"role": role, "items": [item for item in merged if item is not None]}
    parse_documents([document])
    return {
        **document,
        "overrides": sorted(changes),
        "extras": [item["id"] for item in extra if changes.get(item["id"], item) is not None],
    }


def _items(base: Any, role: str) -> list[Any]:
    if isinstance(base, dict):
        if base.get("role", role) != role:
            raise DocumentError(f"role {role}: the document says role {base['role']}; make them equal")
        unknown = sorted(str(key) for key in set(base) - {"role", "items"})
        if unknown:
            raise DocumentError(f"role {role}: the document has unknown key {unknown[0]}; known: items, role")
        base = base.get("items")
    if base is None:
        return []
    if not isinstance(base, list):
        raise DocumentError(f"role {role}: the document must be a list of items, or a dict with items")
    return list(base)


def _merge(item: Any, changes: dict[str, Any]) -> Any:
    if not isinstance(item, dict) or item.get("id") not in changes:
        return item
    change = changes[item["id"]]
    if change is None:
        return None
    return {key: value for key, value in {**item, **change}.items() if value is not None}
