"""The ladder of actions on findings of a host: which step is next, decided from state alone, and why none is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .check import CRITICAL
from .xids import LINK as LINK_FIX
from .xids import OTHER, XIDS
from .xids import REBOOT as REBOOT_FIX
from .xids import REPLACE as REPLACE_FIX
from .xids import RESET as RESET_FIX

ALERT, DRAIN, FABRIC_MANAGER, RESET, RESTART, QUARANTINE = (
    "alert",
    "drain",
    "restart_fabric_manager",
    "gpu_reset",
    "reboot",
    "quarantine",
)
STEPS = (DRAIN, FABRIC_MANAGER, RESET, RESTART, QUARANTINE)
# Taken where nothing critical stands any more: the drain becomes one that return-host ends.
HAND_OVER = "hand_over"
OPERATION, QUARANTINED, HANDED_OVER = "act-on-health", "quarantine", "drain-host"
# A step that was taken counts for so long; a finding that comes back later begins at the bottom again.
REMEMBER_S = 7 * 86400
MENDED = "no critical finding stands any more; return-host gives it work again"

_WHOLE = (DRAIN, FABRIC_MANAGER, RESET, RESTART, QUARANTINE)
_RESET = (DRAIN, RESET, RESTART, QUARANTINE)
_REBOOT = (DRAIN, RESTART, QUARANTINE)
_REPLACE = (DRAIN, RESET, QUARANTINE)
_OUT = (DRAIN, QUARANTINE)
_MENDING = (FABRIC_MANAGER, RESET, RESTART)
# What the check `services` says of a unit that was stopped in order.
_RESTING = re.compile(r"inactive/dead \(loaded\)")
# What each check's critical finding is worth; every other check is told and nothing else.
LADDERS: dict[str, tuple[str, ...]] = {
    "gpu-lost": _REBOOT,
    "gpu-count": _REBOOT,
    "gpu-recovery-action": _RESET,
    "gpu-ecc-uncorrectable": _REPLACE,
    "gpu-sram-threshold": _OUT,
    "gpu-remap-failed": _REPLACE,
    "gpu-pcie-width": _OUT,
    "nvlink-inactive": _WHOLE,
    "fabric-manager": (DRAIN, FABRIC_MANAGER, RESTART, QUARANTINE),
    "fabric-state": _WHOLE,
    "kernel-sxid": _WHOLE,
    "kernel-mce": _OUT,
    "memory-installed": _OUT,
    "disk-nvme": _OUT,
    "disk-read-only": _OUT,
    "deep-dcgm": _OUT,
}


class State(NamedTuple):
    """What is known of a host beside its findings.

    ``drained_by``: the notes of its servers that are out; ``serving``: its servers that are not; ``tried``: rows of
    {step, check, subject, at}; ``cannot``: steps that this host does not
    have; ``problem``: why nothing may be done to it.
    """

    drained_by: tuple[str, ...] = ()
    serving: tuple[str, ...] = ()
    tried: tuple[Mapping[str, Any], ...] = ()
    cannot: tuple[str, ...] = ()
    problem: str = ""


class Decision(NamedTuple):
    """The next step on a host, and why; ``step`` is `alert` where nothing is done, ``held`` then says why not.

    ``others_out``: how many other servers of its backends may be out while it is drained; -1 does not ask.
    """

    host: str
    step: str
    check: str
    subject: str
    why: str
    held: str = ""
    others_out: int = -1


def ladder_of(finding: Mapping[str, Any]) -> tuple[str, ...]:
    """The steps for a finding; none where it is only told."""
    if finding["severity"] != CRITICAL or finding.get("caused_by"):
        return ()
    if finding["id"] == "gpu-xid":
        return _xid_ladder(str(finding["seen"]))
    return LADDERS.get(str(finding["id"]), ())


def _xid_ladder(seen: str) -> tuple[str, ...]:
    """By what the catalogue of Xids says is the remedy; one that only names other remedies takes the host out."""
    number = re.match(r"Xid (\d+)", seen)
    kind = XIDS.get(int(number[1]), OTHER) if number else OTHER
    return {RESET_FIX: _RESET, REBOOT_FIX: _REBOOT, REPLACE_FIX: _REPLACE, LINK_FIX: _WHOLE}.get(kind.fix, _OUT)


def next_step(host: str, finding: Mapping[str, Any], state: State, enabled: Iterable[str], now_s: float) -> Decision:
    """What comes next for one finding. A step that is not enabled is left out; without `drain` nothing is done."""
    ladder, allowed = ladder_of(finding), set(enabled)
    check, subject = str(finding["id"]), str(finding["subject"])
    told = Decision(host, ALERT, check, subject, str(finding["seen"]))
    held = _held(ladder, state, allowed)
    if held:
        return told._replace(held=held)
    if state.serving or not state.drained_by:
        return told._replace(step=DRAIN)
    done = {
        str(row["step"]): float(row["at"]) for row in state.tried
        if row.get("check") == check and row.get("subject") == subject and now_s - float(row["at"]) < REMEMBER_S
    }  # fmt: skip
    mended = _mended_by(str(finding["seen"]), done, now_s)
    if mended:
        return told._replace(held=f"it is older than the step {mended}; it stays in the kernel log until the reboot")
    for step in ladder:
        if step != DRAIN and step in allowed and step not in done and step not in state.cannot:
            return told._replace(step=step)
    off = [step for step in ladder if step not in allowed or step in state.cannot]
    more = f"; not enabled or not possible here: {', '.join(off)}" if off else ""
    return told._replace(held=f"every enabled step was taken, it stays drained{more}")


def _held(ladder: Sequence[str], state: State, allowed: Iterable[str]) -> str:
    """Why nothing is done to the host, whatever its finding; empty where something may be."""
    if not ladder:
        return "this finding is told, never acted on"
    if state.problem:
        return state.problem
    if QUARANTINED in state.drained_by:
        return "the host is in quarantine: mend it, then lift-quarantine, then return-host"
    others = sorted({who or "a person" for who in state.drained_by if who != OPERATION})
    if others:
        return f"{' and '.join(others)} took it out: not ours to work on"
    return "" if DRAIN in allowed else "the step drain is not enabled (host_health_actions)"


def _mended_by(seen: str, done: Mapping[str, float], now_s: float) -> str:
    """The step that was taken since a line of the kernel log, which says its age; empty where none was."""
    age = re.search(r"(\d+) s ago", seen)
    if not age:
        return ""
    return next((step for step, at in done.items() if step in _MENDING and at > now_s - int(age[1])), "")


def decide(
    results: Mapping[str, Mapping[str, Any]],
    states: Mapping[str, State],
    enabled: Mapping[str, Iterable[str]],
    *,
    targets: Mapping[str, Sequence[str]],
    units: Mapping[str, Iterable[str]],
    away: Iterable[str],
    most_out: int,
    now_s: float,
) -> list[Decision]:
    """A decision for every finding that has a ladder; at most one is more than an alert: one host at a time.

    A host that is being worked on comes before one that still serves. ``targets`` are every host's servers
    (targets_of), ``units`` what a drain of it stops (units_of), ``away`` the servers out of service already, by
    whomever. A host that has one in service is drained only
    while fewer than ``most_out`` others are out.
    """
    lost = frozenset(away)
    found = [
        next_step(host, finding, states.get(host, State()), enabled.get(host, ()), now_s)
        for host, result in results.items()
        for finding in result["findings"]
        if ladder_of(finding)
    ]
    found.sort(key=lambda one: (one.step == ALERT, not _gone(targets.get(one.host, ()), lost)))
    told: list[Decision] = []
    for one in found:
        gone = _out_beside(one.host, targets, lost)
        if one.step != ALERT and any(other.step != ALERT for other in told):
            told.append(one._replace(step=ALERT, held="one host and one step at a time: run this again"))
        elif one.step != DRAIN or _gone(targets.get(one.host, ()), lost):
            told.append(one)
        elif len(gone) >= most_out:
            told.append(
                one._replace(step=ALERT, held=f"{', '.join(gone)} is out already, at most {most_out} at a time")
            )
        else:
            told.append(one._replace(others_out=_lost_mates(targets.get(one.host, ()), lost)))
    named = {one.host for one in told}
    ours = [host for host in results if host not in named and OPERATION in states.get(host, State()).drained_by]
    return told + [_end(host, results, targets, set(units.get(host, ()))) for host in ours]


def _end(
    host: str, results: Mapping[str, Mapping[str, Any]], targets: Mapping[str, Sequence[str]], stopped: set[str]
) -> Decision:
    """Hand a host over that the ladder drained, where nothing stands against it or those that share its servers."""
    mine = set(targets.get(host, ()))
    sharing = [host, *sorted(other for other in targets if other != host and mine.intersection(targets[other]))]
    ill = [f"{other}: {why}" for other, why in ((name, _ill(results.get(name), stopped)) for name in sharing) if why]
    if ill:
        return Decision(host, ALERT, "drained", "host", "the ladder drained it", f"not mended yet, {'; '.join(ill)}")
    return Decision(host, HAND_OVER, "drained", "host", MENDED)


def _ill(result: Mapping[str, Any] | None, stopped: set[str]) -> str:
    """Why a host does not count as mended, whether the ladder has a step for it or not; empty where it does.

    That the units which the drain stopped are inactive says nothing; one that failed does.
    """
    if result is None:
        return "nothing is known of it"
    standing = (one for one in result["findings"] if one["severity"] == CRITICAL)
    worst = next((one for one in standing if not (one["subject"] in stopped and _RESTING.match(one["seen"]))), None)
    if worst:
        return f"{worst['id']} on {worst['subject']}: {worst['seen']}"
    unread = [str(one["id"]) for one in result.get("unknown") or ()]
    return f"{', '.join(unread)} could not be read" if unread else ""


def _gone(mine: Sequence[str], away: frozenset[str]) -> bool:
    """Whether a host has servers and none of them is in service: a drain takes nothing from anybody."""
    return bool(mine) and away.issuperset(mine)


def _out_beside(host: str, targets: Mapping[str, Sequence[str]], away: frozenset[str]) -> list[str]:
    """Other hosts with servers that are out and do not end with this one; those that share such a server are one."""
    lost = {other: away.intersection(theirs).difference(targets.get(host, ())) for other, theirs in targets.items()}
    counted: set[str] = set()
    found = []
    for other in sorted(lost, key=lambda name: (-len(lost[name]), name)):
        if lost[other] and not counted.intersection(lost[other]):
            found.append(f"{other} ({', '.join(sorted(lost[other]))})")
        counted |= lost[other]
    return found


def _lost_mates(mine: Sequence[str], away: frozenset[str]) -> int:
    """How many servers of the same backends are out beside these."""
    backends = {key.rpartition("/")[0] for key in mine}
    return sum(key.rpartition("/")[0] in backends for key in away.difference(mine))


def barred(host: str, instances: Iterable[Mapping[str, Any]], gateways: Iterable[str]) -> str:
    """Why a host may not be worked on by the plan; empty where it may."""
    if host in set(gateways):
        return "it runs the gateway: clients of all engines go through it, act on it by hand"
    known = list(instances)
    mine = [one for one in known if one["host"] == host]
    reached = {one["group"] for one in known if one.get("gateway_target")}
    lone = sorted({str(one["deployment"]) for one in mine if one.get("pool") or one["group"] not in reached})
    if lone:
        return f"it runs engines of {', '.join(lone)} that the gateway cannot lead requests around: act on it by hand"
    return ""


def state_of(seen: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], barred_by: str = "") -> State:
    """From what a look at the host returned and what the gateway says of its servers; ``barred_by``: see barred."""
    servers = list(rows)
    problem = str(seen.get("problem", "")) or barred_by
    if not servers:
        problem = problem or "the gateway has no server of it: nothing tells whether it serves"
    return State(
        tuple(str(row["drained_by"]) for row in servers if row["admin"] != "ready"),
        tuple(f"{row['backend']}/{row['slot']}" for row in servers if row["admin"] == "ready"),
        tuple(seen.get("tried", ())),
        tuple(seen.get("cannot", ())),
        problem,
    )


def targets_of(host: str, instances: Iterable[Mapping[str, Any]]) -> list[str]:
    """The gateway's servers that end with a host: its own, and what serves for the groups in which it has a part."""
    return sorted({str(one["gateway_target"]) for one in _ending_with(host, instances) if one.get("gateway_target")})


def units_of(host: str, instances: Iterable[Mapping[str, Any]]) -> list[str]:
    """The units that a drain of a host stops: those of its engines, and the other parts of their groups."""
    return sorted({str(one["unit"]) for one in _ending_with(host, instances)})


def _ending_with(host: str, instances: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    known = list(instances)
    groups = {one["group"] for one in known if one["host"] == host and one.get("group")}
    return [one for one in known if one["host"] == host or one.get("group") in groups]


def lines(decisions: Sequence[Decision]) -> list[str]:
    """The decisions for a terminal."""
    return [
        f"{one.host}: {one.check} on {one.subject}: {one.why}: "
        + (f"alert only, {one.held}" if one.step == ALERT else f"next step {one.step}")
        for one in decisions
    ]
