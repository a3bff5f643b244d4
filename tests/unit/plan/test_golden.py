"""The plans of the sample inventories, reviewed as diffs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rackserve.plan import Library, compile_plan, plan_errors

from .conftest import REPO, codes, load_site

SAMPLES = sorted(path.parent.name for path in (REPO / "inventories").glob("*/hosts.yml"))


@pytest.mark.parametrize("name", SAMPLES)
def test_plan_is_the_golden_one(name: str, library: Library, request: pytest.FixtureRequest) -> None:
    plan = compile_plan(*load_site(name), library)
    golden = REPO / "tests" / "golden" / name / "plan.json"
    if request.config.getoption("--update-golden"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(json.dumps(plan, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    assert plan == json.loads(golden.read_text("utf-8")), "a change that is meant: pytest --update-golden"
    assert plan_errors(plan) == []


def test_every_sample_is_covered() -> None:
    assert {"lab", "h20-4x8-deepseek-v3", "rtx5090-single"} <= set(SAMPLES)
    assert {path.parent.name for path in (REPO / "tests/golden").glob("*/plan.json")} == set(SAMPLES)


def test_lab_plan_has_no_finding_but_that_it_is_simulated(library: Library) -> None:
    found = compile_plan(*load_site("lab"), library)["findings"]
    assert [(item["severity"], item["code"]) for item in found] == [("note", "simulated-hardware")]


@pytest.mark.parametrize("name", ["h20-4x8-deepseek-v3", "rtx5090-single"])
def test_gpu_samples_say_what_is_not_built(name: str, library: Library) -> None:
    assert codes(compile_plan(*load_site(name), library), "warning") == ["release-unproven", "release-not-built"]


@pytest.mark.parametrize("name", SAMPLES)
def test_plan_names_no_path_of_the_controller(name: str, library: Library) -> None:
    text = json.dumps(compile_plan(*load_site(name), library))
    assert str(REPO) not in text
    assert str(Path.home()) + "/" not in text
