"""What a host has of the driver's packages: what is installed, left alone, given up, or a reason to upgrade."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from driver_host import HELD, NEWER, VERSION, WANTED, DriverHost, release
from rackserve.driver.check import check_driver
from rackserve.driver.host import RECORD_FILE
from rackserve.driver.version import upstream

ALL = [f"{name}={version}" for name, version in WANTED["packages"].items()]
OTHER = dict.fromkeys(HELD, "575.57.08-1 hold")


def test_a_bare_host_gets_everything(host: DriverHost) -> None:
    host.packages({"bash": "5.2.15-2"})
    host.module("")
    seen = host.check()
    assert (seen["findings"], seen["install"], seen["hold"]) == ([], ALL, sorted(HELD))
    assert (seen["remove"], seen["unfinished"], seen["change_holds"], seen["module_version"]) == ([], False, False, "")


def test_a_host_without_dpkg_s_records_counts_as_bare(tmp_path: Path) -> None:
    assert check_driver(tmp_path, lambda _: (127, "", ""), WANTED)["install"] == ALL


def test_a_finished_host_gets_nothing_and_passes_the_proof(host: DriverHost) -> None:
    seen = host.check(prove=True)
    assert (seen["findings"], seen["install"], seen["hold"]) == ([], [], [])
    assert (seen["module_version"], seen["nvml_version"], seen["gpus"]) == (VERSION, VERSION, 2)


def test_packages_alone_are_compared_without_asking_a_program(host: DriverHost) -> None:
    host.check()
    assert host.asked == []


def test_a_killed_installation_is_finished(host: DriverHost) -> None:
    host.packages({**HELD, "nvidia-open": f"{VERSION}-1 install half-configured"})
    seen = host.check()
    assert (seen["findings"], seen["install"]) == ([], [f"nvidia-open={VERSION}-1"])
    assert seen["unfinished"] and seen["hold"] == ["nvidia-open"]


def test_removed_packages_are_installed_again(host: DriverHost) -> None:
    host.packages({**HELD, "nvidia-open": "570.86.15-1 deinstall config-files"})
    assert host.lines() == [] and host.check()["install"] == [f"nvidia-open={VERSION}-1"]


def test_another_version_of_ours_is_refused_with_the_name_of_the_operation(host: DriverHost) -> None:
    host.packages({**OTHER, "libcuda1": "575.57.08-1"})
    assert host.lines() == [
        f"driver-differs: package {', '.join(sorted(HELD))}: driver 575.57.08 installed, release says {VERSION}; "
        "run playbooks/upgrade-driver.yml, which drains the host first"
    ]
    assert host.check()["install"] == []


def test_another_build_of_the_same_driver_is_named_in_full(host: DriverHost) -> None:
    host.packages({**HELD, "nvidia-open": f"{VERSION}-0ubuntu1"})
    assert f"driver {VERSION}-0ubuntu1 installed, release says {VERSION}" in host.lines()[0]


@pytest.mark.parametrize("name", ["nvidia-driver-535", "libnvidia-compute-535", "cuda-drivers", "libcuda1"])
def test_another_driver_is_a_conflict(name: str, host: DriverHost) -> None:
    host.packages({name: "535.247.01-0ubuntu1"})
    (line,) = host.lines()
    assert line.startswith(f"driver-conflict: package {name}: ") and f"package:{name}" in line
    assert host.check()["remove"] == []


def test_a_held_one_says_so(host: DriverHost) -> None:
    host.packages({"cuda-drivers": "1:535.247.01-1 hold"})
    assert "somebody else, held" in host.lines()[0]


@pytest.mark.parametrize(
    "package",
    ["nvidia-container-toolkit 1.17.8-1", "nvidia-support 20220217+3", "nvidia-cuda-toolkit 11.8.89~11.8.0-5",
     "firmware-nvidia-graphics 20230625-2", "libcudnn9 9.12.0.46-1", "linux-image-6.1 6.1.148-1"],
)  # fmt: skip
def test_what_is_no_driver_is_no_conflict(package: str, host: DriverHost) -> None:
    name, version = package.split()
    host.packages({name: version})
    assert host.lines() == []


def test_parts_of_our_driver_that_came_as_dependencies_are_no_conflict(host: DriverHost) -> None:
    host.packages({**HELD, "libcuda1": f"{VERSION}-1", "nvidia-settings": f"{VERSION}-1"})
    assert host.lines() == []


def test_the_site_may_give_up_another_driver_while_it_is_not_loaded(host: DriverHost) -> None:
    host.packages({"nvidia-driver-535": "535.247.01-1"})
    host.module("")
    given = {"take_over": ["package:nvidia-driver-535", "sysctl:vm.swappiness"]}
    assert host.lines(**given) == [] and host.check(**given)["remove"] == ["nvidia-driver-535"]
    host.module("535.247.01")
    assert host.lines(**given)[0].startswith("driver-in-use: kernel module nvidia: module 535.247.01 is loaded")


def test_a_foreign_hold_is_a_conflict_unless_the_site_gives_it_up(host: DriverHost) -> None:
    host.packages({"nvidia-open": f"{VERSION}-1 hold not-installed"})
    assert [line.split(":")[0] for line in host.lines()] == ["driver-foreign-hold"]
    taken = host.check(take_over=["hold:nvidia-open"])
    assert taken["findings"] == [] and taken["change_holds"]
    assert "nvidia-open" in taken["hold"]


@pytest.mark.parametrize(("installed", "wanted"), [(VERSION, NEWER), (NEWER, VERSION)])
def test_up_and_back_the_release_s_versions_alone_are_installed(installed: str, wanted: str, host: DriverHost) -> None:
    host.packages({name: f"{installed}-1 hold" for name in HELD})
    host.module(installed)
    host.library(installed)
    seen = host.check(release(wanted), prove=True, upgrade=True)
    assert seen["findings"] == []
    assert seen["install"] == [f"{name}={wanted}-1" for name in sorted(HELD)]
    assert (seen["replaced"], seen["modules"]) == ([], ["nvidia_uvm", "nvidia"])
    assert seen["reasons"][0].startswith("driver-differs: ")


def test_nothing_to_upgrade_is_no_reason(host: DriverHost) -> None:
    seen = host.check(prove=True, upgrade=True)
    assert (seen["findings"], seen["reasons"], seen["install"]) == ([], [], [])


def test_one_wrong_package_is_a_reason_and_the_only_one_replaced(host: DriverHost) -> None:
    host.packages({**HELD, "nvidia-fabricmanager": f"{NEWER}-1 hold"})
    host.answer("nv-fabricmanager --version", out=f"Fabric Manager version is : {NEWER}\n")
    seen = host.check(prove=True, upgrade=True)
    assert seen["install"] == [f"nvidia-fabricmanager={VERSION}-1"]
    assert [line.split(":")[0] for line in seen["reasons"]] == ["driver-differs", "driver-mismatch"]


def test_what_came_with_the_old_driver_moves_with_it(host: DriverHost) -> None:
    host.packages({**HELD, "libcuda1": f"1:{VERSION}-1", "nvidia-container-toolkit": "1.17.8-1"})
    assert f"libcuda1=1:{NEWER}-1" in host.check(release(NEWER), upgrade=True)["install"]


def test_names_of_the_release_before_are_ours_by_the_record(host: DriverHost) -> None:
    old = {"libnvidia-compute-575": "575.57.08-0ubuntu1 hold"}
    host.packages(old)
    assert host.lines()[0].startswith("driver-conflict: ")
    host.write(RECORD_FILE, json.dumps({"packages": {"libnvidia-compute-575": "575.57.08-0ubuntu1"}}))
    assert host.lines()[0].startswith("driver-differs: package libnvidia-compute-575: driver 575.57.08 installed")
    seen = host.check(upgrade=True)
    assert (seen["replaced"], seen["findings"]) == (["libnvidia-compute-575"], [])


@pytest.mark.parametrize("text", ["{", "[]", '{"packages": null}'])
def test_a_record_that_cannot_be_read_counts_as_none(text: str, host: DriverHost) -> None:
    host.write(RECORD_FILE, text)
    assert host.lines() == []


def test_another_driver_stands_in_the_way_of_an_upgrade(host: DriverHost) -> None:
    host.packages({**OTHER, "nvidia-driver-535": "535.247.01-1"})
    found = host.lines(prove=True, upgrade=True)
    assert [line.split(":")[0] for line in found] == ["driver-conflict"]


def test_upstream_versions() -> None:
    versions = [f"{VERSION}-1", f"1:{VERSION}-0ubuntu1", VERSION]
    assert [upstream(version) for version in versions] == [VERSION] * 3
