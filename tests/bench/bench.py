"""Ratios from one run on the lab: the same converged state as ordinary Ansible tasks and as one `converge` call.

Both read the same items from the same file, alternate, and change nothing. Seconds of CPU on the controller come from
the finished process, on the hosts from their control groups: they hold on a noisy machine; wall seconds do not.
Needs a lab that `make demo` has brought up, on a machine with cgroup v1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
INVENTORY = REPO / "inventories/lab/hosts.yml"
GROUPS = Path("/sys/fs/cgroup/cpuacct/rslab")
UNITS = Path("/sys/fs/cgroup/systemd/rslab")
NODES = ("node1", "node2", "node3", "node4")
WAYS = ("ordinary", "converge")
KINDS = ("file", "directory", "link", "absent", "knob", "package", "user", "unit")


def play(*arguments: str) -> tuple[float, float]:
    """Run ansible-playbook; (wall seconds, controller CPU seconds)."""
    before, started = os.times(), time.monotonic()
    done = subprocess.run(
        [str(REPO / ".venv/bin/ansible-playbook"), "-i", str(INVENTORY), *arguments],
        cwd=REPO, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    if "changed=" in done.stdout.partition("PLAY RECAP")[2].replace("changed=0 ", "") and "render" not in arguments[0]:
        sys.exit(f"{arguments[0]}: something changed; bring the lab up to date first: make demo")
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - started, cpu_s


def engine_cpu_s(node: str) -> float:
    """CPU seconds of a node's engines, which serve meanwhile and spin for a second after each health check."""
    ticks = 0
    for group in UNITS.glob(f"{node}/**/vllm-*.service/cgroup.procs"):
        for pid in group.read_text().split():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def host_cpu_s() -> float:
    """CPU seconds that the nodes have used so far, without their engines."""
    return sum(int((GROUPS / node / "cpuacct.usage").read_text()) / 1e9 - engine_cpu_s(node) for node in NODES)


def items_of_hosts(folder: Path) -> tuple[Path, int]:
    """Write {host: items} that both ways can do (no secret, no gate, nothing another task applies); (file, items)."""
    play("playbooks/render-files.yml", "-e", f"render_files_output={folder}")
    chosen: dict[str, list[dict[str, Any]]] = {}
    for node in NODES:
        items = json.loads((folder / node / "desired-state.json").read_text())
        chosen[node] = [
            {key: value for key, value in item.items() if key not in ("role", "validate", "running_config")}
            for item in items
            if item["kind"] in KINDS and not item.get("gated_by") and not item.get("applied_by")
        ]
        for item in chosen[node]:
            if item["kind"] == "file":
                item["content"] = (folder / node / item["path"].lstrip("/")).read_text()
    target = folder / "items.json"
    target.write_text(json.dumps(chosen))
    return target, len(chosen[NODES[0]])


def say(line: str) -> None:
    """Print at once: a run takes minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    rounds = options.parse_args().rounds
    target, count = items_of_hosts(REPO / "build/bench")
    rows: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for way in WAYS:
            before = host_cpu_s()
            wall_s, controller_s = play(f"tests/bench/{way}.yml", "-e", f"bench_documents={target}")
            hosts_s = host_cpu_s() - before
            if number:
                rows[way].append((wall_s, controller_s, hosts_s / len(NODES)))
            say(f"round {number} {way:9} {wall_s:6.1f} s")
    medians = {way: [statistics.median(column) for column in zip(*values)] for way, values in rows.items()}
    say(f"\n{count} items a host, {len(NODES)} hosts, nothing to change, median of {rounds} after one warm-up")
    say(f"{'':22}{'wall s':>10}{'controller CPU s':>20}{'CPU s a host':>16}")
    for way, name in (("ordinary", "ordinary tasks"), ("converge", "one converge call")):
        say(f"{name:22}{medians[way][0]:>10.1f}{medians[way][1]:>20.1f}{medians[way][2]:>16.2f}")
    ratios = [a / b if b else float("inf") for a, b in zip(medians["ordinary"], medians["converge"])]
    say(f"{'ratio':22}{ratios[0]:>10.1f}{ratios[1]:>20.1f}{ratios[2]:>16.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
