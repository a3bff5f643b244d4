"""Settings of GPUs in the plan: who gets them, and what is refused before a host is touched."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Compile, codes

H20 = "h20-4x8-deepseek-v3"
GPU = "gpu_settings"
APPLICATION = {"memory_mhz": 2619, "graphics_mhz": 1980}
RANGE = {"low_mhz": "min", "high_mhz": 1830}


def test_the_gpus_that_engines_use_get_them_and_no_other(compiled: Compile) -> None:
    plan = compiled("lab")
    mine = plan["slices"]["node1"][GPU]
    assert mine["settings"] == plan[GPU] and plan[GPU]["power_limit_w"] == 450
    assert (mine["count"], mine["gpus"]) == (8, [{"index": 0, "units": ["vllm-tiny-deepseek-0.service"]}])
    assert GPU in plan["slices"]["node1"]["roles"]
    assert plan["slices"]["gw"][GPU] is None and GPU not in plan["slices"]["gw"]["roles"]


def test_a_gpu_host_without_engines_has_none_to_set(compiled: Compile) -> None:
    slices = compiled(H20, {"deployments.0.replicas": 3})["slices"]
    assert [gpu["index"] for gpu in slices["h20-01"][GPU]["gpus"]] == list(range(8))
    assert slices["h20-04"][GPU]["gpus"] == []


def test_without_a_description_nothing_is_set_and_serving_gpus_are_still_known(compiled: Compile) -> None:
    plan = compiled(H20, {GPU: {}})
    assert codes(plan) == [] and plan[GPU] == {}
    mine = plan["slices"]["h20-01"][GPU]
    assert mine["settings"] == {} and mine["gpus"][7]["units"] == ["vllm-deepseek-v3-0.service"]


def test_hosts_without_gpus_have_no_part_in_it(compiled: Compile) -> None:
    patch: dict[str, Any] = {"hardware": "lab-cpu", "simulated_hardware": False, "network.fabric": {}, GPU: {}}
    plan = compiled("lab", patch)
    assert codes(plan) == [] and plan["slices"]["node1"][GPU] is None
    assert codes(compiled("lab", {**patch, GPU: {"ecc": True}})) == ["gpu-settings-without-gpu"]


@pytest.mark.parametrize("settings", [None, {"power_limit_w": None}, {"application_clocks": None}])
def test_what_is_left_out_is_not_set(compiled: Compile, settings: Any) -> None:
    assert compiled(H20, {GPU: settings})[GPU] == {}


@pytest.mark.parametrize(
    "settings",
    [
        {"power_limit_w": 500},
        {"power_limit_w": "max"},
        {"application_clocks": {"memory_mhz": "max", "graphics_mhz": "max"}},
        {"locked_graphics_clocks": RANGE, "locked_memory_clocks": {"low_mhz": "max", "high_mhz": "max"}},
        {"ecc": True, "persistence_mode": True},
    ],
)
def test_good_settings_come_through_as_they_are(compiled: Compile, settings: Any) -> None:
    plan = compiled(H20, {GPU: settings})
    assert (codes(plan), plan[GPU]) == ([], settings)


@pytest.mark.parametrize(
    ("settings", "code", "where"),
    [
        ({"power_limit": 450}, "unknown-key", ".power_limit"),
        ({"application_clock": APPLICATION}, "unknown-key", ".application_clock"),
        ({"application_clocks": {**APPLICATION, "sm_mhz": 1}}, "unknown-key", ".application_clocks.sm_mhz"),
        ({"application_clocks": {"memory_mhz": 2619}}, "missing-key", ".application_clocks.graphics_mhz"),
        ({"locked_graphics_clocks": {"low_mhz": 345}}, "missing-key", ".locked_graphics_clocks.high_mhz"),
        ({"application_clocks": "1215,1410"}, "wrong-type", ".application_clocks"),
        ({"application_clocks": {**APPLICATION, "memory_mhz": "2619"}}, "bad-choice", ".application_clocks.memory_mhz"),
        ({"application_clocks": {**APPLICATION, "memory_mhz": "min"}}, "bad-choice", ".application_clocks.memory_mhz"),
        ({"locked_memory_clocks": {**RANGE, "low_mhz": 26.19}}, "wrong-type", ".locked_memory_clocks.low_mhz"),
        ({"locked_graphics_clocks": {**RANGE, "high_mhz": True}}, "wrong-type", ".locked_graphics_clocks.high_mhz"),
        ({"locked_graphics_clocks": {**RANGE, "high_mhz": 2}}, "out-of-range", ".locked_graphics_clocks.high_mhz"),
        ({"locked_graphics_clocks": [345, 1980]}, "wrong-type", ".locked_graphics_clocks"),
        ({"power_limit_w": "450"}, "bad-choice", ".power_limit_w"),
        ({"power_limit_w": "450 W"}, "bad-choice", ".power_limit_w"),
        ({"power_limit_w": 450.5}, "wrong-type", ".power_limit_w"),
        ({"power_limit_w": 0}, "out-of-range", ".power_limit_w"),
        ({"power_limit_w": True}, "wrong-type", ".power_limit_w"),
        ({"power_limit_w": 700}, "gpu-power-limit", ".power_limit_w"),
        ({"persistence_mode": "on"}, "wrong-type", ".persistence_mode"),
        ({"persistence_mode": 1}, "wrong-type", ".persistence_mode"),
        ({"ecc": "enabled"}, "wrong-type", ".ecc"),
        (
            {"application_clocks": {"memory_mhz": 1215, "graphics_mhz": 1410}},
            "gpu-clocks-of-another",
            ".application_clocks",
        ),
        ({"locked_graphics_clocks": {"low_mhz": 1980, "high_mhz": 345}}, "gpu-clock-range", ".locked_graphics_clocks"),
        ({"locked_memory_clocks": {"low_mhz": "max", "high_mhz": "min"}}, "gpu-clock-range", ".locked_memory_clocks"),
        (
            {"application_clocks": APPLICATION, "locked_graphics_clocks": RANGE},
            "gpu-clocks-twice",
            ".locked_graphics_clocks",
        ),
        ({"persistence_mode": False, "power_limit_w": 450}, "gpu-settings-forgotten", ".persistence_mode"),
        ({"persistence_mode": False}, "gpu-persistence", ".persistence_mode"),
        ([], "wrong-type", ""),
    ],
)
def test_bad_settings_are_refused(compiled: Compile, settings: Any, code: str, where: str) -> None:
    plan = compiled(H20, {GPU: settings})
    found = [(item["code"], item["where"]) for item in plan["findings"] if item["severity"] == "error"]
    assert found == [(code, f"cluster.gpu_settings{where}")]
    assert plan[GPU] == {}


def test_the_line_about_the_clocks_of_another_gpu_says_what_to_write(compiled: Compile) -> None:
    plan = compiled(H20, {GPU: {"application_clocks": {"memory_mhz": 1215, "graphics_mhz": 1410}}})
    (item,) = [item for item in plan["findings"] if item["code"] == "gpu-clocks-of-another"]
    assert "clocks of an A100" in item["why"] and "{memory_mhz: max, graphics_mhz: max}" in item["fix"]


def test_error_correction_that_is_off_is_a_warning_that_a_site_may_accept(compiled: Compile) -> None:
    plan = compiled(H20, {GPU: {"ecc": False}})
    assert "ecc-off" in codes(plan, "warning") and plan[GPU] == {"ecc": False}
    assert "ecc-off" in codes(compiled(H20, {GPU: {"ecc": False}, "exceptions": ["ecc-off"]}), "note")


def test_a_site_that_brings_its_driver_may_turn_persistence_off(compiled: Compile) -> None:
    patch = {GPU: {"persistence_mode": False}, "driver": "preinstalled", "repositories": {}}
    assert compiled(H20, patch)[GPU] == {"persistence_mode": False}
