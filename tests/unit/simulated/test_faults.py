"""Every fault of the catalogue on a simulated host: put on, seen, rebooted, taken off; overlaps and refusals."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from faults_support import (
    FABRIC_MANAGER,
    VERSION,
    Hosts,
    SimulatedHost,
    catalogue,
    disk_of_its_own,
    h20_hardware,
    problems,
    quick,
)
from rackserve.simulated import faults
from rackserve.simulated.catalogue import FaultError

PCI = "sys/bus/pci/devices"
PORT = "sys/class/infiniband/mlx5_0/ports/1"
# Beside every fault with its defaults: choices that take another way through the catalogue.
MORE: list[tuple[str, dict[str, Any]]] = [
    ("xid", {"gpu": 3, "xid": 79}),
    ("xid", {"gpu": 7, "xid": 777}),
    ("ecc-uncorrectable", {"gpu": 1, "location": "sram", "count": 3}),
    ("nvlink-errors", {"gpu": 2, "link": 17, "error": "crc_flit"}),
    ("fabric-not-ready", {"gpu": 4, "fabric_state": "not-started"}),
    ("clocks-throttled", {"gpu": 5, "reason": "hw-slowdown", "sm_mhz": 1200}),
    ("pcie-narrower", {"gpu": 6, "width": 4, "generation": 3}),
    ("hca-down", {"hca": "mlx5_1", "phys_state": "disabled"}),
    ("hca-slow", {"hca": "mlx5_1", "rate_gbps": 40}),
    ("kernel-log", {"line": "a {line} with {braces} and 100 % of it"}),
    *[("kernel-log", {"message": message}) for message in ("aer", "mce", "hung-task", "mlx5-power", "sxid")],
]
CASES = [*((name, {}) for name in catalogue()), *MORE]


@pytest.fixture(scope="module")
def hardware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return h20_hardware(tmp_path_factory.mktemp("machines") / "h20-8")


@pytest.fixture(scope="module")
def hosts(hardware: Path, tmp_path_factory: pytest.TempPathFactory) -> Hosts:
    return Hosts(hardware, tmp_path_factory)


@pytest.fixture
def host(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> SimulatedHost:
    quick(monkeypatch)
    fresh = hosts.fresh()
    disk_of_its_own(fresh, monkeypatch)
    return fresh


def title(case: Any) -> str | None:
    return case if isinstance(case, str) else "-".join(map(str, case.values())) or "defaults"


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=title)
def test_a_fault_is_seen_where_it_says_and_leaves_nothing(host: SimulatedHost, name: str, parameters: Any) -> None:
    before = host.tree()
    result = host.inject(name, **parameters)
    assert result["changed"]
    assert host.active() == [name]
    assert result["seen"]
    assert [problem for reading in result["seen"] for problem in problems(host, reading)] == []
    assert host.tree() != before
    assert host.clear(name)["changed"]
    assert host.active() == []
    assert host.tree() == before


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=title)
def test_only_what_survives_is_seen_after_a_reboot(host: SimulatedHost, name: str, parameters: Any) -> None:
    before = host.tree()
    result = host.inject(name, **parameters)
    host.boot()
    for reading in result["seen"]:
        judged = bool(reading["state"]) or reading["source"] in ("sysfs", "procfs", "kernel-log", "systemd")
        if judged and reading["reading"] != "grows":
            gone = bool(problems(host, reading))
            assert gone == (reading["reboot"] == "vanishes"), reading
    assert host.active() == ([name] if "persistent" in catalogue()[name].layers() else [])
    host.clear("all")
    assert host.active() == []
    host.boot()
    assert host.tree() == before


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=title)
def test_a_second_time_changes_nothing(host: SimulatedHost, name: str, parameters: Any) -> None:
    host.inject(name, **parameters)
    on, calls, log = host.tree(), list(host.systemd.changing()), host.log()
    again = host.inject(name, **parameters)
    assert not again["changed"]
    assert again["diff"] == {"before": "", "after": ""}
    assert (host.tree(), host.systemd.changing(), host.log()) == (on, calls, log)
    host.clear(name)
    off = host.tree()
    assert not host.clear(name)["changed"]
    assert host.tree() == off


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=title)
def test_check_mode_tells_and_touches_nothing(host: SimulatedHost, name: str, parameters: Any) -> None:
    before = host.tree()
    told = host.inject(name, check=True, **parameters)
    assert told["changed"]
    assert f"fault {name}" in told["diff"]["after"]
    assert host.tree() == before
    assert host.systemd.changing() == []
    assert host.log() == []
    host.inject(name, **parameters)
    on = host.tree()
    assert host.clear(name, check=True)["changed"]
    assert host.tree() == on


def test_a_reboot_may_leave_a_part_and_injecting_completes_it(host: SimulatedHost) -> None:
    host.inject("remap-pending", gpu=2)
    host.boot()
    assert host.state("gpu.2.remap.pending") == "0"
    assert host.state("gpu.2.remap.uncorrectable") == "1"
    (left,) = faults.active(host.root, catalogue())
    assert not left["complete"]
    assert host.inject("remap-pending", gpu=2)["changed"]
    assert host.state("gpu.2.remap.pending") == "1"
    assert host.state("gpu.2.remap.uncorrectable") == "1"
    assert faults.active(host.root, catalogue())[0]["complete"]
    host.clear("remap-pending")
    assert host.state("gpu.2.remap.uncorrectable") == "0"


def test_what_somebody_changed_back_is_made_good(host: SimulatedHost) -> None:
    host.inject("hca-slow")
    host.write(f"{PORT}/rate", "200 Gb/sec (4X HDR)\n")
    assert host.inject("hca-slow")["changed"]
    assert host.read(f"{PORT}/rate") == "100 Gb/sec (4X EDR)"


@pytest.mark.parametrize("first", ["hca-down", "hca-init"])
def test_two_faults_on_one_file(host: SimulatedHost, first: str) -> None:
    before, second = host.tree(), {"hca-down": "hca-init", "hca-init": "hca-down"}[first]
    reads = {"hca-down": "1: DOWN", "hca-init": "2: INIT"}
    host.inject(first)
    host.inject(second)
    assert host.read(f"{PORT}/state") == reads[second]
    host.clear(second)
    assert host.read(f"{PORT}/state") == reads[first]
    host.inject(second)
    host.clear(first)
    assert host.read(f"{PORT}/state") == reads[second]
    host.clear(second)
    assert host.tree() == before


def test_faults_of_both_layers_on_one_file(host: SimulatedHost) -> None:
    before, config = host.tree(), host.root / PCI / "0000:18:00.0/config"
    healthy = config.read_bytes()
    host.inject("gpu-off-bus")
    host.inject("pcie-narrower", width=4)
    assert set(config.read_bytes()) == {0xFF}
    host.clear("gpu-off-bus")
    narrow = config.read_bytes()
    status = healthy[0x34] + 0x12
    assert narrow == healthy[:status] + struct.pack("<H", 5 | 4 << 4) + healthy[status + 2 :]
    host.inject("gpu-off-bus")
    host.clear("pcie-narrower")
    assert set(config.read_bytes()) == {0xFF}
    host.clear("gpu-off-bus")
    assert host.tree() == before
    assert config.read_bytes() == healthy


def test_numbers_add_up_and_masks_join(host: SimulatedHost) -> None:
    host.inject("ecc-correctable", count=100)
    host.inject("ecc-correctable", count=7)
    assert host.state("gpu.0.ecc.aggregate.dram_correctable") == "107"
    host.clear("ecc-correctable", count=100)
    assert host.state("gpu.0.ecc.aggregate.dram_correctable") == "7"
    idle = int(host.state("gpu.0.throttle.reasons") or "0")
    host.inject("clocks-throttled", reason="sw-power-cap")
    host.inject("clocks-throttled", reason="hw-power-brake")
    assert host.state("gpu.0.throttle.reasons") == str(idle | 4 | 136)
    host.clear("clocks-throttled", reason="sw-power-cap")
    assert host.state("gpu.0.throttle.reasons") == str(idle | 136)


def test_clearing_by_some_parameters_takes_all_that_match(host: SimulatedHost) -> None:
    for gpu, link in ((0, 1), (0, 2), (1, 1)):
        host.inject("nvlink-down", gpu=gpu, link=link)
    host.clear("nvlink-down", gpu="0")
    assert [one["parameters"] for one in faults.active(host.root, catalogue())] == [{"gpu": 1, "link": 1}]


def test_the_link_status_in_the_config_space(host: SimulatedHost) -> None:
    host.inject("pcie-narrower", gpu=0, width=2, generation=1)
    config = (host.root / PCI / "0000:18:00.0/config").read_bytes()
    (status,) = struct.unpack_from("<H", config, config[0x34] + 0x12)
    assert (status >> 4 & 0x3F, status & 0xF) == (2, 1)
    assert host.read(f"{PCI}/0000:18:00.0/../current_link_width") == "2"


def test_fabric_manager_comes_back_and_leaves_other_faults_alone(host: SimulatedHost) -> None:
    host.inject("fabric-not-ready", gpu=1)
    host.inject("fabric-manager-absent")
    assert FABRIC_MANAGER not in host.systemd.active
    host.clear("fabric-manager-absent")
    assert FABRIC_MANAGER in host.systemd.active
    assert [host.state(f"gpu.{gpu}.fabric.state") for gpu in (0, 1)] == ["3", "2"]
    assert host.state("fabric_manager.version") == VERSION


def test_fabric_manager_comes_back_after_a_reboot(host: SimulatedHost) -> None:
    before = host.tree()
    host.inject("fabric-manager-absent")
    host.boot()
    assert FABRIC_MANAGER not in host.systemd.active
    host.clear("all")
    assert host.tree() == before


def test_versions_of_two_mismatches(host: SimulatedHost) -> None:
    before = host.tree()
    host.inject("driver-mismatch", version="570.124.06")
    host.inject("driver-mismatch", version="575.57.08")
    assert "575.57.08" in host.read("proc/driver/nvidia/version")
    host.clear("driver-mismatch", version="570.124.06")
    assert host.state("module.version") == "575.57.08"
    assert "575.57.08" in host.read("proc/driver/nvidia/version")
    assert "12.2.0" in host.read("proc/driver/nvidia/version")
    host.clear("all")
    assert host.tree() == before


def test_events_reach_those_who_wait(host: SimulatedHost) -> None:
    host.inject("xid", gpu=3, xid=79)
    host.inject("nvlink-down", gpu=1)
    assert host.read("run/rackserve-simulated/events").splitlines() == ["1 3 79", "2 1 74"]


REFUSED = [
    ("xidd", {}, "no fault 'xidd'; did you mean xid?"),
    ("xid", {"gpuu": 1}, "fault xid: no parameter gpuu; did you mean gpu?; it takes: gpu, xid"),
    ("xid", {"xid": 1000}, "fault xid: xid 1000 is out of range; give 1 to 999"),
    ("xid", {"xid": "many"}, 'fault xid: xid "many" is not a number'),
    ("xid", {"xid": True}, "fault xid: xid true is not a number"),
    ("xid", {"gpu": 8}, "fault xid: no gpu 8 on this host; it has 0 to 7"),
    ("xid", {"gpu": -1}, "fault xid: gpu -1 is out of range"),
    ("nvlink-down", {"link": 18}, "fault nvlink-down: no link 18 on this host; it has 0 to 17"),
    ("hca-down", {"hca": "mlx5_9"}, "fault hca-down: no hca mlx5_9 on this host; it has mlx5_0, mlx5_1"),
    ("hca-down", {"port": 2}, "fault hca-down: no port 2 on this host; it has 1"),
    ("pcie-narrower", {"width": 3}, "fault pcie-narrower: width 3 is out of range; give 1, 2, 4, 8, 16"),
    ("clocks-throttled", {"reason": "hw-termal"}, "is no choice; did you mean hw-thermal?"),
    ("foreign-process", {"user": "root"}, 'fault foreign-process: user "root" does not look as it must'),
    ("foreign-process", {"process_name": "../sh"}, "does not look as it must"),
    ("kernel-log", {"line": "two\nlines"}, "does not look as it must"),
    ("kernel-log", {"line": ["no"]}, "is not a text"),
    ("gid-missing", {"index": 200}, "this machine has no /sys/devices/"),
    ("driver-mismatch", {"version": VERSION}, f"version {VERSION} is the one that is loaded; give another one"),
    ("disk-full", {"path": "/"}, "does not look as it must"),
    ("disk-full", {"path": "/dev"}, "/dev is on the root file system; give a folder on a file system of its own"),
    ("disk-full", {"path": "/dev/nothing"}, "no folder /dev/nothing on this host"),
    ("disk-full", {"path": "/dev/shm/../.."}, "does not look as it must"),
    ("disk-full", {"most_mib": 1}, "/dev/shm: 2 MiB would have to be written, more than most_mib 1"),
    ("disk-full", {"left_mib": 63}, "left_mib 63 is out of range"),
]


@pytest.mark.parametrize(("name", "parameters", "said"), REFUSED, ids=[f"{n}-{p}" for n, p, _ in REFUSED])
def test_a_refusal_is_one_line_and_changes_nothing(
    host: SimulatedHost, name: str, parameters: dict[str, Any], said: str
) -> None:
    before = host.tree()
    with pytest.raises(FaultError) as refused:
        host.inject(name, **parameters)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert host.tree() == before
    assert host.systemd.changing() == []


def test_real_hardware_is_refused(tmp_path: Path, host: SimulatedHost) -> None:
    for act in (faults.inject, faults.clear):
        with pytest.raises(FaultError, match="this host's hardware is real: faults are injected only into simulated"):
            act(tmp_path, host.systemd, catalogue(), "xid", {})
    with pytest.raises(FaultError, match="hardware is real"):
        faults.active(tmp_path, catalogue())
    assert not (tmp_path / "run").exists()


def test_all_takes_no_parameters(host: SimulatedHost) -> None:
    with pytest.raises(FaultError, match="fault all takes no parameters"):
        host.clear("all", gpu=1)
    with pytest.raises(FaultError, match="no fault 'all'"):
        host.inject("all")


def test_a_host_without_a_driver_or_fabric_manager(tmp_path: Path, hardware: Path) -> None:
    bare = SimulatedHost(tmp_path / "bare", hardware, driver=False)
    bare.has_fabric_manager = False
    with pytest.raises(FaultError, match="no driver is loaded on this host"):
        bare.inject("driver-mismatch")
    with pytest.raises(FaultError, match=f"no unit {FABRIC_MANAGER} on this host"):
        bare.inject("fabric-manager-absent")
    assert bare.active() == []


def test_a_machine_without_hcas(host: SimulatedHost) -> None:
    for link in (host.root / "sys/class/infiniband").iterdir():
        link.unlink()
    with pytest.raises(FaultError, match="fault hca-down: no hca first on this host; it has none"):
        host.inject("hca-down")
    with pytest.raises(FaultError, match="no hca first"):
        host.inject("kernel-log", message="mlx5-power")
    host.inject("kernel-log", message="mce")


def test_a_command_that_fails_is_named_and_can_be_done_again(host: SimulatedHost) -> None:
    before = host.tree()

    def broken(command: list[str]) -> tuple[int, str, str]:
        return (1, "", "no bus\n") if command[:2] == ["systemctl", "mask"] else host.systemd(command)

    with pytest.raises(FaultError, match=r"systemctl mask --now nvidia-fabricmanager\.service failed: no bus"):
        faults.inject(host.root, broken, catalogue(), "fabric-manager-absent", {})
    assert host.inject("fabric-manager-absent")["changed"]
    assert host.state("gpu.0.fabric.state") == "2"
    host.clear("all")
    assert host.tree() == before


def test_a_run_killed_while_clearing_is_finished_by_the_next(
    host: SimulatedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = host.tree()
    host.inject("gpu-off-bus")
    host.inject("pcie-narrower")
    with monkeypatch.context() as patch:
        patch.setattr(faults.Settling, "_write", lambda *_: (_ for _ in ()).throw(OSError(5, "killed", "x")))
        with pytest.raises(FaultError, match="x: killed; run this on a booted lab host, as root"):
            host.clear("all")
    assert sorted(host.active()) == ["gpu-off-bus", "pcie-narrower"]
    host.clear("all")
    assert host.tree() == before


def test_a_fault_that_the_catalogue_dropped_goes_back(host: SimulatedHost) -> None:
    before = host.tree()
    host.inject("hca-slow")
    fewer = {name: fault for name, fault in catalogue().items() if name != "hca-slow"}
    assert faults.active(host.root, fewer)[0]["reboot"] == "unknown"
    faults.clear(host.root, host.systemd, fewer, "all", {})
    assert host.tree() == before


def test_a_record_that_is_none_is_named(host: SimulatedHost) -> None:
    path = host.root / "var/lib/rackserve-simulated/faults.json"
    for text in ("{", "[]", json.dumps({"faults": [{"name": 1}]})):
        path.write_text(text)
        with pytest.raises(FaultError, match=r"faults.json is no record of faults .*; remove it and reboot the host"):
            host.active()
