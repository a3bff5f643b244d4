"""Units as systemd has them: masked, missing, stopped by somebody, failing again and again, and why they fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .case import ENGINE, RAY, UNIT, Case, Host
from .inputs import WATCH_UNIT
from .rule import (
    DEGRADED,
    DOWN,
    ENGINE_SYMPTOMS,
    NOTICE,
    ROLL,
    SERVICE_SYMPTOMS,
    SITE,
    Hit,
    Rule,
    either,
    said,
)  # fmt: skip

_LOGS = (ENGINE, UNIT, RAY, "gateway")
_STATUS = "ssh {host} 'systemctl status {unit}; journalctl -u {unit} -n 100 --no-pager'"
# systemd's own exit statuses of a program that could not even be started.
_EXEC = {203: "EXEC", 217: "USER", 216: "GROUP", 200: "CHDIR", 226: "NAMESPACE", 243: "CREDENTIALS", 238: "STATE_DIR"}
Unit = Mapping[str, Any]
Holds = Callable[[Host, str, Unit], str]


def _expected(host: Host, name: str) -> bool:
    wanted = host.plan.get("units") or []
    return name in wanted


def _over_units(holds: Holds) -> Callable[[Case], Iterable[Hit]]:
    """A hit for each of our units of which ``holds`` says something."""

    def look(case: Case) -> Iterator[Hit]:
        for host in case.hosts.values():
            for name, unit in host.units().items():
                told = holds(host, name, unit)
                if told:
                    yield Hit(host.name, [host.line(f"systemctl show {name}", told)], name)

    return look


def _masked(_host: Host, _name: str, unit: Unit) -> str:
    return "LoadState=masked" if unit.get("load") == "masked" else ""


def _missing(host: Host, name: str, unit: Unit) -> str:
    return "LoadState=not-found" if _expected(host, name) and unit.get("load") == "not-found" else ""


def _bad_unit(_host: Host, _name: str, unit: Unit) -> str:
    return f"LoadState={unit['load']}" if unit.get("load") in ("bad-setting", "error") else ""


def _start_limit(_host: Host, _name: str, unit: Unit) -> str:
    return "Result=start-limit-hit" if unit.get("result") == "start-limit-hit" else ""


def _ends_on_purpose(host: Host, name: str) -> bool:
    """The watch ends with status 0 when its files change; systemd says of every other end of it that it failed.

    No engine is meant: vLLM ends with status 0 too when its core has died.
    """
    journals = [source.text for source in host.sources if source.name == f"journal/{name}.log"]
    return name == WATCH_UNIT and not any("Failed with result" in text for text in journals)


def _crash_loop(host: Host, name: str, unit: Unit) -> str:
    young = float(unit.get("active_s") or 0) < _SETTLED_S
    if unit.get("sub") == "auto-restart":
        return f"SubState=auto-restart, NRestarts={unit.get('restarts')}, ExecMainStatus={unit.get('status')}"
    again = int(unit.get("restarts") or 0) >= _RESTARTS and young and unit.get("active") != "inactive"
    if again and not _ends_on_purpose(host, name):
        return f"NRestarts={unit.get('restarts')}, running for {float(unit.get('active_s') or 0):.0f} s"
    return ""


_SETTLED_S, _RESTARTS = 900.0, 3


def _not_executable(_host: Host, _name: str, unit: Unit) -> str:
    status = int(unit.get("status") or 0)
    return f"ExecMainStatus={status}/{_EXEC[status]}" if status in _EXEC and unit.get("active") != "active" else ""


def _assert(_host: Host, _name: str, unit: Unit) -> str:
    return "AssertResult=no" if unit.get("asserted") == "no" and unit.get("active") != "active" else ""


def _failed(_host: Host, _name: str, unit: Unit) -> str:
    return f"Result={unit.get('result')}, ExecMainStatus={unit.get('status')}" if unit.get("active") == "failed" else ""


def _killed(_host: Host, _name: str, unit: Unit) -> str:
    signalled = unit.get("result") in ("signal", "core-dump") and unit.get("active") != "active"
    return f"Result={unit['result']}, signal {unit.get('status')}" if signalled else ""


def _timeout(_host: Host, _name: str, unit: Unit) -> str:
    late = unit.get("result") in ("timeout", "watchdog", "protocol") and unit.get("active") != "active"
    return f"Result={unit['result']}" if late else ""


def _stopped(host: Host, name: str, unit: Unit) -> str:
    at_rest = unit.get("active") == "inactive" and unit.get("load") == "loaded" and unit.get("result") == "success"
    if _expected(host, name) and at_rest and unit.get("asserted") != "no":
        return f"ActiveState=inactive, Result=success, since {unit.get('since') or 'the boot'}"
    return ""


def _disabled(host: Host, name: str, unit: Unit) -> str:
    off = _expected(host, name) and unit.get("enabled") == "disabled" and unit.get("load") == "loaded"
    return "UnitFileState=disabled" if off else ""


def _stale(_host: Host, _name: str, unit: Unit) -> str:
    if unit.get("active") != "active":
        return ""
    if unit.get("wanted_digest") and unit.get("running_digest") and unit["wanted_digest"] != unit["running_digest"]:
        return f"runs configuration {unit['running_digest'][:12]}, on disk is {unit['wanted_digest'][:12]}"
    return "NeedDaemonReload=yes: its files changed since systemd read them" if unit.get("reload") == "yes" else ""


def _behind(case: Case) -> Iterator[Hit]:
    for host in case.hosts.values():
        for one in host.reading("behind_plan", []):
            words = [
                f"lacks {' '.join(one.get('missing') or ['nothing'])}",
                f"has {' '.join(one.get('extra') or ['nothing'])}",
            ]
            unit = str(one.get("unit"))
            yield Hit(
                host.name, [host.line(f"/etc/systemd/system/{unit}", f"{words[0]}; {words[1]} beyond the plan")], unit
            )


def _drop_ins(_host: Host, _name: str, unit: Unit) -> str:
    foreign = [path for path in unit.get("drop_ins") or [] if str(path).startswith(("/etc/", "/run/"))]
    return ", ".join(foreign)


def _frozen(case: Case) -> Iterator[Hit]:
    for host in case.hosts.values():
        for one in host.reading("processes", []):
            if one.get("state") in ("T", "t") and one.get("unit") in host.units():
                text = f"process {one.get('pid')} ({one.get('name')}) is stopped (state {one['state']})"
                yield Hit(host.name, [host.line(f"/proc/{one.get('pid')}/stat", text)], str(one["unit"]))


def _waiting(case: Case) -> Iterator[Hit]:
    for host in case.hosts.values():
        for one in host.reading("processes", []):
            if one.get("state") == "D" and one.get("stuck") and one.get("unit") in host.units():
                text = f"process {one.get('pid')} ({one.get('name')}) waits in the kernel (state D)"
                yield Hit(host.name, [host.line(f"/proc/{one.get('pid')}/stat", text)], str(one["unit"]))


def _engines(state: str) -> Callable[[Case], Iterable[Hit]]:
    def look(case: Case) -> Iterator[Hit]:
        for host in case.hosts.values():
            for one in host.reading("engines", []):
                if one.get("state") == state:
                    yield Hit(host.name, [host.line(f"asked {one.get('unit')}", str(one.get("said")))],
                              str(one.get("unit")))  # fmt: skip

    return look


RULES = (
    Rule(
        "unit-masked", "operation", DOWN, 0.97, "{unit} is masked: nothing can start it",
        "Somebody masked it by hand, to keep it down.",
        "if nobody needs it down any more: systemctl unmask {unit}, then site.yml starts and proves it",
        SITE + " --limit {host},gateway", _over_units(_masked),
        (*ENGINE_SYMPTOMS, "unit-disabled", "unit-missing"),
    ),
    Rule(
        "unit-missing", "configuration", DOWN, 0.95, "{unit} is not on the host although the plan wants it",
        "The host was not converged, or its unit file was removed.", "site.yml writes and starts it",
        SITE + " --limit {host},gateway", _over_units(_missing), ENGINE_SYMPTOMS,
    ),
    Rule(
        "unit-bad-file", "configuration", DOWN, 0.95, "systemd cannot use the files of {unit}",
        "A unit file or a drop-in is wrong.", "systemd-analyze verify {unit} names the line; remove the drop-in",
        "ssh {host} systemd-analyze verify {unit}",
        either(_over_units(_bad_unit), said(r"has a bad unit file setting", kinds=_LOGS)), ENGINE_SYMPTOMS,
    ),
    Rule(
        "unit-not-executable", "configuration", DOWN, 0.93, "systemd could not start the program of {unit}",
        "EXEC: the program is not there or not executable (a release that was removed); USER: no such user; NAMESPACE: "
        "a path of the sandbox is missing; CREDENTIALS: a secret file is missing.",
        "site.yml brings release, user, paths and secrets back", SITE + " --limit {host},gateway",
        either(_over_units(_not_executable),
               said(r"Failed at step (?:EXEC|USER|GROUP|CHDIR|NAMESPACE|CREDENTIALS) spawning",
                    r"Failed to load environment files", r"status=(?:203/EXEC|217/USER|226/NAMESPACE|243/CREDENTIALS)",
                    kinds=_LOGS)),
        ENGINE_SYMPTOMS,
    ),
    Rule(
        "engine-frozen", "process", DOWN, 0.95, "a process of {unit} was stopped and not continued (SIGSTOP)",
        "Somebody, or a debugger, stopped it; it holds its GPUs and answers nothing.",
        "the watch ends it after vllm_hang_s, or at once: systemctl kill -s KILL {unit}", _STATUS, _frozen,
        ENGINE_SYMPTOMS,
    ),
    Rule(
        "engine-stuck", "process", DOWN, 0.85, "a process of {unit} waits in the kernel and cannot be ended",
        "A disk, a network file system or the driver does not answer.",
        "journalctl -k on {host}: I/O errors, NVRM or 'blocked for more than'; drain and reboot", _STATUS, _waiting,
        (*ENGINE_SYMPTOMS, "kernel-hung-task"),
    ),
    Rule(
        "engine-hung", "process", DOWN, 0.85, "{unit} runs and answers no completion",
        "The API server is up, the engine behind it makes no progress; /health does not show it.",
        "the watch ends it after vllm_hang_s; roll-serving.yml restarts it in order", ROLL, _engines("hung"),
        SERVICE_SYMPTOMS,
    ),
    Rule(
        "engine-refuses-key", "configuration", DOWN, 0.9, "{unit} refuses the key that its own host has for it",
        "The secret on disk was changed and the engine not restarted.", "roll-serving.yml restarts it with the new key",
        ROLL, _engines("refused"), SERVICE_SYMPTOMS,
    ),
    Rule(
        "engine-errors", "process", DOWN, 0.7, "{unit} answers a request for one token with an error",
        "The API server works, and the engine behind it does not.", "read the first error in its log",
        "ssh {host} journalctl -u {unit} -n 200 --no-pager", _engines("failed"), SERVICE_SYMPTOMS,
    ),
    Rule(
        "engine-loading", "process", NOTICE, 0.5, "{unit} is still starting",
        "Weights are read and graphs made before the port opens.", "wait; its journal says how far it is",
        "ssh {host} journalctl -u {unit} -n 20 --no-pager", _engines("loading"), SERVICE_SYMPTOMS,
    ),
    Rule(
        "unit-assert", "weights", DOWN, 0.8, "{unit} was not started because the model is not marked READY",
        "READY stands beside weights only after they were compared with their manifest.",
        "site.yml proves the model, copies what is missing and starts the engine", SITE + " --limit {host},gateway",
        either(_over_units(_assert), said(r"Assertion failed for |Starting requested but asserts failed", kinds=_LOGS)),
        ("unit-failed", "unit-stopped", "unit-start-limit", "unit-crash-loop", *SERVICE_SYMPTOMS),
    ),
    Rule(
        "unit-start-limit", "process", DOWN, 0.75, "{unit} failed so often that systemd gave up",
        "StartLimitBurst was reached: it is not tried again by itself.",
        "mend what its log names, then: systemctl reset-failed {unit}, and site.yml starts it", _STATUS,
        either(_over_units(_start_limit), said(r"Start request repeated too quickly", kinds=_LOGS)),
        ("unit-crash-loop", "unit-failed", "unit-killed", *SERVICE_SYMPTOMS),
    ),
    Rule(
        "unit-crash-loop", "process", DOWN, 0.7, "{unit} ends and is started again and again",
        "systemd restarts it, and it fails the same way each time.", "read the first error of one of its starts",
        _STATUS, _over_units(_crash_loop), ("unit-failed", "engine-loading", *SERVICE_SYMPTOMS),
    ),
    Rule(
        "unit-start-timeout", "process", DOWN, 0.75, "{unit} did not start or answer within its time",
        "A start that takes longer than TimeoutStartSec, or a watchdog that was not fed.",
        "see how far it came; slow storage is the usual reason", _STATUS, _over_units(_timeout),
        ("unit-failed", *SERVICE_SYMPTOMS),
    ),
    Rule(
        "unit-killed", "process", DOWN, 0.65, "{unit} was ended by a signal",
        "Somebody killed it, or it crashed (SIGSEGV, SIGBUS).",
        "coredumpctl and journalctl -k on {host}; site.yml starts it", SITE + " --limit {host},gateway",
        either(_over_units(_killed),
               said(r"Main process exited, code=(?:killed|dumped), status=(?P<signal>\d+/\w+)", kinds=_LOGS,
                    unless=r"status=15/TERM")),
        ("unit-failed", "unit-crash-loop", "engine-loading", *SERVICE_SYMPTOMS),
    ),
    Rule(
        "unit-stopped", "operation", DOWN, 0.9, "{unit} was stopped in order, and not started again",
        "Somebody stopped it, or an operation was cut off after its stop.",
        "if nobody is at work on {host}: site.yml starts what is inactive and proves it",
        SITE + " --limit {host},gateway", _over_units(_stopped),
        (*SERVICE_SYMPTOMS, "engine-hung", "gateway-drained", "gateway-drained-by-operation"),
    ),
    Rule(
        "unit-failed", "process", DOWN, 0.6, "{unit} failed",
        "Its program ended with an error.", "read the first error in its log", _STATUS, _over_units(_failed),
        SERVICE_SYMPTOMS,
    ),
    Rule(
        "unit-stale", "configuration", DEGRADED, 0.85, "{unit} runs an older configuration than the one on disk",
        "site.yml never restarts what serves; a gated operation applies the change.",
        "roll-serving.yml drains, restarts and proves it", ROLL, _over_units(_stale),
    ),
    Rule(
        "unit-behind-plan", "configuration", NOTICE, 0.8, "{unit} has another command than the description asks for",
        "The description was changed since, or the unit was edited by hand; site.yml never restarts what serves.",
        "roll-serving.yml drains, changes, restarts and proves it", ROLL, _behind,
    ),
    Rule(
        "unit-drop-in", "configuration", NOTICE, 0.6, "{unit} has a drop-in that is not ours",
        "Settings of a drop-in win over the plan's.", "systemctl cat {unit}; remove it, or put it into the description",
        "ssh {host} systemctl cat {unit}", _over_units(_drop_ins),
    ),
    Rule(
        "unit-disabled", "operation", NOTICE, 0.85, "{unit} will not start at the next boot",
        "It was disabled by hand.", "site.yml enables it", SITE + " --limit {host},gateway", _over_units(_disabled),
    ),
)  # fmt: skip
