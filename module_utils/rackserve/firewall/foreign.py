"""Who else filters what comes in, and whether they would stop a flow of ours. Only ever read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Callable

from ..preflight.findings import Finding, finding
from .rules import FirewallError, Flow, network

Run = Callable[[list[str]], tuple[int, str, str]]
_CODE = "firewall-foreign-table"
_CLOSING = ("drop", "reject")
_PASSING = ("counter", "log", "comment")


def _unconditional(rule: dict[str, Any], verdicts: Sequence[str]) -> bool:
    keys = [key for statement in rule.get("expr", []) for key in statement]
    return any(k in verdicts for k in keys) and all(k in verdicts or k in _PASSING for k in keys)


def _within(value: Any, port: int) -> bool:
    if isinstance(value, dict) and "set" in value:
        return any(_within(member, port) for member in value["set"])
    if isinstance(value, dict) and "range" in value:
        low, high = value["range"]
        return bool(low <= port <= high)
    return bool(value == port)


def _covers(value: Any, sources: Sequence[str]) -> bool:
    members = value["set"] if isinstance(value, dict) and "set" in value else [value]
    nets = []
    for member in members:
        if isinstance(member, dict) and "prefix" in member:
            nets.append(network(f"{member['prefix']['addr']}/{member['prefix']['len']}"))
        elif isinstance(member, str) and not member.startswith("@"):
            nets.append(network(member))
    wanted = [network(s) for s in sources]
    return all(any(w.version == n.version and w.subnet_of(n) for n in nets) for w in wanted)  # type: ignore[arg-type]


def _match_passes(match: dict[str, Any], flow: Flow) -> bool:
    left, right = match.get("left", {}), match.get("right")
    if match.get("op") not in ("==", "in") or not isinstance(left, dict):
        return False
    payload, meta = left.get("payload", {}), left.get("meta", {})
    if payload.get("field") == "dport":
        return payload.get("protocol") in (flow["proto"], "th") and all(
            _within(right, port) for port in (flow["low"], flow["high"])
        )
    if payload.get("field") == "saddr":
        return _covers(right, flow["sources"])
    if meta.get("key") in ("l4proto", "nfproto"):
        return bool(meta.get("key") == "nfproto" or right == flow["proto"])
    if meta.get("key") in ("iifname", "iif"):
        return bool(right != "lo")
    ct = left.get("ct", {})
    return bool(ct.get("key") == "state" and "new" in (right if isinstance(right, list) else [right]))


def _admitting(rule: dict[str, Any], flow: Flow) -> bool:
    statements = rule.get("expr", [])
    if not any("accept" in s for s in statements):
        return False
    for statement in statements:
        if "match" in statement and not _match_passes(statement["match"], flow):
            return False
        if not any(key in ("match", "accept", *_PASSING) for key in statement):
            return False
    return True


def _judge(family: str, table: str, rules: list[dict[str, Any]], flows: Sequence[Flow], vouched: bool) -> Finding:
    where = f"nftables table {family} {table}"
    name = f"nftables:{family} {table}"
    shut = [f for f in flows if f["sources"] and not any(_admitting(rule, f) for rule in rules)]
    if not shut:
        return finding("note", _CODE, where, "it closes input by default and admits our flows", "none")
    ports = ", ".join(f"{f['proto']}/{f['low']}" + (f"-{f['high']}" if f["high"] != f["low"] else "") for f in shut)
    why = f"it closes input by default and no rule seen in it admits {ports}"
    if vouched:
        return finding("warning", _CODE, where, why, f"the site vouches for it (take_over: {name!r})")
    return finding(
        "error",
        _CODE,
        where,
        why,
        f"admit these ports there, or name {name!r} in cluster.take_over when it does so by other means",
    )


def foreign_tables(run: Run, flows: Sequence[Flow], take_over: Sequence[str] = ()) -> list[Finding]:
    """Report every foreign table that filters input: a note, or an error where it would block one of `flows`.

    An accept of ours is no protection: a packet must pass every table's chain. What cannot be read (matches of the
    iptables layer) counts as not admitting. `take_over` holding `nftables:<family> <table>` makes it a warning.
    Raises FirewallError when nft cannot list the rules.
    """
    code, out, err = run(["nft", "-j", "list", "ruleset"])
    if code != 0:
        told = err.strip() or f"exit {code}"
        raise FirewallError(f"nft cannot list the rules here: {told}; run as root with nftables installed")
    entries = json.loads(out or "{}").get("nftables", [])
    chains = [e["chain"] for e in entries if "chain" in e and e["chain"]["table"] != "rackserve"]
    rules = [e["rule"] for e in entries if "rule" in e and e["rule"]["table"] != "rackserve"]
    found = []
    for chain in chains:
        if chain.get("hook") != "input" or chain.get("type") != "filter":
            continue
        key = (chain["family"], chain["table"])
        own = [r for r in rules if (r["family"], r["table"]) == key and r["chain"] == chain["name"]]
        closed = chain.get("policy") == "drop" or (bool(own) and _unconditional(own[-1], _CLOSING))
        if closed:
            table = [r for r in rules if (r["family"], r["table"]) == key]
            found.append(_judge(*key, table, flows, f"nftables:{key[0]} {key[1]}" in take_over))
        else:
            found.append(
                finding(
                    "note",
                    _CODE,
                    f"nftables table {key[0]} {key[1]}",
                    "it filters input and lets the rest pass",
                    "none",
                )
            )
    return found
