"""Loaded module, packages, Fabric Manager, nvidia-persistenced, NVML library: the odd one is named, with its cure."""

from __future__ import annotations

from typing import Callable

import pytest
from driver_host import HELD, LINKS, MISMATCH, NEWER, OPEN, PROPRIETARY, VERSION, DriverHost

SEEN = "module {}, NVML {}, persistenced {}, Fabric Manager {}; the release says 580.65.06"
AGAIN = "on the drained host: apt-get install --reinstall --allow-change-held-packages"
UPGRADE = "run playbooks/upgrade-driver.yml, which drains the host first"


def wrong_module(host: DriverHost) -> None:
    host.module(NEWER)
    host.answer("nvidia-smi --query-gpu=driver_version", 18, MISMATCH.format("580.65"))


def wrong_packages(host: DriverHost) -> None:
    host.packages({**HELD, "nvidia-open": f"{NEWER}-1 hold"})


def wrong_fabric_manager(host: DriverHost) -> None:
    host.answer("nv-fabricmanager --version", out=f"Fabric Manager version is : {NEWER} (simulated)\n")


def wrong_persistenced(host: DriverHost) -> None:
    host.answer("nvidia-persistenced --version", err=f"nvidia-persistenced:  version {NEWER}\n")


def wrong_library(host: DriverHost) -> None:
    host.library(NEWER)
    host.answer("nvidia-smi --query-gpu=driver_version", 18, MISMATCH.format("580.95"))


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (wrong_module, f"kernel module nvidia: {SEEN.format(NEWER, VERSION, VERSION, VERSION)}; {UPGRADE}"),
        (
            wrong_fabric_manager,
            f"program nv-fabricmanager: {SEEN.format(VERSION, VERSION, VERSION, NEWER)}; {AGAIN} "
            f"nvidia-fabricmanager={VERSION}-1 && systemctl restart nvidia-fabricmanager.service",
        ),
        (
            wrong_persistenced,
            f"program nvidia-persistenced: {SEEN.format(VERSION, VERSION, NEWER, VERSION)}; {AGAIN} "
            f"nvidia-persistenced={VERSION}-1 && systemctl restart nvidia-persistenced.service",
        ),
        (
            wrong_library,
            f"library libnvidia-ml.so.1: {SEEN.format(VERSION, NEWER, VERSION, VERSION)}; "
            f"dpkg -S /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1 names who brought it; {AGAIN} "
            f"libnvidia-ml1={VERSION}-1 && ldconfig",
        ),
    ],
    ids=["module", "fabric manager", "persistenced", "library"],
)
def test_each_part_in_turn_is_the_odd_one(spoil: Callable[[DriverHost], None], line: str, host: DriverHost) -> None:
    spoil(host)
    assert host.lines(prove=True) == [f"driver-mismatch: {line}"]


def test_the_fifth_part_are_the_packages(host: DriverHost) -> None:
    wrong_packages(host)
    assert host.lines(prove=True) == [
        f"driver-differs: package nvidia-open: driver {NEWER} installed, release says {VERSION}; {UPGRADE}"
    ]


def test_a_part_whose_package_is_wrong_is_mended_by_the_operation(host: DriverHost) -> None:
    wrong_fabric_manager(host)
    host.packages({**HELD, "nvidia-fabricmanager": f"{NEWER}-1 hold"})
    assert [line.rpartition("; ")[2] for line in host.lines(prove=True)] == [UPGRADE] * 2


def test_two_odd_parts_are_both_named(host: DriverHost) -> None:
    wrong_fabric_manager(host)
    wrong_module(host)
    assert [line.split(": ")[1] for line in host.lines(prove=True)] == [
        "kernel module nvidia",
        "program nv-fabricmanager",
    ]


def test_a_foreign_library_of_the_same_name_is_found_by_what_nvml_says(host: DriverHost) -> None:
    host.answer("nvidia-smi --query-gpu=driver_version", 18, MISMATCH.format("575.57"))
    assert "NVML 575.57" in host.lines(prove=True)[0]


def test_without_a_linker_cache_nvml_s_own_words_count(host: DriverHost) -> None:
    host.answer("ldconfig -p", 127)
    assert host.lines(prove=True) == []
    host.answer("nvidia-smi --query-gpu=driver_version", 18, MISMATCH.format("575.57"))
    assert host.lines(prove=True)[0].startswith("driver-mismatch: library libnvidia-ml.so.1: ")


def test_a_missing_daemon_is_odd(host: DriverHost) -> None:
    host.answer("nvidia-persistenced --version", 127)
    assert "persistenced none" in host.lines(prove=True)[0]


def test_no_fabric_manager_is_asked_for_without_nvswitches(host: DriverHost) -> None:
    wrong_fabric_manager(host)
    assert host.lines({"fabric_manager": False}, prove=True) == []
    assert not any(line.startswith("nv-fabricmanager") for line in host.asked)


def test_a_daemon_that_runs_on_with_a_replaced_program_is_a_reason_to_upgrade(host: DriverHost) -> None:
    host.process(11, "/usr/bin/nvidia-persistenced")
    host.process(12, "/usr/bin/nv-fabricmanager (deleted)")
    assert host.lines(prove=True) == [
        "driver-service-old: nvidia-fabricmanager.service: process 12 runs on with a program that was replaced; "
        f"{UPGRADE}"
    ]
    assert len(host.check(prove=True, upgrade=True)["reasons"]) == 1


def test_a_proprietary_module_is_named(host: DriverHost) -> None:
    host.module(VERSION, PROPRIETARY)
    assert host.lines(prove=True)[0].startswith(
        "module-flavour: kernel module nvidia: the proprietary module is loaded, the release says open"
    )
    assert host.lines({"kernel_modules": "proprietary"}, prove=True) == []
    host.module(VERSION, OPEN)
    assert "the open module is loaded" in host.lines({"kernel_modules": "proprietary"}, prove=True)[0]


def test_a_module_that_is_not_loaded(host: DriverHost) -> None:
    host.module("")
    assert host.lines(prove=True)[0].startswith("driver-not-loaded: kernel module nvidia: ")
    assert host.check(prove=True, upgrade=True)["reasons"] != []


@pytest.mark.parametrize(
    ("answer", "words"),
    [((15, "GPU is lost", ""), "GPU is lost"), ((1, "", ""), "exit status 1"), ((0, f"{VERSION}\n", ""), VERSION)],
)
def test_a_driver_that_does_not_answer(answer: tuple[int, str, str], words: str, host: DriverHost) -> None:
    host.answer("nvidia-smi --query-gpu=driver_version", *answer)
    (line,) = host.lines(prove=True)
    assert line.startswith("driver-silent: nvidia-smi: ") and words in line


FABRIC = "systemctl status nvidia-fabricmanager.service and its log say why; CUDA does not start before"


@pytest.mark.parametrize(
    ("command", "out", "line"),
    [
        ("driver_version", f"{VERSION}, 1\n", "gpu-count: nvidia-smi: NVML lists 1 GPUs, the hardware profile says 2"),
        (
            "index,name",
            "0, NVIDIA H20, 97871\n1, NVIDIA H20-3e, 97871\n",
            "gpu-model: GPU 1: NVIDIA H20-3e, the hardware profile says NVIDIA H20",
        ),
        (
            "index,name",
            "0, NVIDIA H20, 48000\n1, NVIDIA H20, 48000\n",
            "gpu-memory: GPU 0,1: 48000 MiB of memory, the hardware profile says 97871 MiB",
        ),
        ("index,name", "0, NVIDIA H20, [N/A]\n1, NVIDIA H20, 97871\n", "gpu-memory: GPU 0: [N/A] MiB"),
        ("index,fabric", "0, Completed, Success\n1, In Progress, N/A\n", "fabric-state: GPU 1: not registered"),
        ("index,name", "garbage\n", "driver-silent: nvidia-smi --query-gpu=index,name,memory.total: exit status 0"),
    ],
)
def test_gpus_are_compared_with_the_hardware_profile(command: str, out: str, line: str, host: DriverHost) -> None:
    host.answer(f"nvidia-smi --query-gpu={command}", out=out)
    (found,) = host.lines(prove=True)
    assert found.startswith(line)
    assert "fabric" not in command or found.endswith(f"{FABRIC}")


def test_some_mib_less_are_no_other_gpu(host: DriverHost) -> None:
    host.answer("nvidia-smi --query-gpu=index,name", out="0, NVIDIA H20, 97000\n1, NVIDIA H20, 98500\n")
    assert host.lines(prove=True) == []


def test_every_gpu_s_active_links_are_counted(host: DriverHost) -> None:
    host.answer("nvidia-smi nvlink", out=LINKS.format(0, 0, "26.562 GB/s") + LINKS.format(1, 1, "<inactive>"))
    assert host.lines(prove=True)[0].startswith(
        "nvlink-count: GPU 1: 1 NVLinks are active, the hardware profile says 2"
    )
    host.answer("nvidia-smi nvlink", 1, "")
    assert host.lines(prove=True)[0].startswith("nvlink-count: GPU 0,1: 0 NVLinks are active")


def test_a_profile_that_says_nothing_asks_for_nothing(host: DriverHost) -> None:
    host.answer("nvidia-smi nvlink", 1, "")
    assert host.lines({"expect": None}, prove=True) == []
    assert host.lines({"expect": {"model": None, "memory_mib": 0, "nvlinks": 0, "fabric": False}}, prove=True) == []


def test_hardware_is_not_what_an_upgrade_is_about(host: DriverHost) -> None:
    host.answer("nvidia-smi nvlink", 1, "")
    assert host.lines(prove=True, upgrade=True) == []
