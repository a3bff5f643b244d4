"""The layouts that tests/device starts on real GPUs are plans without errors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "device"))
import layouts_plan


@pytest.mark.parametrize("gpus", [2, 4])
@pytest.mark.parametrize("layout", layouts_plan.LAYOUTS)
def test_a_layout_of_the_device_compiles_and_uses_all_gpus(layout, gpus):
    plan = layouts_plan.plan_of(layout, gpus, Path("/tmp/models"), {})
    cards = [(item["host"], card) for item in plan["instances"] for card in item["gpu_ids"]]
    for cluster in plan["ray"]:
        cards = [(host, card) for host, ids in cluster["gpu_ids"].items() for card in ids]
    assert len(cards) == len(set(cards)) == gpus


@pytest.mark.parametrize(("layout", "gpus"), [("replica", 3), ("tenser", 2)])
def test_what_has_no_layout_is_said(layout, gpus):
    with pytest.raises(ValueError, match="no layout"):
        layouts_plan.deployment(layout, gpus)


def test_errors_of_the_plan_are_told():
    with pytest.raises(RuntimeError, match="enforce_eagerr"):
        layouts_plan.plan_of("tensor", 2, Path("/tmp/models"), {"enforce_eagerr": True})
