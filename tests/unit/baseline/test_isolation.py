"""IOMMU and ACS in the way of GPUs and adapters, on simulated machines: what is said, and the boot parameter."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import yaml
from rackserve.baseline.isolation import acs_control, isolation_findings, our_devices
from rackserve.simulated.machine import build

REPO = Path(__file__).resolve().parents[3]
BRIDGE = "0000:17:00.0"  # above a GPU
ELSEWHERE = "0000:64:02.0"  # above a disk
ACS_AT, ACS_CONTROL_AT = 0x100, 0x106


def machine(tmp_path: Path, name: str = "h20-8") -> Path:
    profile = yaml.safe_load((REPO / f"files/hardware/{name}.yml").read_text("utf-8"))
    return build(name, profile, tmp_path)[0]


def control(root: Path, bridge: str, value: int) -> None:
    path = root / "sys/bus/pci/devices" / bridge / "config"
    space = bytearray(path.read_bytes())
    struct.pack_into("<H", space, ACS_CONTROL_AT, value)
    path.write_bytes(space)


def group(root: Path, device: str, kind: str) -> None:
    folder = root / "sys/bus/pci/devices" / device / "iommu_group"
    folder.mkdir()
    (folder / "type").write_text(f"{kind}\n")


def test_gpus_and_adapters_are_looked_at_and_nothing_else(tmp_path: Path) -> None:
    assert len(our_devices(machine(tmp_path))) == 8 + 2


def test_a_host_without_either_has_nothing_to_say(tmp_path: Path) -> None:
    root = machine(tmp_path)
    assert isolation_findings(root) == []
    group(root, "0000:18:00.0", "identity")
    control(root, BRIDGE, 0x0001)  # source validation alone sends nothing another way
    control(root, ELSEWHERE, 0x001D)
    assert isolation_findings(root) == []


@pytest.mark.parametrize("kind", ["DMA", "DMA-FQ"])
def test_translated_access_names_the_devices_and_the_parameter(tmp_path: Path, kind: str) -> None:
    root = machine(tmp_path)
    group(root, "0000:18:00.0", kind)
    group(root, "0000:65:00.0", kind)  # a disk
    (found,) = isolation_findings(root)
    assert (found["severity"], found["code"], found["where"]) == ("warning", "iommu-translates", "PCI 0000:18:00.0")
    assert "iommu=pt" in found["fix"]


@pytest.mark.parametrize("value", [0x001D, 0x0004, 0x0008])
def test_redirected_traffic_names_the_bridges_and_the_parameter(tmp_path: Path, value: int) -> None:
    root = machine(tmp_path)
    control(root, BRIDGE, value)
    control(root, "0000:97:01.0", value)
    (found,) = isolation_findings(root)
    assert (found["code"], found["where"]) == ("acs-redirects", f"PCI bridge {BRIDGE}, 0000:97:01.0")
    assert f"pci=disable_acs_redir={BRIDGE};0000:97:01.0" in found["fix"]


def test_a_virtual_machine_is_not_judged(tmp_path: Path) -> None:
    root = machine(tmp_path)
    control(root, BRIDGE, 0x001D)
    (root / "proc/cpuinfo").write_text("flags\t\t: fpu hypervisor lahf_lm\n")
    assert isolation_findings(root) == []


def test_a_configuration_space_that_is_short_or_broken() -> None:
    assert acs_control(b"\0" * 64) == 0
    loop = bytearray(4096)
    struct.pack_into("<I", loop, ACS_AT, 0x0001 | 1 << 16 | 0x100 << 20)  # points at itself
    assert acs_control(bytes(loop)) == 0
    struct.pack_into("<I", loop, ACS_AT, 0x0001 | 1 << 16 | 0xFFC << 20)  # points at its end
    assert acs_control(bytes(loop)) == 0
