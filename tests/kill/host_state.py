"""Runs on a host: what a run leaves there beside files, as one JSON object on stdout."""

import hashlib
import json
import re
import socket
import subprocess
import sys
from pathlib import Path


def output(*command):
    """What a command prints; "" where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def units():
    """{unit: load, active, sub state, enablement, whether its file is newer than what systemd read}."""
    kinds = ("service", "timer", "path", "socket", "swap")
    names = {line.split()[0] for line in output("systemctl", "list-unit-files", "--no-legend", "--plain").splitlines()}
    listed = output("systemctl", "list-units", "--all", "--no-legend", "--plain")
    names |= {line.split()[0] for line in listed.splitlines()}
    names = sorted(name for name in names if name.rpartition(".")[2] in kinds and "@." not in name)
    properties = ("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "NeedDaemonReload", "Transient")
    shown = output("systemctl", "show", "--property=" + ",".join(properties), "--", *names)
    found = {}
    for block in shown.split("\n\n"):
        pairs = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if pairs and pairs["LoadState"] != "not-found":
            # What a timer starts runs at this moment: the timer itself is as armed as one that waits.
            if pairs["Id"].endswith(".timer") and pairs["SubState"] == "running":
                pairs["SubState"] = "waiting"
            found[pairs.pop("Id")] = " ".join(f"{name}={value}" for name, value in sorted(pairs.items()))
    return found


def running(unit):
    """The configuration digest that a unit's main process was started with."""
    pid = output("systemctl", "show", "-P", "MainPID", unit).strip()
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "not running"
    return next((pair for pair in pairs if pair.startswith(("RACKSERVE_CONFIG_SHA256=", "RACKSERVE_UNIT="))), "none")


def gateway_servers():
    """{server: address, drain or maintenance} of the running gateway; whether a check has passed is the probe's."""
    program = Path("/run/haproxy/rackserve.sock")
    if not program.exists():
        return {}
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(program))
        client.sendall(b"show servers state\n")
        text = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    rows = [line.split() for line in text.splitlines() if line and line[0].isdigit() and len(line.split()) > 18]
    # 4: its line in the file said "disabled" when HAProxy read it. A server made ready since is as ready as any other.
    return {f"{row[1]}/{row[3]}": f"{row[4]}:{row[18]} admin={int(row[6]) & ~4}" for row in rows}


def runtime_files():
    """{path: digest} of what roles keep below /run."""
    folders = ("/run/rackserve", "/run/haproxy")
    # The way back of the last change of rules, its candidate, and how long starts took tell how the state was reached.
    history = ("rollback.nft", "candidate.nft")
    paths = [path for folder in folders for path in Path(folder).rglob("*") if path.is_file()]
    paths = [path for path in paths if path.name not in history and path.parent.name != "starts"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def ruleset():
    """The packet filter without what changes by itself."""
    return re.sub(r" # handle \d+", "", output("nft", "--stateless", "list", "ruleset"))


def left_over():
    """What only a run under way may have: transient units of ours, modules still at work, half-written files."""
    busy = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if any("AnsiballZ_" in word or "ansible-tmp-" in word for word in words) or words[0].startswith("rsync"):
                busy.append(f"process {' '.join(words)[:80]}")
    return sorted(busy)


packages = output("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Package} ${Version}\n")
state = {
    "units": units(),
    "servers": gateway_servers(),
    "runtime files": runtime_files(),
    "packages": dict.fromkeys(packages.splitlines()),
    "holds": dict.fromkeys(output("apt-mark", "showhold").split()),
    "audit": dict.fromkeys(output("dpkg", "--audit").splitlines()),
    "rules": dict.fromkeys(ruleset().splitlines()),
    "left over": dict.fromkeys(left_over()),
    "knobs": {
        name: Path(f"/proc/sys/{name}").read_text().strip()
        for name in ("net/core/somaxconn", "net/ipv4/tcp_max_syn_backlog", "vm/swappiness", "vm/max_map_count")
    },
}
state["running"] = {name: running(name) for name in state["units"] if name.startswith(("vllm-", "rackserve-gateway"))}
sys.stdout.write(json.dumps(state))
