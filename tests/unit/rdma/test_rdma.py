"""The fabric of a host: what is to do, what stands in the way, and the proof against simulated machines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import rackserve_rdma as filters
import rdma_check
import yaml
from ansible.errors import AnsibleFilterError
from rackserve.plan.fabric import MODULES
from rackserve.rdma.check import check_fabric
from rackserve.simulated.machine import build

ROLE = Path(__file__).resolve().parents[3] / "roles/rdma_fabric"
REPO = Path(__file__).resolve().parents[3]
PACKAGES = {"ibverbs-providers": "44.0-2", "rdma-core": "44.0-2"}
FABRIC: dict[str, Any] = {
    "kind": "infiniband",
    "hcas": 2,
    "rate_gbps": 200,
    "packages": PACKAGES,
    "modules": list(MODULES["infiniband"]),
    "peer_memory": "dmabuf",
}
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
PROPRIETARY = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:07:11 UTC 2025\n"


def put(root: Path, path: str, text: str) -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return target


def packages(root: Path, **states: str) -> None:
    """dpkg's records: name (with _ for -) to `wanted present version`."""
    blocks = []
    for name, state in states.items():
        wanted, present, version = state.split()
        blocks.append(f"Package: {name.replace('_', '-')}\nStatus: {wanted} ok {present}\nVersion: {version}\n")
    put(root, "var/lib/dpkg/status", "\n".join(blocks))


def no_unit(_argv: list[str]) -> tuple[int, str, str]:
    return 0, "0\n", ""


def check(root: Path, run: Any = no_unit, **options: Any) -> dict[str, Any]:
    fabric = {**FABRIC, **options.pop("fabric", {})}
    return check_fabric(root, run, fabric, **options)


def codes(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(found["severity"], found["code"], found["where"]) for found in result["findings"]]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The H20 host of the profile, its device files, an open driver and our packages."""
    profile = yaml.safe_load((REPO / "files/hardware/h20-8.yml").read_text("utf-8"))
    root, _ = build("h20-8", profile, tmp_path)
    for index in range(2):
        put(root, f"dev/infiniband/uverbs{index}", "")
    put(root, "proc/driver/nvidia/version", OPEN)
    put(root, "proc/sys/kernel/osrelease", "5.15.0-113-generic\n")
    packages(root, rdma_core="hold installed 44.0-2", ibverbs_providers="hold installed 44.0-2")
    return root


def test_a_bare_host_gets_every_package_held(tmp_path: Path) -> None:
    result = check(tmp_path)
    assert result["install"] == ["ibverbs-providers=44.0-2", "rdma-core=44.0-2"]
    assert result["hold"] == sorted(PACKAGES) and codes(result) == []
    assert (result["unfinished"], result["change_holds"]) == (False, False)


def test_another_version_is_not_changed(tmp_path: Path) -> None:
    packages(tmp_path, rdma_core="install installed 2410mlnx54-1", ibverbs_providers="install unpacked 44.0-2")
    result = check(tmp_path)
    assert codes(result) == [("error", "rdma-package-differs", "package rdma-core")]
    assert "apt-get install rdma-core=44.0-2" in result["findings"][0]["fix"]
    assert result["install"] == ["ibverbs-providers=44.0-2"] and result["unfinished"]


def test_a_hold_of_somebody_else_stops_until_the_site_gives_it_up(tmp_path: Path) -> None:
    packages(tmp_path, rdma_core="hold not-installed -")
    assert codes(check(tmp_path)) == [("error", "rdma-foreign-hold", "package rdma-core")]
    result = check(tmp_path, take_over=["hold:rdma-core"])
    assert codes(result) == [] and result["change_holds"] and "rdma-core" in result["hold"]


def test_a_host_that_has_what_the_plan_says_is_proven(machine: Path) -> None:
    result = check(machine, prove=True)
    assert codes(result) == []
    assert (result["install"], result["hold"]) == ([], [])


def remove_tree(path: Path) -> None:
    for entry in sorted(path.rglob("*"), reverse=True):
        entry.rmdir() if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    path.rmdir()


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda root: remove_tree(root / "sys/module/rdma_ucm"), ("error", "rdma-module", "kernel module rdma_ucm")),
        (lambda root: (root / "sys/class/infiniband/mlx5_1").unlink(), ("error", "hca-count", "infiniband adapters")),
        (lambda root: (root / "dev/infiniband/uverbs1").unlink(), ("error", "hca-device-file", "adapter mlx5_1")),
        (lambda root: port(root, "state", "2: INIT"), ("warning", "hca-port", "infiniband ports")),
        (lambda root: port(root, "rate", "100 Gb/sec (4X EDR)"), ("warning", "hca-port", "infiniband ports")),
        (lambda root: port(root, "link_layer", "Ethernet"), ("error", "hca-count", "infiniband adapters")),
        (lambda root: put(root, "proc/driver/nvidia/version", PROPRIETARY), ("error", "peer-memory", "memory of GPUs")),
        (lambda root: put(root, "proc/sys/kernel/osrelease", "5.4.0-1\n"), ("error", "peer-memory", "memory of GPUs")),
    ],
)
def test_each_part_that_is_missing_is_named(
    machine: Path, harm: Callable[[Path], Any], expected: tuple[str, str, str]
) -> None:
    harm(machine)
    assert codes(check(machine, prove=True)) == [expected]


def port(root: Path, name: str, value: str) -> None:
    (root / "sys/class/infiniband/mlx5_1/ports/1" / name).write_text(f"{value}\n")


def test_a_port_says_its_state_and_rate(machine: Path) -> None:
    port(machine, "state", "2: INIT")
    (found,) = check(machine, prove=True)["findings"]
    assert found["why"] == "1 of 2 work at 200 Gb/s: mlx5_1 INIT/LinkUp, 0 Gb/s"


def test_peer_memory_by_its_module(machine: Path) -> None:
    wanted = {"fabric": {"peer_memory": "nvidia_peermem"}, "prove": True}
    assert codes(check(machine, **wanted)) == [("error", "peer-memory", "memory of GPUs")]
    (machine / "sys/module/nvidia_peermem").mkdir()
    assert codes(check(machine, **wanted)) == []
    put(machine, "proc/driver/nvidia/version", PROPRIETARY)
    assert codes(check(machine, fabric={"peer_memory": None}, prove=True)) == []


@pytest.mark.parametrize(("limit", "named"), [("unlimited            unlimited", False), ("8388608  8388608", True)])
def test_what_running_engines_may_lock(machine: Path, limit: str, named: bool) -> None:
    put(machine, "proc/812/limits", f"Max processes  1 1 processes\nMax locked memory         {limit}  bytes\n")

    def run(argv: list[str]) -> tuple[int, str, str]:
        return 0, "812\n" if argv[-1] == "vllm-a.service" else "0\n", ""

    seen = check(machine, run, units=["vllm-a.service", "vllm-b.service"], prove=True)
    assert codes(seen) == ([("error", "memlock-limited", "vllm-a.service")] if named else [])


@pytest.mark.parametrize(
    ("capabilities", "simulated", "severity", "container"),
    [
        ("000001fffcffffff", True, "warning", True),
        ("000001fffcffffff", False, "error", True),
        ("000001ffffffffff", True, "error", False),
    ],
)
def test_in_a_container_no_unit_can_have_more(
    machine: Path, capabilities: str, simulated: bool, severity: str, container: bool
) -> None:
    for pid in (1, 812):
        put(machine, f"proc/{pid}/limits", "Max locked memory         8388608  8388608  bytes\n")
    put(machine, "proc/1/status", f"CapBnd:\t{capabilities}\n")
    answer = {"fabric": {"simulated": simulated}, "units": ["vllm-a.service"], "prove": True}
    seen = check(machine, lambda _: (0, "812\n", ""), **answer)
    assert codes(seen) == [(severity, "memlock-limited", "vllm-a.service")]
    assert ("CAP_SYS_RESOURCE" in seen["findings"][0]["fix"]) is container


def test_irqbalance_that_would_move_pinned_interrupts(tmp_path: Path) -> None:
    put(tmp_path, "etc/systemd/system/multi-user.target.wants/irqbalance.service", "")
    assert codes(check(tmp_path)) == []
    expected = ("warning", "irqbalance-moves", "irqbalance.service")
    assert codes(check(tmp_path, pinned=["mlx5_0"])) == [expected]
    put(tmp_path, "etc/default/irqbalance", 'IRQBALANCE_ARGS="--banmod=mlx5_core"\n')
    assert codes(check(tmp_path, pinned=["mlx5_0"])) == []


def test_logins_that_may_lock_memory() -> None:
    given = filters.FilterModule().filters()["rdma_memlock_limits"]
    assert given(["root", "@rdma", "*"])[1] == {"domain": "@rdma", "type": "-", "item": "memlock", "value": "unlimited"}
    with pytest.raises(AnsibleFilterError, match="'a b' is no user"):
        given(["a b"])


def answer(monkeypatch: pytest.MonkeyPatch, root: Path) -> dict[str, Any]:
    """What the module says of a host under `root`."""

    class Exit(Exception):
        pass

    class Module:
        params: ClassVar = {
            "fabric": FABRIC,
            "take_over": [],
            "prove": False,
            "units": [],
            "pinned": [],
            "root": str(root),
        }

        def __init__(self, argument_spec: dict[str, Any], supports_check_mode: bool) -> None:
            assert set(argument_spec) == set(self.params) and supports_check_mode

        def exit_json(self, **result: Any) -> None:
            raise Exit(result)

        def fail_json(self, **result: Any) -> None:
            raise Exit({"failed": True, **result})

    monkeypatch.setattr(rdma_check, "AnsibleModule", Module)
    with pytest.raises(Exit) as said:
        rdma_check.main()
    result: dict[str, Any] = said.value.args[0]
    return result


def test_the_module_answers_what_it_documents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = answer(monkeypatch, tmp_path)
    assert said["changed"] is False and said["hold"] == sorted(PACKAGES)
    assert set(said) - {"changed"} == set(yaml.safe_load(rdma_check.RETURN))
    (tmp_path / "var/lib/dpkg/status").mkdir(parents=True)
    assert "cannot be read" in answer(monkeypatch, tmp_path)["msg"]


def test_the_host_is_judged_before_anything_is_touched_and_nothing_is_removed() -> None:
    tasks = {name: yaml.safe_load((ROLE / f"tasks/{name}.yml").read_text("utf-8")) for name in ("main", "install")}
    assert tasks["main"][0]["ansible.builtin.import_tasks"] == "look.yml"
    (install,) = [task["ansible.builtin.apt"] for task in tasks["install"] if "ansible.builtin.apt" in task]
    assert install["fail_on_autoremove"] is True and not {"allow_downgrade", "upgrade", "force"} & set(install)
