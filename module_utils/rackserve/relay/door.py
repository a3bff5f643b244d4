"""The firewall's door for one copy: addresses in a set of our table, each of which leaves it by itself after a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from ..firewall.rules import RELAY_SETS

Run = Callable[[Sequence[str]], tuple[int, str, str]]
_TABLE = ("inet", "rackserve")


class DoorError(Exception):
    """The peers of a copy would be shut out; one line: what, where, how to fix."""


def _elements(addresses: Sequence[str], timeout_s: int | None) -> list[tuple[str, str]]:
    """(set, elements in braces) for each address family that has some."""
    families = {"ip": [one for one in addresses if ":" not in one], "ip6": [one for one in addresses if ":" in one]}
    ends = f" timeout {timeout_s}s" if timeout_s is not None else ""
    found = [(RELAY_SETS[family], sorted(set(listed))) for family, listed in families.items() if listed]
    return [(name, "{ " + ", ".join(one + ends for one in listed) + " }") for name, listed in found]


def open_for(run: Run, addresses: Sequence[str], timeout_s: int) -> str:
    """Let ``addresses`` reach the relay for ``timeout_s``; "opened", or "unfiltered" where no table of ours is loaded.

    Raises DoorError where our table is loaded and cannot do that.
    """
    status, listed, _ = run(["nft", "-t", "list", "table", *_TABLE])
    if status != 0:
        return "unfiltered"
    missing = [name for name, _ in _elements(addresses, None) if f"set {name} " not in listed]
    if missing:
        if "policy accept" in listed:
            return "unfiltered"  # rules of an older version, which know nothing of the port and let it pass
        raise DoorError(
            f"the loaded firewall has no set {missing[0]} for the relay: run playbooks/site.yml --tags firewall first"
        )
    close(run, addresses)  # an element that is there keeps its old timeout
    for name, elements in _elements(addresses, timeout_s):
        status, _, said = run(["nft", "add", "element", *_TABLE, name, elements])
        if status != 0:
            raise DoorError(f"the firewall cannot be opened for the relay: {' '.join(said.split())[:300]}")
    return "opened"


def closing(addresses: Sequence[str]) -> list[list[str]]:
    """Commands that take ``addresses`` out, one for each family; what has gone by itself is added first, in one go."""
    return [
        ["nft", "; ".join(" ".join([verb, "element", *_TABLE, name, elements]) for verb in ("add", "delete"))]
        for name, elements in _elements(addresses, None)
    ]


def close(run: Run, addresses: Sequence[str]) -> None:
    """Take ``addresses`` out again; one by one, since nft refuses all where one has gone by itself."""
    for address in sorted(set(addresses)):
        for name, elements in _elements([address], None):
            run(["nft", "delete", "element", *_TABLE, name, elements])
