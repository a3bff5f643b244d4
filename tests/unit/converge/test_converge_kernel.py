"""Values of the kernel that are many or need not be there: knobs with a pattern, optional ones, interrupts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.rackserve.converge import kernel
from ansible.module_utils.rackserve.converge.errors import DocumentError, ItemError
from converge_support import go, one, put, snapshot

GOVERNORS = "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
GOVERNOR = {"kind": "knob", "path": GOVERNORS, "value": "performance", "optional": True}
DEVICE = "/sys/devices/pci0000:16/0000:19:00.0"


def policies(root: Path, *governors: str) -> list[Path]:
    return [put(root, GOVERNORS.replace("*", str(index)), f"{word}\n") for index, word in enumerate(governors)]


def adapter(root: Path, *affinities: str, name: str = "mlx5_0", cpus: str = "0-55") -> None:
    """An adapter, its PCI device behind a link as in sysfs, and where its interrupts go."""
    put(root, f"{DEVICE}/local_cpulist", f"{cpus}\n")
    put(root, f"{DEVICE}/infiniband/{name}/node_guid", "0")
    (root / f"{DEVICE[1:]}/infiniband/{name}/device").symlink_to("../..")
    (root / "sys/class/infiniband").mkdir(parents=True)
    (root / f"sys/class/infiniband/{name}").symlink_to(f"../../devices/pci0000:16/0000:19:00.0/infiniband/{name}")
    for irq, affinity in enumerate(affinities, 120):
        put(root, f"{DEVICE}/msi_irqs/{irq}", "msix\n")
        put(root, f"/proc/irq/{irq}/smp_affinity_list", f"{affinity}\n")
    put(root, "/proc/irq/9/smp_affinity_list", "1\n")


def differs(result: dict[str, Any]) -> list[str]:
    return [entry["why"] for entry in result["roles"]["vllm"]["differs"]]


def test_every_match_of_a_pattern_is_compared_named_and_set(root: Path) -> None:
    governors = policies(root, *["performance", "powersave"] * 5 + ["powersave"])
    before = snapshot(root)
    seen = go(root, one(GOVERNOR), check=True)
    assert differs(seen) == ["policy1, policy3, policy5 and 3 more: powersave, wanted performance"]
    assert seen["diff"][0]["before"].splitlines()[-1] == "policy10: powersave"
    assert "policy0" not in seen["diff"][0]["after"]
    assert snapshot(root) == before
    assert go(root, one(GOVERNOR))["roles"]["vllm"]["changed"] == ["it"]
    assert {path.read_text() for path in governors} == {"performance\n"}
    assert go(root, one(GOVERNOR))["changed"] is False


def test_what_the_kernel_does_not_have_is_said_and_no_difference(root: Path) -> None:
    result = go(root, one(GOVERNOR))
    assert (result["changed"], result["dirty_roles"]) == (False, [])
    assert result["not_judged"] == [{"role": "vllm", "id": "it", "why": f"this kernel has no {GOVERNORS}"}]
    plain = {**GOVERNOR, "path": "/proc/sys/kernel/numa_balancing"}
    assert go(root, one(plain))["not_judged"][0]["why"] == "this kernel has no /proc/sys/kernel/numa_balancing"
    with pytest.raises(ItemError, match="this kernel has no"):
        go(root, one({**GOVERNOR, "optional": False}))


def test_an_optional_knob_that_is_there_counts(root: Path) -> None:
    knob = put(root, "/proc/sys/kernel/numa_balancing", "1\n")
    item = {"kind": "knob", "path": "/proc/sys/kernel/numa_balancing", "value": "0", "optional": True}
    result = go(root, one(item))
    assert (result["roles"]["vllm"]["changed"], result["not_judged"], knob.read_text()) == (["it"], [], "0\n")


def test_a_match_that_the_kernel_keeps_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policies(root, "performance", "powersave")
    monkeypatch.setattr(kernel, "write_knob", lambda _path, _value: None)
    with pytest.raises(ItemError, match="keeps /sys/devices/system/cpu/cpufreq/policy1/scaling_governor at powersave"):
        go(root, one(GOVERNOR))


@pytest.mark.parametrize("cpus,wanted", [("local", "0-55"), ("0-3,8", "0-3,8")])
def test_interrupts_of_the_adapter_and_no_other_are_sent_to_its_cpus(root: Path, cpus: str, wanted: str) -> None:
    adapter(root, "0-55", "7", "0-3,8", "56-111")
    item = {"kind": "irq", "device": "mlx5_0", "cpus": cpus}
    seen = go(root, one(item), check=True)
    assert f"irq 121: 7, wanted {wanted}" in differs(seen)[0] and "irq 9" not in differs(seen)[0]
    assert go(root, one(item))["roles"]["vllm"]["changed"] == ["it"]
    found = [(root / f"proc/irq/{irq}/smp_affinity_list").read_text().strip() for irq in (120, 121, 122, 123, 9)]
    assert found == [wanted] * 4 + ["1"]
    assert go(root, one(item))["changed"] is False


def test_the_same_cpus_written_otherwise_are_no_difference(root: Path) -> None:
    adapter(root, "0-1,2-55")
    assert go(root, one({"kind": "irq", "device": "mlx5_0", "cpus": "0-55"}))["changed"] is False


def test_an_adapter_without_interrupts_is_said(root: Path) -> None:
    adapter(root)
    for name in ("mlx5_0", "mlx5_7"):
        (entry,) = go(root, one({"kind": "irq", "device": name, "cpus": "local"}))["not_judged"]
        assert entry["why"] == f"no adapter {name} with interrupts of its own"


def test_an_interrupt_that_its_driver_places_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter(root, "7")

    def refuse(_path: Path, _value: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(kernel, "write_knob", refuse)
    with pytest.raises(ItemError, match="interrupt 120 cannot be sent to CPUs 0-55"):
        go(root, one({"kind": "irq", "device": "mlx5_0", "cpus": "local"}))
    monkeypatch.setattr(kernel, "write_knob", lambda _path, _value: None)
    with pytest.raises(ItemError, match="keeps interrupt 120 at CPUs 7, wanted 0-55"):
        go(root, one({"kind": "irq", "device": "mlx5_0", "cpus": "local"}))


@pytest.mark.parametrize(
    "change", [{"cpus": "all"}, {"cpus": "3-"}, {"cpus": 3}, {"device": "../x"}, {"device": ""}, {"device": None}]
)
def test_what_an_interrupt_item_may_not_say(root: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DocumentError, match="role vllm, item it"):
        go(root, one({"kind": "irq", "device": "mlx5_0", "cpus": "local", **change}))
