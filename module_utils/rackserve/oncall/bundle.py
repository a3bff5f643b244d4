"""`fab bundle`: what an engineer elsewhere needs to see of every host, without secrets, as one archive."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..diagnose.redact import Redactor
from .script import sections
from .sweep import Answer

# The form that diagnose reads, so that what a person sends can be judged elsewhere.
MANIFEST, KIND, VERSION = "manifest.json", "rackserve-diagnosis", 1
_KINDS = {
    "engines.log": "engine",
    "kernel.log": "kernel",
    "gateway.log": "gateway",
    "rackserve.log": "unit",
    "unit-files.txt": "file",
    "configuration.txt": "file",
    "state.txt": "file",
}
MOST_BYTES = 32 * 2**20
_SECRETS = "secrets"
_SINCE = re.compile(r"[A-Za-z0-9 :.+-]{1,40}")
_NAME = re.compile(r"[a-z][a-z-]*\.(txt|log)")

# The files of secrets are read so that their values can be taken out of everything else; they are not kept.
SCRIPT = r"""
export LC_ALL=C
say() { printf '\n@@rackserve %s\n' "$1"; }
run() { echo "\$ $*"; timeout 20 "$@" 2>&1; }
logs() { run journalctl --no-pager -o short-iso --since="$since" -n 4000 "$@"; }
files() {
  for file in "$@"; do [ -f "$file" ] && [ -r "$file" ] && { echo "# $file"; head -c 262144 "$file"; echo; }; done
}
since=@SINCE@
say secrets
{ sed 's/^[A-Za-z_0-9]*=//' /etc/rackserve/*/*.secret.env; awk '{ print $1 }' /etc/rackserve/gateway/keys.map
  awk '{ print $NF }' /etc/rackserve/gateway/engine-key.map; cat /etc/rackserve/*/token; } 2>/dev/null
say host.txt; run date --iso-8601=seconds; run uname -a; run uptime; files /etc/os-release; run systemctl --version
run nproc; run free -m; run df -Plh; run df -Pli; run lsblk; run mount; run timedatectl
say processes.txt; run ps -eo pid,ppid,user,stat,etimes,pcpu,rss,unit,comm --sort=-rss
say units.txt; run systemctl list-units --all --no-pager --plain 'vllm-*' 'ray-*' 'rackserve-*' 'nvidia-*'
run systemctl --failed --no-pager --plain; run systemctl list-timers --all --no-pager 'rackserve-*'
cd /etc/systemd/system && for unit in vllm-*.service ray-*.service rackserve-*.service; do
  [ -f "$unit" ] && run systemctl status --no-pager -n 0 "$unit"; done
say unit-files.txt; files /etc/systemd/system/vllm-*.service /etc/systemd/system/ray-*.service \
  /etc/systemd/system/rackserve-*.service /etc/systemd/system/rackserve-*.timer
say engines.log; logs -u 'vllm-*' -u 'ray-*'
say gateway.log; logs -u rackserve-gateway.service
say rackserve.log; logs -u 'rackserve-*' -u 'nvidia-*'
say kernel.log; logs -k
say configuration.txt; shopt -s nullglob
for file in /etc/rackserve/*.json /etc/rackserve/*/*.json /etc/rackserve/*/*.env /etc/rackserve/gateway/haproxy.cfg \
  /etc/rackserve/*/*.nft /etc/sysctl.d/*rackserve* /etc/modprobe.d/*rackserve* \
  /opt/rackserve/releases/*/RELEASE.json; do
  case "$file" in *.secret.env) ;; *) files "$file";; esac; done
say state.txt; files /var/lib/rackserve/lease.json /var/lib/rackserve/gateway/server-state \
  /var/lib/rackserve/gateway/drained-by.json /var/lib/rackserve-health/rackserve_health.prom
run ls -l /opt/rackserve/releases /opt/rackserve/current /srv/models /var/lib/rackserve
say network.txt; run ip -br address; run ip route; run ip -s link; run ss -lntup; run nft list ruleset
grep -s . /sys/class/infiniband/*/ports/*/state /sys/class/infiniband/*/ports/*/rate
say gpus.txt; run lspci -d 10de:; run nvidia-smi; run nvidia-smi -q; run nvidia-smi topo -m; run nvidia-smi nvlink -s
say packages.txt; dpkg-query -W 2>/dev/null | grep -Ei 'nvidia|cuda|nccl|haproxy|mlnx|rdma|^linux-image|^python3'
say end
"""


def script(since: str) -> str:
    """The shell that collects. Raises ValueError for a time that journalctl cannot be given."""
    if not _SINCE.fullmatch(since):
        raise ValueError(f"since {since!r}: give a time of journalctl, such as '1 day ago' or 2026-11-26")
    return SCRIPT.replace("@SINCE@", f"'{since}'", 1)


def contents(answers: Mapping[str, Answer]) -> dict[str, str]:
    """{path in the archive: text without secrets}; a host that did not answer has a file that says why."""
    read = {name: sections(answer.text) for name, answer in answers.items()}
    # Hosts share secrets: what one of them holds is taken out of what all of them said.
    known = Redactor(line.strip("\"' ") for parts in read.values() for line in parts.get(_SECRETS, []))
    found: dict[str, str] = {}
    index: dict[str, dict[str, object]] = {}
    for name, parts in read.items():
        problem = known.text(answers[name].problem)
        complete = "end" in parts
        lost = problem or ("" if complete else "the answer breaks off")
        sources = []
        for part, lines in parts.items():
            if part not in (_SECRETS, "end") and _NAME.fullmatch(part):
                file = f"{name}/{part}"
                found[file] = known.text("\n".join(lines)[:MOST_BYTES]) + "\n"
                sources.append({"file": file, "name": part, "kind": _KINDS.get(part, "tool")})
        index[name] = {"lost": lost, "wall_s": round(answers[name].wall_s, 1), "sources": sources}
        if lost:
            found[f"{name}/problem.txt"] = lost + "\n"
    head = {"kind": KIND, "version": VERSION, "made_by": "fab bundle", "hosts": index}
    found[MANIFEST] = json.dumps(head, indent=1) + "\n"
    return found


def write(path: Path, top: str, texts: Mapping[str, str], now_s: float) -> int:
    """Write the archive, readable by its owner alone; bytes. Raises OSError, also where the file is there already."""
    # A name of its own, mode 0600: what a run that was killed left is in nobody's way.
    number, made = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent)
    part = Path(made)
    with os.fdopen(number, "wb") as handle, tarfile.open(fileobj=handle, mode="w:gz") as archive:
        for name in sorted(texts):
            data = texts[name].encode("utf-8", "replace")
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mtime, member.mode = len(data), int(now_s), 0o600
            archive.addfile(member, io.BytesIO(data))
    if path.exists():
        part.unlink()
        raise FileExistsError(17, "it is there already; name another file", str(path))
    part.replace(path)
    return path.stat().st_size
