"""Simulated machines: state, adapters, disks, and how the folder comes to be."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import simulated_machine
from ansible.module_utils.testing import patch_module_args
from machine_support import NAMES, profile_of, text
from rackserve.hardware.profile import ProfileError
from rackserve.simulated import folder as folders
from rackserve.simulated.adapters import infiniband_address, mac_of_guid
from rackserve.simulated.folder import OPAQUE, Folder
from rackserve.simulated.machine import build, machine_folder
from rackserve.simulated.state import parse_state

Machine = Callable[[str], Path]
KIB = 1024


def state(root: Path) -> dict[str, str]:
    return parse_state((root / "state").read_text("ascii"))


@pytest.mark.parametrize("name", NAMES)
def test_state_has_every_gpu(name: str, machine: Machine) -> None:
    values, profile = state(machine(name)), profile_of(name)
    gpus = profile["machine"]["gpus"]
    assert values["gpu.count"] == str(len(gpus)) == str(profile["slots"])
    for index, gpu in enumerate(gpus):
        assert values[f"gpu.{index}.pci.bus_id"] == f"0000{gpu['at'].upper()}"
        assert values[f"gpu.{index}.minor_number"] == str(index)
        assert int(values[f"gpu.{index}.memory.total_bytes"]) // 2**20 == profile["memory_mib"]
        assert int(values[f"gpu.{index}.power.limit_mw"]) == profile["power_limit_w"] * 1000
        assert f"gpu.{index}.at" not in values
    assert len({values[f"gpu.{index}.uuid"] for index in range(len(gpus))}) == len(gpus)


def test_state_of_an_hgx_host(machine: Machine) -> None:
    values = state(machine("h20-8"))
    expected = {
        "nvswitch.count": "4",
        "nvswitch.3.pci.bus_id": "00000000:08:00.0",
        "gpu.5.uuid": "GPU-51300000-0000-0000-0000-000000000005",
        "gpu.0.pci.device_id": "0x232910DE",
        "gpu.0.pci.subsystem_id": "0x198B10DE",
        "gpu.0.board_id": str(0x1800),
        "gpu.4.numa_node": "1",
        "gpu.4.cpu_affinity": "48-95,144-191",
        "gpu.0.pcie.gen": "5",
        "gpu.0.pcie.width": "16",
        "gpu.0.multi_gpu_board": "0",
        "gpu.0.ecc.sram_sources": "0,0,0,0,0",
        "gpu.0.clocks.supported_memory_mhz": "2619,1593",
        "gpu.0.clocks.supported_graphics_mhz.2619": "1980:345:15",
        "gpu.0.nvlink.0.state": "1",
        "gpu.0.nvlink.0.errors.replay": "0",
        "gpu.0.nvlink.3.remote": "00000000:05:00.0",
        "gpu.0.nvlink.4.remote": "00000000:06:00.0",
        "gpu.0.nvlink.17.remote": "00000000:08:00.0",
    }
    assert {key: values.get(key) for key in expected} == expected
    assert not [key for key in values if re.fullmatch(r"gpu\.\d+\.nvlink\.(to|18)\b.*", key)]


def test_bridged_pairs_end_at_each_other(machine: Machine) -> None:
    values = state(machine("h100-nvl-8"))
    assert values["nvswitch.count"] == "0"
    for index in range(8):
        ends = {values[f"gpu.{index}.nvlink.{link}.remote"] for link in range(12)}
        assert ends == {values[f"gpu.{index ^ 1}.pci.bus_id"]}
    assert "gpu.0.fabric.state" not in values


def test_readings_of_the_virtual_machine(machine: Machine) -> None:
    values = state(machine("h100-x4-vm"))
    expected = {
        "nvswitch.count": "0",
        "gpu.0.memory.total_bytes": "85520809984",
        "gpu.0.pci.subsystem_id": "0x16C110DE",
        "gpu.0.nvlink.remote": "FFFFFFFF:FF:FF.0",
        "gpu.0.pdi": "0xe8d6f46a8310aa96",
        "gpu.0.power.average_mw": "105610",
        "gpu.2.clocks.current.graphics_mhz": "360",
        "gpu.2.clocks.current.memory_mhz": "2619",
        "gpu.3.temperature.tlimit": "42",
        "gpu.3.temperature.tlimit_threshold.shutdown": "-8",
        "gpu.3.cpu_affinity": "0-63",
        "gpu.3.numa_node": "-1",
    }
    assert {key: values.get(key) for key in expected} == expected
    assert "gpu.0.board_id" not in values


def test_a_geforce_has_neither_ecc_nor_links(machine: Machine) -> None:
    values = state(machine("rtx5090-1"))
    assert not [key for key in values if re.match(r"gpu\.0\.(ecc|nvlink|fabric|mig|remap)\.", key)]
    assert (values["gpu.0.pcie.gen"], values["gpu.0.pci.class"]) == ("1", "0x030000")


def test_an_infiniband_adapter(machine: Machine) -> None:
    root = machine("h20-8")
    hca = root / "sys/class/infiniband/mlx5_1"
    assert hca.resolve() == (root / "sys/bus/pci/devices/0000:99:00.0").resolve() / "infiniband/mlx5_1"
    assert (hca / "device").resolve() == (root / "sys/bus/pci/devices/0000:99:00.0").resolve()
    assert (hca / "subsystem").resolve() == root / "sys/class/infiniband"
    port = hca / "ports/1"
    expected = {
        "state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": "200 Gb/sec (4X HDR)", "link_layer": "InfiniBand",
        "lid": "0x6", "sm_lid": "0x1", "lid_mask_count": "0", "gid_attrs/types/0": "IB/RoCE v1",
        "gids/0": "fe80:0000:0000:0000:5230:0003:0020:0002", "counters/link_downed": "0",
        "gids/1": "0000:0000:0000:0000:0000:0000:0000:0000", "hw_counters/lifespan": "10",
        "gid_attrs/types/1": "!FileNotFoundError", "gid_attrs/ndevs/0": "!FileNotFoundError",
    }  # fmt: skip
    assert {name: text(port / name) for name in expected} == expected
    assert re.fullmatch(r"0x[0-9a-f]{8}", text(port / "cap_mask"))
    assert text(hca / "node_guid") == text(hca / "sys_image_guid") == "5230:0003:0020:0002"
    assert [text(hca / name) for name in ("node_type", "hca_type")] == ["1: CA", "MT4123"]
    assert "simulated" in text(hca / "node_desc")
    net = root / "sys/class/net/ib1"
    assert (net / "device").resolve() == (hca / "device").resolve()
    assert [text(net / name) for name in ("type", "addr_len", "speed", "operstate", "carrier", "dev_port")] == [
        "32", "20", "200000", "up", "1", "0",
    ]  # fmt: skip
    assert text(net / "address").endswith("52:30:00:03:00:20:00:02")


def test_character_devices_of_adapters(machine: Machine) -> None:
    root = machine("h20-8")
    verbs, mad = root / "sys/class/infiniband_verbs", root / "sys/class/infiniband_mad"
    assert sorted(path.name for path in verbs.iterdir()) == ["abi_version", "uverbs0", "uverbs1"]
    assert sorted(path.name for path in mad.iterdir()) == ["abi_version", "issm0", "issm1", "umad0", "umad1"]
    assert [text(verbs / "uverbs1" / name) for name in ("ibdev", "dev")] == ["mlx5_1", "231:193"]
    assert [text(mad / "issm1" / name) for name in ("ibdev", "port", "dev")] == ["mlx5_1", "1", "231:65"]
    assert text(root / "proc/devices").splitlines() == ["231 infiniband_mad", "231 infiniband_verbs"]
    for module in ("mlx5_core", "mlx5_ib", "ib_core", "ib_uverbs"):
        assert text(root / "sys/module" / module / "initstate") == "live"
    assert (root / "sys/bus/pci/drivers/mlx5_core/module").resolve() == root / "sys/module/mlx5_core"


def test_a_roce_adapter(machine: Machine) -> None:
    port = machine("h20-3e-8") / "sys/class/infiniband/mlx5_2/ports/1"
    assert [text(port / name) for name in ("link_layer", "lid", "rate")] == ["Ethernet", "0x0", "400 Gb/sec (4X NDR)"]
    assert [text(port / f"gid_attrs/types/{index}") for index in range(4)] == ["IB/RoCE v1", "RoCE v2"] * 2
    assert text(port / "gids/3") == "0000:0000:0000:0000:0000:ffff:c0a8:640d"
    net = machine("h20-3e-8") / "sys/class/net" / text(port / "gid_attrs/ndevs/3")
    assert [text(net / name) for name in ("type", "mtu", "speed")] == ["1", "9000", "400000"]
    assert text(net / "address") == "52:30:00:20:00:03"
    assert not (machine("h20-3e-8") / "sys/class/infiniband_mad/issm0").exists()


def test_a_port_that_is_down() -> None:
    profile = profile_of("h20-8")
    profile["machine"]["hcas"][0]["ports"][0] |= {"state": "DOWN", "phys_state": "Polling", "lid": 0}
    files = machine_folder("h20-8", profile).files
    net = "sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:01.0/0000:19:00.0/net/ib0"
    assert [files[f"{net}/{name}"] for name in ("operstate", "carrier", "speed")] == [b"down\n", b"0\n", b"-1\n"]


def test_the_class_is_empty_where_only_the_module_is_loaded(machine: Machine) -> None:
    assert list((machine("h100-x4-vm") / "sys/class/infiniband").iterdir()) == []
    assert not (machine("rtx5090-1") / "sys/class/infiniband").exists()


def test_addresses_of_interfaces() -> None:
    found = infiniband_address("fe80:0000:0000:0000:5230:0003:0020:0002")
    assert found["address"] == "00:00:10:49:fe:80:00:00:00:00:00:00:52:30:00:03:00:20:00:02"
    assert len(found["broadcast"].split(":")) == 20
    assert mac_of_guid("5230:0003:0020:000a") == "52:30:00:20:00:0a"


def test_ethernet_and_disks(machine: Machine) -> None:
    root = machine("h20-8")
    net = root / "sys/class/net/eno1"
    assert [text(net / name) for name in ("speed", "type", "address", "mtu")] == [
        "100000",
        "1",
        "52:30:00:10:00:01",
        "1500",
    ]
    disk = root / "sys/block/nvme1n1"
    assert disk.resolve() == (root / "sys/class/block/nvme1n1").resolve()
    assert int(text(disk / "size")) * 512 == 4000787030016
    assert text(disk / "queue/rotational") == "0"
    assert text(disk / "device/model") == "Simulated NVMe"
    assert (root / "sys/class/nvme/nvme1").resolve() == disk.resolve().parent
    assert (root / "sys/class/nvme/nvme1/device").resolve().name == "0000:66:00.0"


def test_cpuinfo_has_every_thread(machine: Machine) -> None:
    blocks = (machine("h20-8") / "proc/cpuinfo").read_text().strip().split("\n\n")
    assert len(blocks) == 192
    places = {(re.search(r"physical id\t: (\d+)", b)[1], re.search(r"core id\t\t: (\d+)", b)[1]) for b in blocks}  # type: ignore[index]
    assert len(places) == 96
    last = dict(line.split(": ", 1) for line in blocks[191].splitlines())
    assert last["processor\t"] == "191"
    assert last["physical id\t"] == "1"
    assert last["model\t\t"] == "143"


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere_inside(name: str, machine: Machine) -> None:
    root = machine(name)
    for path in root.rglob("*"):
        if path.is_symlink():
            target = Path(os.path.realpath(path))
            assert target.is_relative_to(root), path
            loaded_by_the_host = target.parent == root / "sys/bus/pci/drivers"
            assert target.exists() or loaded_by_the_host, path


@pytest.mark.parametrize("name", NAMES)
def test_a_machine_is_small(name: str, machine: Machine) -> None:
    sizes = [path.lstat() for path in machine(name).rglob("*")]
    assert sum(entry.st_size for entry in sizes if not entry.st_mode & 0o040000) < 3 * KIB * KIB
    assert sum(entry.st_blocks * 512 for entry in sizes) < 12 * KIB * KIB


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_replaces_the_real_machine_is_marked(name: str) -> None:
    marks = machine_folder(name, profile_of(name)).opaque
    roots = {
        path.split("/")[2]
        for path in machine_folder(name, profile_of(name)).files
        if path.startswith("sys/devices/pci")
    }
    assert marks == {
        "sys/devices/system/node",
        "sys/devices/system/cpu/cpufreq",
        *(f"sys/devices/{root}" for root in roots),
    }


def test_the_folder_carries_its_profile(machine: Machine) -> None:
    stored = json.loads((machine("h20-8") / "profile.json").read_text())
    assert (stored["name"], stored["simulated"], stored["slots"]) == ("h20-8", True, 8)
    assert stored["machine"]["hcas"] == profile_of("h20-8")["machine"]["hcas"]


def test_the_digest_is_of_the_content() -> None:
    profile = profile_of("h100-x4-vm")
    first = machine_folder("vm", profile).digest()
    assert re.fullmatch(r"[0-9a-f]{12}", first)
    assert machine_folder("vm", copy.deepcopy(profile)).digest() == first
    profile["machine"]["gpus"][0]["temperature"]["gpu"] += 1
    assert machine_folder("vm", profile).digest() != first
    assert Folder(links={"a": "b"}).digest() != Folder(links={"a": "c"}).digest() != Folder(opaque={"a"}).digest()


def test_a_machine_is_built_once(tmp_path: Path) -> None:
    profile = profile_of("h100-x4-vm")
    left_behind = tmp_path / f"vm-{machine_folder('vm', profile).digest()}.part"
    left_behind.mkdir()
    (left_behind / "half").write_text("")
    path, built = build("vm", profile, tmp_path)
    assert built
    assert not (path / "half").exists()
    assert build("vm", profile, tmp_path) == (path, False)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_write_that_fails_leaves_nothing_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(folders.os, "setxattr", full)
    with pytest.raises(OSError, match="no space"):
        build("vm", profile_of("h100-x4-vm"), tmp_path)
    assert [entry.suffix for entry in tmp_path.iterdir()] == [".part"]


@pytest.mark.parametrize(("user", "refused"), [(1000, False), (0, True)])
def test_only_without_root_are_marks_left_out(
    user: int, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def not_permitted(_path: Path, name: str, value: bytes) -> None:
        tried.append((name, value))
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(folders.os, "setxattr", not_permitted)
    monkeypatch.setattr(folders.os, "geteuid", lambda: user)
    if refused:
        with pytest.raises(OSError, match="not permitted"):
            build("vm", profile_of("h100-x4-vm"), tmp_path)
    else:
        assert build("vm", profile_of("h100-x4-vm"), tmp_path)[1]
    assert set(tried) == {(OPAQUE, b"y")}


def test_a_profile_without_a_machine_is_refused() -> None:
    with pytest.raises(ProfileError, match="lab-cpu has no machine to simulate; add `machine`"):
        machine_folder("lab-cpu", profile_of("lab-cpu"))


Answer = tuple[int, dict[str, Any]]


@pytest.fixture
def module(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """module(profile, dest, check): (exit status, answer) of simulated_machine."""

    def run(profile: dict[str, Any], dest: Path, check: bool = False) -> Answer:
        given = {"name": "vm", "profile": profile, "dest": str(dest), "_ansible_check_mode": check}
        with patch_module_args(given), pytest.raises(SystemExit) as ended:
            simulated_machine.main()
        return int(str(ended.value.code)), json.loads(capsys.readouterr().out)

    return run


def test_the_module_builds_once(module: Callable[..., Answer], tmp_path: Path) -> None:
    profile = profile_of("h100-x4-vm")
    dest = tmp_path / "machines"
    status, would = module(profile, dest, check=True)
    assert (status, would["changed"], dest.exists()) == (0, True, False)
    status, first = module(profile, dest)
    assert (status, first["changed"], first["path"]) == (0, True, would["path"])
    assert (Path(first["path"]) / "state").is_file()
    assert [module(profile, dest, check=check)[1]["changed"] for check in (False, True)] == [False, False]


def test_the_module_says_what_is_wrong(module: Callable[..., Answer], tmp_path: Path) -> None:
    profile = profile_of("h100-x4-vm") | {"slots": 3, "memory_mib": 1}
    status, answer = module(profile, tmp_path)
    assert status == 1
    assert answer["msg"].startswith("hardware profile vm: slots is 3, but machine.gpus gives 4; make them agree.")
    assert answer["msg"].endswith("(and 1 more in problems)")
    assert len(answer["problems"]) == 2
    (tmp_path / "file").write_text("")
    status, answer = module(profile_of("h100-x4-vm"), tmp_path / "file")
    assert (status, "\n" in answer["msg"]) == (1, False)
    assert "cannot write the machine vm" in answer["msg"]
