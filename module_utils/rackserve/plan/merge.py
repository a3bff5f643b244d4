"""``cluster_overrides``: an RFC 7386 merge patch that is shown, not hidden."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

from .findings import Findings, did_you_mean, looks_like_secret

_HIDDEN_PARTS = ("api_keys", "env")
_CREDENTIALS = re.compile(r"://[^/\s\"]*@|\?[^\s\"]*=")


def apply_overrides(cluster: Any, patch: Any, findings: Findings) -> tuple[Any, list[dict[str, Any]]]:
    """Merge ``patch`` into a copy of ``cluster``.

    Returns the merged description and ``[{path, old, new}]``, one entry for every value that changed. An object
    under ``deployments`` patches the list's items by name (null removes one); anything else follows RFC 7386.
    """
    if patch is None or patch == {}:
        return cluster, []
    if not isinstance(patch, dict):
        findings.error(
            "bad-overrides",
            "cluster_overrides",
            f"cluster_overrides must be an object, not {type(patch).__name__}.",
            'Give a merge patch, for example -e \'{"cluster_overrides": {"gateway": {"port": 9443}}}\'.',
        )
        return cluster, []
    changes: list[dict[str, Any]] = []
    patch = dict(patch)
    by_name = patch.get("deployments")
    target = cluster
    if isinstance(by_name, dict):
        del patch["deployments"]
        target = _patch_deployments(cluster, by_name, findings, changes)
    return _merge(target, patch, "cluster", changes), changes


def _patch_deployments(cluster: Any, by_name: dict[str, Any], findings: Findings, changes: list[dict[str, Any]]) -> Any:
    current = cluster.get("deployments") if isinstance(cluster, dict) else None
    if not isinstance(current, list):
        return cluster
    names = [item.get("name") if isinstance(item, dict) else None for item in current]
    for wanted in by_name:
        if wanted not in names:
            known = [name for name in names if isinstance(name, str)]
            findings.error(
                "override-unknown-deployment",
                f"cluster_overrides.deployments.{wanted}",
                f'no deployment is called "{wanted}".',
                did_you_mean(wanted, known, "Deployments: " + ", ".join(known) + "."),
            )
    merged = []
    for index, (name, item) in enumerate(zip(names, current)):
        spot = f"cluster.deployments[{index}]"
        if not isinstance(name, str) or name not in by_name:
            merged.append(item)
        elif by_name[name] is None:
            changes.append({"path": spot, "old": name, "new": None})
        else:
            merged.append(_merge(item, by_name[name], spot, changes))
    return {**cluster, "deployments": merged}


def _merge(target: Any, patch: Any, where: str, changes: list[dict[str, Any]]) -> Any:
    if not isinstance(patch, dict):
        if target != patch:
            changes.append({"path": where, "old": _shown(where, target), "new": _shown(where, patch)})
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        spot = f"{where}.{key}"
        if value is None:
            if key in result:
                changes.append({"path": spot, "old": _shown(spot, result.pop(key)), "new": None})
        else:
            result[key] = _merge(result.get(key), value, spot, changes)
    return result


def _shown(where: str, value: Any) -> Any:
    """The value for people; key-like text under api_keys and env, and an address with credentials, is not repeated."""
    if any(part in where.split(".") for part in _HIDDEN_PARTS):
        values = value if isinstance(value, list) else [value]
        if any(looks_like_secret(item) for item in values):
            return "(hidden)"
    if "repositories" in where.split(".") and _CREDENTIALS.search(json.dumps(value, default=str)):
        return "(hidden)"
    return copy.deepcopy(value)
