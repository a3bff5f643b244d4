"""The gateway: its certificate, its servers, drains and leases that were forgotten, what it says of requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..gateway.runtime import NO_ADDRESS
from .case import GATEWAY, Case, Host
from .rule import DEGRADED, DOWN, NOTICE, PLAY, ROLL, SERVICE_SYMPTOMS, SITE, Hit, Rule, either, said

GATEWAY_UNIT = "rackserve-gateway.service"
_DAY_S = 86400.0
_SOON_S = 14 * _DAY_S
# A drain of an operation lasts minutes, and its lease is held meanwhile.
_LEASE_OPS = ("roll-serving", "upgrade-driver")
_SOCKET = "ssh {host} \"echo 'show servers state' | socat - /run/haproxy/rackserve.sock\""


def _gateways(case: Case) -> Iterator[tuple[Host, Mapping[str, Any]]]:
    for host in case.hosts.values():
        gateway = host.reading("gateway", {})
        if gateway:
            yield host, gateway


def _servers(gateway: Mapping[str, Any], probes: bool = False) -> list[Mapping[str, Any]]:
    found = [one for one in gateway.get("servers") or [] if one.get("address")]
    return [one for one in found if str(one.get("backend")).startswith("probe_") == probes]


def _certificate(case: Case, expired: bool) -> Iterator[Hit]:
    for host, gateway in _gateways(case):
        tls = gateway.get("tls") or {}
        if tls.get("left_s") is None:
            continue
        left = float(tls["left_s"])
        if (left <= 0) if expired else (0 < left <= _SOON_S):
            text = f"notAfter={tls.get('not_after')} ({left / _DAY_S:.0f} days left)"
            yield Hit(host.name, [host.line(str(tls.get("path")), text)], values={"until": str(tls.get("not_after"))})


def _expired(case: Case) -> Iterator[Hit]:
    return _certificate(case, True)


def _expires(case: Case) -> Iterator[Hit]:
    return _certificate(case, False)


def _bad_certificate(case: Case) -> Iterator[Hit]:
    for host, gateway in _gateways(case):
        tls = gateway.get("tls") or {}
        if tls.get("problem"):
            yield Hit(host.name, [host.line(str(tls.get("path")), str(tls["problem"]))])


def _silent(case: Case) -> Iterator[Hit]:
    for host, gateway in _gateways(case):
        if gateway.get("problem"):
            yield Hit(host.name, [host.line("HAProxy's stats socket", str(gateway["problem"]))], GATEWAY_UNIT)


def _held(gateway: Mapping[str, Any]) -> bool:
    return bool((gateway.get("lease") or {}).get("left_s", 0) > 0)


# What an operation meant to stay drained is given back by another; every other one finishes when it is run again.
_GIVES_BACK = {
    "drain-host": "return-host.yml -e host={host}",
    "quarantine": "lift-quarantine.yml -e host={host} -e confirm={host}",
}


def _out(case: Case) -> Iterator[tuple[Host, Mapping[str, Any], str, str]]:
    for host, gateway in _gateways(case):
        for one in _servers(gateway):
            by = str(one.get("drained_by") or "")
            # While an operation holds the lease it is at work.
            if one.get("admin") != "ready" and not (by and _held(gateway)):
                yield host, one, by, f"{one.get('backend')}/{one.get('slot')}"


def _drained(case: Case) -> Iterator[Hit]:
    for host, one, by, target in _out(case):
        if not by:
            line = host.line("show servers state", f"{target} is in state {one.get('admin')}")
            yield Hit(host.name, [line], "", {"target": target}, _engine_host(case, one))


def _drained_by_operation(case: Case) -> Iterator[Hit]:
    for host, one, by, target in _out(case):
        if by:
            cut_off = "" if by in _GIVES_BACK else ", which did not finish"
            line = host.line("show servers state", f"{target} is in state {one.get('admin')}, by {by}{cut_off}")
            about = _engine_host(case, one)
            finish = _GIVES_BACK.get(by, f"{by}.yml").format(host=about)
            yield Hit(host.name, [line], "", {"target": target, "by": by, "finish": finish}, about)


def _engine_host(case: Case, server: Mapping[str, Any]) -> str:
    return case.host_of(str(server.get("address") or ""))


def _down(case: Case) -> Iterator[Hit]:
    for host, gateway in _gateways(case):
        for one in _servers(gateway):
            if str(one.get("status", "")).startswith("DOWN") and one.get("admin") == "ready":
                target = f"{one.get('backend')}/{one.get('slot')}"
                text = f"{target} {one.get('address')}:{one.get('port')} is {one.get('status')} ({one.get('check')})"
                yield Hit(host.name, [host.line("show stat", text)], "", {"target": target}, _engine_host(case, one))


def _no_server(case: Case) -> Iterator[Hit]:
    for host, gateway in _gateways(case):
        by: dict[str, list[str]] = {}
        for one in _servers(gateway):
            by.setdefault(str(one.get("backend")), []).append(str(one.get("status", "")))
        for backend, states in by.items():
            if not any(state.startswith("UP") or state == "no check" for state in states):
                text = f"{backend}: {', '.join(states)}"
                yield Hit(host.name, [host.line("show stat", text)], values={"backend": backend})


def _differs(case: Case) -> Iterator[Hit]:
    """Servers whose address is not the plan's: the gateway was restarted with older files, or edited by hand."""
    for host, gateway in _gateways(case):
        wanted = {
            f"{deployment.get('backend')}/{slot.get('slot')}": (slot.get("address"), slot.get("port"))
            for deployment in (host.plan.get("gateway") or {}).get("deployments") or []
            for slot in deployment.get("slots") or []
            if slot.get("address") not in (None, "", NO_ADDRESS)
        }
        seen = {f"{one.get('backend')}/{one.get('slot')}": one for one in gateway.get("servers") or []}
        for target, (address, port) in wanted.items():
            one = seen.get(target)
            if gateway.get("servers") and (one is None or (one.get("address"), one.get("port")) != (address, port)):
                now = f"{one.get('address')}:{one.get('port')}" if one else "not there"
                text = f"{target} is {now}, the plan says {address}:{port}"
                yield Hit(host.name, [host.line("show servers state", text)], values={"target": target})


def _lease(case: Case) -> Iterator[Hit]:
    for host, gateway in _gateways(case):
        lease = gateway.get("lease") or {}
        if lease.get("owner") and (lease.get("left_s", 0) <= 0 or lease.get("idle")):
            left = float(lease.get("left_s", 0))
            when = f"expired {-left / 60:.0f} min ago" if left <= 0 else f"still valid for {left / 60:.0f} min"
            text = f"{lease['owner']} for {lease.get('operation')}, {when}"
            yield Hit(host.name, [host.line("/var/lib/rackserve/lease.json", text)],
                      values={"owner": str(lease["owner"]), "operation": str(lease.get("operation"))})  # fmt: skip


def _at_work(case: Case) -> Iterator[Hit]:
    for host, gateway in _gateways(case):
        lease = gateway.get("lease") or {}
        if not _held(gateway):
            continue
        text = f"{lease.get('owner')} for {lease.get('operation')}, since {float(lease.get('age_s', 0)) / 60:.0f} min"
        drained = [_engine_host(case, one) for one in _servers(gateway) if one.get("drained_by")]
        values = {
            "owner": str(lease.get("owner")),
            "operation": str(lease.get("operation")),
            "hosts": " ".join(drained),
        }
        yield Hit(host.name, [host.line("/var/lib/rackserve/lease.json", text)], "", values)


def _bad_lease(case: Case) -> Iterator[Hit]:
    for host, gateway in _gateways(case):
        if (gateway.get("lease") or {}).get("problem"):
            yield Hit(host.name, [host.line("/var/lib/rackserve/lease.json", str(gateway["lease"]["problem"]))])


def _stale(case: Case) -> Iterator[Hit]:
    for host, gateway in _gateways(case):
        config = gateway.get("config") or {}
        if config.get("wanted") != config.get("running"):
            text = f"HAProxy runs {str(config.get('running'))[:12]}, on disk is {str(config.get('wanted'))[:12]}"
            yield Hit(host.name, [host.line("/etc/rackserve/gateway/haproxy.cfg", text)], GATEWAY_UNIT)


RULES = (
    Rule(
        "tls-expired", "gateway", DOWN, 0.97, "the gateway's certificate expired ({until})",
        "Every client that checks it refuses to connect.",
        "put a new certificate and key into the vault (gateway_tls_pem), then roll-serving.yml loads it",
        PLAY + "roll-serving.yml --limit gateway",
        either(_expired, said(r"certificate has expired", r"certificate verify failed: certificate has expired",
                              kinds=(GATEWAY, "engine", "tool"))),
        ("tls-expires",),
    ),
    Rule(
        "tls-expires", "gateway", NOTICE, 0.9, "the gateway's certificate expires soon ({until})",
        "Clients refuse it from then on.", "put a new one into the vault (gateway_tls_pem), then roll-serving.yml",
        PLAY + "roll-serving.yml --limit gateway", _expires,
    ),
    Rule(
        "tls-unreadable", "gateway", DOWN, 0.94, "HAProxy cannot use the gateway's certificate",
        "The file is cut, or key and certificate do not belong together.",
        "correct gateway_tls_pem in the vault: certificate, chain, key, in this order; then site.yml",
        SITE,
        either(_bad_certificate, said(r"unable to load (?:SSL )?(?:certificate|private key|chain)",
                                      r"inconsistencies between private key and certificate", kinds=(GATEWAY,))),
        ("gateway-down", "gateway-config", *SERVICE_SYMPTOMS, "unit-failed", "unit-start-limit", "unit-crash-loop"),
    ),
    Rule(
        "gateway-config", "gateway", DOWN, 0.93, "HAProxy refuses its configuration",
        "haproxy.cfg was changed by hand, or an option is not known to this version.",
        "haproxy -c -f /etc/rackserve/gateway/haproxy.cfg on {host} names the line; site.yml writes the plan's", SITE,
        said(r"Fatal errors found in configuration", r"\[ALERT\].*parsing \[",
             r"Error\(s\) found in configuration file",
             kinds=(GATEWAY,)),
        ("gateway-down", *SERVICE_SYMPTOMS, "unit-failed", "unit-start-limit", "unit-crash-loop"),
    ),
    Rule(
        "gateway-down", "gateway", DOWN, 0.9, "HAProxy does not answer on its own socket",
        "The gateway does not run, or hangs: nothing is served.",
        "systemctl status rackserve-gateway.service on {host}; site.yml starts what is inactive",
        SITE + " --limit gateway", _silent,
        (*SERVICE_SYMPTOMS, "unit-killed", "unit-failed"),
    ),
    Rule(
        "gateway-drained", "operation", DEGRADED, 0.9, "{target} was drained by hand and not given back",
        "A drained engine gets no request, however healthy it is.",
        "return it when nobody works on {host} any more",
        "ansible -i <inventory> gateway -m gateway_servers -a '{{\"socket\": \"/run/haproxy/rackserve.sock\", "
        "\"state_file\": \"/var/lib/rackserve/gateway/server-state\", "
        "\"targets\": [\"{target}\"], \"state\": \"ready\"}}'",
        _drained, ("gateway-no-server",),
    ),
    Rule(
        "gateway-drained-by-operation", "operation", DEGRADED, 0.92, "{target} was drained by {by} and not given back",
        "An operation was cut off, or is followed by another that gives the host work again.",
        "drain-host: return-host.yml; quarantine: lift-quarantine.yml; any other: run it again as before, it finishes",
        PLAY + "{finish}", _drained_by_operation, ("gateway-no-server",),
    ),
    Rule(
        "gateway-addresses", "gateway", DOWN, 0.85, "servers in the gateway are not those of the plan ({target})",
        "HAProxy was changed by hand, or started with older files.", "site.yml sets them through the runtime API", SITE,
        _differs, SERVICE_SYMPTOMS,
    ),
    Rule(
        "gateway-stale", "configuration", DEGRADED, 0.85, "the gateway runs an older configuration than is on disk",
        "A reload failed, or the file was edited by hand.", "roll-serving.yml loads it without a break",
        PLAY + "roll-serving.yml --limit gateway", _stale,
    ),
    Rule(
        "gateway-server-down", "gateway", DOWN, 0.7, "the gateway gets no completion from {target}",
        "Its probe asks each engine for one token; this one does not answer.",
        "look at the engine's unit and log on {host}", "ssh {host} journalctl -u 'vllm-*' -n 100 --no-pager", _down,
        ("gateway-no-server",),
    ),
    Rule(
        "gateway-no-server", "gateway", DOWN, 0.75, "no engine is up behind {backend}: every request gets 503",
        "All of its servers are down or drained.", "site.yml starts what is inactive; see the other findings",
        SITE,
        either(_no_server, said(r"backend '?(?P<backend>\S+?)'? has no server available", kinds=(GATEWAY,))),
    ),
    Rule(
        "gateway-queue", "gateway", DEGRADED, 0.7, "requests waited in the gateway's queue until they were given up",
        "More requests than the engines take; sQ in HAProxy's log.",
        "more replicas, or a lower load; max_queue and queue_timeout_s bound the wait", PLAY + "show-plan.yml",
        said(r'"end":"sQ', r"\bsQ--\b", kinds=(GATEWAY,)),
    ),
    Rule(
        "gateway-key", "permissions", NOTICE, 0.6, "clients come without a valid API key (401)",
        "A key was changed, or a client was not told.",
        "compare the names in keys.map with who calls; roll keys in the "
        "vault", SITE,
        said(r'"status":401', kinds=(GATEWAY,)),
    ),
    Rule(
        "lease-forgotten", "operation", DEGRADED, 0.85, "{owner} left the lease for {operation}",
        "An operation was cut off; the next one is refused until it expires, and what it drained may still be out.",
        "make sure that it does not run any more, then run {operation} again, or with -e break_lock={owner}",
        ROLL, _lease,
    ),
    Rule(
        "operation-at-work", "operation", NOTICE, 0.5, "{owner} is at work: {operation}",
        "It holds the lease; what it drained and stopped comes back when it ends.",
        "ask {owner}; where it does not run any more, run {operation} again: it finishes what was cut off",
        "ssh {host} cat /var/lib/rackserve/lease.json", _at_work,
        ("gateway-drained", "gateway-drained-by-operation", "gateway-server-down", "unit-stopped", "engine-loading"),
    ),
    Rule(
        "lease-unreadable", "operation", DEGRADED, 0.9, "the lease file cannot be read",
        "No operation can start.", "look at /var/lib/rackserve/lease.json on {host}, then remove it",
        "ssh {host} cat /var/lib/rackserve/lease.json", _bad_lease,
    ),
)  # fmt: skip
