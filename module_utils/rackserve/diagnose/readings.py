"""Readings of one host: units, processes, volumes, ports, weights, health. Each alone: one that fails is noted."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from ..health.host_tools import tools_for
from ..health.look import Tools
from ..health.program import STATE, look_at
from ..model.start_check import what_changed
from ..preflight import checks, host, net, storage
from .rules_health import SKIPPED

Run = Callable[[list[str]], "tuple[int, str, str]"]
PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,Result,ExecMainStatus,ExecMainCode,NRestarts,UnitFileState,DropInPaths,"
    "NeedDaemonReload,MainPID,User,AssertResult,ActiveEnterTimestampMonotonic,InactiveEnterTimestamp,FragmentPath"
)
PATTERNS = ("vllm-*.service", "rackserve-*.service")
# Those that run on; what runs for a moment and ends, such as a timer's, says nothing by its state.
_LASTING = re.compile(r"vllm-|rackserve-(gateway|engine-watch|group|ray|router|firewall\.service)")
_DIGEST = re.compile(rb"RACKSERVE_(?:CONFIG_SHA256|UNIT)=([0-9a-f]{64})")
_STUCK_S = 3.0
_MOST_HASHED = 64 << 20


def unit_states(root: Path, run: Run, wanted: Sequence[str], now_monotonic_s: float) -> dict[str, dict[str, Any]]:
    """Our units by name. Raises ValueError where systemd does not answer."""
    code, out, err = run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", *PATTERNS])
    if code:
        raise ValueError(f"systemctl list-units: {' '.join((err or out).split())}")
    listed = [line.split()[0] for line in out.splitlines() if line.split() and ".service" in line]
    names = list(dict.fromkeys([*wanted, *(name for name in listed if _LASTING.match(name))]))
    if not names:
        return {}
    code, out, err = run(["systemctl", "show", f"--property={PROPERTIES}", *names])
    if code:
        raise ValueError(f"systemctl show: {' '.join((err or out).split())}")
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.split("\n\n")]
    return {
        name: _unit(root, block, now_monotonic_s)
        for name, block in zip(names, [block for block in blocks if block])
        if name in wanted or block.get("LoadState") != "not-found"
    }


def _number(text: str | None) -> int:
    return int(text) if text and text.lstrip("-").isdigit() else 0


def _unit(root: Path, block: Mapping[str, str], now_s: float) -> dict[str, Any]:
    pid = _number(block.get("MainPID"))
    since_s = _number(block.get("ActiveEnterTimestampMonotonic")) / 1e6
    active = block.get("ActiveState", "")
    return {
        "load": block.get("LoadState", ""), "active": active, "sub": block.get("SubState", ""),
        "result": block.get("Result", ""), "status": _number(block.get("ExecMainStatus")), "pid": pid,
        "restarts": _number(block.get("NRestarts")), "enabled": block.get("UnitFileState", ""),
        "drop_ins": block.get("DropInPaths", "").split(), "reload": block.get("NeedDaemonReload", ""),
        "asserted": block.get("AssertResult", ""),
        "user": block.get("User", ""), "since": block.get("InactiveEnterTimestamp", ""),
        "active_s": round(now_s - since_s, 1) if active == "active" and since_s else 0.0,
        "wanted_digest": _digest(root / block.get("FragmentPath", "").lstrip("/")) if pid else "",
        "running_digest": _digest(root / f"proc/{pid}/environ") if pid else "",
    }  # fmt: skip


def _digest(path: Path) -> str:
    try:
        found = _DIGEST.search(path.read_bytes())
    except OSError:
        return ""
    return found[1].decode() if found else ""


def behind_plan(root: Path, argv: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Units whose command on disk is not the plan's: {unit, missing, extra}, words of each."""
    found = []
    for name, wanted in argv.items():
        text = host.read(root / "etc/systemd/system" / name).replace("\\\n", " ")
        line = next((line for line in text.splitlines() if line.startswith("ExecStart=")), "")
        if not line:
            continue
        try:
            words = [word.replace("%%", "%") for word in shlex.split(line.partition("=")[2])]
        except ValueError:
            words = line.partition("=")[2].split()
        if words != list(wanted):
            missing = [word for word in wanted if word not in words]
            extra = [word for word in words if word not in wanted]
            found.append({"unit": name, "missing": missing, "extra": extra})
    return found


def unit_processes(root: Path, units: Sequence[str]) -> list[dict[str, Any]]:
    """Processes of our units: {pid, name, state, unit}, read from /proc."""
    found = []
    for folder in (root / "proc").iterdir():
        if not folder.name.isdigit():
            continue
        groups = host.read(folder / "cgroup")
        unit = next((name for name in units if f"/{name}" in groups), "")
        if unit:
            name, _, rest = host.read(folder / "stat").partition("(")[2].rpartition(")")
            state = (rest.split() or ["?"])[0]
            found.append({"pid": int(folder.name), "name": name, "state": state, "unit": unit})
    return sorted(found, key=lambda one: int(one["pid"]))


def with_stuck(root: Path, units: Sequence[str], wait: Callable[[float], None] = time.sleep) -> list[dict[str, Any]]:
    """The same; one that waits in the kernel for seconds is `stuck`, one that just reads is not."""
    first = unit_processes(root, units)
    waiting = {one["pid"] for one in first if one["state"] == "D"}
    if not waiting:
        return first
    wait(_STUCK_S)
    second = unit_processes(root, units)
    return [{**one, "stuck": one["pid"] in waiting and one["state"] == "D"} for one in second]


def volumes(root: Path, paths: Sequence[str]) -> list[dict[str, Any]]:
    """Room of the file systems that these paths lie on, or will lie on; `written`: we write there."""
    found: dict[tuple[int, bool], dict[str, Any]] = {}
    for path in paths:
        place = storage.existing(root / path.lstrip("/"))
        try:
            seen, device = os.statvfs(str(place)), place.stat().st_dev
        except OSError:
            continue
        mib = seen.f_frsize / (1 << 20)
        entry = found.setdefault((device, bool(seen.f_flag & os.ST_RDONLY)), {
            "mount": _mount_of(place), "size_mib": round(seen.f_blocks * mib), "free_mib": round(seen.f_bavail * mib),
            "inodes": seen.f_files, "inodes_free": seen.f_favail, "paths": [],
            "read_only": bool(seen.f_flag & os.ST_RDONLY), "written": True,
        })  # fmt: skip
        entry["paths"].append(path)
    return list(found.values())


def _mount_of(place: Path) -> str:
    while not place.is_mount() and place != place.parent:
        place = place.parent
    return str(place)


ALWAYS = ("/", "/var/log", "/var/lib/rackserve", "/etc/rackserve", "/run", "/var/cache/rackserve",
          "/tmp", "/dev/shm")  # fmt: skip  # noqa: S108 - looked at, not used


def weights(root: Path, models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Whether models are marked READY, and what changed since; files that were written to are hashed when small."""
    found = []
    for model in models:
        folder = root / str(model["path"]).lstrip("/")
        entry: dict[str, Any] = {
            "path": model["path"],
            "present": folder.is_dir(),
            "ready": (folder / "READY").is_file(),
        }
        proven = host.read(folder / "READY.stat.json")
        if entry["present"] and proven:
            entry["changed"] = _changed(folder, proven)
        found.append(entry)
    return found


def _changed(folder: Path, text: str) -> list[str]:
    import json  # noqa: PLC0415 - read only here

    try:
        proven = json.loads(text)
        files = {name: kept for name, kept in proven["files"].items() if int(kept[0]) <= _MOST_HASHED}
        large = {name: kept for name, kept in proven["files"].items() if name not in files}
        told = what_changed(folder, {**proven, "files": files})
        for name, (size, written_ns) in large.items():
            try:
                seen = (folder / name).stat()
            except OSError as problem:
                told.append(f"{name} cannot be read ({problem.strerror})")
                continue
            if seen.st_size != size:
                told.append(f"{name} has {seen.st_size} bytes instead of {size}")
            elif seen.st_mtime_ns != written_ns:
                told.append(f"{name} was written to since it was proven, and is too large to be hashed here")
        return told
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _account(root: Path, user: str) -> tuple[int, int]:
    """uid and gid of a user; 0 where there is none."""
    for line in host.read(root / "etc/passwd").splitlines():
        words = line.split(":")
        if user and words[0] == user and len(words) > 3:  # noqa: PLR2004 - uid and gid are the third and fourth
            return int(words[2]), int(words[3])
    return 0, 0


def preflight(root: Path, run: Run, plan: Mapping[str, Any], user: str = "") -> list[dict[str, Any]]:
    """Findings of the preflight checks that matter to a host that serves; `user` is who has to read weights."""
    found = net.check_ports(root, plan.get("ports") or [])
    network = plan.get("network") or {}
    if network.get("cluster_interface") and plan.get("address"):
        found += net.check_address(run, str(network["cluster_interface"]), str(plan["address"]))
    found += storage.check_writable(root, plan.get("written") or [])
    found += host.check_secret_files(root, [{"path": f"/{path}", "mode": "0640"} for path in _SECRET_FILES])
    found += host.check_models(root, [one for one in plan.get("models") or [] if _is_there(root, one)],
                               *_account(root, user))  # fmt: skip
    found += host.check_release(root, run, plan.get("release") or {}, plan.get("units") or [])
    return found


_SECRET_FILES = ("etc/rackserve/*/*.secret.env", "etc/rackserve/gateway/*.map", "etc/rackserve/gateway/tls.pem",
                 "etc/rackserve/ray/token")  # fmt: skip


def _is_there(root: Path, model: Mapping[str, Any]) -> bool:
    return host.at(root, str(model["path"])).is_dir()


def health(root: Path, expect: Mapping[str, Any], since_s: float, tools: Tools | None = None) -> dict[str, Any]:
    """The health report, with lines of the kernel log that are not older than asked for."""
    mine = tools or tools_for(root)
    if mine.run is not None:
        run = mine.run
        since = f"--since=@{int(since_s)}"
        mine = mine._replace(run=lambda words: run([*words, since] if words[0] == "journalctl" else words))
    skip = [*SKIPPED, *(expect.get("skip") or [])]
    result = look_at(root, expect, mine, root / str(STATE).lstrip("/"), {"level": "fast", "only": [], "skip": skip})
    return {name: result[name] for name in ("status", "findings", "unknown", "checks", "wall_s")}


def firewall(root: Path, run: Run) -> dict[str, Any]:
    """Whether a confirmed firewall is not loaded any more."""
    return {"lost": checks.firewall_lost(root, run)}
