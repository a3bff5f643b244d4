"""Lists and masks of CPUs as the kernel prints them; what a device of the tree knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rackserve.hardware.tree import cpulist, cpumask, devices, expand, generation, local_cpus, nvml_address

KIND = {"class": "0x030200", "max_speed": "32.0 GT/s PCIe", "max_width": 16}
BRIDGE = {"class": "0x060400", "max_speed": "16.0 GT/s PCIe", "max_width": 8}


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_list_of_cpus_comes_back(cpus: set[int]) -> None:
    assert expand(cpulist(tuple(sorted(cpus)))) == tuple(sorted(cpus))


@given(st.sets(st.integers(0, 191)))
def test_a_mask_holds_every_cpu(cpus: set[int]) -> None:
    mask = cpumask(tuple(cpus), 192)
    assert [len(group) for group in mask.split(",")] == [8] * 6
    number = int(mask.replace(",", ""), 16)
    assert {cpu for cpu in range(192) if number >> cpu & 1} == cpus


def test_masks_as_the_kernel_prints_them() -> None:
    half = expand("0-47,96-143")
    assert cpumask(half, 192) == "00000000,0000ffff,ffffffff,00000000,0000ffff,ffffffff"
    assert cpumask(expand("0-63"), 64) == "ffffffff,ffffffff"
    assert cpumask(expand("0-39"), 40) == "ff,ffffffff"
    assert cpumask((0,), 6) == "01"
    assert cpulist((0, 2, 3)) == "0,2-3"


def test_a_link_runs_at_what_both_ends_can() -> None:
    tree = devices(
        {
            "devices": {"gpu": KIND, "bridge": BRIDGE},
            "pcie": [
                {
                    "at": "0000:00:01.0",
                    "device": "bridge",
                    "numa_node": 1,
                    "below": [
                        {"at": "0000:01:00.0", "device": "gpu"},
                        {"at": "0000:01:01.0", "device": "gpu", "numa_node": 0, "current_width": 4},
                    ],
                }
            ],
        }
    )
    bridge, first, second = tree
    assert (first.current_speed, first.current_width) == ("16.0 GT/s PCIe", 8)
    assert (second.current_speed, second.current_width) == ("16.0 GT/s PCIe", 4)
    assert (bridge.numa_node, first.numa_node, second.numa_node) == (1, 1, 0)
    assert first.path == "pci0000:00/0000:00:01.0/0000:01:00.0"
    assert (bridge.is_bridge, first.is_bridge) == (True, False)
    assert nvml_address(first.at) == "00000000:01:00.0"


@pytest.mark.parametrize(("speed", "number"), [("2.5 GT/s PCIe", 1), ("16.0 GT/s PCIe", 4), ("64.0 GT/s PCIe", 6)])
def test_generations(speed: str, number: int) -> None:
    assert generation(speed) == number


def test_cpus_near_a_device_of_no_node_are_all() -> None:
    machine = {
        "cpu": {"sockets": 1, "cores_per_socket": 2, "threads_per_core": 2},
        "numa": [{"node": 0, "cpus": "0-1"}, {"node": 1, "cpus": "2-3"}],
    }
    assert local_cpus(machine, 1) == (2, 3)
    assert local_cpus(machine, -1) == (0, 1, 2, 3)
