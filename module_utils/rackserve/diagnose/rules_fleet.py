"""Hosts that could not be asked, and what the controller knows beyond single hosts."""

from __future__ import annotations

from collections.abc import Iterator

from .case import TOOL, Case
from .rule import DOWN, HEALTH, NOTICE, SERVICE_SYMPTOMS, Hit, Rule, either, said


def _lost(case: Case, words: tuple[str, ...], others: bool = False) -> Iterator[Hit]:
    for host in case.hosts.values():
        known = any(word in host.lost.lower() for word in words)
        if host.lost and known != others:
            yield Hit(host.name, [host.line("ssh", host.lost)], values={"what": " ".join(host.lost.split())})


_DENIED = ("permission denied (publickey", "permission denied, please try", "authentication fail", "too many auth")
_KEY = ("host key verification failed", "remote host identification has changed")
_FAILED = ("host_evidence:",)


def _denied(case: Case) -> Iterator[Hit]:
    return _lost(case, _DENIED)


def _changed_key(case: Case) -> Iterator[Hit]:
    return _lost(case, _KEY)


def _not_asked(case: Case) -> Iterator[Hit]:
    return _lost(case, _FAILED)


def _silent(case: Case) -> Iterator[Hit]:
    return _lost(case, (*_DENIED, *_KEY, *_FAILED), others=True)


def _partial(case: Case) -> Iterator[Hit]:
    for host in case.hosts.values():
        missed = host.reading("missed", [])
        if missed and not host.lost:
            yield Hit(host.name, [host.line("host_evidence", text) for text in missed[:3]])


RULES = (
    Rule(
        "host-unreachable", "reachability", DOWN, 0.96, "{host} does not answer: {what}",
        "It is off, its network is down, or sshd does not run; nothing else is known of it.",
        "look at its console or BMC (power, link); when it is back, site.yml starts and proves what it should run",
        "ssh {host} true", _silent, (*SERVICE_SYMPTOMS, "nccl-remote-error", "nccl-timeout", "ray-nodes-missing"),
    ),
    Rule(
        "host-login-refused", "permissions", DOWN, 0.95, "{host} refuses our SSH login",
        "The key or the user is not the one that it knows.", "check ansible_user and the key in the inventory",
        "ssh -v {host} true", _denied, SERVICE_SYMPTOMS,
    ),
    Rule(
        "host-key-changed", "reachability", DOWN, 0.96, "{host} shows another SSH host key than before",
        "It was reinstalled, or another machine answers at its address.",
        "compare the key at its console; only then: ssh-keygen -R {host}",
        "ssh-keygen -F {host}",
        either(_changed_key, said(r"REMOTE HOST IDENTIFICATION HAS CHANGED", kinds=(TOOL,))), SERVICE_SYMPTOMS,
    ),
    Rule(
        "host-not-readable", "reachability", DOWN, 0.85, "{host} answers, but could not be looked at: {what}",
        "A disk or driver that hangs, or no Python that works.", "look with fab or ssh: uptime, df, dmesg",
        "ssh {host} 'uptime; df -h; journalctl -k -n 20 --no-pager'", _not_asked, SERVICE_SYMPTOMS,
    ),
    Rule(
        "evidence-incomplete", "reachability", NOTICE, 0.4, "parts of {host} could not be read",
        "A command did not answer in time.", "the lines name the part; run it by hand", HEALTH, _partial, (),
    ),
)  # fmt: skip
