"""Which machines are refused, and with what remedy."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from lab_support import Commands, make_lab
from rackserve.lab import machine
from rackserve.lab.spec import LabError

ROUTES = "ip -json route show table all"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 8 GiB of memory."""
    (tmp_path / "machine/proc").mkdir(parents=True)
    (tmp_path / "machine/proc/meminfo").write_text("MemTotal:        8388608 kB\nMemFree: 1 kB\nodd line\n")
    return tmp_path / "machine"


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every disk has 10 GiB free."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 10 * 2**30))


def as_root_with_commands(monkeypatch: pytest.MonkeyPatch, *lacking: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name in lacking else f"/usr/bin/{name}")


def test_a_fit_machine_is_accepted(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_root_with_commands(monkeypatch)
    run = Commands({ROUTES: ""})
    machine.refuse(make_lab(tmp_path), run, 10240, 8192, root)
    assert run.calls == [ROUTES]


def test_only_root_may_build_a_lab(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match=r"needs root .*run it with sudo, or use `make plan`"):
        machine.refuse(make_lab(tmp_path), Commands(), 0, 0, root)


def test_every_missing_command_is_named_with_its_package(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_root_with_commands(monkeypatch, "nft", "apt-ftparchive")
    with pytest.raises(LabError) as refused:
        machine.refuse(make_lab(tmp_path), Commands(), 0, 0, root)
    assert "nft (package nftables), apt-ftparchive (package apt-utils)" in str(refused.value)


def test_a_full_disk_is_refused_for_a_new_lab_only(tmp_path: Path, root: Path) -> None:
    lab = make_lab(tmp_path)
    with pytest.raises(LabError, match=r"10240 MiB free, the lab needs 10241.*set lab_host_state_dir"):
        machine.refuse_small(lab, 10241, 0, root)
    (lab.state_dir / "hosts").mkdir(parents=True)
    machine.refuse_small(lab, 10241, 0, root)


def test_little_memory_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(LabError, match=r"8192 MiB of memory, the lab needs 8193"):
        machine.refuse_small(make_lab(tmp_path), 0, 8193, root)


@pytest.mark.parametrize(
    ("route", "option"),
    [
        ({"dst": "10.99.0.0/16", "dev": "eth0"}, "lab_host_subnet"),
        ({"dst": "10.99.0.200", "dev": "eth0"}, "lab_host_subnet"),
        ({"dst": "10.99.1.2", "dev": "eth0"}, "lab_host_uplink"),
    ],
)
def test_a_range_in_use_is_refused(tmp_path: Path, route: dict[str, str], option: str) -> None:
    run = Commands({ROUTES: json.dumps([{"dst": "default", "dev": "eth0"}, route])})
    with pytest.raises(LabError, match=rf"on eth0\): set {option} to a free range"):
        machine.refuse_taken_range(make_lab(tmp_path), run)


def test_routes_that_say_nothing_about_our_ranges_are_passed_over(tmp_path: Path) -> None:
    routes = [
        {"dev": "eth0"},
        {"dst": "default", "dev": "eth0"},
        {"dst": "10.99.0.0/24", "dev": "tlab0"},
        {"dst": "not a range", "dev": "eth0"},
        {"dst": "0.0.0.0/0", "dev": "eth0"},
        {"dst": "fe80::/64", "dev": "eth0"},
        {"dst": "192.168.0.0/16", "dev": "eth0"},
    ]
    run = Commands({ROUTES: json.dumps(routes)})
    machine.refuse_taken_range(make_lab(tmp_path), run)
    assert run.calls == [ROUTES]


def test_an_ip_command_that_fails_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="ip route show failed: no netlink"):
        machine.refuse_taken_range(make_lab(tmp_path), Commands({ROUTES: (1, "", "no netlink\n")}))
