"""What a converged host looks like: units, listeners, reachability, secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Shell = Callable[[str, str], str]
NODES = ("node1", "node2", "node3", "node4")
ALL = ("gw", *NODES)
REFUSED = "if timeout 3 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null; then echo open; else echo closed; fi"


@pytest.mark.parametrize("name", ALL)
def test_host_is_healthy(name: str, shell: Shell) -> None:
    assert shell(name, "systemctl is-system-running").strip() == "running"


def test_every_engine_runs_as_planned(plan: dict[str, Any], shell: Shell) -> None:
    for instance in plan["instances"]:
        shown = shell(instance["host"], f"systemctl show -p ActiveState,UnitFileState,User,Restart {instance['unit']}")
        assert {"ActiveState=active", "UnitFileState=enabled", "User=vllm", "Restart=always"} <= set(shown.split())


@pytest.mark.parametrize("name", ALL)
def test_units_give_up_what_they_do_not_need(name: str, plan: dict[str, Any], shell: Shell) -> None:
    units = [item["unit"] for item in plan["instances"] if item["host"] == name]
    for unit in units or ["rackserve-gateway.service"]:
        shell(name, f"systemd-analyze security --no-pager --threshold=25 {unit}")


@pytest.mark.parametrize("name", ALL)
def test_nothing_listens_on_all_addresses_but_ssh(name: str, shell: Shell) -> None:
    listeners = [line.split()[3] for line in shell(name, "ss -Hltn").splitlines()]
    everywhere = {where for where in listeners if where.startswith(("0.0.0.0:", "*:", "[::]:"))}
    assert {where.rpartition(":")[2] for where in everywhere} == {"22"}


def test_only_planned_flows_answer(plan: dict[str, Any], shell: Shell) -> None:
    first, second = plan["instances"][0], plan["instances"][1]
    ask = REFUSED.format(address=first["address"], port=first["port"])
    assert shell("gw", ask).strip() == "open"
    assert shell(second["host"], ask).strip() == "closed"
    metrics = REFUSED.format(address=plan["gateway"]["address"], port=plan["gateway"]["metrics_port"])
    assert shell(first["host"], metrics).strip() == "closed"


@pytest.mark.parametrize("name", ALL)
def test_host_has_no_way_out(name: str, shell: Shell) -> None:
    assert "default" not in shell(name, "ip route")


@pytest.mark.parametrize("name", ALL)
def test_secrets_show_nowhere(name: str, shell: Shell, secrets: dict[str, str]) -> None:
    seen = shell(
        name,
        "journalctl --no-pager -o cat; systemctl show '*' --no-pager; cat /etc/systemd/system/*.service;"
        " cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; find /var/log -type f -exec cat {} +",
    )
    assert "rackserve" in seen
    for secret_name, value in secrets.items():
        canary = value.strip().splitlines()[len(value.strip().splitlines()) // 2]
        assert canary not in seen, f"{secret_name} is readable on {name}"


def test_releases_are_equal_and_read_only_for_the_service(plan: dict[str, Any], shell: Shell) -> None:
    path = plan["release"]["path"]
    markers = {shell(name, f"cat {path}/RELEASE.json") for name in NODES}
    assert len(markers) == 1
    owners = shell("node1", f"find {path} ! -user root -o -perm /022 -type f | head -3")
    assert owners == ""
