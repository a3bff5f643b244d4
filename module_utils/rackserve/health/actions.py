"""Steps of the ladder on a host: refused unless it is safe, recorded, each one command after the other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from ..gpu.sweep import on_gpus
from ..watch.processes import unit_of
from .counters import write
from .ladder import FABRIC_MANAGER, REMEMBER_S, RESET, RESTART

Run = Callable[[list[str], float], "tuple[int, str, str]"]

RECORD = Path("var/lib/rackserve/health-actions.json")
BOOT_ID = Path("proc/sys/kernel/random/boot_id")
MANAGER, PERSISTENCED = "nvidia-fabricmanager.service", "nvidia-persistenced.service"
SAFE_STEPS = (FABRIC_MANAGER, RESET, RESTART)
STEP_S = 300.0
_KEPT = 200


class ActionError(Exception):
    """A step is refused or failed; one line: what, where, how to fix."""


class Host(NamedTuple):
    """Where steps are taken. ``units``: what must not run; ``controller``: the machine id of where Ansible runs.

    ``controller_boot``: its kernel's boot id, which a container has from its host.
    """

    root: Path
    run: Run
    units: tuple[str, ...]
    controller: str = ""
    connection: str = ""
    simulated: bool = False
    controller_boot: str = ""


def look(host: Host) -> dict[str, Any]:
    """What the decision needs to know: {busy, tried, cannot, problem}. Changes nothing."""
    cannot = [] if _unit_known(host, MANAGER) else [FABRIC_MANAGER]
    return {
        "busy": busy(host),
        "tried": read_record(host.root),
        "cannot": cannot + ([RESET] if host.simulated else []),
        "problem": "Ansible runs on this host: act on it from another one" if runs_here(host) else "",
    }


def runs_here(host: Host) -> bool:
    """Whether Ansible itself runs on this host: by the machine's id, the kernel's boot, or a connection to itself."""
    words = host.connection.split()
    same_address = len(words) > 2 and words[0] == words[2]  # noqa: PLR2004 - client, its port, server
    same_machine = _is(host.root / "etc/machine-id", host.controller)
    return same_machine or same_address or _is(host.root / BOOT_ID, host.controller_boot)


def _is(path: Path, wanted: str) -> bool:
    try:
        here = path.read_text("utf-8").strip()
    except OSError:
        return False
    return bool(here) and here == wanted.strip()


def busy(host: Host) -> list[str]:
    """Units of ours that run, and processes that are on GPUs."""
    states = _show(host, host.units)
    found = [f"{name} is {state}" for name, state in states.items() if state not in ("inactive", "failed")]
    for pid in sorted(on_gpus(host.root)):
        folder = host.root / "proc" / str(pid)
        try:
            name = (folder / "comm").read_text("utf-8", "replace").strip()
            unit = unit_of((folder / "cgroup").read_text("utf-8", "replace"))
        except OSError:
            continue
        if unit not in (MANAGER, PERSISTENCED):
            found.append(f"process {pid} ({name}{f' of {unit}' if unit else ''})")
    return found


def _show(host: Host, units: Iterable[str]) -> dict[str, str]:
    names = list(units)
    if not names:
        return {}
    code, out, err = host.run(["systemctl", "show", "--property=Id,ActiveState", *names], STEP_S)
    if code:
        raise ActionError(f"systemctl show: {' '.join(err.split())}; nothing is done while it is unknown what runs")
    blocks = [dict(line.split("=", 1) for line in part.splitlines() if "=" in line) for part in out.split("\n\n")]
    return {block["Id"]: block.get("ActiveState", "?") for block in blocks if block.get("Id")}


def _unit_known(host: Host, name: str) -> bool:
    code, out, _ = host.run(["systemctl", "show", "--property=LoadState", "--value", name], STEP_S)
    return code == 0 and out.strip() == "loaded"


def read_record(root: Path) -> list[dict[str, Any]]:
    """The steps that were taken. A file that cannot be read is said to be so: a step would be taken twice."""
    try:
        rows = json.loads((root / RECORD).read_text("utf-8"))
        return [dict(row) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise ActionError(f"/{RECORD}: {error}; look at it, then remove it") from None


def record(root: Path, row: Mapping[str, Any], now_s: float) -> None:
    """Add a step, before it is taken: one that takes the host with it has been tried. Raises ActionError."""
    rows = [one for one in read_record(root) if now_s - float(one.get("at", 0)) < REMEMBER_S][-_KEPT:]
    try:
        (root / RECORD).parent.mkdir(parents=True, exist_ok=True)
        write(root / RECORD, json.dumps([*rows, {**row, "at": int(now_s)}], indent=1) + "\n")
    except OSError as error:
        raise ActionError(f"/{RECORD}: {error.strerror}; a step that is not recorded is not taken") from None


def take(host: Host, step: str, check: str, subject: str, now_s: float, *, dry: bool) -> list[str]:
    """Take a step; the commands that were run. ``dry`` only looks whether it may be. Raises ActionError."""
    if runs_here(host):
        raise ActionError(f"{step}: Ansible runs on this host; run act-on-health from another one")
    if step in SAFE_STEPS:
        held = busy(host)
        if held:
            raise ActionError(f"{step}: {'; '.join(held)}: drain the host first, stop what is not ours yourself")
    if step == RESET and host.simulated:
        raise ActionError("gpu_reset: these GPUs are simulated, and their nvidia-smi resets none")
    if dry:
        return []
    record(host.root, {"step": step, "check": check, "subject": subject}, now_s)
    return _reset(host) if step == RESET else _manager(host) if step == FABRIC_MANAGER else []


def _must(host: Host, words: list[str]) -> str:
    code, out, err = host.run(words, STEP_S)
    if code:
        raise ActionError(f"{' '.join(words)} ended with {code}: {' '.join((err or out).split())[-300:]}")
    return " ".join(words)


def _manager(host: Host) -> list[str]:
    return [_must(host, ["systemctl", "restart", MANAGER])]


def _reset(host: Host) -> list[str]:
    """Reset all GPUs: on an NVSwitch machine one alone cannot be. What holds their devices is stopped for it."""
    running = [name for name, state in _show(host, (PERSISTENCED, MANAGER)).items() if state == "active"]
    done = [_must(host, ["systemctl", "stop", PERSISTENCED])] if PERSISTENCED in running else []
    try:
        done.append(_must(host, ["nvidia-smi", "--gpu-reset"]))
    finally:
        done += [_must(host, ["systemctl", "restart", name]) for name in running]
    return done


def told(step: str, commands: Sequence[str]) -> str:
    """What was done, in one line."""
    return f"{step}: {'; '.join(commands)}" if commands else step
