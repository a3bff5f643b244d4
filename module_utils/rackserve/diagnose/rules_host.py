"""The host around the engine: ports, permissions, disks, clock, names, firewall, isolation from what we set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .case import ENGINE, KERNEL, UNIT, Case
from .rule import DEGRADED, DOWN, ENGINE_SYMPTOMS, HEALTH, NOTICE, PLAY, SITE, Hit, Rule, either, said

_LOGS = (ENGINE, UNIT, "gateway", "ray")
_FULL_PERCENT, _FULL_MIB, _LITTLE = 95.0, 256, 0.15


def _preflight(*codes: str) -> Callable[[Case], Iterable[Hit]]:
    """Findings of the preflight readings with one of these codes."""

    def look(case: Case) -> Iterator[Hit]:
        for host in case.hosts.values():
            for one in host.reading("preflight", []):
                if one.get("code") in codes:
                    where, why = str(one.get("where")), str(one.get("why"))
                    values = {"where": where, "what": why, "mend": str(one.get("fix"))}
                    yield Hit(host.name, [host.line(where, why)], str(one.get("unit") or ""), values)

    return look


def _volumes(case: Case) -> Iterator[Hit]:
    for host in case.hosts.values():
        for one in host.reading("volumes", []):
            size, free = float(one.get("size_mib") or 0), float(one.get("free_mib") or 0)
            nodes, left = float(one.get("inodes") or 0), float(one.get("inodes_free") or 0)
            place = str(one.get("mount"))
            if size and (free < size * (1 - _FULL_PERCENT / 100) or (free < _FULL_MIB and free < size * _LITTLE)):
                text = f"{free:.0f} of {size:.0f} MiB are free"
            elif nodes and left < nodes * (1 - _FULL_PERCENT / 100):
                text = f"{left:.0f} of {nodes:.0f} inodes are free"
            else:
                continue
            yield Hit(host.name, [host.line(f"df {place}", text)], values={"place": place})


def _read_only(case: Case) -> Iterator[Hit]:
    for host in case.hosts.values():
        for one in host.reading("volumes", []):
            if one.get("read_only") and one.get("written"):
                place = str(one.get("mount"))
                yield Hit(host.name, [host.line("/proc/1/mounts", f"{place} is mounted read-only")],
                          values={"place": place})  # fmt: skip


def _firewall(case: Case) -> Iterator[Hit]:
    for host in case.hosts.values():
        if host.reading("firewall", {}).get("lost"):
            yield Hit(host.name, [host.line("nft list table inet rackserve", "the confirmed rules are not loaded")])


_CLOCK_S = 2.0


def _clocks(case: Case) -> Iterator[Hit]:
    for host in case.hosts.values():
        offset = float(host.reading("clock", {}).get("offset_s") or 0.0)
        if abs(offset) > _CLOCK_S:
            yield Hit(host.name, [host.line("clock", f"{offset:+.1f} s against the controller")],
                      values={"offset": f"{offset:+.1f}"})  # fmt: skip


RULES = (
    Rule(
        "port-in-use", "process", DOWN, 0.96, "the port that an engine or the gateway needs is taken",
        "Another process listens on it; the line names it.",
        "stop that process if it is yours, or choose another port in the description", SITE + " --limit {host},gateway",
        either(
            _preflight("port-taken"),
            said(r"[Aa]ddress already in use", r"error while attempting to bind on address", r"\bEADDRINUSE\b",
                 r"cannot bind socket", kinds=_LOGS),
        ),
        (*ENGINE_SYMPTOMS, "gateway-down"),
    ),
    Rule(
        "permission-denied", "permissions", DOWN, 0.85, "the service user may not read or write {path}",
        "Mode or owner of a file was changed, or the unit's sandbox does not include it.",
        "namei -l {path} on {host} shows every folder on the way; site.yml puts our own files right",
        SITE + " --limit {host},gateway",
        either(
            _preflight("model-unreadable"),
            said(r"PermissionError: \[Errno 13\] Permission denied: '?(?P<path>[^'\s]+)",
                 r"[Pp]ermission denied(?: \(os error 13\))?.*(?P<path>/\S+)",
                 r"cannot be read \(Permission denied\)", kinds=_LOGS, unless=r"sudo|sshd|publickey"),
        ),
        ("engine-model-path", "weights-not-ready", "unit-not-executable", *ENGINE_SYMPTOMS),
    ),
    Rule(
        "disk-full", "storage", DOWN, 0.94, "a file system is full ({place})",
        "Logs, caches and downloads stop; engines end when they cannot write.",
        "du -xh --max-depth=2 {place} | sort -h | tail; journalctl --vacuum-size=1G; old releases and models",
        "ssh {host} df -h", _volumes,
        ("disk-space", "disk-inodes", "engine-disk-full", "shm-small", "weights-not-ready", "engine-kernel-build",
         *ENGINE_SYMPTOMS),
    ),
    Rule(
        "engine-disk-full", "storage", DOWN, 0.92, "a write failed because the disk was full",
        "Whether it still is, df tells.", "df -h on {host}; free space, then site.yml starts what is inactive",
        "ssh {host} df -h",
        said(r"[Nn]o space left on device", r"\bENOSPC\b", r"\[Errno 28\]", kinds=_LOGS,
             unless=r"/dev/shm|shared memory"),  # noqa: S108 - words of a log
        ("weights-not-ready", *ENGINE_SYMPTOMS),
    ),
    Rule(
        "read-only", "storage", DOWN, 0.94, "a file system that we write is read-only ({place})",
        "The kernel met an error and protects what is left, or somebody remounted it.",
        "journalctl -k -g 'I/O error|EXT4-fs|XFS' on {host}; when the disk is sound: mount -o remount,rw {place}",
        HEALTH, either(_read_only, _preflight("read-only")),
        ("engine-read-only", "permission-denied", *ENGINE_SYMPTOMS),
    ),
    Rule(
        "engine-read-only", "storage", DOWN, 0.85, "a write failed because the file system is read-only",
        "A disk error, or a path that the unit's sandbox does not open.",
        "mount | grep ro, on {host}; systemctl show -P ReadWritePaths {unit}", HEALTH,
        said(r"[Rr]ead-only file system", r"\[Errno 30\]", r"\bEROFS\b", kinds=_LOGS), ENGINE_SYMPTOMS,
    ),
    Rule(
        "clock-skew", "time", DEGRADED, 0.93, "the clock of {host} differs by {offset} s",
        "Certificates, leases and tokens fail, and logs cannot be compared.",
        "run chronyc makestep on {host}; host_baseline_ntp_servers and site.yml keep the time",
        SITE + " --limit {host},gateway",
        either(_clocks, said(r"certificate is not yet valid", r"[Cc]lock skew (?:too great|detected)",
                             r"signature (?:is )?not yet valid", kinds=(*_LOGS, "tool"))),
        ("time-sync", "tls-expired", "ray-token"),
    ),
    Rule(
        "name-unresolved", "network", DOWN, 0.85, "a name does not resolve",
        "DNS or /etc/hosts of the host does not know it.", "getent hosts <name> on {host}; resolvectl status",
        "ssh {host} 'cat /etc/resolv.conf; resolvectl status'",
        said(r"Temporary failure in name resolution", r"Name or service not known",
             r"Failed to resolve '(?P<name>[^']+)'", r"\[Errno -[235]\]",
             r"could not resolve address '(?P<server>[^']+)'",
             kinds=_LOGS),
        ("download-timeout", *ENGINE_SYMPTOMS),
    ),
    Rule(
        "address-moved", "network", DOWN, 0.93, "the cluster's address of {host} is not on its interface",
        "Engines bind to it and the others talk to it.", "{mend}", PLAY + "check-hosts.yml --limit {host}",
        either(_preflight("address-missing", "address-elsewhere"),
               said(r"[Cc]annot assign requested address", r"\[Errno 99\]", kinds=_LOGS)),
        ENGINE_SYMPTOMS,
    ),
    Rule(
        "firewall-flushed", "network", DEGRADED, 0.95, "our firewall table is no longer loaded on {host}",
        "Somebody ran nft flush ruleset, or another service replaced it: our ports are open to everybody.",
        "site.yml loads the confirmed rules again", SITE + " --limit {host},gateway",
        either(_firewall, _preflight("firewall-lost")),
    ),
    Rule(
        "uid-taken", "permissions", DOWN, 0.9, "the uid of the service user belongs to somebody else", "{what}",
        "{mend}", PLAY + "check-hosts.yml --limit {host}", _preflight("uid-taken"), ENGINE_SYMPTOMS,
    ),
    Rule(
        "release-differs", "release", DEGRADED, 0.9, "the host runs another release than the description says",
        "{what}",
        "{mend}", PLAY + "check-hosts.yml --limit {host}", _preflight("release-differs"),
    ),
    Rule(
        "secret-readable", "permissions", NOTICE, 0.9, "a file with a secret is open to others ({where})", "{what}",
        "{mend}", PLAY + "check-hosts.yml --limit {host}", _preflight("secret-readable"),
    ),
    Rule(
        "process-limit", "process", DOWN, 0.88, "a process cannot start threads: its limit is reached",
        "TasksMax= of the unit, or kernel.threads-max.", "systemctl show -P TasksMax,TasksCurrent {unit}",
        "ssh {host} systemctl show -p TasksMax,TasksCurrent {unit}",
        either(said(r"can't start new thread", r"pthread_create failed.*Resource temporarily unavailable",
                    r"OpenBLAS blas_thread_init: pthread_create failed", kinds=_LOGS),
               said(r"cgroup: fork rejected by pids controller", kinds=(KERNEL,))),
        ENGINE_SYMPTOMS,
    ),
    Rule(
        "denied-by-lsm", "permissions", DOWN, 0.85, "AppArmor or SELinux refused an access",
        "A profile of the distribution covers a program of ours.", "journalctl -k -g 'apparmor|avc' on {host}",
        HEALTH, said(r'apparmor="DENIED".*(?:vllm|haproxy|rackserve|ray)', r"avc:\s+denied.*(?:vllm|haproxy|ray)",
                     kinds=(KERNEL,)),
        ("permission-denied", *ENGINE_SYMPTOMS),
    ),
)  # fmt: skip
