"""The fabric in the plan: who gets it, which packages, and how adapters reach the memory of GPUs."""

from __future__ import annotations

import copy

import pytest
from rackserve.plan import Library, compile_plan

from .conftest import Compile, codes, load_site

H20 = "h20-4x8-deepseek-v3"


def test_hosts_with_gpus_get_the_release_s_packages_and_the_gateway_none(compiled: Compile) -> None:
    plan = compiled(H20)
    fabric = plan["fabric"]
    assert (fabric["kind"], fabric["hcas"], fabric["rate_gbps"]) == ("infiniband", 2, 200)
    assert fabric["packages"]["rdma-core"] == "39.0-1"
    assert fabric["modules"] == ["ib_umad", "ib_uverbs", "mlx5_ib", "rdma_ucm"]
    assert plan["slices"]["h20-01"]["fabric"] == fabric and "rdma_fabric" in plan["slices"]["h20-01"]["roles"]
    assert plan["slices"]["gw-01"]["fabric"] is None and "rdma_fabric" not in plan["slices"]["gw-01"]["roles"]
    assert codes(plan) == [] and codes(plan, "note") == []


def test_packages_are_those_of_the_distribution(compiled: Compile) -> None:
    plan = compiled(H20, {"distribution": "debian-12"})
    assert plan["fabric"]["packages"]["rdma-core"] == "44.0-2"
    plan = compiled(H20, {"distribution": None, "driver": "preinstalled", "repositories": {}})
    assert codes(plan) == ["distribution-missing"] and plan["fabric"]["packages"] == {}


def test_one_finding_where_driver_and_fabric_need_the_distribution(compiled: Compile) -> None:
    assert codes(compiled(H20, {"distribution": None})) == ["distribution-missing"]


def test_without_a_fabric_there_is_none(compiled: Compile) -> None:
    plan = compiled("rtx5090-single")
    assert plan["fabric"] is None and all(part["fabric"] is None for part in plan["slices"].values())


def test_ethernet_needs_no_management_datagrams(compiled: Compile) -> None:
    plan = compiled(H20, {"network.fabric.kind": "roce"})
    assert plan["fabric"]["modules"] == ["ib_uverbs", "mlx5_ib", "rdma_ucm"]


def test_a_release_without_packages_uses_the_host_s_and_says_so(library: Library) -> None:
    release = copy.deepcopy(library.releases["2026.11"])
    release["rdma_core"] = {}
    release["packages"] = [group for group in release["packages"] if group["part"] != "rdma_core"]
    books = Library({"2026.11": release}, library.hardware, library.models, library.profiles, library.options)
    plan = compile_plan(*load_site(H20), books)
    assert plan["fabric"]["packages"] == {} and codes(plan, "note") == ["fabric-own-packages"]


def test_engines_on_cpus_need_no_packages(compiled: Compile) -> None:
    plan = compiled("lab")
    assert plan["fabric"]["packages"] == {} and codes(plan, "note") == ["simulated-hardware"]


@pytest.mark.parametrize(("modules", "way"), [("open", "dmabuf"), ("proprietary", "nvidia_peermem")])
def test_open_modules_need_no_peer_memory_module(library: Library, modules: str, way: str) -> None:
    release = {**copy.deepcopy(library.releases["2026.11"]), "kernel_modules": modules}
    books = Library({"2026.11": release}, library.hardware, library.models, library.profiles, library.options)
    fabric = compile_plan(*load_site(H20), books)["fabric"]
    assert fabric["peer_memory"] == way


def test_doca_takes_the_place_of_the_distribution_s_packages(library: Library) -> None:
    release = copy.deepcopy(library.releases["2026.11"])
    release["doca"] = "3.1.0"
    release["packages"] += [
        {
            "part": "doca",
            "source": "doca",
            "distributions": release["distributions"],
            "versions": {"doca-ofed": "3.1.0-091000"},
        }
    ]
    books = Library({"2026.11": release}, library.hardware, library.models, library.profiles, library.options)
    assert compile_plan(*load_site(H20), books)["fabric"]["packages"] == {"doca-ofed": "3.1.0-091000"}
