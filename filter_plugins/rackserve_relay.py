"""Filters for copying weights between hosts: shims over module_utils/rackserve/relay/chain."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.relay import chain as core  # noqa: E402 - needs the path above


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def weights_spread(plan: Any, hostvars: Any) -> dict[str, dict[str, list[str]]]:
    """{model: {ready, lacking, unseen}} of the hosts of a plan, by this run's drift probe and comparisons."""
    models = {str(host): _plain(part["models"]) for host, part in plan["slices"].items() if part["models"]}
    hosts_of: dict[str, list[str]] = {}
    for host, listed in models.items():
        for model in listed:
            hosts_of.setdefault(str(model["name"]), []).append(host)
    probes, lacking = {}, {}
    for host in models:
        known = hostvars[host]
        probe = known.get("rackserve_probe")
        probes[host] = _plain(probe) if probe and "dirty_roles" in probe else None
        lacking[host] = _plain(known.get("model_store_lacking") or {})
    return core.spread_of([{"name": name} for name in hosts_of], probes, lacking, hosts_of)


def relay_chain(
    spread: Any, alive: Any, hosts: Any, fed: bool = False, *, sources: Any = (), gone: Any = ()
) -> dict[str, Any]:
    """{sources, receivers, feed, peers} of one model; ``hosts`` is the plan's list of {name, address}."""
    addresses = {str(host["name"]): str(host["address"] or "") for host in _plain(list(hosts))}
    try:
        return core.chain_of(
            _plain(spread),
            _plain(list(alive)),
            addresses,
            fed=bool(fed),
            sources=_plain(list(sources)),
            gone=_plain(list(gone)),
        )
    except core.ChainError as problem:
        raise AnsibleFilterError(f"weights: {problem}") from problem


def relay_refusals(asked: Any) -> dict[str, str]:
    """{host: why} of the sources that did not do what a looped task asked of them."""
    return core.refusals_of(_plain(dict(asked)).get("results", []))


def relay_givers(chain: Any, refusals: Any) -> dict[str, Any]:
    """The chain without the sources that did not start."""
    try:
        return core.givers_of(_plain(chain), _plain(dict(refusals)))
    except core.ChainError as problem:
        raise AnsibleFilterError(f"weights: {problem}") from problem


def relay_parents(chain: Any, host: str, port: int) -> list[dict[str, Any]]:
    """Whom a host of the chain gets its files from, nearest first."""
    return core.parents_of(_plain(chain), str(host), int(port))


def relay_words(relay: Any) -> str:
    """One line about what a host got: how much, how fast, from whom, and who was passed by."""
    from rackserve.progress.reading import amount, duration, speed  # noqa: PLC0415 - only where something was copied

    said = _plain(relay)
    seconds = max(float(said["seconds"]), 0.001)
    line = f"{amount(said['bytes'], 'B')} in {duration(seconds)} ({speed(said['bytes'] / seconds, 'B')})"
    line += f" from {', '.join(said['received'])}" if said["received"] else ""
    line += f"; passed by: {', '.join(f'{name} ({why})' for name, why in said['left'].items())}" if said["left"] else ""
    return line + (f"; came twice: {', '.join(said['resent'])}" if said["resent"] else "")


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {
            "weights_spread": weights_spread,
            "relay_chain": relay_chain,
            "relay_refusals": relay_refusals,
            "relay_givers": relay_givers,
            "relay_parents": relay_parents,
            "relay_words": relay_words,
        }
