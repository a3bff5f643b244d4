"""Every reading of a real machine with four H100 comes back from the simulated one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from driver_support import FIXTURE, REPO, Host

READINGS = REPO / "tests/simulated/nvml_readings.py"
# What nvidia-smi does not have from NVML, and when it was asked.
NOT_IN_NVML = {"timestamp", "gpu_part_number", "sparse_operation_mode"}


@pytest.fixture
def host(tmp_path: Path, machine: Callable[[str], Path]) -> Host:
    return Host(tmp_path / "root", machine("h100-x4-vm"))


def leaves(element: ElementTree.Element, above: str = "") -> list[tuple[str, str]]:
    """Path and text of every element without elements below, in order."""
    found = []
    for place, child in enumerate(element):
        path = f"{above}/{place}:{child.tag}"
        found += leaves(child, path) if len(child) else [(path, (child.text or "").strip())]
    return found


def test_nvml_says_what_the_real_one_said(host: Host) -> None:
    assert host.run(sys.executable, READINGS).stdout == (FIXTURE / "nvml.txt").read_text()


def test_every_field_of_nvidia_smi_is_there_in_its_order_with_its_value(host: Host) -> None:
    printed = host.smi("-q", "-x")
    assert printed.returncode == 0
    have = leaves(ElementTree.fromstring(printed.stdout))  # noqa: S314 - our own output
    wanted = leaves(ElementTree.parse(FIXTURE / "nvidia-smi.xml").getroot())  # noqa: S314 - a file of ours
    assert [path for path, _ in have] == [path for path, _ in wanted]
    differ = [(path, old, new) for (path, old), (_, new) in zip(wanted, have, strict=True) if old != new]
    assert {path.split(":")[-1] for path, _, _ in differ} == NOT_IN_NVML


def test_the_xml_is_laid_out_as_the_real_one(host: Host) -> None:
    have = host.smi("-q", "-x").stdout.splitlines()
    wanted = (FIXTURE / "nvidia-smi.xml").read_text().splitlines()
    assert "simulated" in have.pop(2)
    differ = [line for line, real in zip(have, wanted, strict=True) if line != real]
    assert len(differ) == 1 + 2 * 4


def test_comparison_with_a_real_nvidia_smi_finds_nothing(host: Host) -> None:
    done = host.run(sys.executable, READINGS, "--compare", FIXTURE / "nvidia-smi.xml")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        "1736 readings of nvidia-smi, 1736 of NVML, 0 differ",
    )


def test_comparison_finds_what_differs_and_what_is_missing(host: Host, tmp_path: Path) -> None:
    text = (FIXTURE / "nvidia-smi.xml").read_text()
    changed = tmp_path / "smi.xml"
    changed.write_text(
        text.replace("<vbios_version>96.00", "<vbios_version>97.00", 1).replace("<egm>disabled</egm>", "", 1)
    )
    done = host.run(sys.executable, READINGS, "--compare", changed)
    assert done.returncode == 1
    differs = [line for line in done.stdout.splitlines() if line.startswith("differs: ")]
    assert len(differs) == 3
    assert "differs: gpu/vbios_version: nvidia-smi '97.00.DA.00.0C', NVML '96.00.DA.00.0C'" in differs
    assert "differs: gpu/capabilities/egm: nvidia-smi has it not, NVML 'disabled'" in differs


def test_comparison_leaves_out_what_follows_the_load(host: Host) -> None:
    host.set({"gpu.0.temperature.gpu": "60", "gpu.0.power.average_mw": "650000", "gpu.0.utilization.gpu": "99"})
    assert host.run(sys.executable, READINGS, "--compare", FIXTURE / "nvidia-smi.xml").returncode == 0


def test_readings_as_json(host: Host) -> None:
    readings = json.loads(host.run(sys.executable, READINGS, "--json").stdout)
    assert readings["gpu[3]/temperature/gpu_temp"] == "45 C"
    assert readings["gpu/supported_clocks/supported_mem_clock[1]/supported_graphics_clock[109]"] == "345 MHz"


@pytest.mark.parametrize(
    ("words", "name"), [(("topo", "-m"), "topo-m.txt"), (("nvlink", "-s"), "nvlink-s.txt")], ids=["topo", "nvlink"]
)
def test_topology_and_links_are_printed_as_the_real_ones(host: Host, words: tuple[str, ...], name: str) -> None:
    have = host.smi(*words)
    blanked = have.stdout
    for number in range(1, 5):
        blanked = blanked.replace(f"00000000000{number})", "000000000000)")
    assert blanked == (FIXTURE / name).read_text()
    assert have.stderr == "nvidia-smi: simulated GPUs\n"
