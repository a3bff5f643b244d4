"""What must be true of a host before anything on it is changed. Everything here only reads."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from .findings import Finding, finding
from .storage import existing

Run = Callable[[list[str]], tuple[int, str, str]]
OLDEST_PYTHON = (3, 9)


def at(root: Path, path: str) -> Path:
    """Return `path` as it lies under `root`."""
    return root / path.lstrip("/")


def read(path: Path) -> str:
    """Return the text of a file, empty when it is not there or not for us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _system(root: Path) -> tuple[str, str]:
    """ID and VERSION_ID of os-release."""
    pairs = (line.partition("=") for line in read(at(root, "/etc/os-release")).splitlines())
    release = {key: value.strip("\"' ") for key, _, value in pairs}
    return release.get("ID", "unknown"), release.get("VERSION_ID", "unknown")


def check_platform(root: Path, supported: Mapping[str, Sequence[str]], uid: int) -> list[Finding]:
    """Check OS and version against {id: [versions]}, Python, systemd as PID 1, root, cgroup layout."""
    name, version = _system(root)
    found = []
    if version not in [str(v) for v in supported.get(name, [])]:
        known = "; ".join(f"{os_name} {', '.join(map(str, versions))}" for os_name, versions in supported.items())
        found.append(
            finding(
                "error", "os-unsupported", "/etc/os-release", f"this is {name} {version}", f"install one of: {known}"
            )
        )
    if sys.version_info[:2] < OLDEST_PYTHON:
        found.append(
            finding(
                "error",
                "python-too-old",
                sys.executable,
                f"Python {sys.version.split()[0]} runs here",
                "set ansible_python_interpreter to Python 3.9 or newer",
            )
        )
    first = read(at(root, "/proc/1/comm")).strip()
    if first != "systemd" or not at(root, "/run/systemd/system").is_dir():
        found.append(
            finding(
                "error",
                "no-systemd",
                "/proc/1/comm",
                f"process 1 is {first or 'unknown'}, not systemd",
                "boot the host with systemd; containers without it cannot be served",
            )
        )
    if uid != 0:
        found.append(
            finding(
                "error",
                "not-root",
                "become",
                f"the module runs as uid {uid}",
                "set ansible_become: true for a user who may use sudo, or connect as root",
            )
        )
    mounts = [line.split() for line in read(at(root, "/proc/self/mounts")).splitlines()]
    kinds = {words[2] for words in mounts if words[3:] and words[1].startswith("/sys/fs/cgroup")}
    if not kinds & {"cgroup", "cgroup2"}:
        found.append(
            finding(
                "error",
                "no-cgroup",
                "/sys/fs/cgroup",
                "no cgroup hierarchy is mounted",
                "boot with cgroups; systemd needs them to stop a service as a whole",
            )
        )
    elif "cgroup" in kinds:
        found.append(
            finding(
                "note",
                "cgroup-v1",
                "/sys/fs/cgroup",
                "cgroup v1 is in use",
                "boot with systemd.unified_cgroup_hierarchy=1 when the host is rebuilt",
            )
        )
    return found


def check_distribution(root: Path, planned: Sequence[str]) -> list[Finding]:
    """Check that the host runs one of the distributions the plan chose packages for, such as debian-12; none: any."""
    runs = "-".join(_system(root))
    if not planned or runs in planned:
        return []
    why = f"this is {runs}, the plan has packages for {', '.join(planned)}"
    fix = "correct cluster.distribution, or install that system on the host"
    return [finding("error", "distribution-differs", "/etc/os-release", why, fix)]


def check_disk(root: Path, needs: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Check free space for [{path, needed_mib, unless}].

    Needs on one filesystem add up; a need whose path `unless` exists counts for nothing.
    """
    sums: dict[int, tuple[int, int, list[str]]] = {}
    for need in needs:
        if need.get("unless") and at(root, str(need["unless"])).exists():
            continue
        place = existing(at(root, str(need["path"])))
        free_mib = os.statvfs(str(place)).f_bavail * os.statvfs(str(place)).f_frsize >> 20
        device = place.stat().st_dev
        _, total_mib, paths = sums.get(device, (0, 0, []))
        sums[device] = (free_mib, total_mib + int(need["needed_mib"]), [*paths, str(need["path"])])
    return [
        finding(
            "error",
            "disk-full",
            ", ".join(paths),
            f"{free_mib} MiB are free, {needed_mib} MiB are needed",
            "free space there, or mount a larger filesystem",
        )
        for free_mib, needed_mib, paths in sums.values()
        if free_mib < needed_mib
    ]


def check_memory(root: Path, floor_mib: int, swap: str) -> list[Finding]:
    """Check MemTotal against a floor in MiB, and report swap in use unless `swap` is `ignore`."""
    found = []
    totals = [line.split() for line in read(at(root, "/proc/meminfo")).splitlines() if line.startswith("MemTotal:")]
    total_mib = int(totals[0][1]) >> 10 if totals else 0
    if total_mib < floor_mib:
        found.append(
            finding(
                "error",
                "memory-small",
                "/proc/meminfo",
                f"{total_mib} MiB of memory, {floor_mib} needed",
                "add memory, or lower preflight_memory_floor_mib for a host you know",
            )
        )
    swaps = [line.split()[0] for line in read(at(root, "/proc/swaps")).splitlines()[1:] if line.strip()]
    if swaps and swap != "ignore":
        found.append(
            finding(
                "warning",
                "swap-on",
                ", ".join(swaps),
                "swap is in use; a paged-out engine stalls its group",
                'turn it off, or set host_baseline_swap: "off"',
            )
        )
    return found


def check_clock(now_s: float, controller_s: float, tolerance_s: float) -> list[Finding]:
    """Check the host's clock against the controller's, both seconds since the epoch.

    The controller's reading is taken before the module travels, so a host that is right looks ahead by that time:
    `settled` takes that back where the answer came late.
    """
    offset_s = now_s - controller_s
    if abs(offset_s) <= tolerance_s:
        return []
    return [
        finding(
            "error",
            "clock-off",
            "clock",
            f"it differs from the controller's by {offset_s:+.1f} s ({tolerance_s:g} s allowed)",
            "run on it: chronyc makestep; let it keep the time with host_baseline_ntp_servers",
        )
    ]


def settled(report: Mapping[str, Any], received_s: float, tolerance_s: float) -> list[Finding]:
    """Findings of `check_host` without a clock that only seems ahead, because its module was long on the way.

    `received_s` is the controller's clock after the answer, seconds since the epoch: whoever is ahead is ahead of it.
    """
    clock = report.get("clock") or {}
    on_the_way = float(clock.get("offset_s", 0)) > 0 and float(clock["epoch_s"]) - received_s <= tolerance_s
    return [found for found in report["findings"] if not (on_the_way and found["code"] == "clock-off")]


def check_user(root: Path, user: str, uid: int) -> list[Finding]:
    """Check that `uid` is free or belongs to `user`, and that `user` has no other uid."""
    for line in read(at(root, "/etc/passwd")).splitlines():
        words = line.split(":")
        if words[3:] and words[2].isdigit() and (words[0] == user) != (int(words[2]) == uid):
            return [
                finding(
                    "error",
                    "uid-taken",
                    "/etc/passwd",
                    f"user {words[0]} has uid {words[2]}, while {user} must have {uid}",
                    f"give {words[0]} another uid, or remove that user",
                )
            ]
    return []


def _allows(seen: os.stat_result, uid: int, gid: int, bits: int) -> bool:
    shift = 6 if seen.st_uid == uid else 3 if seen.st_gid == gid else 0
    return seen.st_mode >> shift & bits == bits


def check_models(root: Path, models: Sequence[Mapping[str, Any]], uid: int, gid: int) -> list[Finding]:
    """Check that directories of weights said to be present are there and that uid/gid may read them."""
    found = []
    for model in models:
        path = at(root, str(model["path"]))
        where = str(model["path"])
        if not path.is_dir():
            found.append(
                finding(
                    "error",
                    "model-missing",
                    where,
                    f"model {model['name']} is said to be present, but this directory is not there",
                    "mount or copy it, or set model.source to controller",
                )
            )
            continue
        chain = [path, *[p for p in path.parents if p == root or root in p.parents]]
        for place in chain:
            if uid and not _allows(place.stat(), uid, gid, 5 if place == path else 1):
                what = f"uid {uid} may not {'read' if place == path else 'pass'} /{place.relative_to(root)}"
                found.append(
                    finding(
                        "error",
                        "model-unreadable",
                        where,
                        what,
                        f"chmod o+{'rx' if place == path else 'x'} that directory",
                    )
                )
                break
    return found


def check_secret_files(root: Path, files: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Check that files [{path, mode}] that exist are no more open than `mode` (octal text); `path` may be a glob."""
    found = []
    for entry in files:
        most = int(str(entry["mode"]), 8)
        for path in sorted(root.glob(str(entry["path"]).lstrip("/"))):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & ~most:
                where = f"/{path.relative_to(root)}"
                why = f"its mode is {mode:04o}, more open than {most:04o}: others may have read it"
                fix = f"chmod {most:04o} {where}, change the secret in the site's vault file, run roll-serving"
                found.append(finding("error", "secret-readable", where, why, fix))
    return found


def check_release(root: Path, run: Run, release: Mapping[str, Any], units: Sequence[str]) -> list[Finding]:
    """Check that the recorded release (/opt/rackserve/current) is the plan's, where our units are running."""
    link = at(root, str(release.get("current") or "/opt/rackserve/current"))
    if not release.get("id") or not link.is_symlink() or not units:
        return []
    recorded = link.readlink().name
    if recorded in (release["id"], Path(str(release.get("path") or "")).name):
        return []
    asked = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating,reloading", *units]
    _, out, _ = run(asked)
    running = [line.split()[0] for line in out.splitlines() if line.split()]
    if not running:
        return []
    return [
        finding(
            "error",
            "release-differs",
            "/" + str(link.relative_to(root)),
            f"{', '.join(running)} runs on release {recorded}, the description says {release['id']}",
            "to change it, engine by engine and with a canary: playbooks/upgrade-release.yml (back: rollback-release); "
            f"to stay, set cluster.release to {recorded}",
        )
    ]
