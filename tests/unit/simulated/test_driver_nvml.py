"""NVML of the simulated driver: settings and their refusals, faults, events, processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver_support import HARDWARE, PERSISTENT, VERSION, VOLATILE, Host, built

MIB = 1024 * 1024
H100 = "h100-x4-vm"
XID = 8


@pytest.fixture
def host(tmp_path: Path, machine: Callable[[str], Path]) -> Host:
    return Host(tmp_path / "root", machine(H100))


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_versions(host: Host) -> None:
    asked = ["nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion", "nvmlSystemGetCudaDriverVersion"]
    assert host.ask(*([name, None] for name in asked)) == [VERSION, f"13.{VERSION}", 13000]
    assert host.get("nvmlSystemGetDriverBranch", None)["branch"] == "simulated"


@pytest.mark.parametrize("code", [0, 2, 3, 9, 15, 18, 26, 999, 12345])
def test_every_error_text_says_simulated(host: Host, code: int) -> None:
    assert host.get("nvmlErrorString", None, code).endswith("(simulated)")


def test_nothing_newer_than_the_c_library_of_debian_12_is_needed() -> None:
    for name in ("libnvidia-ml.so.1", "nvidia-modprobe", "nvidia-persistenced", "nv-fabricmanager"):
        data = (built() / name).read_bytes()
        needed = {part.split(b"\0")[0] for part in data.split(b"GLIBC_2.")[1:]}
        assert max(int(number) for number in needed if number.isdigit()) <= 34


def test_only_nvml_is_exported() -> None:
    nm = shutil.which("nm")
    assert nm, "nm comes with gcc"
    command = [nm, "-D", "--defined-only", str(built() / "libnvidia-ml.so.1")]
    listed = subprocess.run(command, check=True, capture_output=True, text=True)
    names = [line.split()[-1] for line in listed.stdout.splitlines()]
    assert len(names) > 150
    assert [name for name in names if not name.startswith("nvml")] == []


def test_driver_not_loaded(host: Host) -> None:
    host.set({"module.version": None})
    assert host.ask(["nvmlInit", None], ["nvmlDeviceGetCount", None], init=False) == [
        "!DriverNotLoaded",
        "!Uninitialized",
    ]


def test_loaded_module_of_another_version(host: Host) -> None:
    host.set({"module.version": "570.172.08"})
    assert host.ask(["nvmlInit", None], init=False) == ["!LibRmVersionMismatch"]


def test_shutdown_ends_what_init_began(host: Host) -> None:
    assert host.ask(["nvmlShutdown", None], ["nvmlDeviceGetCount", None]) == [None, "!Uninitialized"]


def test_handles(host: Host) -> None:
    uuid = "GPU-00000000-0000-0000-0000-000000000003"
    binary = ["nvmlDeviceGetHandleByUUIDV", None, uuid, 1]
    asked = [
        ["nvmlDeviceGetHandleByUUID", None, uuid],
        binary,
        ["nvmlDeviceGetHandleByPciBusId", None, "0000:00:08.0"],
        ["nvmlDeviceGetHandleByPciBusId", None, "00000000:00:08.0"],
        ["nvmlDeviceGetHandleByIndex", None, 4],
        ["nvmlDeviceGetHandleByUUID", None, "GPU-x"],
        ["nvmlDeviceGetHandleByPciBusId", None, "0000:99:00.0"],
    ]
    assert host.ask(*asked) == [2, 2, 2, 2, "!InvalidArgument", "!NotFound", "!NotFound"]


def test_a_lost_gpu_fails_every_call_and_the_others_do_not(host: Host) -> None:
    host.set({"gpu.1.lost": "1"})
    assert host.ask(
        ["nvmlDeviceGetCount", None],
        ["nvmlDeviceGetName", 0],
        ["nvmlDeviceGetHandleByIndex", None, 1],
        ["nvmlDeviceGetHandleByUUID", None, "GPU-00000000-0000-0000-0000-000000000002"],
    ) == [4, "NVIDIA H100 80GB HBM3", "!GpuIsLost", "!GpuIsLost"]


def test_a_gpu_that_is_lost_while_in_use(host: Host) -> None:
    code = (
        "import pynvml, sys\npynvml.nvmlInit()\nhandle = pynvml.nvmlDeviceGetHandleByIndex(2)\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "try:\n    pynvml.nvmlDeviceGetTemperature(handle, 0)\n"
        "except pynvml.NVMLError as error:\n    print(type(error).__name__)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=host.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    host.set({"gpu.2.lost": "1"})
    assert child.communicate("go\n", timeout=10)[0] == "NVMLError_GpuIsLost\n"


def test_an_absent_gpu_moves_the_others_up(host: Host) -> None:
    host.set({"gpu.1.absent": "1"})
    assert host.ask(["nvmlDeviceGetCount", None], ["nvmlDeviceGetMinorNumber", 1]) == [3, 2]


def test_a_named_error_and_a_key_that_is_nowhere(host: Host) -> None:
    host.set(
        {"gpu.0.ecc.current": "!RESET_REQUIRED", "gpu.0.performance_state": "fast", "gpu.0.minor_number": "!WHATEVER"}
    )
    assert host.ask(
        ["nvmlDeviceGetEccMode", 0],
        ["nvmlDeviceGetPerformanceState", 0],
        ["nvmlDeviceGetMinorNumber", 0],
        ["nvmlDeviceGetFanSpeed", 0],
    ) == ["!ResetRequired", "!Unknown", "!Unknown", "!NotSupported"]


def test_settings_are_read_back_and_are_volatile(host: Host) -> None:
    assert host.ask(
        ["nvmlDeviceSetPersistenceMode", 1, 0],
        ["nvmlDeviceGetPersistenceMode", 1],
        ["nvmlDeviceSetPowerManagementLimit", 1, 500000],
        ["nvmlDeviceGetPowerManagementLimit", 1],
        ["nvmlDeviceGetEnforcedPowerLimit", 1],
        ["nvmlDeviceGetEnforcedPowerLimit", 0],
        ["nvmlDeviceSetApplicationsClocks", 1, 2619, 1755],
        ["nvmlDeviceGetApplicationsClock", 1, 0],
        ["nvmlDeviceResetApplicationsClocks", 1],
        ["nvmlDeviceGetApplicationsClock", 1, 0],
    ) == [None, 0, None, 500000, 500000, 700000, None, 1755, None, 1980]
    assert host.state(PERSISTENT) == {}
    lines = (host.root / VOLATILE / "state").read_text().splitlines()
    assert lines == sorted(lines)


def test_locked_clocks_hold_the_current_ones(host: Host) -> None:
    assert host.ask(
        ["nvmlDeviceGetClockInfo", 0, 1],
        ["nvmlDeviceSetGpuLockedClocks", 0, 1410, 1981 - 1],
        ["nvmlDeviceGetClockInfo", 0, 1],
        ["nvmlDeviceSetMemoryLockedClocks", 0, 1593, 1593],
        ["nvmlDeviceGetClockInfo", 0, 2],
        ["nvmlDeviceResetGpuLockedClocks", 0],
        ["nvmlDeviceResetMemoryLockedClocks", 0],
        ["nvmlDeviceGetClockInfo", 0, 1],
        ["nvmlDeviceGetClockInfo", 0, 2],
    ) == [345, None, 1410, None, 1593, None, None, 345, 2619]
    assert set(host.state()) == {"module.version"}


@pytest.mark.parametrize(("reasons", "shown"), [("72", 600), ("4", 600), ("1", 1410), ("2", 1410)])
def test_heat_and_power_are_stronger_than_a_lock(host: Host, reasons: str, shown: int) -> None:
    host.ask(["nvmlDeviceSetGpuLockedClocks", 0, 1410, 1980])
    host.set({"gpu.0.clocks.current.sm_mhz": "600", "gpu.0.throttle.reasons": reasons})
    assert host.ask(["nvmlDeviceGetClockInfo", 0, 1]) == [shown]


@pytest.mark.parametrize(
    "call",
    [
        ["nvmlDeviceSetApplicationsClocks", 0, 2619, 1981],
        ["nvmlDeviceSetApplicationsClocks", 0, 2620, 1980],
        ["nvmlDeviceSetGpuLockedClocks", 0, 1980, 1410],
        ["nvmlDeviceSetGpuLockedClocks", 0, 1410, 2000],
        ["nvmlDeviceSetMemoryLockedClocks", 0, 100, 2619],
        ["nvmlDeviceSetPowerManagementLimit", 0, 700001],
        ["nvmlDeviceSetPowerManagementLimit", 0, 199999],
        ["nvmlDeviceSetPersistenceMode", 0, 2],
        ["nvmlDeviceSetComputeMode", 0, 1],
        ["nvmlDeviceSetEccMode", 0, 7],
    ],
    ids=lambda call: f"{call[0][13:]}-{'-'.join(map(str, call[2:]))}",
)
def test_wrong_values_are_refused_and_change_nothing(host: Host, call: list[object]) -> None:
    assert host.ask(call) == ["!InvalidArgument"]
    assert set(host.state()) == {"module.version"}


def test_who_is_not_root_may_read_and_not_set(machine: Callable[[str], Path]) -> None:
    with tempfile.TemporaryDirectory(prefix="rackserve-driver-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        host = Host(root / "root", machine(H100))
        for path in (host.root, *host.root.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        (host.root / VOLATILE).chmod(0o555)
        results = host.ask(
            ["become_nobody", None],
            ["nvmlDeviceGetName", 0],
            ["nvmlDeviceSetPersistenceMode", 0, 0],
            ["nvmlDeviceSetPowerManagementLimit", 0, 1],
            ["nvmlDeviceSetApplicationsClocks", 0, 1, 1],
            ["nvmlDeviceSetGpuLockedClocks", 0, 1410, 1980],
            ["nvmlDeviceSetEccMode", 0, 0],
        )
        (host.root / VOLATILE).chmod(0o755)
    assert results[1:] == ["NVIDIA H100 80GB HBM3", *["!NoPermission"] * 5]


def test_ecc_mode_is_pending_until_the_next_boot(host: Host) -> None:
    assert host.ask(["nvmlDeviceSetEccMode", 0, 0], ["nvmlDeviceGetEccMode", 0], ["nvmlDeviceGetEccMode", 1]) == [
        None,
        [1, 0],
        [1, 1],
    ]
    assert host.state(PERSISTENT) == {"gpu.0.ecc.pending": "0"}


def test_ecc_counters_of_all_kinds(host: Host) -> None:
    host.set({"gpu.0.ecc.volatile.dram_correctable": "100", "gpu.0.ecc.volatile.sram_uncorrectable_parity": "2"})
    host.set({"gpu.0.ecc.aggregate.dram_uncorrectable": "3", "gpu.0.ecc.sram_threshold_exceeded": "1"}, PERSISTENT)
    volatile, aggregate, corrected, uncorrected, dram, sram = 0, 1, 0, 1, 2, 7
    assert host.ask(
        ["nvmlDeviceGetTotalEccErrors", 0, corrected, volatile],
        ["nvmlDeviceGetMemoryErrorCounter", 0, corrected, volatile, dram],
        ["nvmlDeviceGetMemoryErrorCounter", 0, uncorrected, volatile, sram],
        ["nvmlDeviceGetMemoryErrorCounter", 0, uncorrected, aggregate, dram],
        ["nvmlDeviceGetMemoryErrorCounter", 0, corrected, volatile, 0],
    ) == [100, 100, 2, 3, "!NotSupported"]
    status = host.get("fill:nvmlDeviceGetSramEccErrorStatus:c_nvmlEccSramErrorStatus_v1_t")
    assert (status["volatileUncParity"], status["bThresholdExceeded"]) == (2, 1)


def test_clearing_aggregate_errors_survives_a_boot(host: Host) -> None:
    host.set({"gpu.0.ecc.aggregate.dram_uncorrectable": "3"}, PERSISTENT)
    read = ["nvmlDeviceGetTotalEccErrors", 0, 1, 1]
    assert host.ask(read, ["nvmlDeviceClearEccErrorCounts", 0, 1], read) == [3, None, 0]
    (host.root / VOLATILE / "state").unlink()
    host.set({"module.version": VERSION})
    assert host.ask(read) == [0]


def test_remapped_rows(host: Host) -> None:
    host.set({"gpu.0.remap.pending": "1"})
    host.set({"gpu.0.remap.uncorrectable": "2"}, PERSISTENT)
    assert host.get("nvmlDeviceGetRemappedRows") == [0, 2, 1, 0]
    assert host.get("nvmlDeviceGetRowRemapperHistogram")["max"] == 2560


def test_an_nvlink_that_is_down_and_one_that_counts(host: Host) -> None:
    host.set({"gpu.0.nvlink.3.state": "0", "gpu.0.nvlink.4.errors.replay": "7"})
    assert host.ask(
        ["nvmlDeviceGetNvLinkState", 0, 3],
        ["nvmlDeviceGetNvLinkState", 0, 4],
        ["nvmlDeviceGetNvLinkErrorCounter", 0, 4, 0],
        ["nvmlDeviceGetNvLinkErrorCounter", 0, 4, 1],
        ["nvmlDeviceGetNvLinkState", 0, 18],
        ["nvmlDeviceResetNvLinkErrorCounters", 0, 4],
        ["nvmlDeviceGetNvLinkErrorCounter", 0, 4, 0],
    ) == [0, 1, 7, 0, "!InvalidArgument", None, 0]


def test_field_values_with_their_types_and_errors(host: Host) -> None:
    host.set({"gpu.0.nvlink.2.errors.crc_flit": "5"})
    fields = [193, 82, [164, 17], [165, 17], 34, 38, 91, 147, [185, 2], 83, 9999]
    values = host.get("nvmlDeviceGetFieldValues", 0, fields)
    got = [
        (
            one["nvmlReturn"],
            one["value"]["siVal" if one["valueType"] == 5 else "ullVal"] if not one["nvmlReturn"] else None,
        )
        for one in values
    ]
    assert got == [
        (0, -8), (0, 48), (0, 26562), (0, 1), (0, 5), (0, 5), (0, 18), (0, 18), (0, 38940), (3, None), (3, None),
    ]  # fmt: skip


@pytest.mark.parametrize("structure", ["c_nvmlGpuFabricInfo_v2_t", "c_nvmlGpuFabricInfo_v3_t"])
def test_fabric(host: Host, structure: str) -> None:
    host.set({"gpu.0.fabric.state": "2", "gpu.0.fabric.cluster_uuid": "01020304-0506-0708-090a-0b0c0d0e0f10"})
    info = host.get(f"fill:nvmlDeviceGetGpuFabricInfoV:{structure}")
    assert (info["state"], info["status"], info["clusterUuid"]) == (2, 0, list(range(1, 17)))
    assert host.get("fill:nvmlDeviceGetGpuFabricInfo:c_nvmlGpuFabricInfo_t")["state"] == 2


def test_unhealthy_fabric(host: Host) -> None:
    host.set({"gpu.0.fabric.health_mask": "1"})
    info = host.get("fill:nvmlDeviceGetGpuFabricInfoV:c_nvmlGpuFabricInfo_v3_t")
    assert (info["healthMask"], info["healthSummary"]) == (1, 2)


def test_a_gpu_without_a_fabric(tmp_path: Path, machine: Callable[[str], Path]) -> None:
    host = Host(tmp_path / "root", machine("rtx5090-1"))
    assert host.get("fill:nvmlDeviceGetGpuFabricInfoV:c_nvmlGpuFabricInfo_v2_t")["state"] == 0
    assert host.get("nvmlDeviceGetNvLinkState", 0, 0) == "!NotSupported"


def test_peer_access_needs_a_link_on_both_sides(host: Host) -> None:
    peer = ["nvmlDeviceGetP2PStatus", 0, {"gpu": 1}, 2]
    assert host.ask(peer) == [0]
    host.set({f"gpu.1.nvlink.{link}.state": "0" for link in range(18)})
    assert host.ask(peer) == [5]


def test_topology_follows_the_pci_tree(tmp_path: Path, machine: Callable[[str], Path]) -> None:
    vm = Host(tmp_path / "vm", machine(H100))
    host_bridge, system = 30, 50
    assert vm.ask(["nvmlDeviceGetTopologyCommonAncestor", 0, {"gpu": 3}])[-1] == host_bridge
    assert vm.ask(["nvmlDeviceGetTopologyNearestGpus", 0, host_bridge])[-1] == [1, 2, 3]
    board = Host(tmp_path / "board", machine("h100-sxm-8"))
    assert board.ask(["nvmlDeviceGetTopologyCommonAncestor", 0, {"gpu": 7}])[-1] == system


def test_processes_that_are_alive(host: Host, sleeper: subprocess.Popen[bytes]) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host.set({"gpu.0.process.1": f"{sleeper.pid} {4096 * MIB}", "gpu.0.process.2": f"{gone.pid} {MIB}"})
    found, memory, name, absent, graphics, others = host.ask(
        ["nvmlDeviceGetComputeRunningProcesses", 0],
        ["nvmlDeviceGetMemoryInfo", 0],
        ["nvmlSystemGetProcessName", None, sleeper.pid],
        ["nvmlSystemGetProcessName", None, gone.pid],
        ["nvmlDeviceGetGraphicsRunningProcesses", 0],
        ["nvmlDeviceGetComputeRunningProcesses", 1],
    )
    assert [(one["pid"], one["usedGpuMemory"]) for one in found] == [(sleeper.pid, 4096 * MIB)]
    assert memory["used"] == (480 + 4096) * MIB
    assert (name, absent, graphics, others) == (sys.executable, "!NotFound", [], [])


def test_a_zombie_holds_nothing(host: Host) -> None:
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    host.set({"gpu.0.process.1": f"{zombie.pid} {MIB}"})
    assert host.get("nvmlDeviceGetComputeRunningProcesses") == []
    zombie.wait()


def waiting(host: Host, timeout_ms: int) -> subprocess.Popen[str]:
    code = (
        "import pynvml\npynvml.nvmlInit()\nevents = pynvml.nvmlEventSetCreate()\n"
        "for index in (0, 1):\n"
        f"    pynvml.nvmlDeviceRegisterEvents(pynvml.nvmlDeviceGetHandleByIndex(index), {XID}, events)\n"
        "print('ready', flush=True)\n"
        "try:\n"
        "    while True:\n"
        f"        data = pynvml.nvmlEventSetWait_v2(events, {timeout_ms})\n"
        "        print(pynvml.nvmlDeviceGetIndex(data.device), data.eventType, data.eventData, flush=True)\n"
        "except pynvml.NVMLError as error:\n    print(type(error).__name__)\npynvml.nvmlEventSetFree(events)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], env=host.environment, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_events_of_registered_gpus_since_the_registration(host: Host) -> None:
    events = host.root / VOLATILE / "events"
    events.write_text("1 0 13\n")
    child = waiting(host, 1500)

    def add() -> None:
        with events.open("a") as file:
            file.write("2 2 43\n3 1 79\n4 0 48\n")

    timer = threading.Timer(0.2, add)
    timer.start()
    printed = child.communicate(timeout=20)[0]
    timer.join()
    assert printed.splitlines() == [f"1 {XID} 79", f"0 {XID} 48", "NVMLError_Timeout"]


def test_event_types_of_an_h100(host: Host) -> None:
    assert host.get("nvmlDeviceGetSupportedEventTypes") == 0xFF9F


def test_the_layers_in_their_order(host: Host) -> None:
    read = ["nvmlDeviceGetCurrPcieLinkWidth", 0]
    assert "gpu.0.pcie.width=16" in (host.root / HARDWARE / "state").read_text().splitlines()
    seen = host.ask(read)
    host.set({"gpu.0.pcie.width": "8"}, PERSISTENT)
    seen += host.ask(read)
    host.set({"gpu.0.pcie.width": "4"})
    assert seen + host.ask(read) == [16, 8, 4]


def test_writers_do_not_lose_each_others_changes(host: Host) -> None:
    code = (
        "import pynvml, sys\npynvml.nvmlInit()\nhandle = pynvml.nvmlDeviceGetHandleByIndex(int(sys.argv[1]))\n"
        "for limit in range(300000, 300100):\n    pynvml.nvmlDeviceSetPowerManagementLimit(handle, limit)\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(index)], env=host.environment) for index in range(4)]
    assert [child.wait(timeout=60) for child in children] == [0] * 4
    assert [host.state()[f"gpu.{index}.power.limit_mw"] for index in range(4)] == ["300099"] * 4
