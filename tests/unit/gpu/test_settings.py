"""Readings of nvidia-smi, clocks as text, and locks that NVML cannot be asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from rackserve.gpu.settings.judge import differences, pending_notes, present
from rackserve.gpu.settings.reading import Gpu, clocks_text, supported_text
from rackserve.gpu.settings.record import Records
from rackserve.gpu.settings.session import call
from rackserve.gpu.settings.smi import compare_readings, parse_smi
from rackserve.gpu.settings.wanted import resolve, value_text

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures/h100-x4-vm/nvidia-smi.xml"
LOCK = "locked_graphics_clocks"
GPU = Gpu(
    0, "GPU-1", "NVIDIA H100", graphics_mhz=1500, supported={2619: list(range(1980, 330, -15)), 1593: [1980, 345]}
)


def test_the_output_of_a_real_machine_is_read() -> None:
    gpus = parse_smi(FIXTURE.read_text())
    assert [gpu.index for gpu in gpus] == [0, 1, 2, 3]
    gpu = gpus[2]
    assert (gpu.name, gpu.persistence_mode, gpu.ecc) == ("NVIDIA H100 80GB HBM3", True, (True, True))
    assert (gpu.power_limit_mw, gpu.power_default_mw, gpu.power_range_mw) == (700000, 700000, (200000, 700000))
    assert (gpu.application_clocks, gpu.application_default) == ((2619, 1980), (2619, 1980))
    assert list(gpu.supported) == [2619, 1593]
    assert supported_text(gpu) == (
        "memory 2619 with graphics 345 to 1980 step 15; memory 1593 with graphics 345 to 1980 step 15 MHz"
    )


@pytest.mark.parametrize("text", ["", "no xml", "<gpu/>", "<nvidia_smi_log>"])
def test_what_is_no_output_of_nvidia_smi_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="no output of nvidia-smi -q -x"):
        parse_smi(text)


def test_what_nvidia_smi_does_not_know_is_none() -> None:
    (gpu,) = parse_smi(
        "<nvidia_smi_log><gpu><uuid>GPU-1</uuid><persistence_mode>N/A</persistence_mode></gpu></nvidia_smi_log>"
    )
    assert gpu == Gpu(0, "GPU-1", "")


def test_fields_that_differ_are_found_and_those_that_move_are_called_so() -> None:
    theirs = parse_smi(FIXTURE.read_text())[:2]
    ours = [dataclasses.replace(theirs[0], power_limit_mw=650000, graphics_mhz=1980), theirs[1]]
    rows = compare_readings(ours, theirs)
    assert [row for row in rows if row[4] != "equal"] == [
        (0, "power_limit_mw", 650000, 700000, "differs"),
        (0, "graphics_mhz", 1980, 345, "moves"),
    ]
    assert compare_readings(ours, theirs[:1])[-1] == (1, "gpu", "there", "missing", "differs")


@pytest.mark.parametrize(
    ("clocks", "text"),
    [
        ([], "none"),
        ([1980], "1980"),
        ([2619, 1593], "1593, 2619"),
        ([45, 30, 15], "15 to 45 step 15"),
        ([100, 90, 80, 55, 40], "40, 55, 80 to 100 step 10"),
        ([405, 390, 375, 210], "210, 375 to 405 step 15"),
        ([1410, 1410, 1395], "1395, 1410"),
    ],
)
def test_clocks_on_one_line(clocks: list[int], text: str) -> None:
    assert clocks_text(clocks) == text


@pytest.mark.parametrize(
    ("clock", "held", "reasons", "locked"),
    [
        (1500, True, 0, True),
        (1200, True, 0, True),
        (1831, True, 0, False),
        (1831, False, 0, False),
        (345, True, 0x1, False),
        (345, False, 0x1, True),  # idle, and never seen to follow: it tells nothing
        (345, True, 0x4, True),  # held down by power
        (345, True, 0x40, True),  # by heat
        (None, True, 0, True),
    ],
)
def test_a_lock_is_believed_until_the_clock_contradicts_it(
    clock: int | None, held: bool, reasons: int, locked: bool
) -> None:
    gpu = dataclasses.replace(GPU, graphics_mhz=clock, reasons=reasons)
    locks = {LOCK: {"range": [1200, 1830], "held": held}}
    assert present(gpu, LOCK, locks) == ((1200, 1830) if locked else None)
    assert present(gpu, LOCK, {}) is None


def test_settings_without_a_record_and_without_a_wish_are_nobodys_business() -> None:
    gpu = dataclasses.replace(GPU, power_limit_mw=300000, persistence_mode=False)
    assert differences(gpu, {}, {}, {}) == []
    assert [str(one) for one in differences(gpu, {}, {"power_limit_w": 700}, {})] == [
        "power_limit_w 300 W, as before us 700 W"
    ]


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("persistence_mode", True, ("nvmlDeviceSetPersistenceMode", (1,))),
        ("ecc", False, ("nvmlDeviceSetEccMode", (0,))),
        ("power_limit_w", 450, ("nvmlDeviceSetPowerManagementLimit", (450000,))),
        ("power_limit_w", 300.5, ("nvmlDeviceSetPowerManagementLimit", (300500,))),
        ("application_clocks", (2619, 1830), ("nvmlDeviceSetApplicationsClocks", (2619, 1830))),
        ("application_clocks", (2619, 1980), ("nvmlDeviceResetApplicationsClocks", ())),
        ("locked_graphics_clocks", (345, 1980), ("nvmlDeviceSetGpuLockedClocks", (345, 1980))),
        ("locked_graphics_clocks", None, ("nvmlDeviceResetGpuLockedClocks", ())),
        ("locked_memory_clocks", None, ("nvmlDeviceResetMemoryLockedClocks", ())),
    ],
)
def test_the_driver_s_call_of_a_value(setting: str, value: Any, expected: Any) -> None:
    assert call(dataclasses.replace(GPU, application_default=(2619, 1980)), setting, value) == expected


def test_words_without_a_list_of_clocks_are_refused() -> None:
    values, refusals = resolve({LOCK: {"low_mhz": "min", "high_mhz": "max"}}, dataclasses.replace(GPU, supported={}))
    assert values == {} and refusals == [
        f"{LOCK} is nothing that this GPU or its driver has: remove cluster.gpu_settings.{LOCK}"
    ]


def test_values_as_text() -> None:
    assert value_text("application_clocks", (2619, 1980)) == "memory 2619, graphics 1980 MHz"
    assert value_text(LOCK, None) == "not locked" and value_text("power_limit_w", None) == "unknown"
    assert pending_notes(GPU) == []


def test_the_first_value_before_us_is_the_one_that_is_kept(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.remember("GPU-1", "power_limit_w", 700)
    records.remember("GPU-1", "power_limit_w", 450)
    records.remember("GPU-1", LOCK, None)
    assert Records(tmp_path).prior == {"GPU-1": {"power_limit_w": 700, LOCK: None}}
    for setting in (LOCK, "power_limit_w", "power_limit_w"):
        records.forget("GPU-1", setting)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
