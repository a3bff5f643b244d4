"""Items of kind gpu: compared through NVML, named one by one, and waiting while a unit uses the GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.rackserve.converge.errors import DocumentError
from ansible.module_utils.rackserve.gpu.settings import look
from ansible.module_utils.rackserve.gpu.settings.nvml import LIBRARY_NOT_FOUND, NOT_SUPPORTED, NvmlError
from ansible.module_utils.rackserve.gpu.settings.record import PRIOR_FILE
from converge_support import FakeSystemd, go

WANTED = {"power_limit_w": 450, "persistence_mode": True}


class FakeNvml:
    """Two GPUs with a power limit and a persistence mode; counts how often it was opened."""

    opened = 0
    power_mw = 700000

    def __init__(self) -> None:
        FakeNvml.opened += 1

    def count(self) -> int:
        return 2

    def device(self, index: int) -> int:
        return index

    def text(self, name: str, device: int) -> str:
        return f"{name.removeprefix('nvmlDeviceGet')}-{device}"

    def number(self, name: str, _device: int, *_arguments: int) -> int:
        known = {"nvmlDeviceGetPersistenceMode": 1, "nvmlDeviceGetPowerManagementLimit": self.power_mw}
        if name not in known:
            raise NvmlError(NOT_SUPPORTED, name)
        return known[name]

    def pair(self, name: str, _device: int) -> tuple[int, int]:
        if name != "nvmlDeviceGetPowerManagementLimitConstraints":
            raise NvmlError(NOT_SUPPORTED, name)
        return 200000, 700000

    def wide(self, name: str, _device: int) -> int:
        raise NvmlError(NOT_SUPPORTED, name)

    def numbers(self, name: str, _device: int, *_arguments: int) -> list[int]:
        raise NvmlError(NOT_SUPPORTED, name)


@pytest.fixture(autouse=True)
def nvml(monkeypatch: pytest.MonkeyPatch) -> type[FakeNvml]:
    monkeypatch.setattr(look, "Nvml", FakeNvml)
    monkeypatch.setattr(FakeNvml, "opened", 0)
    return FakeNvml


def documents(*settings: Any, units: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    items = [
        {"id": f"gpu-{index}", "kind": "gpu", "index": index, "settings": wanted, "units": list(units)}
        for index, wanted in enumerate(settings)
    ]
    return [{"role": "gpu_settings", "items": items}]


def test_each_setting_that_differs_is_named_and_nothing_is_applied(tmp_path: Path) -> None:
    result = go(tmp_path, documents(WANTED, {"power_limit_w": "default"}))
    assert result["roles"]["gpu_settings"] == {
        "dirty": True,
        "changed": [],
        "differs": [{"id": "gpu-0", "kind": "gpu", "why": "power_limit_w 700 W, wanted 450 W"}],
    }
    assert result["changed"] is False and FakeNvml.opened == 1


def test_as_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeNvml, "power_mw", 450000)
    assert go(tmp_path, documents(WANTED, WANTED))["dirty_roles"] == []


def test_without_settings_and_without_a_record_the_driver_is_not_asked(tmp_path: Path) -> None:
    assert go(tmp_path, documents({}, {}))["dirty_roles"] == []
    assert FakeNvml.opened == 0


def test_a_recorded_setting_that_nobody_wants_any_more_differs(tmp_path: Path) -> None:
    path = tmp_path / PRIOR_FILE.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"UUID-1": {"power_limit_w": 600}}))
    (found,) = go(tmp_path, documents({}, {}))["roles"]["gpu_settings"]["differs"]
    assert (found["id"], found["why"]) == ("gpu-1", "power_limit_w 700 W, as before us 600 W")


def test_a_gpu_that_serves_waits_at_the_gate(tmp_path: Path) -> None:
    systemd = FakeSystemd(vllm_a={"ActiveState": "active"}, vllm_b={"ActiveState": "inactive"})
    units = ("vllm-a.service", "vllm-b.service")
    result = go(tmp_path, documents(WANTED, units=units), run=systemd)
    assert result["dirty_roles"] == []
    why = "waiting for the gate: GPU 0: power_limit_w 700 W, wanted 450 W"
    assert result["stale"] == [{"unit": "vllm-a.service", "role": "gpu_settings", "why": why}]


def test_a_gpu_whose_units_are_down_does_not_wait(tmp_path: Path) -> None:
    result = go(tmp_path, documents(WANTED, units=("vllm-a.service",)), run=FakeSystemd())
    assert result["dirty_roles"] == ["gpu_settings"] and result["stale"] == []


def test_what_the_gpu_does_not_support_is_said_even_while_it_serves(tmp_path: Path) -> None:
    systemd = FakeSystemd(vllm_a={"ActiveState": "active"})
    result = go(tmp_path, documents({"power_limit_w": 900}, units=("vllm-a.service",)), run=systemd)
    (found,) = result["roles"]["gpu_settings"]["differs"]
    assert found["why"].startswith("power_limit_w 900 W is outside of what it supports, 200 to 700 W")


def test_before_the_driver_is_there_the_role_has_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise NvmlError(LIBRARY_NOT_FOUND, "libnvidia-ml.so.1 is not there; install it")

    monkeypatch.setattr(look, "Nvml", missing)
    (found,) = go(tmp_path, documents(WANTED))["roles"]["gpu_settings"]["differs"]
    assert found["why"] == "libnvidia-ml.so.1 is not there; install it"


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    found = go(tmp_path, documents({}, {}, WANTED))["roles"]["gpu_settings"]["differs"]
    assert [one["why"] for one in found] == ["NVML shows 2 GPUs from 0 on"]


def test_a_copied_tree_has_no_gpu_to_ask(tmp_path: Path) -> None:
    assert go(tmp_path, documents(WANTED), run=None, check=True)["dirty_roles"] == []


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"settings": {}}, "gpu needs index"),
        ({"index": 0}, "gpu needs settings"),
        ({"index": -1, "settings": {}}, "index must be a whole number"),
        ({"index": "0", "settings": {}}, "index must be a whole number"),
        ({"index": 0, "settings": []}, "settings must be an object"),
        ({"index": 0, "settings": {1: 2}}, "settings must be an object"),
        ({"index": 0, "settings": {}, "units": "vllm-a.service"}, "units must be a list"),
        ({"index": 0, "settings": {}, "units": ["vllm-a"]}, "units must be a full unit name"),
        ({"index": 0, "settings": {}, "gated_by": "vllm-a.service"}, "gpu has no key gated_by"),
    ],
)
def test_bad_items_are_refused(tmp_path: Path, item: dict[str, Any], words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        go(tmp_path, [{"role": "gpu_settings", "items": [{"id": "gpu", "kind": "gpu", **item}]}])


def test_one_gpu_is_said_once(tmp_path: Path) -> None:
    twice = [{"id": name, "kind": "gpu", "index": 0, "settings": {}} for name in "ab"]
    with pytest.raises(DocumentError, match="say it once"):
        go(tmp_path, [{"role": "gpu_settings", "items": twice}])
