"""What is still to do for a host's fabric, what stands in the way, and whether the host has what the plan says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..converge.dpkg import UNFINISHED, held, installed, present
from ..converge.host import Host, Run
from ..preflight.findings import Finding, finding
from . import look
from .gdr import peer_memory_missing


def check_fabric(
    root: Path,
    run: Run,
    fabric: Mapping[str, Any],
    *,
    take_over: Collection[str] = (),
    prove: bool = False,
    units: Collection[str] = (),
    pinned: Collection[str] = (),
) -> dict[str, Any]:
    """Compare a host with `fabric` {kind, hcas, rate_gbps, packages, modules, peer_memory, simulated}; nothing changes.

    take_over: foreign things the site gives up, `hold:<name>`. prove: look at modules, adapters, device files,
    memory of GPUs and what the running ones of `units` may lock. pinned: adapters whose interrupts the site sends to
    fixed CPUs.

    Returns {findings, install: [name=version], hold: [name], unfinished, change_holds}; an error finding means that
    nothing may be installed, and with `prove` that the host does not have what the plan says.
    """
    known = Host(root, None).packages
    wanted = dict(fabric["packages"])
    findings = [
        _differs(name, known[name].version, version)
        for name, version in sorted(wanted.items())
        if present(known.get(name)) and known[name].version != version
    ]
    held_away = [name for name in sorted(wanted) if held(known.get(name)) and not present(known.get(name))]
    for name in held_away:
        if f"hold:{name}" not in take_over:
            why = f"somebody holds it uninstalled; the release wants {wanted[name]}"
            fix = f"apt-mark unhold {name}, or name hold:{name} in cluster.take_over"
            findings.append(finding("error", "rdma-foreign-hold", f"package {name}", why, fix))
    if prove:
        findings += prove_fabric(root, run, fabric, units)
    findings += look.interrupts_moved(root, pinned)
    return {
        "findings": findings,
        "install": [f"{name}={wanted[name]}" for name in sorted(wanted) if not installed(known.get(name))],
        "hold": [name for name in sorted(wanted) if not held(known.get(name)) or name in held_away],
        "unfinished": any(name in wanted and package.present in UNFINISHED for name, package in known.items()),
        "change_holds": bool(held_away),
    }


def _differs(name: str, version: str, wanted: str) -> Finding:
    fix = f"on the drained host: apt-get install {name}={wanted}; or set rdma_fabric_packages: {{}} to use its own"
    why = f"{version} is installed, the release says {wanted}"
    return finding("error", "rdma-package-differs", f"package {name}", why, fix)


def prove_fabric(root: Path, run: Run, fabric: Mapping[str, Any], units: Collection[str]) -> list[Finding]:
    """Whether modules, adapters, device files, memory of GPUs and limits are there, against the plan."""
    findings = []
    for name in look.missing_modules(root, fabric["modules"]):
        fix = f"modprobe {name}; journalctl -k says why it does not load"
        findings.append(finding("error", "rdma-module", f"kernel module {name}", "it is not loaded", fix))
    adapters = look.adapters(root, str(fabric["kind"]))
    if len(adapters) < int(fabric["hcas"]):
        names = ", ".join(adapter.name for adapter in adapters) or "none"
        why = f"the host has {len(adapters)} ({names}), the plan says {fabric['hcas']}"
        fix = "lspci -d 15b3: and journalctl -k (mlx5_core) name the one that is gone; or correct network.fabric.hcas"
        findings.append(finding("error", "hca-count", f"{fabric['kind']} adapters", why, fix))
    for adapter in adapters:
        if not adapter.device_file:
            why = "it has no device file, so no program can use it"
            fix = "modprobe ib_uverbs; udevadm trigger --subsystem-match=infiniband_verbs"
            findings.append(finding("error", "hca-device-file", f"adapter {adapter.name}", why, fix))
    working = [adapter for adapter in adapters if adapter.rate_gbps >= float(fabric["rate_gbps"])]
    if len(adapters) >= int(fabric["hcas"]) > len(working):
        seen = "; ".join(f"{a.name} {a.state}, {a.rate_gbps:g} Gb/s" for a in adapters if a not in working)
        why = f"{len(working)} of {fabric['hcas']} work at {fabric['rate_gbps']} Gb/s: {seen}"
        fix = "look at the cable, the switch port and, where the state is INIT, the subnet manager"
        findings.append(finding("warning", "hca-port", f"{fabric['kind']} ports", why, fix))
    findings += peer_memory_missing(root, fabric["peer_memory"])
    bounded = look.limits_bounded(root)
    for unit, limit in look.locked_memory_limits(root, run, units).items():
        if limit != "unlimited":
            findings.append(_memlock(unit, limit, bounded, bool(fabric.get("simulated"))))
    return findings


def _memlock(unit: str, limit: str, bounded: bool, simulated: bool) -> Finding:
    """A unit that may not lock all memory; where the host itself may not raise limits, no unit can."""
    why = f"its processes may lock {limit} bytes; RDMA locks all memory that it registers"
    fix = "LimitMEMLOCK=infinity in the unit, then playbooks/roll-serving.yml"
    if not bounded:
        return finding("error", "memlock-limited", unit, why, fix)
    why += "; PID 1 lacks CAP_SYS_RESOURCE, so no unit of this host can have more"
    fix = "give the container that this host is CAP_SYS_RESOURCE, or start it with memlock unlimited"
    if simulated:
        return finding("warning", "memlock-limited", unit, f"{why} (simulated adapters register none)", fix)
    return finding("error", "memlock-limited", unit, why, fix)
