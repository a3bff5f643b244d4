"""Options that change a GPU. Each gives the line that says what was done."""

from __future__ import annotations

from typing import Any

import pynvml

from .device import Gpu

ON_OFF = {"0": 0, "1": 1, "DISABLED": 0, "ENABLED": 1}
COMPUTE_MODES = {"0": 0, "2": 2, "3": 3, "DEFAULT": 0, "PROHIBITED": 2, "EXCLUSIVE_PROCESS": 3}
COUNTERS = {"0": pynvml.NVML_VOLATILE_ECC, "1": pynvml.NVML_AGGREGATE_ECC, "VOLATILE": 0, "AGGREGATE": 1}


class SettingError(Exception):
    """A value that cannot be set; the text says why."""


def choice(text: str, known: dict[str, int]) -> int:
    if text.upper() not in known:
        raise SettingError(f"Invalid argument {text!r}: expected one of {', '.join(known)}.")
    return known[text.upper()]


def change(gpu: Gpu, name: str, *values: Any) -> None:
    getattr(pynvml, f"nvmlDevice{name}")(gpu.handle, *values)


def persistence(gpu: Gpu, text: str) -> str:
    wanted = choice(text, ON_OFF)
    word = ("Disabled", "Enabled")[wanted]
    if gpu.ask("PersistenceMode") == wanted:
        return f"Persistence mode is already {word} for GPU {gpu.bus_id}."
    change(gpu, "SetPersistenceMode", wanted)
    return f"{word} persistence mode for GPU {gpu.bus_id}."


def power_limit(gpu: Gpu, text: str) -> str:
    try:
        wanted = round(float(text) * 1000)
    except ValueError:
        raise SettingError(f"Invalid power limit {text!r}: expected watts.") from None
    low, high = gpu.ask("PowerManagementLimitConstraints")
    if not low <= wanted <= high:
        raise SettingError(
            f"Provided power limit {wanted / 1000:.2f} W is not a valid power limit which should be between "
            f"{low / 1000:.2f} W and {high / 1000:.2f} W for GPU {gpu.bus_id}"
        )
    before = gpu.ask("PowerManagementLimit")
    change(gpu, "SetPowerManagementLimit", wanted)
    return f"Power limit for GPU {gpu.bus_id} was set to {wanted / 1000:.2f} W from {before / 1000:.2f} W."


def two(text: str) -> tuple[int, int]:
    """`a,b`, or `a` for both."""
    try:
        parts = [int(part) for part in text.split(",")]
        low, high = parts if len(parts) > 1 else (parts[0], parts[0])
    except ValueError:
        raise SettingError(f"Invalid clocks {text!r}: expected <MHz>,<MHz>.") from None
    return low, high


def clocks(gpu: Gpu, name: str, values: tuple[int, int], what: str) -> None:
    try:
        change(gpu, name, *values)
    except pynvml.NVMLError_InvalidArgument:
        raise SettingError(
            f"Specified clock combination {what} is not supported for GPU {gpu.bus_id}. "
            "Run 'nvidia-smi -q -x' to see the list of supported clocks"
        ) from None


def application_clocks(gpu: Gpu, text: str) -> str:
    memory, graphics = two(text)
    what = f'"(MEM {memory}, SM {graphics})"'
    clocks(gpu, "SetApplicationsClocks", (memory, graphics), what)
    return f"Applications clocks set to {what} for GPU {gpu.bus_id}"


def gpu_clocks(gpu: Gpu, text: str) -> str:
    low, high = two(text)
    what = f'"(gpuClkMin {low}, gpuClkMax {high})"'
    clocks(gpu, "SetGpuLockedClocks", (low, high), what)
    return f"GPU clocks set to {what} for GPU {gpu.bus_id}"


def memory_clocks(gpu: Gpu, text: str) -> str:
    low, high = two(text)
    what = f'"(memClkMin {low}, memClkMax {high})"'
    clocks(gpu, "SetMemoryLockedClocks", (low, high), what)
    return f"Memory clocks set to {what} for GPU {gpu.bus_id}"


def reset_application_clocks(gpu: Gpu, _text: str) -> str:
    change(gpu, "ResetApplicationsClocks")
    return f"Applications clocks reset to default for GPU {gpu.bus_id}."


def reset_gpu_clocks(gpu: Gpu, _text: str) -> str:
    change(gpu, "ResetGpuLockedClocks")
    return f"GPU clocks reset to default for GPU {gpu.bus_id}."


def reset_memory_clocks(gpu: Gpu, _text: str) -> str:
    change(gpu, "ResetMemoryLockedClocks")
    return f"Memory clocks reset to default for GPU {gpu.bus_id}."


def ecc(gpu: Gpu, text: str) -> str:
    wanted = choice(text, ON_OFF)
    word = ("Disabled", "Enabled")[wanted]
    if gpu.ask("EccMode")[1] == wanted:
        return f"ECC support is already {word} for GPU {gpu.bus_id}."
    change(gpu, "SetEccMode", wanted)
    return f"{word} ECC support for GPU {gpu.bus_id}. Reboot required."


def reset_ecc_errors(gpu: Gpu, text: str) -> str:
    change(gpu, "ClearEccErrorCounts", choice(text, COUNTERS))
    return f"Reset ECC errors to zero for GPU {gpu.bus_id}."


def compute_mode(gpu: Gpu, text: str) -> str:
    change(gpu, "SetComputeMode", choice(text, COMPUTE_MODES))
    return f"Set compute mode to {text} for GPU {gpu.bus_id}."
