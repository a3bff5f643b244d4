"""Settings of GPUs on simulated ones, through the compiled NVML: what is set, refused, recorded and given back."""

from __future__ import annotations

import os
from typing import Any

import pytest
from driver_support import FIXTURE
from gpu_settings_support import APPLICATION, SETTINGS, UNITS, Bench
from rackserve.gpu.settings.nvml import LIBRARY_NOT_FOUND, Nvml, NvmlError
from rackserve.gpu.settings.reading import Gpu
from rackserve.gpu.settings.record import LOCKS_FILE, PRIOR_FILE, RecordError
from rackserve.gpu.settings.session import Outcome, SettingError
from rackserve.gpu.settings.smi import compare_readings, parse_smi


def said(outcome: Outcome) -> list[str]:
    return [f"{one.gpu.index}: {one}" for one in outcome.changed]


def test_readings_are_those_of_nvidia_smi_field_by_field(bench: Bench) -> None:
    theirs = parse_smi((FIXTURE / "nvidia-smi.xml").read_text())
    rows = compare_readings([bench.gpu(index) for index in range(4)], theirs)
    assert len(rows) == 4 * len(Gpu.__dataclass_fields__)
    assert [row for row in rows if row[4] != "equal"] == []


def test_everything_is_set_once_and_read_back(bench: Bench) -> None:
    bench.host.set({"gpu.0.persistence_mode": "0"})
    first = bench.go()
    assert said(first)[:5] == [
        "0: persistence_mode off, wanted on",
        "0: ecc on, wanted off",
        "0: power_limit_w 700 W, wanted 450 W",
        "0: locked_memory_clocks not locked, wanted 2619 to 2619 MHz",
        "0: locked_graphics_clocks not locked, wanted 1200 to 1830 MHz",
    ]
    assert len(first.changed) == 9
    gpu = bench.gpu()
    assert (gpu.persistence_mode, gpu.power_limit_mw, gpu.graphics_mhz, gpu.ecc) == (True, 450000, 1200, (True, False))
    again = bench.go()
    assert (again.changed, again.waiting, again.refusals) == ([], [], [])
    assert [note.split(" after")[0] for note in again.notes] == [
        "simulated GPU 0: ECC is on and will be off",
        "simulated GPU 1: ECC is on and will be off",
    ]


def test_application_clocks(bench: Bench) -> None:
    assert said(bench.go(APPLICATION, (2,))) == [
        "2: application_clocks memory 2619, graphics 1980 MHz, wanted memory 2619, graphics 1830 MHz"
    ]
    assert bench.gpu(2).application_clocks == (2619, 1830)
    assert bench.go(APPLICATION, (2,)).changed == []
    assert len(bench.go({}, (2,)).changed) == 1
    assert bench.gpu(2).application_clocks == (2619, 1980)


def test_gpus_that_the_plan_does_not_allocate_are_not_touched(bench: Bench) -> None:
    before = [bench.gpu(index) for index in (2, 3)]
    bench.go()
    assert [bench.gpu(index) for index in (2, 3)] == before
    assert len(bench.record()) == 2


def test_check_mode_says_the_same_and_changes_nothing(bench: Bench) -> None:
    before = sorted((path, path.read_bytes()) for path in bench.root.rglob("*") if path.is_file())
    would = said(bench.go(check=True))
    assert sorted((path, path.read_bytes()) for path in bench.root.rglob("*") if path.is_file()) == before
    assert would == said(bench.go())


def test_the_clocks_of_another_gpu_are_refused_with_the_supported_ones_on_one_line(bench: Bench) -> None:
    pair = {"application_clocks": {"memory_mhz": 1215, "graphics_mhz": 1410}, "power_limit_w": 450}
    outcome = bench.go(pair, (0, 1, 2, 3))
    assert outcome.refusals == [
        "simulated GPU 0,1,2,3 (NVIDIA H100 80GB HBM3): application_clocks memory 1215 MHz is not a memory clock it "
        "supports (1593, 2619); supported: memory 2619 with graphics 345 to 1980 step 15; memory 1593 with graphics "
        "345 to 1980 step 15 MHz: correct cluster.gpu_settings.application_clocks"
    ]
    assert outcome.changed == [] and bench.gpu().power_limit_mw == 700000 and bench.record() == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"power_limit_w": 701}, "power_limit_w 701 W is outside of what it supports, 200 to 700 W (default 700)"),
        ({"power_limit_w": 199}, "power_limit_w 199 W is outside"),
        (
            {"application_clocks": {"memory_mhz": 2619, "graphics_mhz": 1981}},
            "graphics 1981 MHz is not a graphics clock",
        ),
        ({"application_clocks": {"memory_mhz": 1410, "graphics_mhz": "max"}}, "memory 1410 MHz is not a memory clock"),
        ({"locked_graphics_clocks": {"low_mhz": 1201, "high_mhz": 1980}}, "low 1201 MHz is not a graphics clock"),
        ({"locked_graphics_clocks": {"low_mhz": "min", "high_mhz": 2000}}, "high 2000 MHz is not a graphics clock"),
        ({"locked_graphics_clocks": {"low_mhz": 1980, "high_mhz": 345}}, "low 1980 MHz is above high 345 MHz"),
        ({"locked_memory_clocks": {"low_mhz": 1215, "high_mhz": 2619}}, "low 1215 MHz is not a memory clock"),
    ],
)
def test_values_that_the_gpu_does_not_support_are_refused(bench: Bench, settings: Any, words: str) -> None:
    outcome = bench.go(settings, (0,))
    assert len(outcome.refusals) == 1 and "\n" not in outcome.refusals[0]
    assert words in outcome.refusals[0] and "cluster.gpu_settings." in outcome.refusals[0]
    assert outcome.changed == [] and bench.record() == {}


@pytest.mark.parametrize(
    ("gone", "settings", "fix"),
    [
        ("power.limit_mw", {"power_limit_w": 450}, "remove cluster.gpu_settings.power_limit_w"),
        ("persistence_mode", {"persistence_mode": True}, "remove cluster.gpu_settings.persistence_mode"),
        ("ecc.current", {"ecc": True}, "remove cluster.gpu_settings.ecc"),
        ("clocks.app.memory_mhz", APPLICATION, "use cluster.gpu_settings.locked_graphics_clocks"),
    ],
)
def test_what_a_gpu_or_its_driver_does_not_have_is_refused(bench: Bench, gone: str, settings: Any, fix: str) -> None:
    for error in ("!NOT_SUPPORTED", "!DEPRECATED"):
        bench.host.set({f"gpu.0.{gone}": error})
        (line,) = bench.go(settings, (0,)).refusals
        assert line.endswith(fix)


def test_words_are_asked_of_the_gpu(bench: Bench) -> None:
    bench.go({"power_limit_w": 300, "locked_graphics_clocks": {"low_mhz": "min", "high_mhz": "min"}}, (0,))
    assert (bench.gpu().power_limit_mw, bench.host.state()["gpu.0.clocks.locked_graphics_mhz"]) == (300000, "345,345")
    for word in ("default", "max"):
        bench.go({"power_limit_w": word}, (0,))
        assert bench.gpu().power_limit_mw == 700000


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("persistence_mode", "0", "1: persistence_mode off, wanted on"),
        ("power.limit_mw", "300000", "1: power_limit_w 300 W, wanted 450 W"),
        ("power.limit_mw", "300500", "1: power_limit_w 300.5 W, wanted 450 W"),
        ("clocks.locked_graphics_mhz", None, "1: locked_graphics_clocks not locked, wanted 1200 to 1830 MHz"),
        ("clocks.locked_graphics_mhz", "1980,1980", "1: locked_graphics_clocks not locked, wanted 1200 to 1830 MHz"),
        ("clocks.locked_memory_mhz", "1593,1593", "1: locked_memory_clocks not locked, wanted 2619 to 2619 MHz"),
    ],
)
def test_what_was_changed_by_hand_is_named_and_exactly_that_is_set(
    bench: Bench, key: str, value: str | None, line: str
) -> None:
    bench.host.set({"gpu.1.persistence_mode": "1"})
    bench.go()
    settled, record = bench.host.state(), bench.record()
    bench.host.set({f"gpu.1.{key}": value})
    assert said(bench.go(check=True)) == [line]
    assert said(bench.go()) == [line]
    assert bench.host.state() == settled
    assert bench.record() == record


def test_the_ecc_mode_that_was_changed_by_hand(bench: Bench) -> None:
    bench.go()
    bench.host.set({"gpu.1.ecc.pending": "1"}, "var/lib/rackserve-simulated")
    assert said(bench.go()) == ["1: ecc on, wanted off"]


def test_a_clock_that_power_holds_down_is_no_drift(bench: Bench) -> None:
    bench.go()
    bench.host.set({"gpu.0.clocks.locked_graphics_mhz": None, "gpu.0.throttle.reasons": "4"})
    assert bench.go(check=True).changed == []


def test_removed_settings_get_back_what_was_there_before(bench: Bench) -> None:
    bench.host.set({"gpu.0.persistence_mode": "0", "gpu.0.power.limit_mw": "650000"})
    before = [bench.gpu(index) for index in range(4)]
    bench.go()
    kept = {key: value for key, value in SETTINGS.items() if key != "power_limit_w"}
    assert said(bench.go(kept)) == [
        "0: power_limit_w 450 W, as before us 650 W",
        "1: power_limit_w 450 W, as before us 700 W",
    ]
    assert len(bench.go({}).changed) == 7
    assert [bench.gpu(index) for index in range(4)] == before
    assert bench.record() == {} and bench.go({}).changed == []


def test_a_gpu_that_the_plan_takes_away_gets_its_values_back(bench: Bench) -> None:
    bench.go({"power_limit_w": 450}, (0, 1))
    assert said(bench.go({"power_limit_w": 450}, (0,))) == ["1: power_limit_w 450 W, as before us 700 W"]
    assert list(bench.record()) == [bench.gpu(0).uuid]


def test_a_reboot_loses_the_settings_and_the_same_run_sets_them_again(bench: Bench) -> None:
    bench.go()
    record = bench.record()
    bench.reboot()
    gpu = bench.gpu()
    assert (gpu.power_limit_mw, gpu.graphics_mhz, gpu.ecc) == (700000, 345, (False, False))
    assert [line.split()[1] for line in said(bench.go())] == [
        *("power_limit_w", "locked_memory_clocks", "locked_graphics_clocks") * 2
    ]
    assert bench.record() == record
    assert bench.go().notes == []


def test_a_run_that_was_killed_after_it_recorded_is_finished_and_forgets_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Nvml, "set", killed)
        with pytest.raises(KeyboardInterrupt):
            bench.go()
    assert bench.record()[bench.gpu().uuid]["power_limit_w"] == 700
    bench.go()
    assert bench.record()[bench.gpu().uuid]["power_limit_w"] == 700
    bench.go({})
    assert bench.gpu().power_limit_mw == 700000


def test_gpus_that_serve_wait(bench: Bench) -> None:
    bench.running = UNITS
    outcome = bench.go()
    assert outcome.changed == [] and outcome.refusals == []
    assert {tuple(units) for _one, units in outcome.waiting} == {tuple(UNITS)}
    assert [one.setting for one, _units in outcome.waiting][:2] == ["ecc", "power_limit_w"]
    assert bench.gpu().power_limit_mw == 700000
    bench.running = []
    assert len(bench.go().changed) == 8


def test_values_are_not_given_back_under_an_engine_that_runs(bench: Bench) -> None:
    bench.go()
    bench.running = UNITS
    assert len(bench.go({}).waiting) == 8
    assert bench.gpu().power_limit_mw == 450000 and len(bench.record()) == 2


def test_a_gpu_that_somebody_else_computes_on_is_refused(bench: Bench) -> None:
    bench.host.set({"gpu.1.process.7": f"{os.getpid()} 1048576"})
    outcome = bench.go()
    assert outcome.refusals == [
        "simulated GPU 1 (NVIDIA H100 80GB HBM3): processes outside of our units compute on it, so nothing is set: "
        "stop them yourself (nvidia-smi)"
    ]
    assert bench.gpu().power_limit_mw == 700000


def test_a_gpu_that_is_not_there(bench: Bench) -> None:
    outcome = bench.go(gpus=(0, 4, 5))
    assert outcome.refusals == ["simulated GPU 4,5: NVML shows 4 from 0 on: nvidia-smi -L names those that are there"]


def test_a_value_that_the_driver_does_not_keep_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Nvml, "set", lambda *_arguments: None)
    with pytest.raises(
        SettingError, match=r"GPU 0 \(NVIDIA H100 80GB HBM3\): set and read back, yet power_limit_w 700"
    ):
        bench.go({"power_limit_w": 450})


def test_a_refusal_of_the_driver_names_gpu_and_setting(bench: Bench) -> None:
    def refuse(_nvml: Nvml, name: str, *_arguments: Any) -> None:
        raise NvmlError(4, f"{name}: not permitted; run it as root")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Nvml, "set", refuse)
        with pytest.raises(SettingError, match=r"power_limit_w 700 W, wanted 450 W was refused: .*not permitted"):
            bench.go({"power_limit_w": 450})


def test_a_lost_gpu_that_no_engine_uses_is_nobody_s_business(bench: Bench) -> None:
    bench.go()
    bench.host.set({"gpu.3.lost": "1"})
    assert bench.go().changed == []
    assert len(bench.go({}).changed) == 8


def test_a_lost_gpu_and_a_missing_driver_are_said(bench: Bench) -> None:
    bench.host.set({"gpu.0.lost": "1"})
    with pytest.raises(NvmlError, match=r"GPU 0: nvmlDeviceGet\w+: it fell off the bus: .*; drain the host, power it"):
        bench.go()
    with pytest.raises(NvmlError, match="install the driver's packages") as missing:
        Nvml("libnvidia-ml.so.77")
    assert missing.value.code == LIBRARY_NOT_FOUND
    bench.host.set({"gpu.0.lost": None, "module.version": None})
    with pytest.raises(NvmlError, match="the kernel module nvidia is not loaded"):
        bench.go()


@pytest.mark.parametrize("text", ["{", "[]", '{"GPU-1": 7}'])
def test_a_broken_record_stops_the_run(bench: Bench, text: str) -> None:
    path = bench.root / PRIOR_FILE.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(RecordError, match="move it away"):
        bench.go()


def test_the_record_of_locks_ends_with_the_boot(bench: Bench) -> None:
    bench.go()
    assert LOCKS_FILE.startswith("/run/") and (bench.root / LOCKS_FILE.lstrip("/")).exists()
