"""Checks of the host itself: disks, memory, clock, limits, services, CPU."""

from __future__ import annotations

import re

from ..rdma.look import limits_bounded
from ..rdma.sysfs import text
from .check import CRITICAL, HOST, INFO, WARNING, Check, NotHere, Problem, Unreadable
from .look import Look, Volume

_SHM = "/dev/shm"  # noqa: S108 - only its room is read
_LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs")
_IMAGES = {"squashfs", "iso9660", "udf", "erofs", "cramfs"}  # cannot be written to: such a disk is read-only by design
_FIELDS = 4
_FULL, _NEARLY = 0.95, 0.90
_AVAILABLE, _AVAILABLE_CRITICAL = 0.03, 0.01
_TOLERANCE = 0.05
_OFFSET_S = 0.1
_CORRECTED_PER_HOUR = 100
_RESTARTS = 3
_DAEMONS = ("nvidia-persistenced.service",)
_LIMIT = r"^{}\s+(\S+)"
_SMART_FAILED, _SMART_UNREADABLE = 0x08, 0x03


def _places(look: Look) -> list[str]:
    """Local file systems, each once, and /dev/shm, which NCCL and vLLM use. A file put over a device is none."""
    found: dict[str, str] = {}
    for place, kind, _ in look.mounts():
        if (
            (kind in _LOCAL and not place.startswith("/dev/"))
            or place in ("/", _SHM)
            or place in (look.expect.get("paths") or ())
        ):
            found.setdefault(place, kind)
    if not found:
        raise Unreadable("/proc/1/mounts names no local file system")
    return list(found)


def _used(size: int, free: int) -> float:
    return 1 - free / size if size else 0.0


def _filled(what: str, pick: str) -> object:
    def judge(look: Look) -> list[Problem]:
        seen: dict[tuple[int, int, int, int], str] = {}

        def one(place: str) -> list[Problem]:
            volume: Volume = look.volume(place)
            if tuple(volume) in seen:
                return []  # the same file system, mounted twice
            seen[tuple(volume)] = place  # type: ignore[index]
            size, free = (volume.size, volume.free) if pick == "bytes" else (volume.inodes, volume.inodes_free)
            used = _used(size, free)
            if used < _NEARLY:
                return []
            left = f"{free >> 20} MiB free" if pick == "bytes" else f"{free} free"
            return [Problem(place, f"{used:.0%} {what} used, {left}", CRITICAL if used >= _FULL else WARNING)]

        return look.over(_places(look), one)

    return judge


def _read_only(look: Look) -> list[Problem]:
    rows = look.mounts()
    fstab = {row[1]: set(row[3].split(",")) for row in map(str.split, text(look.root / "etc/fstab").splitlines())
             if len(row) >= _FIELDS and not row[0].startswith("#")}  # fmt: skip
    found = [
        Problem(place, f"{kind} is mounted read-only")
        for place, kind, options in rows
        if kind in _LOCAL and "ro" in options and "ro" not in fstab.get(place, set()) and place in fstab
    ]
    for disk in look.entries("sys/block"):
        whole = not disk.name.startswith(("loop", "ram", "sr", "dm-", "md", "zd", "nbd"))
        if whole and text(disk / "ro") == "1" and text(disk / "size") not in ("", "0"):
            kinds = look.kinds_of(disk.name)
            if kinds and kinds <= _IMAGES:
                continue
            found.append(Problem(disk.name, "the kernel has set the disk read-only"))
    return found


def _nvme(look: Look) -> list[Problem]:
    disks = look.entries("sys/class/nvme", "nvme*")
    if not disks:
        raise NotHere("no NVMe disk")
    found = []
    for disk in disks:
        state = text(disk / "state")
        if not state:
            look.unread.append(f"{disk.name}: its state cannot be read")
        elif state != "live":
            found.append(Problem(disk.name, f"the controller is {state}"))
    return found


def _smart(look: Look) -> list[Problem]:
    if look.tools.run is None:
        raise Unreadable("disks of a copied tree cannot be asked")
    code, _, err = look.tools.run(["smartctl", "--version"])
    if code:
        raise NotHere("smartctl is not installed")
    found = []
    for disk in sorted((look.root / "sys/block").glob("*")):
        if not disk.name.startswith(("sd", "nvme")) or not (disk / "device").exists():
            continue
        code, out, err = look.tools.run(["smartctl", "-H", f"/dev/{disk.name}"])
        if code & _SMART_FAILED:
            found.append(Problem(disk.name, "its own health test failed"))
        elif code & _SMART_UNREADABLE:
            said = " ".join((err or out).split())[-120:]
            look.unread.append(f"{disk.name}: {said}; smartctl needs root")
    return found


def _available(look: Look) -> list[Problem]:
    memory = look.numbers("proc/meminfo")
    if not memory.get("MemTotal") or "MemAvailable" not in memory:
        raise Unreadable("/proc/meminfo says neither MemTotal nor MemAvailable")
    share = memory["MemAvailable"] / memory["MemTotal"]
    if share >= _AVAILABLE:
        return []
    said = f"{memory['MemAvailable'] >> 10} of {memory['MemTotal'] >> 10} MiB available"
    return [Problem(HOST, said, CRITICAL if share < _AVAILABLE_CRITICAL else WARNING)]


def _installed(look: Look) -> list[Problem]:
    wanted = look.expect.get("memory_mib")
    if not wanted:
        raise NotHere("the plan does not say how much memory the host has")
    nodes = look.entries("sys/devices/system/node", "node[0-9]*")
    if not nodes:
        raise Unreadable("/sys/devices/system/node: no node")
    sizes = {
        node.name: look.numbers(str((node / "meminfo").relative_to(look.root))).get("MemTotal", 0) >> 10
        for node in nodes
    }
    total = sum(sizes.values())
    if total >= wanted * (1 - _TOLERANCE):
        return []
    said = ", ".join(f"{name} {size} MiB" for name, size in sizes.items())
    return [Problem(HOST, f"{total} MiB ({said}), the plan says {wanted} MiB")]


def _edac(look: Look) -> list[Problem]:
    controllers = look.entries("sys/devices/system/edac/mc", "mc*", above="sys/devices/system")
    if not controllers:
        raise NotHere("no EDAC driver watches the memory")
    found = []
    for controller in controllers:
        counts = {name: text(controller / name) for name in ("ue_count", "ce_count")}
        if not all(count.isdigit() for count in counts.values()):
            look.unread.append(f"{controller.name}: its counts cannot be read")
            continue
        if int(counts["ue_count"]):
            found.append(Problem(controller.name, f"{counts['ue_count']} uncorrectable errors since boot", CRITICAL))
        growth = look.counters.grew(f"edac/{controller.name}", int(counts["ce_count"]))
        grown = growth.total if growth.grown is None else growth.per_hour
        if grown >= _CORRECTED_PER_HOUR:
            since = "since boot" if growth.grown is None else "an hour"
            found.append(Problem(controller.name, f"{grown:.0f} corrected errors {since}"))
    return found


def _time(look: Look) -> list[Problem]:
    clock = look.clock()
    if not clock.synchronised:
        return [Problem(HOST, "no service holds the kernel's clock")]
    far = clock.offset_s > _OFFSET_S
    return [Problem(HOST, f"the clock is {clock.offset_s:.3f} s off")] if far else []


def _services(look: Look) -> list[Problem]:
    found = []
    for name, unit in look.units().items():
        if name == "nvidia-fabricmanager.service" or name in _DAEMONS:
            continue
        if unit.active not in ("active", "reloading"):
            found.append(Problem(name, f"{unit.active}/{unit.sub} ({unit.load})"))
        elif unit.restarts >= _RESTARTS:
            found.append(Problem(name, f"restarted {unit.restarts} times by systemd", WARNING))
    return found


def _daemons(look: Look) -> list[Problem]:
    units = {name: unit for name, unit in look.units().items() if name in _DAEMONS}
    if not units:
        raise NotHere("the plan gives this host no driver")
    return [
        Problem(name, f"{unit.active}/{unit.sub} ({unit.load})", fix=f"systemctl start {name}")
        for name, unit in units.items()
        if unit.active != "active"
    ]


def _limits(look: Look) -> list[Problem]:
    wanted = look.expect.get("limits")
    if not wanted:
        raise NotHere("the plan gives no engine to this host")
    found = []
    whole_host = text(look.root / "proc/1/limits") if limits_bounded(look.root) else ""
    for name, unit in look.units().items():
        if name not in (look.expect.get("gpu_units") or ()) or not unit.main_pid:
            continue
        said = text(look.root / "proc" / str(unit.main_pid) / "limits")
        if not said:
            look.unread.append(f"{name}: /proc/{unit.main_pid}/limits cannot be read")
        for title, least in (("Max locked memory", wanted.get("memlock")), ("Max open files", wanted.get("nofile"))):
            line = re.search(_LIMIT.format(title), said, re.MULTILINE)
            low = line and line[1] != "unlimited" and (least == "unlimited" or int(line[1]) < int(least or 0))
            most = re.search(_LIMIT.format(title), whole_host, re.MULTILINE)
            if line and low and most and line[1] == most[1]:
                why = "PID 1 lacks CAP_SYS_RESOURCE, so no unit of this host can have more"
                found.append(Problem(name, f"{title.lower()} {line[1]}, wanted {least}; {why}", INFO))
            elif line and low:
                found.append(Problem(name, f"{title.lower()} {line[1]}, wanted {least}"))
    return found


def _governor(look: Look) -> list[Problem]:
    wanted = look.expect.get("governor")
    if not wanted:
        raise NotHere("the plan asks for no CPU governor")
    policies = look.entries("sys/devices/system/cpu/cpufreq", "policy*", above="sys/devices/system")
    if not policies:
        raise NotHere("the machine has no frequency policies, as virtual machines do")
    found: dict[str, list[str]] = {}
    for policy in policies:
        now = text(policy / "scaling_governor")
        if not now:
            look.unread.append(f"{policy.name}: its governor cannot be read")
        elif now != wanted:
            found.setdefault(now, []).append(policy.name)
    return [Problem(HOST, f"{now} on {', '.join(names)}, wanted {wanted}") for now, names in found.items()]


CHECKS = (
    Check(
        "disk-space", WARNING, "90 % used; 95 % is critical", "gpud: 10 % free; imbue: 95 %",
        "Logs, caches and downloads stop; engines end when they cannot write.",
        "du -xh --max-depth=2 {subject} | sort -h | tail; journalctl --vacuum-size=1G; old releases and models",
        _filled("of its space is", "bytes"),  # type: ignore[arg-type]
    ),
    Check(
        "disk-inodes", WARNING, "90 % used; 95 % is critical", "as for space",
        "No file can be made although there is room.",
        "find {subject} -xdev -printf '%h\\n' | sort | uniq -c | sort -n",
        _filled("of its inodes are", "inodes"), ("disk-space",),  # type: ignore[arg-type]
    ),
    Check(
        "disk-read-only", CRITICAL, "a disk, or a file system that fstab mounts writable", "ext4: errors=remount-ro",
        "The kernel met an error and protects what is left.",
        "journalctl -k -g 'I/O error|EXT4-fs|XFS'; drain the host, fsck or replace the disk", _read_only,
        ("disk-nvme",),
    ),
    Check(
        "disk-nvme", CRITICAL, "a controller that is not live", "Linux: /sys/class/nvme/*/state",
        "The disk answers nothing.", "nvme list; journalctl -k -g nvme; drain the host, reseat or replace the disk",
        _nvme,
    ),
    Check(
        "disk-smart", WARNING, "the disk's own verdict; only where smartctl is installed", "smartctl -H",
        "The disk says itself that it fails soon.", "smartctl -a /dev/{subject}; replace it at the next chance", _smart,
        ("disk-nvme",),
    ),
    Check(
        "memory-available", WARNING, "less than 3 % available; 1 % is critical", "gpud: 100 MiB; rackserve",
        "The kernel ends processes next, often the engine.",
        "ps --sort=-rss -eo rss,unit,comm | head; lower swap_space or cpu_offload of the engine", _available,
    ),
    Check(
        "memory-installed", CRITICAL, "5 % less than the hardware profile", "Azure AzNHC: 5 %",
        "A memory module is gone; its channel is slower, too.",
        "dmidecode -t memory; ipmitool sel list names the slot; reseat or replace the module", _installed,
    ),
    Check(
        "memory-ecc", WARNING, "100 corrected an hour; any uncorrectable is critical", "EDAC; rackserve",
        "A memory module fails.", "edac-util -v and ipmitool sel list name the module; replace it", _edac,
    ),
    Check(
        "time-sync", WARNING, "not held by a time service, or 0.1 s off", "adjtimex STA_UNSYNC",
        "Logs of hosts cannot be compared, and certificates fail.",
        "timedatectl; chronyc tracking; set host_baseline_ntp_servers and run playbooks/site.yml", _time,
    ),
    Check(
        "services", CRITICAL, "a unit of the plan that is not active; 3 restarts by systemd are a warning", "the plan",
        "What the plan promises is not served.",
        "systemctl status {subject}; journalctl -u {subject} -n 100; playbooks/site.yml starts what is inactive",
        _services, ("gpu-lost", "gpu-count", "driver-versions", "fabric-state", "disk-read-only"),
    ),
    Check(
        "driver-daemons", WARNING, "nvidia-persistenced is not active", "the plan",
        "The driver drops its state between programs; each start takes seconds longer.",
        "systemctl start nvidia-persistenced.service", _daemons, ("driver-versions", "gpu-lost"),
    ),
    Check(
        "engine-limits", WARNING, "locked memory limited, or fewer than 65536 files", "nccl-ib 5: memlock, nofile",
        "RDMA cannot pin its buffers; connections run out.",
        "remove drop-ins of the unit (systemctl cat {subject}), then playbooks/roll-serving.yml", _limits,
    ),
    Check(
        "cpu-governor", WARNING, "not the governor that the site wants", "nccl-ib 5: governor performance",
        "Cores sleep between tokens, and wake up late.",
        "run playbooks/site.yml: the role host_baseline sets it", _governor,
    ),
)  # fmt: skip
