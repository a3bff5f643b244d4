"""Kernel settings of lab hosts: named when changed by hand, set by a run and nothing else, there again after a boot."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Run, eventually, whole
from rackserve.converge.kernel import knob_value

Shell = Callable[[str, str], str]
HOST = "node3"
BOOT_S = 300
CAP_SYS_RESOURCE = 24
THP = "/sys/kernel/mm/transparent_hugepage/enabled"
POLICIES = "/sys/devices/system/cpu/cpufreq"
# Item of the desired state: (role, how a person changes it, how it is read, a word of what the comparison says).
CHANGED = {
    "sysctl-vm.swappiness": ("host_baseline", "echo 60 >/proc/sys/vm/swappiness", "cat /proc/sys/vm/swappiness", "60"),
    "sysctl-kernel.numa_balancing": (
        "host_baseline",
        "echo 1 >/proc/sys/kernel/numa_balancing",
        "cat /proc/sys/kernel/numa_balancing",
        "1",
    ),
    "thp": ("host_baseline", f"echo always >{THP}", f"cat {THP}", "always"),
    "governor": (
        "host_baseline",
        f"echo powersave >$(ls -d {POLICIES}/policy* | tail -1)/scaling_governor",
        f"cat {POLICIES}/policy*/scaling_governor",
        "powersave",
    ),
    "modules-file": (
        "rdma_fabric",
        "echo siw >>/etc/modules-load.d/rackserve-rdma.conf",
        "cat /etc/modules-load.d/rackserve-rdma.conf",
        "siw",
    ),
    "limits-file": (
        "rdma_fabric",
        "rm /etc/security/limits.d/60-rackserve-rdma.conf",
        "cat /etc/security/limits.d/*rdma.conf 2>/dev/null || echo gone",
        "root - memlock unlimited",
    ),
}
ITEM = re.compile(r"\((\w+): ([^)\s]+)\)")
FOREIGN = {
    "/etc/sysctl.d/10-site.conf": "net.core.rmem_max = 212992\n",
    "/etc/chrony/conf.d/site.conf": "makestep 1 3\n",
    "/etc/security/limits.d/10-site.conf": "@site - core 0\n",
}


def readings(shell: Shell) -> dict[str, str]:
    return {name: knob_value(shell(HOST, look)) for name, (_, _, look, _) in CHANGED.items() if has(shell, name)}


def has(shell: Shell, name: str) -> bool:
    """Kernels may be built without NUMA balancing, and then have nothing to change."""
    look = "test -e /proc/sys/kernel/numa_balancing && echo yes || echo no"
    return name != "sysctl-kernel.numa_balancing" or shell(HOST, look).strip() == "yes"


def changed_items(output: str) -> set[tuple[str, str]]:
    """(role, item) of every diff that a run with --diff shows."""
    heads = [line for line in output.splitlines() if line.startswith("+++ ")]
    return {found.groups() for found in map(ITEM.search, heads) if found}  # type: ignore[misc]


@pytest.fixture
def by_hand(shell: Shell, playbook: Run) -> Iterator[set[tuple[str, str]]]:
    """Everything of CHANGED is changed; what a failed test leaves is put right."""
    names = [name for name in CHANGED if has(shell, name)]
    for name in names:
        shell(HOST, CHANGED[name][1])
    yield {(CHANGED[name][0], name) for name in names}
    playbook("site")


@whole
def test_each_change_is_named_and_a_run_mends_exactly_those(
    shell: Shell, playbook: Run, by_hand: set[tuple[str, str]]
) -> None:
    before = readings(shell)
    seen = playbook("site", "--check", "--diff", "--limit", f"{HOST},gw")
    assert changed_items(seen.stdout) == by_hand
    assert readings(shell) == before, "a dry run changes nothing"
    done = playbook("site", "--diff")
    assert done.returncode == 0, done.stdout[-3000:]
    assert changed_items(done.stdout) == by_hand
    after = readings(shell)
    assert all(CHANGED[name][3] not in text for name, text in after.items() if name != "limits-file"), after
    assert CHANGED["limits-file"][3] in after["limits-file"]
    again = playbook("site", "--diff")
    assert again.returncode == 0 and changed_items(again.stdout) == set()


@whole
def test_what_others_set_is_left_alone(shell: Shell, playbook: Run) -> None:
    for path, text in FOREIGN.items():
        shell(HOST, f"mkdir -p $(dirname {path}) && printf '%s' {json.dumps(text)} >{path}")
    shell(HOST, "apt-mark hold tar; echo 60 >/proc/sys/vm/swappiness")
    look = f"sha256sum {' '.join(FOREIGN)}; apt-mark showhold | grep -x tar"
    try:
        before = shell(HOST, look)
        done = playbook("site")
        assert done.returncode == 0, done.stdout[-3000:]
        assert shell(HOST, look) == before
        assert shell(HOST, "cat /proc/sys/vm/swappiness").strip() == "10"
    finally:
        shell(HOST, f"rm -f {' '.join(FOREIGN)}; apt-mark unhold tar")


@whole
def test_a_foreign_file_that_says_otherwise_is_named_and_stops_the_host(shell: Shell, playbook: Run) -> None:
    shell(HOST, "echo 'vm.swappiness = 60' >/etc/sysctl.d/10-site.conf; echo 60 >/proc/sys/vm/swappiness")
    try:
        done = playbook("site")
        assert done.returncode != 0
        assert (
            "sysctl-conflict: /etc/sysctl.d/10-site.conf: it sets vm.swappiness = 60, rackserve wants 10"
            in " ".join(done.stdout.split())
        )
        assert shell(HOST, "cat /etc/sysctl.d/10-site.conf").strip() == "vm.swappiness = 60"
        assert shell(HOST, "cat /proc/sys/vm/swappiness").strip() == "60", "nothing is set on a host that was refused"
    finally:
        shell(HOST, "rm /etc/sysctl.d/10-site.conf")
        assert playbook("site").returncode == 0


def test_the_fabric_is_what_the_plan_says(plan: dict[str, Any], shell: Shell) -> None:
    fabric = plan["slices"][HOST]["fabric"]
    assert shell(HOST, "ls /sys/class/infiniband | wc -l").strip() == str(fabric["hcas"])
    assert shell(HOST, "ls /dev/infiniband | grep -c uverbs").strip() == str(fabric["hcas"])
    for name in fabric["modules"]:
        assert shell(HOST, f"cat /sys/module/{name}/initstate").strip() == "live"
    for unit in [item["unit"] for item in plan["instances"] if item["host"] == HOST]:
        pid = shell(HOST, f"systemctl show -P MainPID {unit}").strip()
        limits = shell(HOST, f"grep -E 'locked memory|open files' /proc/{pid}/limits")
        assert shell(HOST, f"systemctl show -P LimitMEMLOCK {unit}").strip() == "infinity"
        # A machine without CAP_SYS_RESOURCE cannot give its lab hosts more than it has.
        bounds = shell(HOST, "grep CapBnd /proc/1/status; grep -E 'locked memory|open files' /proc/1/limits")
        if int(bounds.split()[1], 16) >> CAP_SYS_RESOURCE & 1:
            assert shell(HOST, "su -c 'ulimit -l' root").strip() == "unlimited"
            assert re.search(r"locked memory +unlimited", limits) and re.search(r"open files +1048576", limits)
        else:
            assert limits == bounds.split("\n", 1)[1]
    assert shell("gw", "ls /etc/modules-load.d").split().count("rackserve-rdma.conf") == 0


@whole
def test_interrupts_of_a_named_adapter_and_of_no_other(shell: Shell, playbook: Run) -> None:
    look = "for i in /sys/class/infiniband/{}/device/msi_irqs/*; do cat /proc/irq/${{i##*/}}/smp_affinity_list; done"
    cpus = shell(HOST, "cat /sys/class/infiniband/mlx5_0/device/local_cpulist").strip()
    other = shell(HOST, look.format("mlx5_1"))
    try:
        done = playbook("site", "-e", json.dumps({"rdma_fabric_irq_affinity": {"mlx5_0": "local"}}))
        assert done.returncode == 0, done.stdout[-3000:]
        assert set(shell(HOST, look.format("mlx5_0")).split()) == {cpus}
        assert shell(HOST, look.format("mlx5_1")) == other
        assert "mlx5_0" in shell(HOST, "cat /etc/udev/rules.d/90-rackserve-irq.rules")
    finally:
        assert playbook("site").returncode == 0
    assert "irq.rules" not in shell(HOST, "ls /etc/udev/rules.d")


@whole
def test_settings_are_there_again_after_a_boot(plan: dict[str, Any], shell: Shell, playbook: Run) -> None:
    before = readings(shell)
    started = "systemctl show -P UserspaceTimestampMonotonic"
    booted = shell(HOST, started)
    shell(HOST, "systemd-run --quiet --collect --on-active=1 systemctl reboot")
    eventually(lambda: shell(HOST, started) != booted, BOOT_S)
    assert readings(shell) == before
    units = [item["unit"] for item in plan["instances"] if item["host"] == HOST]
    eventually(lambda: all(shell(HOST, f"systemctl is-active {unit}").strip() == "active" for unit in units), BOOT_S)
    assert changed_items(playbook("site", "--diff").stdout) == set()
    eventually(lambda: playbook("site").returncode == 0, BOOT_S)
