"""Variables nobody reads, and secrets the plan needs: judged on the controller, no host is touched."""

from __future__ import annotations

import difflib
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .findings import Finding, finding

_NEAR_PREFIX = 0.9
_PLAIN_SECRETS = re.compile(rb"^rackserve_secrets\s*:", re.MULTILINE)


def _owner(name: str, roles: Iterable[str]) -> str:
    return max((role for role in roles if name.startswith(f"{role}_")), key=len, default="")


def check_variables(
    variables: Mapping[str, Iterable[str]], known: Mapping[str, Iterable[str]], removed: Mapping[str, str]
) -> list[Finding]:
    """Refuse variables with a role's prefix that the role does not know.

    variables: host to names set for it; known: role to the names it knows; removed: name to what replaces it.
    Names that are one slip away from a known name, prefix included, are warnings. One finding a name.
    """
    everything = {name for names in known.values() for name in names}
    hosts: dict[str, list[str]] = {}
    for host, names in variables.items():
        for name in names:
            if name not in everything:
                hosts.setdefault(str(name), []).append(host)
    found = []
    for name, where in sorted(hosts.items()):
        role = _owner(name, known)
        place = f"variable {name} ({', '.join(where[:3])}{', …' if len(where) > 3 else ''})"  # noqa: PLR2004 - a taste
        if name in removed:
            found.append(finding("error", "variable-removed", place, "it is read by nothing any more", removed[name]))
        elif role:
            near = difflib.get_close_matches(name, list(known[role]), 1, 0.6)
            fix = f"did you mean {near[0]}?" if near else f"see roles/{role}/meta/argument_specs.yml"
            found.append(finding("error", "variable-unknown", place, f"role {role} has no such variable", fix))
        else:
            # A slip leaves the beginning or the end alone; all names take as long as the rest of this function.
            alike = [other for other in everything if other[:3] == name[:3] or other[-3:] == name[-3:]]
            near = difflib.get_close_matches(name, alike, 1, _NEAR_PREFIX)
            if near:
                found.append(
                    finding("warning", "variable-near", place, "nothing of ours reads it", f"did you mean {near[0]}?")
                )
    return found


def needed_secrets(plan: Any) -> set[str]:
    """Return the names of the secrets a plan refers to: `*_secret` values, API keys, the gateway's certificate."""
    names: set[str] = set()
    if isinstance(plan, Mapping):
        for key, value in plan.items():
            if str(key).endswith("_secret") and isinstance(value, str) and value:
                names.add(value)
            elif key != "slices":
                names |= needed_secrets(value)
        gateway = plan.get("gateway")
        if isinstance(gateway, Mapping):
            names |= {f"api_key_{name}" for name in gateway.get("api_keys") or []}
            names |= {"gateway_tls_pem"} if gateway.get("tls") else set()
    elif isinstance(plan, (list, tuple)):
        for value in plan:
            names |= needed_secrets(value)
    return names


def check_secrets(plan: Any, available: Iterable[str]) -> list[Finding]:
    """Refuse a plan whose secrets are not in `rackserve_secrets`; only names are read and shown."""
    have = set(available)
    found = []
    for name in sorted(needed_secrets(plan) - have):
        near = difflib.get_close_matches(name, have, 1, 0.7)
        hint = f"; did you mean {near[0]} to be it?" if near else ""
        found.append(
            finding(
                "error",
                "secret-missing",
                f"rackserve_secrets.{name}",
                "the plan needs it",
                f"add it to the site's vault file{hint}",
            )
        )
    return found


def check_secret_sources(inventory: Path) -> list[Finding]:
    """Refuse files of an inventory that hold secrets in the clear and that others on the controller may read.

    A file that ansible-vault encrypted may be read by anybody. Files that are not for us are left to Ansible.
    """
    found = []
    folders = (inventory / name for name in ("group_vars", "host_vars"))
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & stat.S_IROTH:
            continue
        if _PLAIN_SECRETS.search(path.read_bytes()):
            why = f"it holds secrets in the clear and its mode is {mode:04o}: others on this machine may read them"
            fix = f"chmod 600 {path}, and replace the secrets if somebody may have; or encrypt it with ansible-vault"
            found.append(finding("error", "secret-readable", str(path), why, fix))
    return found
