"""Every fault of the catalogue on a lab host: put on, seen by the commands it names, taken off; and over a reboot."""

from __future__ import annotations

import base64
import json
import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from conftest import REPO, Run, case, eventually, whole

Shell = Callable[[str, str], str]
Module = Callable[..., dict[str, Any]]
Reading = dict[str, Any]
Inject = Callable[..., dict[str, Any]]

CATALOGUE = yaml.safe_load((REPO / "files/simulated/faults.yml").read_text("utf-8"))
EVALUATE = base64.b64encode((REPO / "tests/nvml_expression.py").read_bytes()).decode("ascii")
HOST, REBOOTED = "node3", "node4"
# A file system of its own, small: what fills it is memory of the machine.
DISK = "/run/rackserve-small"
PARAMETERS: dict[str, dict[str, Any]] = {
    "xid": {"gpu": 3, "xid": 79},
    "gpu-off-bus": {"gpu": 3},
    "hca-flapping": {"every_s": 1},
    "disk-full": {"path": DISK},
}
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, PARAMETERS.get(name, {})) for name in CATALOGUE),
    ("pcie-narrower", {"gpu": 7, "width": 4, "generation": 3}),
    *[("clocks-throttled", {"gpu": 1, "reason": reason}) for reason in ("hw-slowdown", "sw-power-cap")],
    *[("kernel-log", {"message": message}) for message in ("aer", "mce", "hung-task", "mlx5-power", "sxid")],
]
# One of each kind of reading; `make test-lab` looks at all.
QUICK = {"xid", "gpu-off-bus", "pcie-narrower", "hca-down", "fabric-manager-absent", "disk-full"}
SEEN_S, BOOT_S, ENGINE_S = 30, 90, 400


@pytest.fixture
def disk(shell: Shell) -> Iterator[None]:
    shell(HOST, f"mkdir -p {DISK} && mount -t tmpfs -o size=200m tmpfs {DISK}")
    yield
    shell(HOST, f"umount {DISK} && rmdir {DISK}")


@pytest.fixture
def inject(module: Module) -> Iterator[Inject]:
    """Put a fault on a host; every host that was touched is cleared afterwards."""
    touched: dict[str, None] = {}

    def run(host: str, fault: str, parameters: dict[str, Any]) -> dict[str, Any]:
        touched[host] = None
        return module(host, "simulated_fault", catalogue=CATALOGUE, fault=fault, parameters=parameters)

    yield run
    for host in touched:
        cleared = module(host, "simulated_fault", catalogue=CATALOGUE, fault="all", state="absent")
        assert cleared["active"] == []


def on_host(shell: Shell, host: str, line: str) -> str:
    """What a command says, whatever its exit status."""
    return shell(host, f"{{ {line}; }} 2>&1; exit 0").strip()


def nvml(shell: Shell, host: str, expressions: list[str]) -> list[str]:
    script = f"echo {EVALUATE} | base64 -d | python3 - {shlex.quote(json.dumps(expressions))}"
    answers: list[str] = json.loads(shell(host, script))
    return answers


def kernel_log(shell: Shell, host: str) -> list[str]:
    return shell(host, "journalctl -k -b --no-pager -o cat").splitlines()


def file_says(shell: Shell, host: str, reading: Reading) -> bool:
    path, wanted = f"/{reading['where']}", str(reading["reading"])
    if wanted == "no such file":
        return on_host(shell, host, f"test -e {path} || echo absent") == "absent"
    if wanted == "grows":
        first = int(on_host(shell, host, f"cat {path}"))
        time.sleep(2.5)
        return int(on_host(shell, host, f"cat {path}")) > first
    if reading["bytes"]:
        return on_host(shell, host, f"od -An -tx1 -N{reading['bytes']} {path}") == wanted
    content = on_host(shell, host, f"cat {path}")
    return wanted in content if reading["source"] == "procfs" else content == wanted


def holds(shell: Shell, host: str, reading: Reading, logged: int = 0) -> bool:
    """Whether the host shows what the reading says; the first `logged` lines of the kernel log are of before."""
    source, where, wanted = (str(reading[key]) for key in ("source", "where", "reading"))
    if source == "nvml":
        return nvml(shell, host, [where]) == [wanted]
    if source == "kernel-log":
        return any(wanted in line and "simulated" in line for line in kernel_log(shell, host)[logged:])
    if source in ("sysfs", "procfs"):
        return file_says(shell, host, reading)
    said = on_host(shell, host, where)
    if source == "disk":
        return int(said.split()[-1]) <= int(wanted)
    return said == wanted if source == "systemd" else wanted in said


def missing(shell: Shell, host: str, seen: list[Reading], logged: int) -> list[Reading]:
    """Readings that the host does not show, after some time for journald and for units that stop."""
    deadline = time.monotonic() + SEEN_S
    left = seen
    while True:
        left = [one for one in left if not holds(shell, host, one, logged)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.5)


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize(
    ("name", "parameters"),
    [case(name, given, name=f"{name}-{given}", quick=name in QUICK) for name, given in CASES],
)
def test_a_fault_shows_where_it_says(
    name: str, parameters: dict[str, Any], inject: Inject, module: Module, shell: Shell
) -> None:
    asked = {"catalogue": CATALOGUE, "fault": name, "parameters": parameters}
    logged = len(kernel_log(shell, HOST))
    done = inject(HOST, name, parameters)
    assert [one["fault"] for one in done["active"]] == [name]
    assert missing(shell, HOST, done["seen"], logged) == []
    assert not inject(HOST, name, parameters)["changed"]
    cleared = module(HOST, "simulated_fault", **asked, state="absent")
    assert cleared["active"] == []
    lasting = [one for one in done["seen"] if one["source"] != "kernel-log"]
    assert not lasting or any(not holds(shell, HOST, one) for one in lasting)


def test_a_cleared_host_is_as_before(inject: Inject, module: Module, shell: Shell) -> None:
    """What nvidia-smi, sysfs and PCI say, before a handful of faults and after."""
    look = (
        "nvidia-smi --query-gpu=pcie.link.width.current,memory.used,ecc.errors.uncorrected.aggregate.total"
        " --format=csv,noheader; nvidia-smi nvlink -s; cat /sys/class/infiniband/*/ports/1/{state,phys_state,rate};"
        " cat /sys/bus/pci/devices/*/config | sha256sum; systemctl is-active nvidia-fabricmanager.service"
    )
    before = on_host(shell, HOST, look)
    for name in ("gpu-off-bus", "pcie-narrower", "hca-down", "hca-slow", "ecc-uncorrectable", "fabric-manager-absent"):
        inject(HOST, name, {})
    assert on_host(shell, HOST, look) != before
    module(HOST, "simulated_fault", catalogue=CATALOGUE, fault="all", state="absent")
    assert on_host(shell, HOST, look) == before


def test_playbooks_refuse_what_is_not_named(playbook: Run) -> None:
    unnamed = playbook("inject-fault", "-e", "fault=xid")
    assert unnamed.returncode != 0
    assert "on is not set: give -e on=<hosts>" in unnamed.stdout
    real = playbook("inject-fault", "-e", "on=gw", "-e", "fault=xid")
    assert real.returncode != 0
    assert "hardware is real: faults are injected only into simulated hosts" in " ".join(real.stdout.split())


@pytest.fixture
def rebooted(plan: dict[str, Any], shell: Shell) -> Iterator[str]:
    """A host that may be rebooted; afterwards its engine serves again."""
    yield REBOOTED
    units = [item["unit"] for item in plan["instances"] if item["host"] == REBOOTED]
    eventually(
        lambda: all(on_host(shell, REBOOTED, f"systemctl is-active {unit}") == "active" for unit in units), ENGINE_S
    )


@whole
def test_over_a_reboot(rebooted: str, inject: Inject, module: Module, shell: Shell) -> None:
    """What survives is there, what vanishes is not, and clearing mends the rest for the next boot too."""
    faults = {"pcie-narrower": {"gpu": 2, "width": 4}, "hca-down": {}, "remap-pending": {"gpu": 5}, "gpu-off-bus": {}}
    logged = len(kernel_log(shell, rebooted))
    seen = [reading for name, given in faults.items() for reading in inject(rebooted, name, given)["seen"]]
    assert missing(shell, rebooted, seen, logged) == []
    reboot(shell, rebooted)
    for reading in seen:
        assert holds(shell, rebooted, reading) == (reading["reboot"] == "survives"), reading
    on = module(rebooted, "simulated_fault", catalogue=CATALOGUE)["active"]
    assert {one["fault"]: one["complete"] for one in on} == {
        "pcie-narrower": True, "hca-down": True, "remap-pending": False,
    }  # fmt: skip
    module(rebooted, "simulated_fault", catalogue=CATALOGUE, fault="all", state="absent")
    assert not any(holds(shell, rebooted, one) for one in seen)
    reboot(shell, rebooted)
    assert not any(holds(shell, rebooted, one) for one in seen)


def reboot(shell: Shell, host: str) -> None:
    started = "systemctl show -P UserspaceTimestampMonotonic"
    before = shell(host, started)
    shell(host, "systemd-run --quiet --collect --on-active=1 systemctl reboot")
    eventually(lambda: shell(host, started) != before, BOOT_S)
    eventually(lambda: on_host(shell, host, "systemctl is-active multi-user.target") == "active", BOOT_S)
    eventually(lambda: nvml(shell, host, ["nvmlDeviceGetCount()"]) == ["8"], BOOT_S)
