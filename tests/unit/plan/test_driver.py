"""The GPU driver in the plan: who gets it, from where, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from rackserve.plan import Library, compile_plan
from rackserve.plan.sets.packages import packages_of

from .conftest import REPO, Compile, codes, load_site

H20 = "h20-4x8-deepseek-v3"
NVIDIA = "repositories.nvidia"


def test_every_gpu_host_gets_the_release_s_driver_and_the_gateway_none(compiled: Compile) -> None:
    plan = compiled(H20)
    assert plan["driver"]["version"] == plan["release"]["driver"] == "580.65.06"
    assert plan["driver"]["gpus"] == 8 and plan["driver"]["fabric_manager"]
    assert plan["driver"]["packages"]["nvidia-fabricmanager-580"] == "580.65.06-1"
    assert plan["driver"]["repository"]["suite"] == "./"
    assert plan["slices"]["h20-01"]["driver"] == plan["driver"]
    assert plan["slices"]["h20-01"]["roles"][:2] == ["host_baseline", "nvidia_driver"]
    assert plan["slices"]["gw-01"]["driver"] is None
    assert "nvidia_driver" not in plan["slices"]["gw-01"]["roles"]


def test_a_gpu_host_without_engines_gets_it_too(compiled: Compile) -> None:
    slices = compiled(H20, {"deployments.0.replicas": 3})["slices"]
    roles = ["host_baseline", "nvidia_driver", "cuda", "gpu_settings", "rdma_fabric", "nccl", "firewall", "host_health"]
    assert slices["h20-04"]["roles"] == roles


def test_no_fabric_manager_without_nvswitches(compiled: Compile) -> None:
    driver = compiled("rtx5090-single")["driver"]
    assert not driver["fabric_manager"]
    assert not any("fabricmanager" in name for name in driver["packages"])


def test_a_profile_may_say_what_its_machine_does_not(library: Library) -> None:
    for said in (True, False):
        profile = {**library.hardware["h20-8"], "machine": None, "fabric_manager": said}
        books = Library(library.releases, {"h20-8": profile}, library.models, library.profiles, library.options)
        assert compile_plan(*load_site(H20), books)["driver"]["fabric_manager"] is said


def test_hosts_without_gpus_get_none(compiled: Compile) -> None:
    patch = {"hardware": "lab-cpu", "simulated_hardware": False, "network.fabric": {}, "gpu_settings": {}}
    plan = compiled("lab", patch)
    assert codes(plan) == []
    assert plan["driver"] is None and plan["slices"]["node1"]["driver"] is None


def test_a_driver_without_a_repository_is_refused(compiled: Compile) -> None:
    plan = compiled(H20, {"repositories": {}})
    assert codes(plan) == ["driver-without-repository"]
    assert plan["driver"] is None


def test_the_site_may_bring_its_own(compiled: Compile) -> None:
    plan = compiled(H20, {"repositories": {}, "driver": "preinstalled"})
    assert codes(plan) == [] and codes(plan, "note") == ["driver-preinstalled", "cuda-without-repository"]
    assert plan["driver"] is None and plan["slices"]["h20-01"]["roles"][:3] == [
        "host_baseline",
        "gpu_settings",
        "rdma_fabric",
    ]


@pytest.mark.parametrize(
    ("patch", "code", "where"),
    [
        ({f"{NVIDIA}.uri": "ftp://10.20.0.5/"}, "bad-name", f"cluster.{NVIDIA}.uri"),
        ({f"{NVIDIA}.uri": "http://10.20.0.5/nvidia"}, "bad-name", f"cluster.{NVIDIA}.uri"),
        ({f"{NVIDIA}.uri": "file://mirror/nvidia/"}, "bad-name", f"cluster.{NVIDIA}.uri"),
        ({f"{NVIDIA}.uri": "http://10.20.0.5/ /"}, "bad-name", f"cluster.{NVIDIA}.uri"),
        ({f"{NVIDIA}.uri": None}, "missing-key", f"cluster.{NVIDIA}.uri"),
        ({f"{NVIDIA}.key": "keys/nvidia.pem"}, "bad-name", f"cluster.{NVIDIA}.key"),
        ({f"{NVIDIA}.key": "../keys/nvidia.asc"}, "bad-name", f"cluster.{NVIDIA}.key"),
        ({f"{NVIDIA}.suite": "bookworm"}, "bad-name", f"cluster.{NVIDIA}.suite"),
        ({f"{NVIDIA}.keys": "x"}, "unknown-key", f"cluster.{NVIDIA}.keys"),
        ({"repositories.nvidea": {}}, "unknown-key", "cluster.repositories.nvidea"),
        ({"driver": "580.65.06"}, "bad-choice", "cluster.driver"),
    ],
)
def test_a_wrong_repository_is_found(patch: dict[str, Any], code: str, where: str, compiled: Compile) -> None:
    plan = compiled(H20, patch)
    assert [(item["code"], item["where"]) for item in plan["findings"] if item["severity"] == "error"] == [
        (code, where)
    ]
    assert plan["driver"] is None


@pytest.mark.parametrize(
    "uri", ["https://me:s3cr3t@mirror/nvidia/", "https://s3cr3t@mirror/", "http://m/?token=s3cr3t"]
)
def test_a_secret_in_the_address_is_refused_and_not_repeated(uri: str, compiled: Compile) -> None:
    direct = compiled(H20, {f"{NVIDIA}.uri": uri})
    override = compiled(H20, overrides={"repositories": {"nvidia": {"uri": uri}}})
    replaced = compiled(H20, {f"{NVIDIA}.uri": uri}, overrides={"repositories": "none"})
    for plan in (direct, override, replaced):
        assert codes(plan) != []
        assert "s3cr3t" not in str(plan)
    assert [item["path"] for item in override["overrides"]] == [f"cluster.{NVIDIA}.uri"]


@pytest.mark.parametrize(
    "uri", ["https://mirror.example/compute/cuda/repos/debian12/x86_64/", "http://10.20.0.5/", "file:///srv/bundle/"]
)
def test_packages_come_from_nvidia_s_repository_a_mirror_or_a_folder(uri: str, compiled: Compile) -> None:
    driver = compiled(H20, {f"{NVIDIA}.uri": uri})["driver"]
    assert (driver["source"], driver["repository"]["uri"], driver["runfile"]) == ("packages", uri, None)


def test_the_driver_says_what_the_profile_expects_of_it(compiled: Compile) -> None:
    driver = compiled(H20)["driver"]
    assert driver["kernel_modules"] == "open"
    assert driver["expect"] == {"model": "NVIDIA H20", "memory_mib": 97871, "nvlinks": 18, "fabric": True}
    single = compiled("rtx5090-single")["driver"]["expect"]
    assert (single["nvlinks"], single["fabric"]) == (0, False)


RUNFILE = {"driver": "runfile", "driver_runfile": "files/NVIDIA-Linux-x86_64-580.65.06.run", "repositories": {}}


def test_a_runfile_is_taken_where_it_is_asked_for_and_its_hash_is_known(compiled: Compile) -> None:
    plan = compiled("rtx5090-single", RUNFILE)
    assert codes(plan) == [] and "driver-runfile" in codes(plan, "note")
    assert (plan["driver"]["source"], plan["driver"]["packages"], plan["driver"]["repository"]) == ("runfile", {}, None)
    assert plan["driver"]["runfile"]["file"] == "NVIDIA-Linux-x86_64-580.65.06.run"
    assert len(plan["driver"]["runfile"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "patch", "code", "where"),
    [
        (H20, RUNFILE, "runfile-fabric-manager", "cluster.driver"),
        ("rtx5090-single", {**RUNFILE, "driver_runfile": None}, "runfile-unknown", "cluster.driver_runfile"),
        ("rtx5090-single", {**RUNFILE, "driver_runfile": "x.run"}, "runfile-unknown", "cluster.driver_runfile"),
        ("rtx5090-single", {**RUNFILE, "driver_runfile": "../x.run"}, "bad-name", "cluster.driver_runfile"),
        ("rtx5090-single", {"driver_runfile": "x.run"}, "runfile-unused", "cluster.driver_runfile"),
    ],
)
def test_a_wrong_runfile_is_refused(name: str, patch: dict[str, Any], code: str, where: str, compiled: Compile) -> None:
    plan = compiled(name, patch)
    assert [(item["code"], item["where"]) for item in plan["findings"] if item["severity"] == "error"] == [
        (code, where)
    ]


def test_hosts_with_gpus_know_what_they_may_run(compiled: Compile) -> None:
    slices = compiled(H20)["slices"]
    assert slices["h20-01"]["distributions"] == ["ubuntu-22.04"]
    assert slices["gw-01"]["distributions"] == []
    assert compiled("lab")["slices"]["node1"]["distributions"] == ["debian-12"]


def test_an_override_without_a_secret_is_shown(compiled: Compile) -> None:
    plan = compiled(H20, overrides={"repositories": {"nvidia": {"uri": "http://10.20.0.6/"}}})
    assert plan["overrides"][0]["new"] == "http://10.20.0.6/"
    assert plan["driver"]["repository"]["uri"] == "http://10.20.0.6/"


def test_a_wrong_set_gives_no_driver(library: Library) -> None:
    release = {**copy.deepcopy(library.releases["2026.11"]), "fabric_manager": "570.86.15"}
    books = Library({"2026.11": release}, library.hardware, library.models, library.profiles, library.options)
    plan = compile_plan(*load_site(H20), books)
    assert "fabric-manager-differs" in codes(plan)
    assert plan["driver"] is None


def test_nvswitches_need_a_fabric_manager(library: Library) -> None:
    release = copy.deepcopy(library.releases["2026.11"])
    release["fabric_manager"] = None
    release["packages"] = [group for group in release["packages"] if group["part"] != "fabric_manager"]
    books = Library({"2026.11": release}, library.hardware, library.models, library.profiles, library.options)
    plan = compile_plan(*load_site(H20), books)
    assert [(item["code"], item["where"]) for item in plan["findings"] if item["severity"] == "error"] == [
        ("part-missing", "files/releases/2026.11.yml.fabric_manager")
    ]
    assert plan["driver"] is None
    assert codes(compile_plan(*load_site("rtx5090-single"), books)) == []


def test_a_distribution_s_packages_are_taken(compiled: Compile) -> None:
    ubuntu = compiled(H20)["driver"]["packages"]
    debian = compiled(H20, {"distribution": "debian-12"})["driver"]["packages"]
    assert ubuntu["nvidia-dkms-580-open"] == "580.65.06-0ubuntu1" and "nvidia-dkms-580-open" not in debian
    assert debian["nvidia-kernel-open-dkms"] == "580.65.06-1" and debian["nvidia-fabricmanager"] == "580.65.06-1"
    assert compiled("lab")["driver"] == compiled("lab", {"distribution": "debian-12"})["driver"]


@pytest.mark.parametrize(
    ("name", "distribution", "code"),
    [
        (H20, None, "distribution-missing"),
        ("lab", "ubuntu-22.04", "distribution-unfit"),
        (H20, "ubuntu-20.04", "bad-choice"),
    ],
)
def test_an_unfit_distribution_is_refused(name: str, distribution: Any, code: str, compiled: Compile) -> None:
    plan = compiled(name, {"distribution": distribution})
    assert [(item["code"], item["where"]) for item in plan["findings"] if item["severity"] == "error"] == [
        (code, "cluster.distribution")
    ]
    assert plan["driver"] is None


def test_a_release_without_a_driver_installs_none(library: Library) -> None:
    parts = ("driver_branch", "driver", "kernel_modules", "fabric_manager", "persistenced")
    release = {**library.releases["2026.11"], **dict.fromkeys(parts)}
    release["packages"] = [group for group in release["packages"] if group["part"] not in parts]
    books = Library({"2026.11": release}, library.hardware, library.models, library.profiles, library.options)
    plan = compile_plan(*load_site(H20), books)
    assert codes(plan) == [] and plan["driver"] is None


@pytest.mark.parametrize("name", ["2026.11-cpu", "2026.12-cpu"])
def test_the_lab_s_releases_name_every_simulated_package(name: str, library: Library) -> None:
    """What the lab's mirror offers of a driver is what its release pins, one version each."""
    release = library.releases[name]
    simulated = yaml.safe_load((REPO / "files/simulated/packages.yml").read_text("utf-8"))
    offered = {name for name, package in simulated["packages"].items() if "version" not in package}
    pinned = {**packages_of(release, "driver", "debian-12"), **packages_of(release, "fabric_manager", "debian-12")}
    assert set(pinned) == offered
    versions = {item["version"]: item["package_version"] for item in simulated["drivers"]}
    assert set(pinned.values()) == {versions[release["driver"]]}
