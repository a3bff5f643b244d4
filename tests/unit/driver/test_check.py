"""What a host has of the driver, seen through dpkg's records, the module and NVML of a made-up root."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Union

import pytest
from rackserve.driver.check import check_driver
from rackserve.driver.version import upstream

WANTED = {
    "version": "580.65.06",
    "packages": {"libnvidia-ml1": "580.65.06-1", "nvidia-open": "580.65.06-1"},
    "fabric_manager": False,
    "gpus": 2,
}
HELD = {"libnvidia-ml1": "580.65.06-1 hold", "nvidia-open": "580.65.06-1 hold"}
NVRM = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (simulated)\nGCC version: none\n"
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 575.57\n"
Answer = Union[tuple[int, str, str], None]
Look = Callable[..., dict[str, Any]]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """look({name: "version [wanted [present]]"}, module=version, nvml=answer, take_over=[...]): what the check says."""

    def run(packages: dict[str, str], module: str = "", nvml: Answer = None, **options: Any) -> dict[str, Any]:
        status = tmp_path / "var/lib/dpkg/status"
        status.parent.mkdir(parents=True, exist_ok=True)
        status.write_text("".join(map(paragraph, packages, packages.values())))
        if module:
            (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
            (tmp_path / "proc/driver/nvidia/version").write_text(NVRM.format(module))
        asked: list[list[str]] = []

        def answer(argv: list[str]) -> tuple[int, str, str]:
            asked.append(argv)
            assert nvml is not None, "NVML must not be asked"
            return nvml

        result = check_driver(tmp_path, answer, WANTED, **options)
        assert bool(asked) == options.get("prove", False)
        return result

    return run


def paragraph(name: str, state: str) -> str:
    version, wanted, present = [*state.split(), *("install", "installed")[len(state.split()) - 1 :]]
    return f"Package: {name}\nStatus: {wanted} ok {present}\nVersion: {version}\n\n"


def lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["code"], item["where"]) for item in result["findings"]]


def test_a_bare_host_gets_everything(look: Look) -> None:
    seen = look({"bash": "5.2.15-2"})
    assert seen["findings"] == []
    assert seen["install"] == ["libnvidia-ml1=580.65.06-1", "nvidia-open=580.65.06-1"]
    assert seen["hold"] == ["libnvidia-ml1", "nvidia-open"]
    assert (seen["remove"], seen["unfinished"], seen["change_holds"], seen["module_version"]) == ([], False, False, "")


def test_a_host_without_dpkg_s_records_counts_as_bare(tmp_path: Path) -> None:
    assert len(check_driver(tmp_path, lambda _: (127, "", ""), WANTED)["install"]) == 2


def test_a_finished_host_gets_nothing(look: Look) -> None:
    seen = look(HELD, module="580.65.06", nvml=(0, "580.65.06, 2\n580.65.06, 2\n", ""), prove=True)
    assert (seen["findings"], seen["install"], seen["hold"]) == ([], [], [])
    assert (seen["module_version"], seen["nvml_version"], seen["gpus"]) == ("580.65.06", "580.65.06", 2)


def test_a_killed_installation_is_finished(look: Look) -> None:
    seen = look({**HELD, "nvidia-open": "580.65.06-1 install half-configured"})
    assert (seen["findings"], seen["install"]) == ([], ["nvidia-open=580.65.06-1"])
    assert seen["unfinished"] and seen["hold"] == ["nvidia-open"]


def test_removed_packages_are_installed_again(look: Look) -> None:
    seen = look({**HELD, "nvidia-open": "570.86.15-1 deinstall config-files"})
    assert (seen["findings"], seen["install"]) == ([], ["nvidia-open=580.65.06-1"])


def test_another_version_of_ours_is_left_alone(look: Look) -> None:
    seen = look({"nvidia-open": "575.57.08-1", "libnvidia-ml1": "575.57.08-1", "libcuda1": "575.57.08-1"})
    assert lines(seen) == [("driver-differs", "package libnvidia-ml1, nvidia-open")]
    assert seen["findings"][0]["why"] == "driver 575.57.08 installed, release says 580.65.06"
    assert "upgrade-release" in seen["findings"][0]["fix"]


def test_another_build_of_the_same_driver_is_named_in_full(look: Look) -> None:
    seen = look({**HELD, "nvidia-open": "580.65.06-0ubuntu1"})
    assert seen["findings"][0]["why"] == "driver 580.65.06-0ubuntu1 installed, release says 580.65.06"


@pytest.mark.parametrize("name", ["nvidia-driver-535", "libnvidia-compute-535", "cuda-drivers", "libcuda1"])
def test_another_driver_is_a_conflict(name: str, look: Look) -> None:
    seen = look({name: "535.247.01-0ubuntu1"})
    assert lines(seen) == [("driver-conflict", f"package {name}")]
    assert f"package:{name}" in seen["findings"][0]["fix"]
    assert seen["remove"] == []


def test_a_held_one_says_so(look: Look) -> None:
    assert "somebody else, held" in look({"cuda-drivers": "1:535.247.01-1 hold"})["findings"][0]["why"]


@pytest.mark.parametrize(
    "package",
    ["nvidia-container-toolkit 1.17.8-1", "nvidia-support 20220217+3", "nvidia-cuda-toolkit 11.8.89~11.8.0-5",
     "firmware-nvidia-graphics 20230625-2", "libcudnn9 9.12.0.46-1", "linux-image-6.1 6.1.148-1"],
)  # fmt: skip
def test_what_is_no_driver_is_no_conflict(package: str, look: Look) -> None:
    name, version = package.split()
    assert look({name: version})["findings"] == []


def test_parts_of_our_driver_that_came_as_dependencies_are_no_conflict(look: Look) -> None:
    assert look({**HELD, "libcuda1": "580.65.06-1", "nvidia-settings": "580.65.06-1"})["findings"] == []


def test_the_site_may_give_up_another_driver_while_it_is_not_loaded(look: Look) -> None:
    other = {"nvidia-driver-535": "535.247.01-1"}
    given = {"take_over": ["package:nvidia-driver-535", "sysctl:vm.swappiness"]}
    assert look(other, **given)["remove"] == ["nvidia-driver-535"]
    loaded = look(other, module="535.247.01", **given)
    assert lines(loaded) == [("driver-in-use", "kernel module nvidia")]


def test_a_foreign_hold_is_a_conflict_unless_the_site_gives_it_up(look: Look) -> None:
    state = {"nvidia-open": "580.65.06-1 hold not-installed"}
    seen = look(state)
    assert lines(seen) == [("driver-foreign-hold", "package nvidia-open")]
    taken = look(state, take_over=["hold:nvidia-open"])
    assert taken["findings"] == [] and taken["change_holds"]
    assert "nvidia-open" in taken["hold"]


@pytest.mark.parametrize(
    ("module", "nvml", "finding", "words"),
    [
        ("", (9, "", "couldn't communicate"), ("driver-not-loaded", "kernel module nvidia"), "no module is loaded"),
        ("575.57.08", (18, MISMATCH, ""), ("driver-mismatch", "kernel module nvidia"), "module 575.57.08, NVML 575.57"),
        ("580.65.06", (18, MISMATCH, ""), ("driver-mismatch", "library libnvidia-ml.so.1"), "NVML 575.57, packages"),
        ("580.65.06", (0, "580.82.07, 2\n", ""), ("driver-mismatch", "library libnvidia-ml.so.1"), "NVML 580.82.07"),
        (
            "580.65.06",
            (15, "GPU is lost", ""),
            ("driver-silent", "nvidia-smi"),
            "NVML ?, packages and release 580.65.06",
        ),
        ("580.65.06", (127, "", "nvidia-smi is not installed"), ("driver-silent", "nvidia-smi"), "not installed"),
        ("580.65.06", (1, "", ""), ("driver-silent", "nvidia-smi"), "exit status 1"),
        ("580.65.06", (0, "580.65.06\n", ""), ("driver-silent", "nvidia-smi"), "580.65.06"),
        (
            "580.65.06",
            (0, "580.65.06, 1\n", ""),
            ("gpu-count", "nvidia-smi"),
            "lists 1 GPUs, the hardware profile says 2",
        ),
    ],
)
def test_the_odd_one_out_is_named(module: str, nvml: Answer, finding: tuple[str, str], words: str, look: Look) -> None:
    seen = look(HELD, module=module, nvml=nvml, prove=True)
    assert lines(seen) == [finding]
    assert words in seen["findings"][0]["why"]
    assert "\n" not in str(seen["findings"][0].values())


def test_upstream_versions() -> None:
    versions = ["580.65.06-1", "1:580.65.06-0ubuntu1", "580.65.06"]
    assert [upstream(version) for version in versions] == ["580.65.06"] * 3
