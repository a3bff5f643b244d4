"""Who gives weights to whom: pure data, for filters on the controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class ChainError(Exception):
    """There is no way to bring the weights; one line: what, where, how to fix."""


def spread_of(
    models: Sequence[Mapping[str, Any]],
    probes: Mapping[str, Mapping[str, Any] | None],
    lacking: Mapping[str, Mapping[str, Sequence[str]]],
    hosts_of: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, list[str]]]:
    """{model: {ready, lacking, unseen}}, hosts in the plan's order.

    ``probes``: what the drift probe said, None for a host that was not asked; ``lacking``: {host: {model: files}} of
    the hosts that compared since. ``hosts_of``: {model: hosts that serve it}. A host is ready when it has the mark of
    this manifest, and unseen when this run did not ask it.
    """
    found = {}
    for name in (str(model["name"]) for model in models):
        rows: dict[str, list[str]] = {"ready": [], "lacking": [], "unseen": []}
        for host in hosts_of.get(name, ()):
            compared = lacking.get(host, {}).get(name)
            if compared is not None:
                rows["lacking" if compared else "ready"].append(host)
            elif probes.get(host) is None:
                rows["unseen"].append(host)
            elif not differs(probes[host], name):
                rows["ready"].append(host)
        found[name] = rows
    return found


def differs(probe: Mapping[str, Any] | None, model: str) -> bool:
    """Whether the drift probe of a host found no mark of the model's manifest there."""
    role = ((probe or {}).get("roles") or {}).get("model_store") or {}
    return any(item.get("id") == f"ready-{model}" for item in role.get("differs", ()))


def chain_of(
    spread: Mapping[str, Sequence[str]],
    alive: Sequence[str],
    addresses: Mapping[str, str],
    *,
    fed: bool,
    sources: Sequence[str] = (),
    gone: Sequence[str] = (),
    most_sources: int = 2,
) -> dict[str, Any]:
    """{sources, receivers, feed, peers}: hosts as {name, address}.

    ``alive``: hosts of this run that have not failed; ``gone``: those that have. ``sources``: hosts that shall give;
    else those that are ready, else the first that was not asked. Where none has the weights and ``fed``, the first
    receiver is fed by the controller and gives to the others (``feed`` is its name). Raises ChainError.
    """
    receivers = [host for host in spread.get("lacking", ()) if host in alive]
    givers = [host for host in sources if host not in receivers]
    if not givers:
        givers = [host for host in spread.get("ready", ()) if host not in gone][:most_sources]
    feed = ""
    unseen = [host for host in spread.get("unseen", ()) if host not in gone]
    if not givers and receivers:
        if fed:
            feed = receivers[0]
        elif unseen:
            givers = unseen[:1]
        else:
            raise ChainError(
                f"no host has these weights, and the controller is not their source: bring them to one of "
                f"{', '.join(receivers)}, or set model.source to {{kind: controller}}"
            )
    unknown = [host for host in [*givers, *receivers] if not addresses.get(host)] if givers or receivers[1:] else []
    if unknown:
        raise ChainError(f"the plan has no address for {', '.join(unknown)}: give ansible_host in the inventory")

    def named(hosts: Sequence[str]) -> list[dict[str, str]]:
        return [{"name": host, "address": addresses.get(host, "")} for host in hosts]

    taking_part = list(dict.fromkeys([*givers, *receivers]))
    peers = [addresses[host] for host in taking_part] if len(taking_part) > 1 else []
    return {"sources": named(givers), "receivers": named(receivers), "feed": feed, "peers": peers}


def parents_of(chain: Mapping[str, Any], host: str, port: int) -> list[dict[str, Any]]:
    """Whom ``host`` gets its files from, nearest first: the receivers before it, then the sources."""
    names = [one["name"] for one in chain["receivers"]]
    before = chain["receivers"][: names.index(host)] if host in names else []
    return [{**one, "port": port} for one in [*reversed(before), *chain["sources"]]]


def refusals_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """{host: why} of the sources that did not do what they were asked; ``rows``: what Ansible noted of each."""
    found = {}
    for row in rows:
        if row.get("unreachable") or row.get("msg"):
            found[str(row["item"]["name"])] = " ".join(str(row.get("msg") or "it does not answer").split())
    return found


def givers_of(chain: Mapping[str, Any], refusals: Mapping[str, str]) -> dict[str, Any]:
    """The chain without the sources that refused. Raises ChainError where it had some and none is left."""
    left = [one for one in chain["sources"] if one["name"] not in refusals]
    if chain["sources"] and not left:
        said = "; ".join(f"{name}: {why}" for name, why in refusals.items())
        raise ChainError(
            f"no source gives these weights ({said}): mend one of them, or name another in model_store_sources"
        )
    return {**chain, "sources": left}
