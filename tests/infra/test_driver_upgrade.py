"""The driver of a serving host in the lab: refused by site.yml, changed up and back by its own operation, proven."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import STATE, Run, eventually, whole
from load import Load
from rackserve.completion.client import Endpoint

Shell = Callable[[str, str], str]
Module = Callable[..., dict[str, Any]]

HOST, OTHERS = "node4", ("node1", "node2", "node3")
LIMIT = ("--limit", f"{HOST},gw")
UP = ("-e", json.dumps({"cluster_overrides": {"release": "2026.12-cpu"}}))
UPGRADE = "run playbooks/upgrade-driver.yml, which drains the host first"
OLD, NEW = "580.65.06", "580.95.05"
HOLDS = "apt-mark showhold | sort"
PIN = "/etc/apt/preferences.d/rackserve-nvidia.pref"


def at(driver: dict[str, Any], version: str) -> dict[str, Any]:
    """The same driver as the other release has it."""
    return {**driver, "version": version, "packages": dict.fromkeys(driver["packages"], f"{version}-1")}


def pid(shell: Shell, plan: dict[str, Any], host: str = HOST) -> str:
    unit = next(item["unit"] for item in plan["instances"] if item["host"] == host)
    return shell(host, f"systemctl show -P MainPID {unit}").strip()


def changed(output: str, host: str) -> str:
    """The recap's count of changed tasks."""
    line = next(line for line in output.partition("PLAY RECAP")[2].splitlines() if line.startswith(f"{host} "))
    return line.partition("changed=")[2].split()[0]


@pytest.fixture(scope="module")
def with_the_plan_s_driver(playbook: Run) -> Iterator[None]:
    """Whatever a test leaves is taken back; the lab goes on with the release that it is described with."""
    yield
    done = playbook("upgrade-driver", *LIMIT)
    assert done.returncode == 0, done.stdout[-3000:]
    done = playbook("site")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture
def all_serve(module: Module, plan: dict[str, Any]) -> None:
    """An earlier test may have started the host again: its engine needs a minute to be back."""
    gateway = {"socket": plan["gateway"]["stats_socket"], "state_file": plan["gateway"]["server_state_file"]}

    def up() -> bool:
        servers = module("gw", "gateway_servers", **gateway)["servers"]
        return all(one["status"] == "UP" for one in servers if one["backend"].startswith("be_") and one["port"])

    eventually(up, 240)


@pytest.fixture
def load(base_url: str, secrets: dict[str, str], plan: dict[str, Any]) -> Load:
    """Clients that have not started yet."""
    client = Endpoint(base_url, str(STATE / "gateway-ca.pem"), secrets["api_key_client"], timeout_s=120)
    return Load(client, plan["instances"][0]["served_model_name"])


@whole
@pytest.mark.usefixtures("all_serve", "with_the_plan_s_driver")
def test_up_under_load_refused_by_site_and_back(
    playbook: Run, module: Module, shell: Shell, plan: dict[str, Any], load: Load
) -> None:
    driver: dict[str, Any] = plan["slices"][HOST]["driver"]
    before = {host: pid(shell, plan, host) for host in (*OTHERS, HOST)}
    said = playbook("upgrade-driver", *UP, *LIMIT, "--check")
    assert said.returncode == 0, said.stdout[-3000:]
    assert f"driver {OLD} installed, release says {NEW}" in said.stdout
    assert pid(shell, plan) == before[HOST]

    with load:
        up = playbook("upgrade-driver", *UP, *LIMIT)
    assert up.returncode == 0, up.stdout[-3000:]
    assert load.failures == [] and load.served > 0
    assert module(HOST, "driver_check", driver=at(driver, NEW), prove=True)["findings"] == []
    assert set(driver["packages"]) <= set(shell(HOST, HOLDS).split())
    assert {host: pid(shell, plan, host) for host in OTHERS} == {host: before[host] for host in OTHERS}
    again = playbook("upgrade-driver", *UP, *LIMIT)
    assert again.returncode == 0 and changed(again.stdout, HOST) == "0", again.stdout[-3000:]

    serving = pid(shell, plan)
    refused = playbook("site", *LIMIT)
    assert refused.returncode != 0
    assert f"driver {NEW} installed, release says {OLD}; {UPGRADE}" in refused.stdout
    assert pid(shell, plan) == serving
    assert shell(HOST, "cat /sys/module/nvidia/version").strip() == NEW

    back = playbook("upgrade-driver", *LIMIT)
    assert back.returncode == 0, back.stdout[-3000:]
    assert module(HOST, "driver_check", driver=driver, prove=True)["findings"] == []
    settled = playbook("site", *LIMIT)
    assert settled.returncode == 0 and changed(settled.stdout, HOST) == "0", settled.stdout[-3000:]


def bring(shell: Shell, package: str, version: str) -> None:
    """One package in another version, against what the others say they need."""
    file = f"{package}_{version}-1_*.deb"
    fetch = f"cd /var/tmp && apt-get -q download {package}={version}-1"
    shell(HOST, f"{fetch} && dpkg --force-depends -i {file} && rm {file} && ldconfig && apt-mark hold {package}")


@contextmanager
def package_of_another_version(shell: Shell, package: str, unit: str = "") -> Iterator[None]:
    """A package, and with it what it carries; its daemon is started again."""
    restart = f"systemctl restart {unit}"
    bring(shell, package, NEW)
    if unit == "nvidia-persistenced.service":
        shell(HOST, restart)
    try:
        yield
    finally:
        bring(shell, package, OLD)
        if unit:
            shell(HOST, restart)


@contextmanager
def module_of_another_version(playbook: Run) -> Iterator[None]:
    fault = ("-e", f"on={HOST}", "-e", "fault=driver-mismatch")
    done = playbook("inject-fault", *fault)
    assert done.returncode == 0, done.stdout
    try:
        yield
    finally:
        done = playbook("clear-fault", *fault)
        assert done.returncode == 0, done.stdout


@whole
@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("module", "driver-mismatch: kernel module nvidia: "),
        ("packages", "driver-differs: package nvidia-open: "),
        ("nvidia-fabricmanager", "driver-mismatch: program nv-fabricmanager: "),
        ("nvidia-persistenced", "driver-mismatch: program nvidia-persistenced: "),
        ("libnvidia-ml1", "driver-mismatch: library libnvidia-ml.so.1: "),
    ],
)
def test_a_wrong_mix_is_named_with_what_mends_it(part: str, line: str, playbook: Run, shell: Shell) -> None:
    spoiled = {
        "module": lambda: module_of_another_version(playbook),
        "packages": lambda: package_of_another_version(shell, "nvidia-open"),
    }.get(part, lambda: package_of_another_version(shell, part, daemon(part)))
    with spoiled():
        done = playbook("prove-driver", "--limit", HOST)
        assert done.returncode != 0
        assert line in done.stdout and UPGRADE in done.stdout, done.stdout[-3000:]
    done = playbook("prove-driver", "--limit", HOST)
    assert done.returncode == 0, done.stdout[-3000:]


def daemon(package: str) -> str:
    return "" if package.startswith("lib") else f"{package}.service"


@whole
def test_a_person_may_have_the_packages_until_the_next_run(playbook: Run, shell: Shell, plan: dict[str, Any]) -> None:
    held, serving = shell(HOST, HOLDS), pid(shell, plan)
    of_others = set(held.split()) - set(plan["slices"][HOST]["driver"]["packages"])
    assert playbook("unhold-driver").returncode != 0
    done = playbook("unhold-driver", "-e", f"on={HOST}")
    assert done.returncode == 0, done.stdout[-3000:]
    assert set(shell(HOST, f"{HOLDS}; ls {PIN} 2>/dev/null || true").split()) == of_others
    done = playbook("site", *LIMIT)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (shell(HOST, HOLDS), pid(shell, plan)) == (held, serving)
    assert f"Pin: version {OLD}-*" in shell(HOST, f"cat {PIN}")


@whole
def test_a_foreign_hold_and_foreign_updates_are_left_alone(playbook: Run, shell: Shell) -> None:
    mine = "/etc/apt/apt.conf.d/20auto-upgrades"
    shell(HOST, f"apt-mark hold bash && echo 'APT::Periodic::Unattended-Upgrade \"1\";' > {mine}")
    try:
        done = playbook("site", *LIMIT, "-e", "full=true")
        assert done.returncode == 0, done.stdout[-3000:]
        assert "bash" in shell(HOST, HOLDS).split()
        assert shell(HOST, f"cat {mine}") == 'APT::Periodic::Unattended-Upgrade "1";\n'
        shown = shell(HOST, "apt-config dump Unattended-Upgrade::Package-Blacklist")
        assert '"^nvidia-open$"' in shown
    finally:
        shell(HOST, f"apt-mark unhold bash && rm -f {mine}")


def test_a_host_of_another_distribution_is_one_line(module: Module) -> None:
    said = module(HOST, "host_preflight", supported_os={"debian": ["12"]}, distributions=["ubuntu-22.04"])
    assert [item["why"] for item in said["findings"] if item["code"] == "distribution-differs"] == [
        "this is debian-12, the plan has packages for ubuntu-22.04"
    ]
