"""Where a set was proven. A record counts for the set it was made with and for no other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_NOT_INSTALLED = ("doc", "built", "proven_on", "sources", "cites", "router")  # a router is on no host with GPUs
_ID_DIGITS = 12


def set_id(release: Mapping[str, Any]) -> str:
    """12 hexadecimal digits that stand for everything a set installs: versions, packages, files, lock, command."""
    content = {
        key: value for key, value in release.items() if key not in _NOT_INSTALLED and value not in (None, [], {})
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


def proof(release: Mapping[str, Any], hardware: str, simulated: bool) -> dict[str, Any]:
    """Return {set, proven, text}: the set's id, whether it ran on this hardware, and what is known, as one line."""
    mine = set_id(release)
    records = [record for record in release["proven_on"] if record["set"] == mine]
    here = [record for record in records if (record["hardware"], record["simulated"]) == (hardware, simulated)]
    place = _place(hardware, simulated)
    if here:
        text = f"proven on {place}: " + "; ".join(f"{record['what']} ({record['date']})" for record in here)
    elif records:
        others = ", ".join(f"{_place(one['hardware'], one['simulated'])} ({one['date']})" for one in records)
        text = f"not proven on {place}; it ran on {others}"
    elif release["proven_on"]:
        dates = ", ".join(record["date"] for record in release["proven_on"])
        text = f"not proven: the set was changed since it ran ({dates})"
    else:
        text = "not proven: this set never ran"
    return {"set": mine, "proven": bool(here), "text": text}


def _place(hardware: str, simulated: bool) -> str:
    return f"simulated {hardware}" if simulated else f"real {hardware}"
