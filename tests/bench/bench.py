"""What a converged re-run costs, as ratios of one run, on light lab hosts of 1, 4 and 16 nodes (and a gateway).

`site.yml` is the whole main job: plan, every role's state, one golden answer of every engine. The other ways look after
part of that state that they share, the same items: as ordinary tasks with our tuned ansible.cfg, these with mitogen,
in pyinfra, and as one `converge` call; `check-health.yml` sweeps hosts (fast level). All change nothing. CPU seconds
of the controller come from finished processes, of the hosts from their control groups: they hold on a noisy machine,
wall seconds do not, as controller and hosts share its cores. Engines are stubs (tests/light): they answer without
computing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "light")]

from light_lab import LightLab
from ways import Cost, Ways

NET = 79
WAYS = ("floor", "converge", "site.yml", "check-health.yml", "pyinfra", "mitogen ordinary", "ordinary")
NAMES = {"floor": "floor: ssh + python start", "converge": "one converge call", "ordinary": "ordinary tasks"}
GROUPS = Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")


def say(line: str = "") -> None:
    """Print at once: a run takes minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def hosts_cpu_s(lab: LightLab, hosts: list[str]) -> float:
    """CPU seconds that these hosts have used so far, from their control groups (v1 and v2)."""
    used_s = 0.0
    for host in hosts:
        first = next(GROUPS[0].glob(f"{lab.prefix}/{host}/cpuacct.usage"), None)
        if first is not None:
            used_s += int(first.read_text()) / 1e9
            continue
        second = next(GROUPS[1].glob(f"{lab.prefix}/{host}/cpu.stat"), None)
        if second is None:
            sys.exit(f"no control group of {host} found below {GROUPS[0]} or {GROUPS[1]}")
        used_s += int(second.read_text().split()[1]) / 1e6
    return used_s


def machine_s() -> float:
    """Seconds of CPU for a fixed piece of work, so that figures of different days can be compared."""
    begin, total = time.process_time(), 0
    for number in range(20_000_000):
        total += number
    return time.process_time() - begin


def idle_cpu_per_s(lab: LightLab, hosts: list[str], watch_s: float = 10) -> float:
    """CPU seconds a second that hosts use with nobody asking: probes, stubs, timers. Taken off every measurement."""
    before = hosts_cpu_s(lab, hosts)
    time.sleep(watch_s)
    return (hosts_cpu_s(lab, hosts) - before) / watch_s


def measure(nodes: int, rounds: int, slow_rounds: int) -> dict[str, tuple[float, float, float]]:
    """Medians a way: (wall s, controller CPU s, CPU s a host)."""
    with LightLab(nodes=nodes, net=NET) as lab:
        started = time.monotonic()
        first = lab.site()
        if first.returncode != 0:
            sys.exit(f"first install failed:\n{first.stdout[-3000:]}")
        say(f"{nodes} nodes: first install {time.monotonic() - started:.0f} s")
        folder = Path(os.environ.get("BENCH_FOLDER") or HERE.parents[1] / "build/bench") / str(nodes)
        ways = Ways(lab, folder)
        idle = idle_cpu_per_s(lab, lab.hosts)
        rows: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
        last: Cost | None = None
        for number in range(rounds + 1):
            for way in WAYS:
                if number > slow_rounds and way in ("ordinary", "mitogen ordinary"):
                    continue
                before = hosts_cpu_s(lab, lab.hosts)
                cost = ways.run(way)
                used_s = hosts_cpu_s(lab, lab.hosts) - before - idle * cost.wall_s
                if number or slow_rounds == 0:
                    rows[way].append((cost.wall_s, cost.controller_cpu_s, used_s / len(lab.hosts)))
                last = cost if way == "site.yml" else last
                say(f"  round {number} {way:17} {cost.wall_s:7.2f} s")
            say(f"  round {number} this machine     {machine_s():7.2f} s of CPU for 20 million additions")
        medians = {way: _medians(values) for way, values in rows.items() if values}
        _show(nodes, ways.count, medians, last)
        return medians


def _medians(values: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    wall_s, controller_s, host_s = (statistics.median(column) for column in zip(*values))
    return wall_s, controller_s, host_s


def _show(nodes: int, count: int, medians: dict[str, tuple[float, float, float]], site: Cost | None) -> None:
    say(f"\n{nodes} nodes and a gateway, {count} shared items a node, nothing to change")
    say(f"{'':28}{'wall s':>9}{'controller CPU s':>18}{'CPU s a host':>14}{'wall / pyinfra':>16}")
    for way, (wall_s, controller_s, host_s) in medians.items():
        ratio = wall_s / medians["pyinfra"][0]
        say(f"{NAMES.get(way, way):28}{wall_s:>9.2f}{controller_s:>18.2f}{host_s:>14.2f}{ratio:>16.2f}")
    if site is not None:
        ends = [*(begin for begin, _ in site.steps[1:]), site.wall_s]
        took = sorted(((end - begin, name) for (begin, name), end in zip(site.steps, ends)), reverse=True)
        say(f"where site.yml's {site.wall_s:.2f} s went (last round): {site.steps[0][0]:.2f} s before the first play")
        for seconds, name in took[:6]:
            say(f"  {seconds:6.2f} s  {name[:90]}")
    say()


def main() -> int:
    """Print a table for each number of nodes, and how the cost grows."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--nodes", default="1,4,16", help="numbers of nodes, with commas")
    options.add_argument("--rounds", type=int, default=3, help="after one that warms up")
    options.add_argument("--slow-rounds", type=int, default=1, help="of ordinary tasks; 0 counts the warm-up, -1 none")
    given = options.parse_args()
    results = {int(text): measure(int(text), given.rounds, given.slow_rounds) for text in given.nodes.split(",")}
    say("site.yml on converged hosts")
    say(f"{'nodes':>6}{'wall s':>9}{'controller CPU s':>18}{'CPU s a host':>14}{'x pyinfra':>11}{'ordinary / it':>15}")
    for nodes, medians in results.items():
        wall_s, controller_s, host_s = medians["site.yml"]
        ordinary = f"{medians['ordinary'][0] / wall_s:.1f}" if "ordinary" in medians else "-"
        compared = wall_s / medians["pyinfra"][0]
        say(f"{nodes:>6}{wall_s:>9.2f}{controller_s:>18.2f}{host_s:>14.2f}{compared:>11.2f}{ordinary:>15}")
    say("check-health.yml, fast level")
    for nodes, medians in results.items():
        wall_s, controller_s, host_s = medians["check-health.yml"]
        say(f"{nodes:>6}{wall_s:>9.2f}{controller_s:>18.2f}{host_s:>14.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
