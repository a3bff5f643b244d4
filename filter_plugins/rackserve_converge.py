"""Filters for desired-state documents; the work is done in module_utils/rackserve/converge."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, Callable

import yaml
from ansible.errors import AnsibleFilterError

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.converge import render  # noqa: E402 - needs the path above
from rackserve.converge.contents import secret_names  # noqa: E402 - as above
from rackserve.converge.errors import DocumentError  # noqa: E402 - as above
from rackserve.converge.overlay import overlay_document  # noqa: E402 - as above

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def desired_document(text_or_items: Any, role: str, extra: Any = (), override: Any = None) -> dict[str, Any]:
    """A role's desired-state document from YAML text or items, with the site's extra items and overrides."""
    try:
        base = json.loads(json.dumps(text_or_items))
        if isinstance(base, str):
            base = yaml.load(base, Loader=_LOADER)  # noqa: S506 - _LOADER is a safe loader
        return overlay_document(
            base, str(role), json.loads(json.dumps(list(extra or []))), json.loads(json.dumps(override or {}))
        )
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise AnsibleFilterError(f"desired_document: role {role}: the text is no YAML{where}") from None
    except (DocumentError, TypeError, ValueError) as problem:
        raise AnsibleFilterError(f"desired_document: {problem}") from None


def secrets_of(secrets: Any, documents: Any) -> dict[str, str]:
    """The secrets that these documents mention, and no other."""
    wanted = secret_names(json.loads(json.dumps(documents)))
    missing = sorted(wanted - set(secrets))
    if missing:
        raise AnsibleFilterError(f"rackserve_secrets lacks {', '.join(missing)}: add it to the site's vault file")
    return {name: str(secrets[name]) for name in sorted(wanted)}


def probe_arguments(documents: str, secrets: Any) -> dict[str, Any]:
    """All arguments of converge, from documents that are rendered once for both of them, as JSON."""
    return {"documents": str(documents), "secrets": secrets_of(secrets, json.loads(documents))}


def plays_of(probe: Any, roles: Any = None) -> list[str]:
    """The groups whose plays have work on a host, from what its probe found; ``roles`` where all of them run anyway."""
    busy = [str(role) for role in (probe["dirty_roles"] if roles is None else roles)]
    found = ["drifted", *(f"drift_{role}" for role in busy)] if busy else []
    return found + [name for name, key in (("stale", "stale"), ("overridden", "overrides")) if probe[key]]


def hosts_with_work(hostvars: Any, full: bool = False) -> list[str]:
    """The hosts whose probe has work for a play, or all probed ones with ``full``; a group without hosts for none."""
    probes = {str(name): hostvars[name].get("rackserve_probe") for name in hostvars}
    found = [name for name, probe in probes.items() if probe and "dirty_roles" in probe and (full or plays_of(probe))]
    return found or ["drifted"]


def program_texts(paths: Any) -> dict[str, str]:
    """{path: text} of files below module_utils/rackserve, as a host gets them."""
    try:
        return {str(path): Path(MODULE_UTILS, "rackserve", str(path)).read_text(encoding="utf-8") for path in paths}
    except OSError as problem:
        raise AnsibleFilterError(f"program_texts: {problem.filename}: {problem.strerror}") from None


def file_sha256(path: Any) -> str:
    """The sha256 of a file on the controller, in hexadecimal."""
    try:
        return hashlib.sha256(Path(str(path)).read_bytes()).hexdigest()
    except OSError as problem:
        raise AnsibleFilterError(f"file_sha256: {problem.filename}: {problem.strerror}") from None


def render_table(files: Any) -> list[str]:
    """Lines of a table over what render_documents wrote for each host."""
    return render.render_table(json.loads(json.dumps(dict(files))))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {
            "desired_document": desired_document,
            "secrets_of": secrets_of,
            "probe_arguments": probe_arguments,
            "plays_of": plays_of,
            "hosts_with_work": hosts_with_work,
            "file_sha256": file_sha256,
            "program_texts": program_texts,
            "render_table": render_table,
        }
