"""Facts of GPUs through the compiled NVML: beside nvidia-smi of a real machine, and where something is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gpu_info as module
import pytest
import yaml
from ansible.module_utils.rackserve.gpu.info.nvml import Nvml as ModulesNvml
from driver_support import FIXTURE, REPO, SOURCES, Host
from gpu_settings_support import Bench
from rackserve.gpu.info import smi
from rackserve.gpu.info.facts import FIELDS, gpu_info
from rackserve.gpu.info.nvml import Nvml
from rackserve.gpu.settings.nvml import LIBRARY_NOT_FOUND, NvmlError

XML = (FIXTURE / "nvidia-smi.xml").read_text("utf-8")


class Seen:
    """A host whose simulated library is loaded into this process."""

    def __init__(self, bench: Bench) -> None:
        self.host: Host = bench.host

    def say(self, **state: str | None) -> dict[str, Any]:
        """gpu_info after a change of the state; `_` stands for `.` of a key only where the key is given so."""
        self.host.set(dict(state))
        return gpu_info(lambda: Nvml(str(self.host.driver / "libnvidia-ml.so.1")))

    def change(self, values: dict[str, str | None], index: int = 0) -> dict[str, Any]:
        """GPU ``index`` after its keys were changed."""
        self.host.set({f"gpu.{index}.{key}": value for key, value in values.items()})
        gpu: dict[str, Any] = self.say()["gpus"][index]
        return gpu

    def without(self, name: str, index: int = 0) -> dict[str, Any]:
        """GPU ``index`` as one that does not have a key, or any that begins with it."""
        path = next(self.host.root.glob("usr/local/lib/rackserve-lab/hardware/state"))
        lines = [line for line in path.read_text().splitlines() if not line.startswith(f"gpu.{index}.{name}")]
        path.write_text("".join(f"{line}\n" for line in lines))
        gpu: dict[str, Any] = self.say()["gpus"][index]
        return gpu


@pytest.fixture
def seen(bench: Bench) -> Seen:
    return Seen(bench)


def reason(gpu: dict[str, Any], field: str) -> str:
    (found,) = [entry["reason"] for entry in gpu["unread"] if entry["field"] == field]
    return str(found)


def nulls(value: Any, above: str = "") -> set[str]:
    """Paths of everything that is null."""
    if value is None:
        return {above}
    if isinstance(value, dict):
        return set().union(*(nulls(one, f"{above}.{key}".lstrip(".")) for key, one in value.items()))
    if isinstance(value, list):
        return set().union(*(nulls(one, f"{above}.{place}") for place, one in enumerate(value)))
    return set()


def test_every_field_is_that_of_nvidia_smi(seen: Seen) -> None:
    rows = smi.compare(seen.say()["gpus"], XML)
    assert [row for row in rows if row.verdict in ("differs", "moves")] == []
    counts = Counter(row.verdict for row in rows)
    assert counts["equal"] == 4 * 73
    shown = {row.field for row in rows if row.verdict == "equal"}
    assert set(smi.PATHS) - shown == {
        f"temperatures.thresholds.{key}" for key in ("shutdown_c", "slowdown_c", "memory_max_c", "gpu_max_c")
    }


def test_the_host_and_what_nvidia_smi_does_not_show(seen: Seen) -> None:
    said = seen.say()
    assert (said["driver_version"], said["cuda_version"], said["findings"]) == ("580.159.04", "13.0", [])
    gpu = said["gpus"][3]
    assert (gpu["index"], gpu["compute_capability"], gpu["bus_id"]) == (3, "9.0", "00000000:00:09.0")
    assert len(gpu["nvlinks"]) == 18
    assert gpu["nvlinks"][17] == {
        "link": 17, "active": True, "version": 6, "remote_bus_id": "FFFFFFFF:FF:FF.0", "remote_type": "switch",
    }  # fmt: skip
    assert json.loads(json.dumps(gpu)) == gpu


def test_every_null_has_its_reason(seen: Seen) -> None:
    for gpu in seen.say()["gpus"]:
        reasons = {entry["field"] for entry in gpu["unread"]}
        assert nulls({key: value for key, value in gpu.items() if key != "unread"}) <= reasons
        assert all(entry["reason"] for entry in gpu["unread"])


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("serial", "serial"),
        ("vbios_version", "vbios_version"),
        ("compute_capability", "compute_capability"),
        ("persistence_mode", "persistence_mode"),
        ("mig.", "mig_mode"),
        ("recovery_action", "recovery_action"),
        ("performance_state", "performance_state"),
        ("power.enforced_limit_mw", "power.enforced_w"),
        ("power.min_mw", "power.min_w"),
        ("power.min_mw", "power.max_w"),
        ("clocks.current.sm_mhz", "clocks.current.sm_mhz"),
        ("clocks.app_default.graphics_mhz", "clocks.default_applications.graphics_mhz"),
        ("clocks.supported_memory_mhz", "supported_clocks"),
        ("clocks.supported_graphics_mhz.1593", "supported_clocks.1593"),
        ("ecc.current", "ecc.current"),
        ("ecc.current", "ecc.pending"),
        ("ecc.volatile.dram_uncorrectable", "ecc.volatile.dram_uncorrectable"),
        ("remap.", "remapped_rows"),
        ("remap.histogram", "remapped_rows.histogram"),
        ("nvlink.count", "nvlinks"),
        ("fabric.", "fabric"),
        ("throttle.reasons", "throttle_reasons"),
        ("temperature.memory", "temperatures.memory_c"),
        ("temperature.gpu", "temperatures.gpu_c"),
        ("pcie.width", "pcie.width"),
        ("memory.total_bytes", "memory"),
        ("memory.total_bytes", "memory_mib"),
    ],
)
def test_what_a_gpu_does_not_have_is_null_and_says_why(seen: Seen, key: str, field: str) -> None:
    gpu = seen.without(key)
    here: Any = gpu
    for part in field.split("."):
        here = here[part]
    assert here is None and reason(gpu, field)
    assert nulls({name: value for name, value in gpu.items() if name != "unread"}) <= {
        entry["field"] for entry in gpu["unread"]
    }
    assert seen.say()["findings"] == []


def test_older_counters_of_errors(seen: Seen) -> None:
    """Without the newer call the two kinds of uncorrectable SRAM errors are one number."""
    gpu = seen.without("ecc.sram_sources")
    assert gpu["ecc"]["sram_threshold_exceeded"] is None
    volatile = seen.change({"ecc.volatile.sram_uncorrectable_parity": "3", "ecc.volatile.sram_correctable": "7"})[
        "ecc"
    ]["volatile"]
    assert (volatile["sram_correctable"], volatile["sram_uncorrectable"]) == (7, 3)
    assert volatile["sram_uncorrectable_parity"] is None


def test_an_error_that_is_no_absence_is_a_finding(seen: Seen) -> None:
    gpu = seen.change({"power.limit_mw": "!UNKNOWN", "temperature.gpu": "!TIMEOUT"}, 2)
    assert gpu["power"]["limit_w"] is None and gpu["temperatures"]["gpu_c"] is None
    (found,) = seen.say()["findings"]
    assert (found["severity"], found["code"], found["where"]) == ("warning", "gpu-unreadable", "GPU 2")
    assert found["why"].startswith("unknown: power.limit_w: ") and found["why"].endswith(", and 1 more")


def test_a_lost_gpu_keeps_its_place(seen: Seen) -> None:
    said = seen.say(**{"gpu.1.lost": "1"})
    assert [gpu["uuid"] is None for gpu in said["gpus"]] == [False, True, False, False]
    gpu = said["gpus"][1]
    assert {key for key, value in gpu.items() if value is None} == set(FIELDS)
    assert "it fell off the bus" in reason(gpu, "gpu")
    assert [(found["severity"], found["code"], found["where"]) for found in said["findings"]] == [
        ("error", "gpu-lost", "GPU 1")
    ]
    assert set(gpu) == set(said["gpus"][0])


def test_a_host_without_gpus_says_so(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Nvml, "count", lambda _nvml: 0)
    said = seen.say()
    assert said["gpus"] == [] and said["findings"][0]["code"] == "gpu-none"


def test_links_that_are_down_or_lead_to_gpus(seen: Seen) -> None:
    links = seen.change(
        {"nvlink.4.state": "0", "nvlink.5.remote": "00000000:07:00.0", "nvlink.5.remote_type": "0",
         "nvlink.6.remote_type": "255", "nvlink.7.state": "!UNKNOWN"}
    )  # fmt: skip
    assert [link["link"] for link in links["nvlinks"] if link["active"] is False] == [4]
    assert (links["nvlinks"][5]["remote_bus_id"], links["nvlinks"][5]["remote_type"]) == ("00000000:07:00.0", "gpu")
    assert links["nvlinks"][6]["remote_type"] is None and "does not know it (255)" in reason(
        links, "nvlinks.6.remote_type"
    )
    assert links["nvlinks"][7]["active"] is None
    assert seen.say()["findings"][0]["why"].startswith("unknown: nvlinks.7: ")


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ({"fabric.state": "2"}, {"state": "In Progress", "status": None, "clique_id": None}),
        ({"fabric.state": "3", "fabric.status": "999"}, {"state": "Completed", "status": "Unknown Error (simulated)"}),
        ({"fabric.clique_id": "5", "fabric.health_mask": "0x1"}, {"clique_id": 5, "health": "Unhealthy"}),
    ],
)
def test_the_fabric(seen: Seen, state: dict[str, str | None], shown: dict[str, Any]) -> None:
    fabric = seen.change(state)["fabric"]
    assert {key: fabric[key] for key in shown} == shown


@pytest.mark.parametrize(
    ("mask", "names"),
    [("0", []), ("0x1", ["gpu_idle"]), ("0x48", ["hw_slowdown", "hw_thermal_slowdown"]), ("0x400", ["bit_0x400"])],
)
def test_what_holds_the_clocks_down(seen: Seen, mask: str, names: list[str]) -> None:
    assert seen.change({"throttle.reasons": mask})["throttle_reasons"] == names


def test_processes(seen: Seen) -> None:
    gpu = seen.change({f"process.{place}": f"{pid} {2**30}" for place, pid in enumerate((os.getpid(), 1))})
    assert [(one["pid"], one["type"], one["used_mib"]) for one in gpu["processes"]] == [
        (1, "C", 1024), (os.getpid(), "C", 1024),
    ]  # fmt: skip
    assert gpu["memory"]["used_mib"] >= 2048
    assert seen.say()["gpus"][1]["processes"] == []


def test_repairs_and_remapped_rows(seen: Seen) -> None:
    gpu = seen.change({"remap.uncorrectable": "2", "remap.pending": "1", "recovery_action": "4"})
    rows = gpu["remapped_rows"]
    assert (rows["uncorrectable"], rows["pending"], rows["failure"]) == (2, True, False)
    assert rows["histogram"] == {"max": 2560, "high": 0, "partial": 0, "low": 0, "none": 0}
    assert gpu["recovery_action"] == "drain_and_reset"


def test_what_differs_from_nvidia_smi_is_seen(seen: Seen) -> None:
    gpus = seen.say()["gpus"]
    gpus[0]["power"]["max_w"], gpus[1]["remapped_rows"], gpus[2]["temperatures"]["gpu_c"] = 650.0, None, 90
    rows = smi.compare(gpus[:3], XML)
    assert [(row.gpu, row.field, row.verdict) for row in rows if row.verdict not in ("equal", "not shown")] == [
        (0, "power.max_w", "differs"), (1, "remapped_rows", "differs"), (2, "temperatures.gpu_c", "moves"),
        (-1, "gpu", "differs"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "no xml", "<gpu/>"])
def test_what_is_no_output_of_nvidia_smi_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="no output of nvidia-smi -q -x"):
        smi.parse(text)


def test_active_links_by_nvidia_smi() -> None:
    assert smi.active_links((FIXTURE / "nvlink-s.txt").read_text("utf-8")) == dict.fromkeys(range(4), 18)
    assert smi.active_links("GPU 0: x\n\t Link 0: <inactive>\n\t Link 1: 26.562 GB/s\n") == {0: 1}


class Exit(Exception):
    pass


def answer(monkeypatch: pytest.MonkeyPatch, library: str) -> dict[str, Any]:
    """What the module says with this library."""

    class Module:
        params: ClassVar[dict[str, Any]] = {}

        def __init__(self, argument_spec: dict[str, Any], supports_check_mode: bool) -> None:
            assert argument_spec == {} and supports_check_mode

        def exit_json(self, **result: Any) -> None:
            raise Exit(result)

        def fail_json(self, **result: Any) -> None:
            raise Exit({"failed": True, **result})

    read = module.gpu_info
    monkeypatch.setattr(module, "AnsibleModule", Module)
    monkeypatch.setattr(module, "gpu_info", lambda: read(lambda: ModulesNvml(library)))
    with pytest.raises(Exit) as raised:
        module.main()
    result: dict[str, Any] = raised.value.args[0]
    return result


def test_the_module_answers_what_it_documents(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    result = answer(monkeypatch, str(bench.host.driver / "libnvidia-ml.so.1"))
    documented = yaml.safe_load(module.RETURN)
    assert result.pop("changed") is False and set(result) == set(documented)
    assert set(result["gpus"][0]) == set(documented["gpus"]["contains"])


def test_without_a_driver_it_fails_rather_than_find_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = answer(monkeypatch, str(tmp_path / "libnvidia-ml.so.1"))
    assert said["failed"] and "install the driver's packages of this release" in said["msg"]
    with pytest.raises(NvmlError) as refused:
        gpu_info(lambda: Nvml(str(tmp_path / "libnvidia-ml.so.1")))
    assert refused.value.code == LIBRARY_NOT_FOUND


class TestOnDevice:
    """The program that is run on real GPUs, on simulated ones with the simulated nvidia-smi."""

    @pytest.fixture
    def run(self, bench: Bench, tmp_path: Path) -> Callable[[], subprocess.CompletedProcess[str]]:
        program = tmp_path / "bin/nvidia-smi"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{SOURCES / "nvidia-smi"}" "$@"\n')
        program.chmod(0o755)
        bench.host.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
        return lambda: bench.host.run(sys.executable, REPO / "tests/device/gpu_info_on_device.py")

    def test_every_field_is_printed_and_every_null_explained(
        self, run: Callable[[], subprocess.CompletedProcess[str]]
    ) -> None:
        done = run()
        assert (done.returncode, done.stderr) == (0, "")
        assert "292 equal, 0 moves" in done.stdout and "0 differ, 0 nulls without a reason, 0 findings" in done.stdout
        assert "GPU 3 active NVLinks: NVML 18, nvidia-smi 18 [equal]\n" in done.stdout
        assert "GPU 0 compute_capability: NVML 9.0, nvidia-smi 9.0 [equal]\n" in done.stdout

    def test_what_could_not_be_known_fails_it(
        self, bench: Bench, run: Callable[[], subprocess.CompletedProcess[str]]
    ) -> None:
        bench.host.set({"gpu.2.power.limit_mw": "!UNKNOWN"})
        done = run()
        assert done.returncode == 1
        assert "warning gpu-unreadable GPU 2: unknown: power.limit_w" in done.stdout
