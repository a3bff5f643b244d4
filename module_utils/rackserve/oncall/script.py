"""The shell that runs on hosts: bash and coreutils, no Python, nothing that may hang without an end."""

from __future__ import annotations

import re
import shlex

MARK = "@@rackserve "
_MARKED = re.compile(rf"^{re.escape(MARK)}(\S+)$", re.MULTILINE)
# A name of systemd's, with wildcards: it is put into a command line.
_UNIT = re.compile(r"[A-Za-z0-9_.@:*?\\-]{1,200}")
_SINCE = re.compile(r"[A-Za-z0-9 :.+-]{1,40}")

# One round trip. Reads files and asks systemd; the driver is not called, a sick one may never return.
STATUS = r"""
export LC_ALL=C
say() { printf '@@rackserve %s\n' "$1"; }
say load; cat /proc/loadavg; nproc; cut -d' ' -f1 /proc/uptime
say addresses; hostname -I
say memory; grep -E '^Mem(Total|Available):' /proc/meminfo
say disk; timeout 3 df -Plk -x tmpfs -x devtmpfs -x squashfs -x efivarfs 2>/dev/null | tail -n +2
say units
cd /etc/systemd/system &&
  names=$(ls -d vllm-*.service ray-*.service rackserve-*.service rackserve-*.timer 2>/dev/null)
[ -z "$names" ] ||
  timeout 3 systemctl show --property=Id,Type,RemainAfterExit,UnitFileState,ActiveState,SubState,NRestarts,Result \
    --property=ConditionResult,ConditionTimestampMonotonic $names
say gpus
ls /proc/driver/nvidia/gpus 2>/dev/null | wc -l
on_bus=0
for card in /sys/bus/pci/devices/*; do
  { read -r vendor < "$card/vendor" && read -r class < "$card/class"; } 2>/dev/null || continue
  case "$vendor $class" in "0x10de 0x0300"*|"0x10de 0x0302"*) on_bus=$((on_bus + 1));; esac
done
echo $on_bus
say health
stat -c %Y /var/lib/rackserve-health/rackserve_health.prom 2>/dev/null; date +%s
grep -E '^rackserve_health_(exit_code|finding\{)' /var/lib/rackserve-health/rackserve_health.prom 2>/dev/null
say lease; cat /var/lib/rackserve/lease.json 2>/dev/null
conf=/etc/rackserve/gateway/haproxy.cfg
if [ -r $conf ]; then
  say servers; grep -E '^(backend|frontend) |^  server |^  bind ' $conf
  say notes; cat /var/lib/rackserve/gateway/drained-by.json 2>/dev/null
  say metrics
  at=$(sed -n '/^frontend fe_metrics/,/^$/s/^  bind \([^ ]*\).*/\1/p' $conf | head -n 1)
  if [ -n "$at" ]; then
    # In a shell of its own: a failed open ends the shell that does it.
    timeout 3 bash -c 'exec 3<>"/dev/tcp/${1%:*}/${1##*:}" || exit 1
      printf "GET /metrics?scope=server HTTP/1.0\r\n\r\n" >&3; cat <&3' sh "$at" 2>/dev/null |
      grep -E '^haproxy_server_(current_sessions|current_queue|status)\{'
  fi
fi
say end
"""

GPUS = r"""
export LC_ALL=C
say() { printf '@@rackserve %s\n' "$1"; }
say cards
timeout 10 nvidia-smi --format=csv,noheader,nounits --query-gpu=index,name,utilization.gpu,memory.used,memory.total,\
temperature.gpu,power.draw,clocks.sm,ecc.errors.uncorrected.volatile.total 2>&1
echo "exit $?"
say users
timeout 10 nvidia-smi --format=csv,noheader,nounits \
  --query-compute-apps=gpu_uuid,pid,process_name,used_memory 2>/dev/null
say xids
timeout 5 journalctl -k -b --no-pager -o short-iso -g 'NVRM: Xid' 2>/dev/null | tail -n 5
say end
"""


def sections(text: str) -> dict[str, list[str]]:
    """{section: lines} of a script's output; what stands before the first mark (a banner) is left out."""
    parts = _MARKED.split(text)
    return {name: body.strip("\n").split("\n") if body.strip() else [] for name, body in zip(parts[1::2], parts[2::2])}


def shell_command(script: str, become: bool) -> str:
    """The command line that runs a script in bash, whatever the user's shell is, without standard input."""
    return f"{'sudo -n ' if become else ''}bash -c {shlex.quote(script)} </dev/null"


def journal_command(unit: str, since: str, lines: int, follow: bool, become: bool = False) -> str:
    """The command line that shows a journal. Raises ValueError, one line."""
    if not _UNIT.fullmatch(unit) or unit.startswith("-"):
        raise ValueError(f"unit {unit!r}: give a unit or a pattern, such as vllm-m-0.service or 'vllm-*'")
    words = ["journalctl", "--no-pager", "-o", "short-iso", "-n", str(int(lines))]
    if since:
        if not _SINCE.fullmatch(since):
            raise ValueError(f"since {since!r}: give a time of journalctl, such as '1 hour ago' or 2026-11-26")
        words += [f"--since={since}"]
    words += ["-f"] if follow else []
    words += [f"--unit={unit}"]
    return ("sudo -n " if become else "") + " ".join(map(shlex.quote, words))
