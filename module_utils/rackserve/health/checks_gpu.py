"""Checks of GPUs: whether they are there, are the right ones, and run as they should."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from ..driver.hardware import MEMORY_TOLERANCE
from ..gpu.guard import Use, read_process
from .check import CRITICAL, HOST, INFO, WARNING, Check, NotHere, Problem
from .gpus import Gpu
from .kernel import XID
from .look import Look
from .xids import OTHER, XIDS

MIB = 2**20
LOST = ("gpu-lost", "driver-versions")
_PLAN = "the hardware profile (cluster.hardware)"
_HOT_MARGIN_C, _HOT_C, _MEMORY_HOT_C = 5, 87, 95
_HARDWARE_REASONS = {0x8: "hardware slowdown", 0x40: "heat (hardware)", 0x80: "power brake"}
_SOFT_THERMAL, _POWER_CAP = 0x20, 0x4
_CAPPED, _CLOCK_LOW = 0.6, 0.85
_ORPHAN_MIB = 512
_REPLAYS_PER_LANE_HOUR = 60
_EXCLUSIVE = {1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
_ACTIONS = {1: "reset the GPU", 2: "reboot the host", 3: "drain peer-to-peer", 4: "drain and reset"}
_OWN = ("nvidia-persistenced", "nv-fabricmanager", "nv-hostengine", "dcgmi")


def each(judge: Callable[[Gpu, Look], list[Problem]]) -> Callable[[Look], list[Problem]]:
    """A check of each GPU."""
    return lambda look: look.over(look.gpus(), lambda gpu: judge(gpu, look))


def _lost(look: Look) -> list[Problem]:
    found = [Problem(gpu.subject, gpu.lost) for gpu in look.gpus() if gpu.lost]
    named = {problem.subject for problem in found}
    for index, slot in enumerate(look.gpu_slots()):
        try:
            dead = (look.root / "sys/bus/pci/devices" / slot / "config").read_bytes()[:4] == b"\xff" * 4
        except OSError:
            continue
        if dead and f"GPU {index}" not in named:
            found.append(Problem(f"GPU {index}", f"its configuration space at {slot} reads ff: it fell off the bus"))
    return found


def _count(look: Look) -> list[Problem]:
    wanted, seen, on_bus = look.wanted("gpus", "count"), len(look.gpus()), len(look.gpu_slots())
    found = []
    if wanted is not None and seen != wanted:
        found.append(Problem(HOST, f"NVML lists {seen} GPUs, the plan says {wanted}; {on_bus} are on the PCI bus"))
    elif wanted is None and seen < on_bus:
        found.append(Problem(HOST, f"NVML lists {seen} GPUs, {on_bus} are on the PCI bus"))
    return found


def _same(name: str) -> Callable[[Look], list[Problem]]:
    """GPUs of a host whose value is another one than that of most."""

    def judge(look: Look) -> list[Problem]:
        values: list[tuple[Gpu, Any]] = []
        look.over(look.gpus(), lambda gpu: values.append((gpu, gpu.get(name))) or [])  # type: ignore[func-returns-value]
        most = Counter(value for _, value in values).most_common(1)
        return [
            Problem(gpu.subject, f"{value}, most GPUs of this host have {most[0][0]}")
            for gpu, value in values
            if value != most[0][0]
        ]

    return judge


def _model(look: Look) -> list[Problem]:
    wanted = (look.expect.get("gpus") or {}).get("model")
    if not wanted:
        return _same("name")(look)
    return each(
        lambda gpu, _: (
            [Problem(gpu.subject, f"{gpu.get('name')}, the plan says {wanted}")]
            if gpu.get("name") not in (wanted, None)
            else []
        )
    )(look)


def _memory(look: Look) -> list[Problem]:
    wanted = look.wanted("gpus", "memory_mib")
    if not wanted:
        raise NotHere("the plan does not say how much memory a GPU has")

    def judge(gpu: Gpu, _: Look) -> list[Problem]:
        has = gpu.get("memory")["total"] // MIB
        differs = abs(has - wanted) > wanted * MEMORY_TOLERANCE
        return [Problem(gpu.subject, f"{has} MiB, the plan says {wanted} MiB")] if differs else []

    return each(judge)(look)


def _persistence(look: Look) -> list[Problem]:
    if not (look.expect.get("gpus") or {}).get("persistence"):
        raise NotHere("the plan does not ask for persistence mode (cluster.gpu_settings)")
    return each(lambda gpu, _: [Problem(gpu.subject, "it is off")] if gpu.get("persistence_mode") == 0 else [])(look)


def _mig(gpu: Gpu, _: Look) -> list[Problem]:
    mode = gpu.get("mig")
    return [Problem(gpu.subject, "MIG is on")] if mode and mode[0] else []


def _compute_mode(gpu: Gpu, _: Look) -> list[Problem]:
    mode = gpu.get("compute_mode")
    return [Problem(gpu.subject, f"compute mode {_EXCLUSIVE.get(mode, mode)}")] if mode else []


def _recovery(gpu: Gpu, _: Look) -> list[Problem]:
    action = gpu.get("recovery_action")
    return [Problem(gpu.subject, f"the driver asks to {_ACTIONS.get(action, f'do {action}')}")] if action else []


def _temperature(gpu: Gpu, _: Look) -> list[Problem]:
    margin, degrees = gpu.get("margin"), gpu.get("temperature")
    if margin is not None:
        hot = margin <= _HOT_MARGIN_C
        return [Problem(gpu.subject, f"{degrees} C, {margin} degrees below its slowdown")] if hot else []
    hot = degrees is not None and degrees >= _HOT_C
    return [Problem(gpu.subject, f"{degrees} C")] if hot else []


def _memory_temperature(gpu: Gpu, _: Look) -> list[Problem]:
    degrees = gpu.get("memory_temperature")
    return [Problem(gpu.subject, f"memory at {degrees} C")] if degrees is not None and degrees >= _MEMORY_HOT_C else []


def _throttled(gpu: Gpu, _: Look) -> list[Problem]:
    reasons, now, most = gpu.get("reasons") or 0, gpu.get("sm_mhz"), gpu.get("sm_max_mhz")
    clock = f"; SM clock {now} of {most} MHz"
    hard = [words for bit, words in _HARDWARE_REASONS.items() if reasons & bit]
    if hard:
        return [Problem(gpu.subject, f"held by {', '.join(hard)}{clock}", CRITICAL)]
    if reasons & _SOFT_THERMAL:
        return [Problem(gpu.subject, f"held by heat (software){clock}")]
    if reasons & _POWER_CAP and now and most and now < most * _CAPPED:
        fix = "raise the power limit: nvidia-smi -q -i {gpu} -d POWER; cluster.gpu_settings.power_limit_w"
        return [Problem(gpu.subject, f"held by its power limit{clock}", WARNING, fix)]
    return []


def _power_limit(look: Look) -> list[Problem]:
    wanted = (look.expect.get("gpus") or {}).get("power_limit_w")

    def judge(gpu: Gpu, _: Look) -> list[Problem]:
        limit, default = gpu.get("power_limit_mw"), gpu.get("power_default_mw")
        if limit is None or default is None:
            return []
        goal = wanted * 1000 if wanted and gpu.index in _allocated(look) else default
        said = "the plan says" if goal != default else "its default is"
        return [Problem(gpu.subject, f"{limit // 1000} W, {said} {goal // 1000} W")] if limit < goal else []

    return each(judge)(look)


def _allocated(look: Look) -> list[int]:
    """GPUs that the settings of the plan are for."""
    return list((look.expect.get("gpus") or {}).get("allocated") or [])


def _application_clocks(gpu: Gpu, look: Look) -> list[Problem]:
    now, default = gpu.get("application_mhz"), gpu.get("application_default_mhz")
    if (look.expect.get("gpus") or {}).get("application_clocks") or now is None or default is None:
        return []
    low = now < default * _CLOCK_LOW
    return [Problem(gpu.subject, f"application clock {now} MHz, its default is {default} MHz")] if low else []


def _width(gpu: Gpu, _: Look) -> list[Problem]:
    now, most = gpu.get("pcie_width"), gpu.get("pcie_max_width")
    return [Problem(gpu.subject, f"{now} of {most} PCIe lanes")] if now and most and now < most else []


def _replays(gpu: Gpu, look: Look) -> list[Problem]:
    count, width = gpu.get("pcie_replay"), gpu.get("pcie_max_width") or 16
    if count is None:
        return []
    growth = look.counters.grew(f"pcie-replay/{gpu.index}", count)
    if growth.grown is None or growth.per_hour <= _REPLAYS_PER_LANE_HOUR * width:
        return []
    return [Problem(gpu.subject, f"{growth.grown} PCIe replays within {growth.seconds:.0f} s")]


def _inforom(look: Look) -> list[Problem]:
    return [
        Problem(gpu.subject, gpu.errors["inforom"]) for gpu in look.gpus() if not gpu.lost and "inforom" in gpu.errors
    ]


def _foreign(look: Look) -> list[Problem]:
    ours = {*(look.expect.get("units") or ()), *(look.expect.get("gpu_units") or ())}
    if not ours:
        raise NotHere("the plan gives no GPU of this host to anybody")

    def judge(gpu: Gpu, _: Look) -> list[Problem]:
        found = []
        for pid, used in gpu.get("processes") or []:
            process = read_process(look.root / "proc", Use(pid, used))
            if process is None:
                found.append(Problem(gpu.subject, f"process {pid}, which has no entry in /proc"))
            elif process.unit not in ours and not set(_OWN) & set(process.names):
                found.append(Problem(gpu.subject, str(process)))
        return found

    return each(judge)(look)


def _orphans(gpu: Gpu, _: Look) -> list[Problem]:
    memory, processes = gpu.get("memory"), gpu.get("processes")
    if memory is None or processes is None or any(used is None for _, used in processes):
        return []
    left = (memory["used"] - sum(used for _, used in processes)) // MIB
    return [Problem(gpu.subject, f"{left} MiB belong to no process")] if left > _ORPHAN_MIB else []


def _xid(look: Look) -> list[Problem]:
    newest: dict[tuple[str, int], tuple[float, int, str]] = {}
    for line in look.lines():
        seen = XID.search(line.text)
        if seen:
            key = (look.gpu_at(seen[1]), int(seen[2]))
            count = newest[key][1] + 1 if key in newest else 1
            newest[key] = (line.age_s, count, " ".join(seen[3].strip(" ,").split())[:160])
    found = []
    for (subject, number), (age_s, count, said) in newest.items():
        kind = XIDS.get(number, OTHER)
        if kind.within_s and age_s > kind.within_s:
            continue
        index = re.sub(r"\D", "", subject) or "?"
        fix = kind.fix.replace("{gpu}", subject).replace("{index}", index)
        times = f" {count} times, last" if count > 1 else ""
        seen_as = f"Xid {number}{times} {age_s:.0f} s ago: {said}"
        found.append(Problem(subject, seen_as, kind.severity, fix, kind.caused_by))
    return found


CHECKS = (
    Check(
        "gpu-lost", CRITICAL, "any GPU that NVML calls lost, or whose PCI space reads ff", "NVML; nccl-ib 5 (Xid 79)",
        "Every call on it fails; engines on it are dead and start no more.",
        "drain the host, power it off and on (not just a reboot); a GPU that is lost again is replaced",
        _lost, ("driver-versions",),
    ),
    Check(
        "gpu-count", CRITICAL, "not the number of the plan", _PLAN,
        "An engine that wants the missing GPU does not start.",
        "nvidia-smi -L and lspci -d 10de: name the one that is gone; journalctl -k -g NVRM says why",
        _count, LOST,
    ),
    Check(
        "gpu-model", CRITICAL, "not the plan's model; without a plan, not that of most", _PLAN,
        "Different GPUs of one engine wait for the slowest, and may not hold its share.",
        "correct cluster.hardware, or put the right card into the slot of {subject}", _model, LOST,
    ),
    Check(
        "gpu-memory", CRITICAL, "more than 2 % off the plan", f"{_PLAN}; tolerance as in driver proof",
        "The plan's memory arithmetic does not hold, and the engine ends in out of memory.",
        "nvidia-smi -q -i {gpu} -d MEMORY,ROW_REMAPPER; MIG and vGPU take a part", _memory, ("gpu-mig", *LOST),
    ),
    Check(
        "gpu-vbios", INFO, "not the version of most GPUs of the host", "imbue cluster-health; Meta gcm",
        "Different firmware explains different clocks and power of equal cards.",
        "ask the vendor for one VBIOS and flash {subject} on the drained host", _same("vbios"), ("gpu-model", *LOST),
    ),
    Check(
        "gpu-inforom", WARNING, "NVML cannot read its InfoROM", "NVML_ERROR_CORRUPTED_INFOROM",
        "Counters of memory errors and remapped rows live there; without it they are lost.",
        "nvidia-smi -q -i {gpu} shows 'infoROM is corrupted'; replace the GPU at the next chance", _inforom, LOST,
    ),
    Check(
        "gpu-persistence", WARNING, "off where the plan sets it", "cluster.gpu_settings",
        "Without it the driver drops its state when the last engine stops; the next start takes seconds longer.",
        "systemctl restart nvidia-persistenced.service, or run playbooks/site.yml", _persistence,
        ("driver-daemons", "services", *LOST),
    ),
    Check(
        "gpu-mig", WARNING, "MIG is on", "rackserve plans whole GPUs",
        "Each slice is a device of its own: engines see less memory, and no NVLink.",
        "drain the host, then nvidia-smi -i {gpu} -mig 0 and reset the GPU", each(_mig), LOST,
    ),
    Check(
        "gpu-compute-mode", WARNING, "not the default mode", "CUDA: one context only in the other modes",
        "A second process of the same engine gets no context on it.",
        "nvidia-smi -i {gpu} -c DEFAULT", each(_compute_mode), LOST,
    ),
    Check(
        "gpu-recovery-action", CRITICAL, "any action but none", "NVML field 230; Xid 154",
        "The driver itself says that the GPU does not get well again by itself.",
        "drain the host, then do what it asks for", each(_recovery), LOST,
    ),
    Check(
        "gpu-xid", CRITICAL, "by number: reset or reboot (critical), pending (warning), the program's own (info)",
        "NVIDIA Xid catalogue 2025-10 via gpud", "The driver's own words for what went wrong.",
        "by number, see xids.py", _xid,
    ),
    Check(
        "gpu-temperature", WARNING, "5 degrees or less below its slowdown; without that reading, 87 C",
        "NVML margin; limit of H100 PCIe", "A few degrees more, and the hardware holds its clocks down.",
        "look at fans and inlet air: ipmitool sdr type Temperature; clean filters, lower the room's temperature",
        each(_temperature), LOST,
    ),
    Check(
        "gpu-memory-temperature", WARNING, "95 C or more", "HBM3 throttles at 95 to 105 C",
        "Hot memory refreshes more often, and is slower.",
        "as for gpu-temperature; one hot card among cool ones wants its cooler seated again",
        each(_memory_temperature), LOST,
    ),
    Check(
        "gpu-throttle", WARNING,
        "0x8, 0x40 or 0x80 (critical); 0x20; power cap with less than 60 % of the clock",
        "nccl-ib 5, throttle bits; DCGM", "All GPUs of an engine wait for the slowest.",
        "nvidia-smi -q -i {gpu} -d PERFORMANCE; heat: fans and air; power brake: power supplies and their cables",
        each(_throttled), ("gpu-temperature", "gpu-memory-temperature", "gpu-power-limit", *LOST),
    ),
    Check(
        "gpu-power-limit", WARNING, "below the plan's, else below the card's default", "cluster.gpu_settings; NVML",
        "Somebody lowered it by hand, and that card is slower than the others.",
        "nvidia-smi -i {gpu} -pl <watts>, or set it in cluster.gpu_settings and run playbooks/site.yml",
        _power_limit, LOST,
    ),
    Check(
        "gpu-application-clocks", WARNING, "below 85 % of the default, and not in the plan", "NVSentinel: 0.85",
        "The GPU never goes faster than that.", "nvidia-smi -i {gpu} -rac", each(_application_clocks), LOST,
    ),
    Check(
        "gpu-pcie-width", CRITICAL, "fewer lanes than both ends can, at idle too; speed is not judged",
        "nccl-ib 5 (NVSentinel): idle links drop speed, never width",
        "Loading weights, and all traffic to adapters, is that much slower.",
        "drain the host, power off, reseat the card or its riser; lspci -vv -s of {subject} shows LnkSta",
        each(_width), LOST,
    ),
    Check(
        "gpu-pcie-replay", WARNING, "more than 60 a lane and hour", "DCGM: 1.92 a minute and lane for Gen5, halved",
        "The link repeats packets: a contact or a cable is bad.",
        "drain the host, reseat the card; replace the riser if it goes on", each(_replays), ("gpu-pcie-width", *LOST),
    ),
    Check(
        "gpu-foreign-process", WARNING, "a process outside the units of the plan", "rackserve: gpu-guard",
        "It takes memory and time from the engine, and the engine's next start is refused.",
        "stop it yourself; rackserve never signals a process that is not its own", _foreign, LOST,
    ),
    Check(
        "gpu-orphan-memory", WARNING, "more than 512 MiB that no process owns", "rackserve: gpu-guard",
        "An orphaned context; the engine's next start may find too little memory.",
        "nvidia-smi -q -i {gpu} -d MEMORY,PIDS and fuser -v /dev/nvidia*; a reset or a reboot frees it",
        each(_orphans), LOST,
    ),
)  # fmt: skip
