"""CUDA, cuDNN and NCCL in the running lab, simulated: exact versions, held, proven; what is foreign is left alone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from conftest import whole

Shell = Callable[[str, str], str]
Module = Callable[..., dict[str, Any]]
Run = Callable[..., subprocess.CompletedProcess[str]]

NODES = ("node1", "node2", "node3", "node4")
PROFILE = "/etc/profile.d/rackserve-cuda.sh"
HEADER = "/usr/include/nccl.h"


@pytest.fixture(scope="module")
def parts(plan: dict[str, Any]) -> dict[str, Any]:
    wanted: dict[str, Any] = plan["slices"]["node1"]["cuda"]["parts"]
    return wanted


@pytest.mark.parametrize("host", NODES)
def test_packages_are_at_the_release_s_version_and_held(host: str, parts: dict[str, Any], shell: Shell) -> None:
    rows = shell(host, "dpkg-query -W -f '${Package} ${db:Status-Want} ${Version}\\n'").splitlines()
    installed = {row.split()[0]: tuple(row.split()[1:]) for row in rows if len(row.split()) == 3}
    for said in parts.values():
        for name, version in said["packages"].items():
            assert installed.get(name) == ("hold", version), name
    assert installed["cuda-cudart-13-0"][0] == "hold"


@pytest.mark.parametrize("host", NODES)
def test_files_packages_and_release_are_one(host: str, parts: dict[str, Any], module: Module, shell: Shell) -> None:
    said = module(host, "cuda_check", parts=parts, prove=True)
    assert said["findings"] == [] and not said["install"] and not said["hold"] and not said["stale_cache"]
    assert said["link"] == "/usr/local/cuda-13.0"
    assert "simulated" in shell(host, f"bash -lc '. {PROFILE}; nvcc --version'")


def test_the_gateway_has_none(shell: Shell, plan: dict[str, Any]) -> None:
    assert plan["slices"]["gw"]["cuda"] is None
    assert "libnccl2" not in shell("gw", "dpkg-query -W -f '${Package}\\n'")


def test_the_odd_one_out_is_named_and_its_command_mends_it(parts: dict[str, Any], module: Module, shell: Shell) -> None:
    shell("node2", f"sed -i 's/NCCL_MINOR .*/NCCL_MINOR 26/' {HEADER}")
    found = module("node2", "cuda_check", parts=parts, prove=True)["findings"]
    assert [(item["code"], item["where"]) for item in found] == [("cuda-mismatch", f"header {HEADER}")]
    shell("node2", f"DEBIAN_FRONTEND=noninteractive {found[0]['fix'].replace('install', 'install -y', 1)}")
    shell("node2", "apt-mark hold libnccl-dev")
    assert module("node2", "cuda_check", parts=parts, prove=True)["findings"] == []


@whole
def test_drift_is_restored_and_the_second_run_changes_nothing(playbook: Run, shell: Shell) -> None:
    shell("node3", f"rm {PROFILE} && apt-mark unhold libnccl2")
    dry = playbook("site", "--limit", "node3,gw", "--tags", "cuda", "--check")
    assert dry.returncode == 0, dry.stdout[-2000:]
    assert "changed=0" not in next(line for line in dry.stdout.splitlines() if line.startswith("node3 "))
    assert shell("node3", f"ls {PROFILE} || true").strip() == ""
    done = playbook("site", "--limit", "node3,gw", "--tags", "cuda")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "CUDA_HOME=/usr/local/cuda-13.0" in shell("node3", f"cat {PROFILE}")
    assert "libnccl2" in shell("node3", "apt-mark showhold")
    again = playbook("site", "--limit", "node3,gw", "--tags", "cuda")
    assert "changed=0" in next(line for line in again.stdout.splitlines() if line.startswith("node3 "))


def test_another_toolkit_and_a_person_s_choice_stay(parts: dict[str, Any], module: Module, shell: Shell) -> None:
    other = "/usr/local/cuda-12.8"
    shell("node4", f"mkdir -p {other} && update-alternatives --install /usr/local/cuda cuda {other} 128")
    shell("node4", f"update-alternatives --set cuda {other}")
    try:
        said = module("node4", "cuda_check", parts=parts, prove=True)
        assert said["toolkits"] == ["/usr/local/cuda-12.8", "/usr/local/cuda-13.0"] and said["commands"] == []
        assert [item["code"] for item in said["findings"] if item["severity"] == "note"] == ["cuda-link"]
        taken = module("node4", "cuda_check", parts=parts, take_over=["alternative:cuda"])
        assert taken["commands"] == [["update-alternatives", "--auto", "cuda"]]
    finally:
        shell("node4", "update-alternatives --remove cuda /usr/local/cuda-12.8; rmdir /usr/local/cuda-12.8")
    assert module("node4", "cuda_check", parts=parts, prove=True)["link"] == "/usr/local/cuda-13.0"


def test_another_version_is_refused_and_exchanged_on_request(parts: dict[str, Any], module: Module) -> None:
    other = {"nccl": {"version": "2.28.9", "packages": dict.fromkeys(parts["nccl"]["packages"], "2.28.9-1+cuda13.0")}}
    refused = module("node1", "cuda_check", parts=other)
    assert [item["code"] for item in refused["findings"]] == ["cuda-differs"]
    asked = module("node1", "cuda_check", parts=other, change=True)
    assert asked["findings"] == [] and len(asked["install"]) == 2 and asked["change_holds"]
