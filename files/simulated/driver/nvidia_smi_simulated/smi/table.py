"""What `nvidia-smi` without options prints."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pynvml

from .device import MIB, NOT_AVAILABLE, Gpu
from .log import process_name, running
from .query_fields import read_path

RULE = "+" + "-" * 41 + "+" + "-" * 24 + "+" + "-" * 22 + "+"
HEAD_RULE = "|" + "=" * 41 + "+" + "=" * 24 + "+" + "=" * 22 + "|"
WIDE_RULE = "+" + "-" * 89 + "+"


def get(gpu: Gpu, path: str, short: dict[str, str] | None = None) -> str:
    text = gpu.text(lambda one: read_path(one, path))
    return (short or {}).get(text, text)


def watts(text: str) -> str:
    return text if text == NOT_AVAILABLE else f"{round(float(text.split(maxsplit=1)[0]))}W"


def mib(text: str) -> str:
    return text.replace(" ", "")


def gpu_lines(gpu: Gpu) -> Iterator[str]:
    on = {"Enabled": "On", "Disabled": "Off"}
    errors = get(gpu, "ecc_errors/volatile/dram_uncorrectable")
    if errors.isdigit():
        errors = str(gpu.ask("TotalEccErrors", pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC))
    power = f"{watts(get(gpu, 'gpu_power_readings/average_power_draw'))} / "
    power += f"{watts(get(gpu, 'gpu_power_readings/current_power_limit')):>5}"
    memory = f"{mib(get(gpu, 'fb_memory_usage/used')):>8} / {mib(get(gpu, 'fb_memory_usage/total')):>9}"
    name, persistence = get(gpu, "product_name"), get(gpu, "persistence_mode", on)
    display = get(gpu, "display_active", on)
    yield f"| {gpu.index:>3}  {name:<31.31}{persistence:<3} | {gpu.bus_id:>18} {display:<3} | {errors:>20} |"
    degrees = get(gpu, "temperature/gpu_temp").replace(" ", "")
    state = get(gpu, "performance_state")
    yield (
        f"| {mib(get(gpu, 'fan_speed')):<3} {degrees:>5}    {state:<9} {power:>16} | {memory:>22} |"
        f" {mib(get(gpu, 'utilization/gpu_util')):>7} {get(gpu, 'compute_mode'):>12} |"
    )
    yield f"| {'':39} | {'':22} | {get(gpu, 'mig_mode/current_mig'):>20} |"
    yield RULE


def table(gpus: list[Gpu]) -> Iterator[str]:
    driver = pynvml.nvmlSystemGetDriverVersion()
    cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
    yield time.strftime("%a %b %d %H:%M:%S %Y       ")
    yield WIDE_RULE
    yield (
        f"| NVIDIA-SMI {driver + ' (simulated)':<22} Driver Version: {driver:<15}"
        f"CUDA Version: {f'{cuda // 1000}.{cuda % 1000 // 10}':<9}|"
    )
    yield RULE
    yield f"| {'GPU  Name':<25}{'Persistence-M':>14} | {'Bus-Id          Disp.A':<22} | {'Volatile Uncorr. ECC':<20} |"
    yield f"| {'Fan  Temp   Perf          Pwr:Usage/Cap':<39} | {'Memory-Usage':>22} | {'GPU-Util  Compute M.':<20} |"
    yield f"| {'':39} | {'':22} | {'MIG M.':>20} |"
    yield HEAD_RULE
    for gpu in gpus:
        yield from gpu_lines(gpu)
    yield ""
    yield WIDE_RULE
    yield f"| {'Processes (simulated):':<88}|"
    yield f"|  {'GPU   GI   CI              PID   Type   Process name':<76}{'GPU Memory':<11}|"
    yield f"|  {'      ID   ID':<76}{'Usage':<11}|"
    yield "|" + "=" * 89 + "|"
    found = [(gpu, pid, memory) for gpu in gpus for pid, memory in running(gpu)]
    for gpu, pid, memory in found:
        used = NOT_AVAILABLE if memory is None else f"{memory // MIB}MiB"
        yield f"| {gpu.index:>4}   N/A  N/A {pid:>16}      C   {process_name(pid):<38.38} {used:>11} |"
    if not found:
        yield f"|  {'No running processes found':<87}|"
    yield WIDE_RULE
