"""The simulated driver in the running lab: from a signed repository, one version, held; and what apt can do with it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from conftest import REPO, STATE, eventually, whole

Shell = Callable[[str, str], str]
Module = Callable[..., dict[str, Any]]

NODES = ("node1", "node2", "node3", "node4")
SOURCES = "/etc/apt/sources.list.d/rackserve-nvidia.sources"
PIN = "/etc/apt/preferences.d/rackserve-nvidia.pref"
UPDATE = f"apt-get -q update -o Dir::Etc::sourcelist={SOURCES} -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0"
INSTALL = (
    "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends --no-remove --allow-change-held-packages"
    " --allow-downgrades"
)
# Exit status as text: a failing nvidia-smi is what some of these tests look for.
SAY = '{{ {}; }} 2>&1; echo "exit status $?"'
FIELDS = "${Package} ${db:Status-Want} ${Version}\\n"
BOOT_S = 90
ENGINE_S = 400


def dpkg(shell: Shell, host: str) -> dict[str, tuple[str, str]]:
    """Every package dpkg knows on a host: wanted state and version."""
    rows = [row.split() for row in shell(host, f"dpkg-query -W -f '{FIELDS}'").splitlines()]
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


@pytest.fixture(scope="module")
def driver(plan: dict[str, Any]) -> dict[str, Any]:
    wanted: dict[str, Any] = plan["slices"]["node1"]["driver"]
    return wanted


@pytest.mark.parametrize("host", NODES)
def test_packages_are_at_the_release_s_version_and_held(host: str, driver: dict[str, Any], shell: Shell) -> None:
    installed = dpkg(shell, host)
    assert {name: installed.get(name) for name in driver["packages"]} == {
        name: ("hold", version) for name, version in driver["packages"].items()
    }


@pytest.mark.parametrize("host", NODES)
def test_module_nvml_and_release_are_one_version(host: str, driver: dict[str, Any], shell: Shell) -> None:
    assert f" {driver['version']} " in shell(host, "cat /proc/driver/nvidia/version")
    assert shell(host, "cat /sys/module/nvidia/version").strip() == driver["version"]
    rows = shell(host, "nvidia-smi --query-gpu=driver_version,count --format=csv,noheader").splitlines()
    assert rows == [f"{driver['version']}, {driver['gpus']}"] * driver["gpus"]


@pytest.mark.parametrize("host", NODES)
def test_every_gpu_is_listed_and_says_simulated(host: str, driver: dict[str, Any], shell: Shell) -> None:
    listed = shell(host, "nvidia-smi -L").splitlines()
    assert len([line for line in listed if line.startswith("GPU ")]) == driver["gpus"]
    assert "simulated" in shell(host, "nvidia-smi; nvidia-smi -L; cat /proc/driver/nvidia/version").lower()


@pytest.mark.parametrize("host", NODES)
def test_services_of_the_driver_run(host: str, driver: dict[str, Any], shell: Shell) -> None:
    units = ["nvidia-persistenced.service"] + ["nvidia-fabricmanager.service"] * driver["fabric_manager"]
    for unit in units:
        shown = shell(host, f"systemctl show -p ActiveState,UnitFileState {unit}").split()
        assert set(shown) == {"ActiveState=active", "UnitFileState=enabled"}, unit


def test_the_gateway_has_no_driver(shell: Shell, plan: dict[str, Any]) -> None:
    assert plan["slices"]["gw"]["driver"] is None
    assert not any("nvidia" in name for name in dpkg(shell, "gw"))


def test_apt_takes_the_repository_with_this_key_only(shell: Shell) -> None:
    key = shell("node1", f"sed -n 's/^Signed-By: //p' {SOURCES}").strip()
    assert shell("node1", SAY.format(UPDATE)).endswith("exit status 0\n")
    # In a mount namespace of its own, so that the host's key stays as it is.
    other = f"unshare --mount sh -c 'mount --bind /etc/hostname {key} && {UPDATE} -o APT::Update::Error-Mode=any'"
    refused = shell("node1", SAY.format(other))
    assert "exit status 0" not in refused
    assert "not signed" in refused or "NO_PUBKEY" in refused
    assert shell("node1", SAY.format(UPDATE)).endswith("exit status 0\n")


def test_apt_moves_nothing_by_itself(driver: dict[str, Any], shell: Shell) -> None:
    """A newer driver lies in the repository; neither a hold nor the pin lets it in."""
    offered = shell("node2", "apt-cache madison nvidia-open")
    assert len({line.split("|")[1].strip() for line in offered.splitlines()}) > 1, offered
    candidate = shell("node2", "apt-cache policy nvidia-open | sed -n 's/^ *Candidate: //p'").strip()
    assert candidate == driver["packages"]["nvidia-open"]
    upgrade = shell("node2", "apt-get -q -s dist-upgrade")
    assert not any(line.startswith(("Inst", "Remv")) and "nvidia" in line for line in upgrade.splitlines())


def test_an_installed_driver_of_another_version_is_reported_and_left_alone(
    module: Module, driver: dict[str, Any]
) -> None:
    other = {**driver, "version": "570.86.15", "packages": dict.fromkeys(driver["packages"], "570.86.15-1")}
    said = module("node1", "driver_check", driver=other)
    assert not said["changed"]
    assert [item["code"] for item in said["findings"]] == ["driver-differs"]
    assert said["findings"][0]["why"] == f"driver {driver['version']} installed, release says 570.86.15"
    assert module("node1", "driver_check", driver=driver, prove=True)["findings"] == []


@pytest.fixture
def spare(plan: dict[str, Any], shell: Shell) -> Iterator[str]:
    """The host whose driver is replaced: a light one where the lab has one, else the last; its engine comes back."""
    name = "light1" if "light1" in (STATE / "ssh_config").read_text().split() else NODES[-1]
    yield name
    units = [item["unit"] for item in plan["instances"] if item["host"] == name]
    eventually(lambda: all(shell(name, f"systemctl is-active {unit}").strip() == "active" for unit in units), ENGINE_S)


def reboot(shell: Shell, host: str) -> None:
    started = "systemctl show -P UserspaceTimestampMonotonic"
    before = shell(host, started)
    shell(host, "systemd-run --quiet --collect --on-active=1 systemctl reboot")
    eventually(lambda: shell(host, started) != before, BOOT_S)
    eventually(lambda: shell(host, "systemctl is-active multi-user.target").strip() == "active", BOOT_S)


def bring_repository(shell: Shell, host: str) -> None:
    """What the role writes, on a host that no inventory names."""
    key = shell("node1", f"sed -n 's/^Signed-By: //p' {SOURCES}").strip()
    for path in (key, SOURCES, PIN):
        text = base64.b64encode(shell("node1", f"cat {path}").encode()).decode()
        shell(host, f"mkdir -p $(dirname {path}) && echo {text} | base64 -d > {path}")


def put(shell: Shell, host: str, version: str, packages: dict[str, str]) -> None:
    """Pin, install, and hold one version of the driver."""
    names = " ".join(f"{name}={exact}" for name, exact in packages.items())
    shell(host, f"sed -i 's/^Pin: .*/Pin: version {version}-*/' {PIN} && {UPDATE}")
    shell(host, f"{INSTALL} install {names} && apt-mark hold {' '.join(packages)}")


def runs(shell: Shell, host: str, version: str, gpus: int) -> None:
    rows = shell(host, "nvidia-smi --query-gpu=driver_version,count --format=csv,noheader").splitlines()
    assert rows == [f"{version}, {gpus}"] * gpus


@whole
def test_apt_replaces_the_driver_and_takes_it_back(spare: str, driver: dict[str, Any], shell: Shell) -> None:
    """Repository, pin, packages, hold; a newer driver; the mismatch until the reboot; and the way back."""
    simulated = yaml.safe_load((REPO / "files/simulated/packages.yml").read_text())
    others = {item["version"]: item["package_version"] for item in simulated["drivers"]}
    newer = next(version for version in others if version != driver["version"])
    bring_repository(shell, spare)
    put(shell, spare, driver["version"], driver["packages"])
    shell(spare, "modprobe nvidia")
    gpus = int(shell(spare, "nvidia-smi --query-gpu=count --format=csv,noheader").split()[0])
    runs(shell, spare, driver["version"], gpus)

    loaded = driver["version"]
    for version, exact in ((newer, others[newer]), (driver["version"], others[driver["version"]])):
        packages = dict.fromkeys(driver["packages"], exact)
        put(shell, spare, version, packages)
        assert shell(spare, "cat /sys/module/nvidia/version").strip() == loaded
        said = shell(spare, SAY.format("nvidia-smi"))
        assert "Driver/library version mismatch" in said
        assert said.endswith("exit status 18\n"), said
        reboot(shell, spare)
        runs(shell, spare, version, gpus)
        assert {name: dpkg(shell, spare)[name] for name in packages} == {name: ("hold", exact) for name in packages}
        loaded = version
