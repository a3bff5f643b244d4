"""All checks of one host in one call."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Callable

from . import host, net, storage
from .findings import Finding, finding

Run = Callable[[list[str]], tuple[int, str, str]]
BOOT_FILE = "/etc/rackserve/firewall/rackserve.nft"
LOADED_FILE = "/run/rackserve/firewall.sha256"


def firewall_lost(root: Path, run: Run) -> bool:
    """Tell whether a firewall was confirmed here and its table is no longer loaded as the boot file has it.

    Somebody's `nft flush ruleset` changes no file, so the comparison of files cannot see it.
    """
    text = host.read(host.at(root, BOOT_FILE))
    if not text or host.read(host.at(root, LOADED_FILE)).strip() != sha256(text.encode()).hexdigest():
        return False
    wanted = [line.strip() for line in text.splitlines() if 'comment "rackserve sha256:' in line]
    code, out, _ = run(["nft", "-t", "list", "table", "inet", "rackserve"])
    return code != 0 or not all(line in out for line in wanted[:1])


def check_host(root: Path, run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    """Run every check whose input is given; return {findings, drift_roles, clock {epoch_s, offset_s}}.

    given: supported_os {id: [versions]}, distributions [name], disk [{path, needed_mib, unless}], written [path],
    memory_floor_mib, swap, controller_epoch_s, clock_tolerance_s, interface, address, ports [{port, unit}],
    user, uid, gid, models [{name, path}], secret_files [{path, mode}],
    release {id, path, current}, units [name], knobs {key: value}, limits [], take_over [], governor, isolation.
    """
    findings: list[Finding] = []
    clock: dict[str, float] = {}
    findings += host.check_platform(root, given["supported_os"], os.geteuid())
    if not any(found["code"] == "os-unsupported" for found in findings):
        findings += host.check_distribution(root, given.get("distributions") or [])
    findings += host.check_disk(root, given.get("disk") or [])
    findings += storage.check_writable(root, given.get("written") or [])
    findings += host.check_memory(root, int(given.get("memory_floor_mib") or 0), str(given.get("swap") or "report"))
    if given.get("controller_epoch_s"):
        controller_s = float(given["controller_epoch_s"])
        clock = {"epoch_s": time.time(), "offset_s": time.time() - controller_s}
        findings += host.check_clock(clock["epoch_s"], controller_s, float(given["clock_tolerance_s"]))
    if given.get("interface") and given.get("address"):
        findings += net.check_address(run, str(given["interface"]), str(given["address"]))
    findings += net.check_ports(root, given.get("ports") or [])
    if given.get("user"):
        findings += host.check_user(root, str(given["user"]), int(given["uid"]))
    uid, gid = int(given.get("uid") or 0), int(given.get("gid") or 0)
    models = given.get("models") or []
    findings += host.check_models(root, models, uid, gid) + storage.check_shards(root, models)
    findings += host.check_secret_files(root, given.get("secret_files") or [])
    findings += host.check_release(root, run, given.get("release") or {}, given.get("units") or [])
    if given.get("knobs") or given.get("limits"):
        from ..baseline.settings import limits_conflicts, sysctl_conflicts  # noqa: PLC0415 - read only where asked for

        take_over = given.get("take_over") or []
        findings += sysctl_conflicts(root, given.get("knobs") or {}, take_over)
        findings += limits_conflicts(root, given.get("limits") or [], take_over)
    if given.get("governor"):
        from ..baseline.settings import tuner_findings  # noqa: PLC0415 - read only where asked for

        findings += tuner_findings(root, given.get("take_over") or [])
    if given.get("isolation") == "report":
        from ..baseline.isolation import isolation_findings  # noqa: PLC0415 - read only where asked for

        findings += isolation_findings(root)
    drift_roles = []
    if firewall_lost(root, run):
        drift_roles.append("firewall")
        findings.append(
            finding(
                "warning",
                "firewall-lost",
                "table inet rackserve",
                "the confirmed rules are no longer loaded",
                "the role firewall loads them again",
            )
        )
    return {"findings": findings, "drift_roles": drift_roles, "clock": clock}
