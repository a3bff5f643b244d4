"""The plans of the sample inventories, reviewed as diffs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rackserve.plan import Library, compile_plan, plan_errors

from .conftest import REPO, codes, load_site

# The client's documents, in the order E, B, C (twice), D, A.
DOCUMENTS = ["h20-4x8-deepseek-v3", "h100nvl-2x8-deepseek-r1", "dp32-ep-deepseek-r1", "pd-deepseek-r1"]
DOCUMENTS += ["rtx5090-single", "ray-12x8-deepseek-v3.1"]
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
    assert {"lab", *DOCUMENTS} == set(SAMPLES)
    assert {path.parent.name for path in (REPO / "tests/golden").glob("*/plan.json")} == set(SAMPLES)


def test_lab_plan_has_no_finding_but_that_it_is_simulated(library: Library) -> None:
    found = compile_plan(*load_site("lab"), library)["findings"]
    assert [(item["severity"], item["code"]) for item in found] == [("note", "simulated-hardware")]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_gpu_samples_say_what_is_not_built(name: str, library: Library) -> None:
    # As the document asks: the backend for prompts, in a group that writes answers too.
    as_asked = ["slow-argument"] if name == "dp32-ep-deepseek-r1" else []
    found = codes(compile_plan(*load_site(name), library), "warning")
    assert found == ["release-unproven", "release-not-built", *as_asked]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_page_of_a_sample_has_the_figures_of_its_plan(name: str, library: Library) -> None:
    page = (REPO / "docs/samples" / f"{name}.md").read_text("utf-8")
    text = [line for part in compile_plan(*load_site(name), library)["capacity"].values() for line in part["text"]]
    figures = [found[1] for line in text for found in [re.search(r"= ([\d.]+) GiB(?: per GPU| /)", line)] if found]
    assert len(figures) >= 3, "weights, budget, KV cache"
    assert [figure for figure in figures if f"{figure}" not in page] == []
    assert f"({name}.md)" in (REPO / "docs/samples/README.md").read_text("utf-8")


@pytest.mark.parametrize("name", SAMPLES)
def test_plan_names_no_path_of_the_controller(name: str, library: Library) -> None:
    text = json.dumps(compile_plan(*load_site(name), library))
    assert str(REPO) not in text
    assert str(Path.home()) + "/" not in text
