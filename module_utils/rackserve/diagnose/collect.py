"""Texts of one host: logs, files of ours, answers of tools. Bounded in time and size, and without secrets."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from .case import ENGINE, FILE, FINE, GATEWAY, KERNEL, RAY, TOOL, TROUBLED, UNIT
from .redact import Redactor

Run = Callable[[list[str]], "tuple[int, str, str]"]
MOST_BYTES, MOST_ALL, MOST_COLUMNS = 96 * 1024, 3 << 20, 2000
_KERNEL_LINES = 3000
_RAY_LOGS = "run/rackserve-ray/session_*/logs"

# Never a file that holds a secret: they are known by name, and everything else goes through the redactor as well.
_NO_FILES = re.compile(r"\.secret\.env$|\.pem$|\.key$|(^|/)token$|keys?\.map$")
_FILES = (
    "etc/rackserve/*.json", "etc/rackserve/*/*.json", "etc/rackserve/*/*.env", "etc/rackserve/gateway/haproxy.cfg",
    "etc/rackserve/firewall/*.nft", "etc/systemd/system/vllm-*.service", "etc/systemd/system/rackserve-*.service",
    "etc/systemd/system/*.service.d/*.conf", "run/systemd/system/*.service.d/*.conf",
    "etc/systemd/system.control/*.service.d/*.conf", "etc/sysctl.d/*rackserve*", "etc/security/limits.d/*rackserve*",
    "etc/resolv.conf", "etc/hosts", "etc/os-release", "proc/driver/nvidia/version", "proc/buddyinfo", "proc/meminfo",
    "proc/cmdline", "opt/rackserve/current/RELEASE.json", "var/lib/rackserve/nccl/recorded.json",
)  # fmt: skip
TOOLS: dict[str, list[str]] = {
    "uname": ["uname", "-a"],
    "uptime": ["uptime"],
    "df": ["df", "-hT"],
    "free": ["free", "-m"],
    "addresses": ["ip", "-br", "addr"],
    "listeners": ["ss", "-Hltnp"],
    "processes": ["ps", "-eo", "pid,ppid,user,state,rss,etimes,unit,args", "--sort=-rss"],
    "failed-units": ["systemctl", "--failed", "--plain", "--no-legend"],
    "timers": ["systemctl", "list-timers", "--all", "--plain", "--no-legend"],
    "clock": ["timedatectl", "show"],
    "firewall": ["nft", "list", "table", "inet", "rackserve"],
    "nvidia-smi": ["nvidia-smi"],
    "nvidia-smi-q": ["nvidia-smi", "-q", "-d", "MEMORY,ECC,ROW_REMAPPER,PERFORMANCE,TEMPERATURE,POWER,CLOCK"],
    "topology": ["nvidia-smi", "topo", "-m"],
    "packages": ["dpkg-query", "-W", "-f", "${Package} ${Version}\\n", "nvidia-*", "libnccl*", "haproxy", "cuda-*"],
}
_LOGS = ("var/log/fabricmanager.log", "var/log/nvidia-installer.log")
_SYSTEMD = "SYSLOG_IDENTIFIER,MESSAGE,PRIORITY,_SYSTEMD_INVOCATION_ID,INVOCATION_ID,_PID"


class Collector:
    """Gathers sources of one host until time or room is used up; ``missed`` says what was left out."""

    def __init__(self, root: Path, run: Run, redactor: Redactor, since_s: float, budget_s: float) -> None:
        self.root, self.run, self.redactor, self.since_s = root, run, redactor, since_s
        self.until_s = time.monotonic() + budget_s
        self.sources: list[dict[str, Any]] = []
        self.missed: list[str] = []
        self.bytes = 0

    def late(self, what: str) -> bool:
        """Whether nothing more may be asked; notes what was not."""
        if time.monotonic() < self.until_s:
            return False
        self.missed.append(f"{what}: no time was left")
        return True

    def add(self, name: str, kind: str, text: str, unit: str = "", state: str = "") -> None:
        """Keep a text: its end, without secrets, lines of a bounded length."""
        if not text.strip():
            return
        lines = [line if len(line) <= MOST_COLUMNS else f"{line[:MOST_COLUMNS]} ..." for line in text.splitlines()]
        kept: list[str] = []
        room = min(MOST_BYTES, MOST_ALL - self.bytes)
        for line in reversed(lines):
            room -= len(line) + 1
            if room < 0:
                break
            kept.append(line)
        if not kept:
            self.missed.append(f"{name}: no room was left")
            return
        clean = self.redactor.text("\n".join(reversed(kept)) + "\n")
        self.bytes += len(clean)
        self.sources.append(
            {"name": name, "kind": kind, "unit": unit, "state": state, "cut": len(lines) - len(kept), "text": clean}
        )

    def kernel(self) -> None:
        """The kernel log since the boot, and not older than asked for."""
        if self.late("kernel log"):
            return
        words = ["journalctl", "--dmesg", "--boot", "--quiet", "--no-pager", "--output=short-iso"]
        code, out, err = self.run([*words, f"--lines={_KERNEL_LINES}", f"--since=@{int(self.since_s)}"])
        # Without an entry some versions return 1, and say nothing.
        if code and err.strip():
            self.missed.append(f"kernel log: {' '.join(err.split())}")
        self.add("kernel.log", KERNEL, out)

    def journal(self, unit: str, kind: str, fine: bool, lines: int, running: bool) -> None:
        """The last starts of a unit: this one and, while it is tried again, the one before."""
        if self.late(unit):
            return
        code, out, err = self.run([
            "journalctl", "--quiet", "--no-pager", "--output=json", f"--output-fields={_SYSTEMD}", f"--lines={lines}",
            f"--unit={unit}", f"--since=@{int(self.since_s)}",
        ])  # fmt: skip
        if code and err.strip():
            self.missed.append(f"journal of {unit}: {' '.join(err.split())}")
        text = "\n".join(last_starts(out, 2 if running else 1)) + "\n"
        self.add(f"journal/{unit}.log", kind, text, unit, FINE if fine else TROUBLED)

    def journals(self, units: Mapping[str, Mapping[str, Any]], serves: Mapping[str, str], lines: int) -> None:
        """Journals of our units. Those that do what they should are kept, and are no evidence of a cause."""
        for name, unit in units.items():
            kind = kind_of(name)
            answers = serves.get(name, "fine")
            fine = unit.get("active") == "active" and answers == "fine" and unit.get("sub") != "auto-restart"
            young = bool(unit.get("restarts")) and float(unit.get("active_s") or 0) < _YOUNG_S
            again = unit.get("active") in ("activating", "deactivating", "failed") or young
            # A start that was refused comes after the one that says why.
            again = again or unit.get("asserted") == "no"
            self.journal(name, kind, fine, lines, again)

    def files(self) -> None:
        """Units, drop-ins, environments and configurations; none that holds a secret."""
        for pattern in _FILES:
            for path in sorted(self.root.glob(pattern)):
                name = str(path.relative_to(self.root))
                if _NO_FILES.search(name) or not path.is_file() or self.late(name):
                    continue
                self.add(f"files/{name}", FILE, _tail(path))

    def logs(self, ray_troubled: bool) -> None:
        """Log files of others."""
        for name in _LOGS:
            if (self.root / name).is_file():
                self.add(f"logs/{name}", UNIT, _tail(self.root / name), state=FINE)
        for folder in sorted(self.root.glob(_RAY_LOGS))[-1:]:
            for pattern in ("gcs_server.out", "raylet.out", "raylet.err", "monitor.log"):
                for path in sorted(folder.glob(pattern)):
                    self.add(f"ray/{path.name}", RAY, _tail(path), state=TROUBLED if ray_troubled else FINE)

    def tools(self, gpus: bool, gateway: bool) -> None:
        """What commands say; those that are not here are left out."""
        for name, words in TOOLS.items():
            if words[0] == "nvidia-smi" and not gpus:
                continue
            if self.late(name):
                return
            code, out, err = self.run(words)
            if code == _ABSENT:
                continue
            if code and not out:
                out = err
            # A driver that does not answer says so here; everything else is for people.
            self.add(f"tools/{name}.txt", TOOL, out, state="" if words[0] == "nvidia-smi" and code else FINE)
        if gateway and not self.late("haproxy -c"):
            code, out, err = self.run(["haproxy", "-c", "-q", "-f", "/etc/rackserve/gateway/haproxy.cfg"])
            if code not in (0, _ABSENT):
                self.add("tools/haproxy-check.txt", GATEWAY, out + err)


_ABSENT = 127
# A unit that was started again a short while ago: why it ended is in the start before.
_YOUNG_S = 900.0


def _tail(path: Path) -> str:
    """The end of a file; empty where it cannot be read."""
    try:
        with path.open("rb") as stream:
            try:
                size = stream.seek(0, 2)
                stream.seek(max(0, size - 2 * MOST_BYTES))
            except OSError:
                pass  # of /proc
            return stream.read(2 * MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def kind_of(unit: str) -> str:
    """The kind of a unit's log."""
    if unit.startswith("vllm-"):
        return ENGINE
    if unit == "rackserve-gateway.service":
        return GATEWAY
    return RAY if unit.startswith("rackserve-ray") else UNIT


def last_starts(journal: str, starts: int) -> list[str]:
    """Lines of the last starts of a unit, from the journal as JSON; systemd's own lines about them too."""
    entries: list[tuple[str, str]] = []
    order: list[str] = []
    for text in journal.splitlines():
        try:
            entry = json.loads(text)
        except ValueError:
            continue
        said = entry.get("MESSAGE")
        if isinstance(said, list):  # bytes that are no text
            said = bytes(said).decode("utf-8", "replace")
        start = str(entry.get("_SYSTEMD_INVOCATION_ID") or "")
        about = str(entry.get("INVOCATION_ID") or "")
        start = about or start
        if start and start not in order:
            order.append(start)
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(entry.get("__REALTIME_TIMESTAMP") or 0) / 1e6))
        who = entry.get("SYSLOG_IDENTIFIER") or "?"
        entries += [(start, f"{at} {who}: {line}") for line in str(said or "").splitlines()]
    kept = set(order[-starts:])
    return [line for start, line in entries if not start or start in kept]


def evidence(collector: Collector, readings: Mapping[str, Any], plan: Mapping[str, Any], lines: int) -> dict[str, Any]:
    """Everything of a host: sources, readings and its part of the plan, without secrets."""
    units = readings.get("units") or {}
    serves = {str(one["unit"]): str(one["state"]) for one in readings.get("engines") or []}
    collector.kernel()
    collector.journals(units, serves, lines)
    collector.files()
    ray = [unit for name, unit in units.items() if name.startswith("rackserve-ray")]
    collector.logs(any(unit.get("active") != "active" for unit in ray))
    collector.tools(bool(plan.get("gpus") or 0), bool(readings.get("gateway")))
    clean = collector.redactor.deep({**readings, "missed": [*(readings.get("missed") or []), *collector.missed]})
    return {
        "version": 1,
        "sources": collector.sources,
        "readings": clean,
        "plan": collector.redactor.deep(plan),
        "redacted": collector.redactor.count,
    }
