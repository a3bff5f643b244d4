"""Can this machine hold the lab? Each refusal is one line with its remedy."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
from pathlib import Path

from .spec import Lab, LabError, Run

NEEDED_COMMANDS = {
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nft": "nftables",
    "mmdebstrap": "mmdebstrap",
    "apt-ftparchive": "apt-utils",
    "ssh-keygen": "openssh-client",
}


def refuse(lab: Lab, run: Run, min_disk_mib: int, min_memory_mib: int, root: Path = Path("/")) -> None:
    """Raise LabError when the machine cannot hold the lab; `min_*_mib` are what the engines and releases need."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root (namespaces, mounts, systemd-nspawn): run it with sudo, or use `make plan`")
    missing = [
        f"{command} (package {package})" for command, package in NEEDED_COMMANDS.items() if not shutil.which(command)
    ]
    if missing:
        raise LabError(f"not found on this machine: {', '.join(missing)}; install with apt-get install")
    refuse_small(lab, min_disk_mib, min_memory_mib, root)
    refuse_taken_range(lab, run)


def refuse_small(lab: Lab, min_disk_mib: int, min_memory_mib: int, root: Path) -> None:
    """Refuse a machine with too little disk below the state folder or too little memory."""
    folder = lab.state_dir
    while not folder.exists():
        folder = folder.parent
    built = (lab.state_dir / "hosts").is_dir()
    free_mib = shutil.disk_usage(folder).free // 2**20
    if not built and free_mib < min_disk_mib:
        raise LabError(
            f"{folder}: {free_mib} MiB free, the lab needs {min_disk_mib}; free some or set lab_host_state_dir"
        )
    memory = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines() if ":" in line)
    total_mib = int(memory["MemTotal"].split()[0]) // 1024
    if total_mib < min_memory_mib:
        raise LabError(
            f"{total_mib} MiB of memory, the lab needs {min_memory_mib}: use a larger machine or `make plan`"
        )


def refuse_taken_range(lab: Lab, run: Run) -> None:
    """Refuse address ranges that the machine already uses for something that is not this lab."""
    wanted = [ipaddress.ip_network(lab.subnet), ipaddress.ip_network(lab.uplink)]
    status, out, err = run(["ip", "-json", "route", "show", "table", "all"])
    if status != 0:
        raise LabError(f"ip route show failed: {err.strip()}")
    for route in json.loads(out or "[]"):
        if route.get("dst") in (None, "default") or route.get("dev") == lab.uplink_interface:
            continue
        try:
            network = ipaddress.ip_network(route["dst"], strict=False)
        except ValueError:
            continue
        for mine, option in zip(wanted, ("lab_host_subnet", "lab_host_uplink")):
            if network.version == mine.version and network.prefixlen > 0 and network.overlaps(mine):
                raise LabError(f"{mine} is in use here ({network} on {route.get('dev')}): set {option} to a free range")
