"""CUDA, cuDNN and NCCL in the plan: who gets them, from where, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from rackserve.plan import Library, compile_plan, plan_tables

from .conftest import Compile, codes, load_site

H20 = "h20-4x8-deepseek-v3"


def test_every_gpu_host_gets_the_release_s_parts_and_the_gateway_none(compiled: Compile) -> None:
    plan = compiled(H20)
    parts = plan["cuda"]["parts"]
    assert {part: said["version"] for part, said in parts.items()} == {
        "cuda": "13.0.0",
        "cudnn": "9.12.0",
        "nccl": "2.27.7",
    }
    assert parts["nccl"]["packages"] == {"libnccl-dev": "2.27.7-1+cuda13.0", "libnccl2": "2.27.7-1+cuda13.0"}
    assert plan["cuda"]["repository"] == plan["driver"]["repository"]
    assert plan["slices"]["h20-01"]["cuda"] == plan["cuda"]
    assert plan["slices"]["h20-01"]["roles"][:4] == ["host_baseline", "nvidia_driver", "cuda", "gpu_settings"]
    assert plan["slices"]["gw-01"]["cuda"] is None and "cuda" not in plan["slices"]["gw-01"]["roles"]
    assert any("cuda 13.0.0, cudnn 9.12.0, nccl 2.27.7: 6 packages" in line for line in plan_tables(plan))


def test_the_lab_s_are_simulated_and_a_host_without_gpus_gets_none(compiled: Compile) -> None:
    assert set(compiled("lab")["cuda"]["parts"]) == {"cuda", "cudnn", "nccl"}
    patch = {"hardware": "lab-cpu", "simulated_hardware": False, "network.fabric": {}, "gpu_settings": {}}
    assert compiled("lab", patch)["cuda"] is None


def test_the_site_may_bring_its_own(compiled: Compile) -> None:
    plan = compiled(H20, {"cuda": "preinstalled"})
    assert plan["cuda"] is None and plan["driver"] and codes(plan, "note") == ["cuda-preinstalled"]
    assert "cuda" not in plan["slices"]["h20-01"]["roles"]


def test_without_the_driver_it_comes_alone(compiled: Compile) -> None:
    plan = compiled(H20, {"driver": "preinstalled"})
    assert plan["driver"] is None and plan["cuda"]["repository"]["uri"] == "http://10.20.0.5/nvidia/"
    assert plan["slices"]["h20-01"]["roles"][:2] == ["host_baseline", "cuda"]


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ({"cuda": "13.0.0"}, "bad-choice"),
        ({"repositories.nvidia.uri": "file://mirror/debs/"}, "bad-name"),
        ({"repositories.nvidia.uri": "file:///srv/../root/"}, "bad-name"),
        ({"repositories.nvidia.uri": "file:///srv/debs"}, "bad-name"),
        ({"distribution": None}, "distribution-missing"),
    ],
)
def test_what_is_wrong_is_found_once(patch: dict[str, Any], code: str, compiled: Compile) -> None:
    plan = compiled(H20, patch)
    assert codes(plan) == [code]
    assert plan["cuda"] is None


def test_a_bundle_s_folder_on_the_hosts_is_a_repository(compiled: Compile) -> None:
    plan = compiled(H20, {"repositories.nvidia.uri": "file:///srv/rackserve/bundle/debs/"})
    assert codes(plan) == []
    assert plan["driver"]["repository"]["uri"] == plan["cuda"]["repository"]["uri"]
    assert plan["cuda"]["repository"]["uri"] == "file:///srv/rackserve/bundle/debs/"


def test_a_part_that_the_release_does_not_name_is_left_out(library: Library) -> None:
    release = copy.deepcopy(library.releases["2026.11"])
    release["nccl"] = None
    release["packages"] = [group for group in release["packages"] if group["part"] != "nccl"]
    books = Library({"2026.11": release}, library.hardware, library.models, library.profiles, library.options)
    assert set(compile_plan(*load_site(H20), books)["cuda"]["parts"]) == {"cuda", "cudnn"}


def test_a_wrong_set_gives_none(library: Library) -> None:
    release = {**copy.deepcopy(library.releases["2026.11"]), "nccl": "2.26.0"}
    books = Library({"2026.11": release}, library.hardware, library.models, library.profiles, library.options)
    plan = compile_plan(*load_site(H20), books)
    assert codes(plan) != [] and plan["cuda"] is None
