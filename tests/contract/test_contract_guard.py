"""The guard of an engine's GPUs, as units and the role run it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from contract_support import REPO
from rackserve.converge.document import parse_documents
from rackserve.gpu.guard import read_arguments
from rendered_lab import RenderedLab

GUARD = (REPO / "module_utils/rackserve/gpu/guard.py").read_text("utf-8")


def items(site: RenderedLab, host: str, **extra: Any) -> dict[str, Any]:
    return {item["id"]: item for item in site.document("vllm", host, **extra)["items"]}


def section(unit: str, key: str) -> list[str]:
    """Values of a key of a unit, with continued lines joined as systemd does."""
    return [line.partition("=")[2] for line in unit.replace("\\\n", " ").splitlines() if line.startswith(f"{key}=")]


def guards(unit: str) -> list[str]:
    """The unit's commands before the start that are guards of GPUs."""
    return [command for command in section(unit, "ExecStartPre") if "/gpu-guard/" in command]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> RenderedLab:
    return RenderedLab(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def metal(tmp_path_factory: pytest.TempPathFactory) -> RenderedLab:
    return RenderedLab(tmp_path_factory.mktemp("cache"), "h20-4x8-deepseek-v3")


def test_a_unit_runs_its_guard_with_all_privileges_before_the_engine(metal: RenderedLab) -> None:
    host = next(host for host, part in metal.plan["slices"].items() if part["instances"])
    engine = metal.plan["slices"][host]["instances"][0]
    mine = items(metal, host)
    unit = mine[f"unit-{engine['name']}"]["content"]
    (command,) = guards(unit)
    words = shlex.split(command)
    assert words[:3] == [f"+{engine['argv'][0]}", "-I", mine[f"guard-{engine['name']}"]["path"]]
    request, _settle_s = read_arguments(words[3:])
    assert request.unit == engine["unit"]
    assert request.gpus == engine["gpu_ids"] == list(range(8))
    assert request.needed_mib == engine["gpu_memory_needed_mib"] == 90042
    assert (request.noun, request.ignored_names, request.allowed_units) == ("GPU", [], [])
    assert unit.index("ExecStartPre=") < unit.index("ExecStart=")


def test_a_unit_waits_for_the_driver_and_for_the_device_files_it_names(metal: RenderedLab) -> None:
    host = next(host for host, part in metal.plan["slices"].items() if part["instances"])
    mine = items(metal, host)
    unit = next(item["content"] for name, item in mine.items() if name.startswith("unit-"))
    after, wants = " ".join(section(unit, "After")), " ".join(section(unit, "Wants"))
    assert {"nvidia-persistenced.service", "nvidia-fabricmanager.service", "rackserve-gpu-devices.service"} <= set(
        after.split()
    )
    assert {"nvidia-persistenced.service", "rackserve-gpu-devices.service"} <= set(wants.split())
    assert "simulated" not in unit
    assert section(mine["gpu-devices"]["content"], "ExecStart") == ["/usr/bin/nvidia-modprobe -u -c=0"]
    assert "gated_by" not in mine["gpu-devices"]


def test_engines_beside_simulated_gpus_have_a_guard_and_a_cpu_units_devices(lab: RenderedLab) -> None:
    mine = items(lab, "node1")
    unit = mine["unit-tiny-deepseek-0"]["content"]
    assert section(unit, "Description") == ["vLLM tiny-deepseek-0: tiny-deepseek (lab, simulated GPUs)"]
    assert guards(unit)[0].endswith(" --simulated")
    assert section(unit, "PrivateDevices") == ["yes"]
    assert "gpu-devices" not in mine
    assert "rackserve-gpu-devices" not in unit


def test_engines_without_gpus_have_no_guard(lab: RenderedLab) -> None:
    bare = [{**engine, "gpu_ids": []} for engine in lab.plan["slices"]["node1"]["instances"]]
    mine = items(lab, "node1", vllm_instances=bare)
    assert not [name for name in mine if name.startswith(("guard", "gpu"))]
    unit = mine["unit-tiny-deepseek-0"]["content"]
    assert not guards(unit) and "nvidia" not in unit and "simulated" not in unit


def test_a_site_names_processes_that_may_stay(lab: RenderedLab) -> None:
    names = ["nv-hostengine", "50% $HOME agent"]
    unit = items(lab, "node1", vllm_gpu_ignore_processes=names)["unit-tiny-deepseek-0"]["content"]
    words = shlex.split(guards(unit)[0].replace("%%", "%").replace("$$", "$"))
    assert read_arguments(words[3:])[0].ignored_names == names
    assert "50%% $$HOME agent" in unit


def test_a_changed_guard_waits_at_the_gate_like_the_unit(lab: RenderedLab) -> None:
    """It is part of what the unit runs: a crash must not land on a guard that nobody gated."""
    document = lab.document("vllm", "node1")
    guard = next(item for item in document["items"] if item["id"] == "guard-tiny-deepseek-0")
    assert guard["gated_by"] == "vllm-tiny-deepseek-0.service"
    assert guard["content"] == GUARD
    assert len(parse_documents([document])) == len(document["items"])


def test_a_start_is_refused_before_it_is_tried() -> None:
    """Whatever starts engines in the role asks the guard first, so that the run fails with the guard's words."""
    for name, start in (("start", "'systemctl', 'start'"), ("roll-start", "state: started")):
        text = Path(REPO / f"roles/vllm/tasks/{name}.yml").read_text("utf-8")
        assert text.index("import_tasks: guard.yml") < text.index(start)
