"""The simulated nvidia-smi: its options, its refusals and its exit codes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from driver_support import PERSISTENT, SOURCES, VERSION, Host

MIB = 1024 * 1024
SAYS_SIMULATED = "nvidia-smi: simulated GPUs\n"


@pytest.fixture
def host(tmp_path: Path, machine: Callable[[str], Path]) -> Host:
    return Host(tmp_path / "root", machine("h100-x4-vm"))


def query(host: Host, fields: str, form: str = "csv,noheader", *more: str) -> list[str]:
    done = host.smi(f"--query-gpu={fields}", f"--format={form}", *more)
    assert (done.returncode, done.stderr) == (0, SAYS_SIMULATED)
    return done.stdout.splitlines()


def test_table(host: Host) -> None:
    lines = host.smi().stdout.splitlines()
    assert {len(line) for line in lines[1:] if line} == {91}
    assert f"NVIDIA-SMI {VERSION} (simulated)" in lines[2]
    assert lines[8] == "|   0  NVIDIA H100 80GB HBM3          On  |   00000000:00:06.0 Off |                    0 |"
    assert lines[9] == "| N/A   46C    P0            106W /  700W |       0MiB /  81559MiB |      0%      Default |"


def test_list(host: Host) -> None:
    done = host.smi("-L", "-i", "1")
    assert done.stdout == "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-00000000-0000-0000-0000-000000000002)\n"
    assert done.stderr == SAYS_SIMULATED


def test_plain_log(host: Host) -> None:
    host.set({"gpu.0.fabric.state": "2"})
    lines = host.smi("-q", "-i", "0").stdout.splitlines()
    assert "simulated" in lines[1]
    assert "        State                                          : In Progress" in lines
    assert "            HW Thermal Slowdown                        : Not Active" in lines
    assert "    Processes                                          : None" in lines


def test_query_with_units_header_and_other_names(host: Host) -> None:
    fields = "index,gpu_name,memory.total,power.draw,temperature.gpu,clocks.sm,clocks_throttle_reasons.active,fan.speed"
    assert query(host, fields, "csv", "-i", "0") == [
        "index, name, memory.total [MiB], power.draw [W], temperature.gpu, clocks.current.sm [MHz], "
        "clocks_event_reasons.active, fan.speed [%]",
        "0, NVIDIA H100 80GB HBM3, 81559 MiB, 105.61 W, 46, 345 MHz, 0x0000000000000001, [N/A]",
    ]
    assert query(host, "memory.total,power.limit,utilization.gpu", "csv,noheader,nounits", "-i", "3") == [
        "81559, 700.00, 0"
    ]


@pytest.mark.parametrize(
    ("state", "field", "text"),
    [
        ({"ecc.aggregate.dram_correctable": "100"}, "ecc.errors.corrected.aggregate.total", "100"),
        ({"ecc.aggregate.sram_uncorrectable_secded": "1"}, "ecc.errors.uncorrected.aggregate.total", "1"),
        ({"pcie.width": "8"}, "pcie.link.width.current", "8"),
        ({"pcie.gen": "3"}, "pcie.link.gen.current", "3"),
        ({"throttle.reasons": "72"}, "clocks_event_reasons.hw_thermal_slowdown", "Active"),
        ({"throttle.hw_thermal_us": "60000000"}, "clocks_event_reasons_counters.hw_thermal_slowdown", "60000000 us"),
        ({"temperature.tlimit": "!UNKNOWN"}, "temperature.gpu.tlimit", "[Unknown Error]"),
        ({"recovery_action": "2"}, "gpu_recovery_action", "Reboot"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_query_shows_faults(host: Host, state: dict[str, str], field: str, text: str) -> None:
    host.set({f"gpu.2.{key}": value for key, value in state.items()})
    assert query(host, field, "csv,noheader", "-i", "2") == [text]


def test_remapped_rows(host: Host) -> None:
    host.set({"gpu.1.remap.pending": "1"})
    done = host.smi("--query-remapped-rows=gpu_bus_id,remapped_rows.pending,remapped_rows.histogram.max", "-i", "1")
    assert done.stdout.splitlines() == [
        "gpu_bus_id, remapped_rows.pending, remapped_rows.histogram.max",
        "00000000:00:07.0, Yes, 2560",
    ]


def test_compute_apps(host: Host) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    host.set({"gpu.2.process.0": f"{process.pid} {512 * MIB}"})
    apps = host.smi("--query-compute-apps=pid,name,used_memory,gpu_bus_id", "--format=csv")
    table, log = host.smi().stdout, host.smi("-q", "-x", "-i", "2").stdout
    process.kill()
    process.wait()
    assert apps.stdout.splitlines() == [
        "pid, process_name, used_gpu_memory [MiB], gpu_bus_id",
        f"{process.pid}, {sys.executable}, 512 MiB, 00000000:00:08.0",
    ]
    assert f"{process.pid}      C   " in table
    assert f"<pid>{process.pid}</pid>" in log
    assert host.smi("--query-compute-apps=pid", "--format=csv,noheader").stdout == ""


def test_links(host: Host) -> None:
    host.set({"gpu.0.nvlink.3.state": "0", "gpu.0.nvlink.4.errors.replay": "7"})
    assert "\t Link 3: <inactive>" in host.smi("nvlink", "-s", "-i", "0").stdout.splitlines()
    errors = host.smi("nvlink", "-e", "-i", "0").stdout.splitlines()
    assert "\t Link 4: Replay Errors: 7" in errors
    assert len(errors) == 1 + 3 * 18
    assert host.smi("topo", "-m").stdout.splitlines()[1].startswith("GPU0\t X \tNV17\tNV17\tNV17\t")


def test_topology_without_links(tmp_path: Path, machine: Callable[[str], Path]) -> None:
    host = Host(tmp_path / "root", machine("h100-x4-vm"))
    host.set({f"gpu.{gpu}.nvlink.count": "0" for gpu in range(4)})
    assert host.smi("topo", "-m").stdout.splitlines()[1].startswith("GPU0\t X \tPHB\tPHB\tPHB\t")


@pytest.mark.parametrize(
    ("words", "line", "key", "value"),
    [
        (("-pm", "0"), "Disabled persistence mode for GPU 00000000:00:06.0.", "persistence_mode", "0"),
        (("-pl", "500"), "Power limit for GPU 00000000:00:06.0 was set to 500.00 W from 700.00 W.",
         "power.limit_mw", "500000"),
        (("-ac", "2619,1755"), 'Applications clocks set to "(MEM 2619, SM 1755)" for GPU 00000000:00:06.0',
         "clocks.app.graphics_mhz", "1755"),
        (("-lgc", "1410,1980"), 'GPU clocks set to "(gpuClkMin 1410, gpuClkMax 1980)" for GPU 00000000:00:06.0',
         "clocks.locked_graphics_mhz", "1410,1980"),
        (("-lmc", "1593"), 'Memory clocks set to "(memClkMin 1593, memClkMax 1593)" for GPU 00000000:00:06.0',
         "clocks.locked_memory_mhz", "1593,1593"),
        (("-c", "EXCLUSIVE_PROCESS"), "Set compute mode to EXCLUSIVE_PROCESS for GPU 00000000:00:06.0.",
         "compute_mode", "3"),
        (("-rac",), "Applications clocks reset to default for GPU 00000000:00:06.0.",
         "clocks.app.graphics_mhz", "1980"),
        (("-p", "0"), "Reset ECC errors to zero for GPU 00000000:00:06.0.", "ecc.volatile.dram_correctable", "0"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_settings(host: Host, words: tuple[str, ...], line: str, key: str, value: str) -> None:
    done = host.smi("-i", "0", *words)
    assert (done.returncode, done.stdout.splitlines()) == (0, [line, "All done. (simulated)"])
    assert host.state()[f"gpu.0.{key}"] == value
    assert f"gpu.1.{key}" not in host.state()


@pytest.mark.parametrize("words", [("-lgc", "1410", "-rgc"), ("-lmc", "1593", "-rmc")], ids=["gpu", "memory"])
def test_locked_clocks_are_reset(host: Host, words: tuple[str, str, str]) -> None:
    host.smi(*words[:2])
    assert any("locked" in key for key in host.state())
    assert host.smi(words[2]).returncode == 0
    assert not any("locked" in key for key in host.state())


def test_ecc_setting_waits_for_a_boot(host: Host) -> None:
    assert host.smi("-e", "0", "-i", "0").stdout.splitlines()[0] == (
        "Disabled ECC support for GPU 00000000:00:06.0. Reboot required."
    )
    assert query(host, "ecc.mode.current,ecc.mode.pending", "csv,noheader", "-i", "0") == ["Enabled, Disabled"]
    assert host.state(PERSISTENT) == {"gpu.0.ecc.pending": "0"}


def test_what_is_set_already(host: Host) -> None:
    assert "already Enabled" in host.smi("-pm", "1", "-i", "0").stdout
    assert "already Enabled" in host.smi("-e", "1", "-i", "0").stdout
    assert set(host.state()) == {"module.version"}


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--query-gpu=nonsense", "--format=csv"), 2, 'Field "nonsense" is not a valid field to query.'),
        (("--query-gpu=name", "--format=xml"), 2, "Format modifier is not recognized."),
        (("-i", "9"), 6, "No devices were found (simulated)"),
        (("-i", "GPU-x", "-q"), 6, "No devices were found (simulated)"),
        (("--nonsense",), 255, "ERROR: Unrecognized arguments: --nonsense. Please run 'nvidia-smi -h'."),
        (("topo",), 255, "ERROR: No option was given to 'nvidia-smi topo' (simulated: -m, -s, -e)."),
        (("-pl", "900"), 2, "Provided power limit 900.00 W is not a valid power limit which should be between 200.00 W "
         "and 700.00 W for GPU 00000000:00:06.0"),
        (("-ac", "2619,1981"), 2, 'Specified clock combination "(MEM 2619, SM 1981)" is not supported for GPU '
         "00000000:00:06.0. Run 'nvidia-smi -q -x' to see the list of supported clocks"),
        (("-ac", "fast"), 2, "Invalid clocks 'fast': expected <MHz>,<MHz>."),
        (("-pm", "maybe"), 2, "Invalid argument 'maybe': expected one of 0, 1, DISABLED, ENABLED."),
    ],
    ids=lambda value: "".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_refusals(host: Host, words: tuple[str, ...], code: int, text: str) -> None:
    done = host.smi(*words)
    assert (done.returncode, done.stdout.splitlines()[0]) == (code, text)


def test_a_gpu_off_the_bus(host: Host) -> None:
    host.set({"gpu.1.lost": "1"})
    done = host.smi("-i", "1")
    assert (done.returncode, done.stdout) == (
        15,
        "Unable to determine the device handle for GPU1: GPU is lost.  "
        "Reboot the system to recover this GPU (simulated)\n",
    )
    assert host.smi().returncode == 15
    assert query(host, "index", "csv,noheader", "-i", "0") == ["0"]


def test_driver_not_loaded(host: Host) -> None:
    host.set({"module.version": None})
    done = host.smi()
    assert done.returncode == 9
    assert done.stdout.startswith("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")


def test_driver_of_another_version(host: Host) -> None:
    host.set({"module.version": "570.172.08"})
    done = host.smi("-L")
    assert (done.returncode, done.stdout.splitlines()) == (
        18,
        ["Failed to initialize NVML: Driver/library version mismatch (simulated)", "NVML library version: 580.159"],
    )


def test_no_library(host: Host) -> None:
    host.environment["LD_LIBRARY_PATH"] = str(host.root)
    assert host.smi().returncode == 12


def test_version(host: Host) -> None:
    assert host.smi("--version").stdout.splitlines()[0] == f"NVIDIA-SMI version  : {VERSION} (simulated)"


@pytest.mark.parametrize("path", sorted((SOURCES / "nvidia_smi_simulated").rglob("*.py")), ids=lambda path: path.name)
def test_python_of_every_host_can_read_it(path: Path) -> None:
    text = path.read_text("utf-8")
    ast.parse(text, feature_version=(3, 9))
    assert "strict=" not in text
