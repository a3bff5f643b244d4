"""The options of nvidia-smi that are simulated, and its exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

import pynvml

from . import queries, settings, texts, topology
from .device import Gpu, bare
from .log import whole
from .table import table

NO_DEVICES = 6
WRONG_ARGUMENT = 2
UNKNOWN_OPTION = 255
TERMINATING = "Terminating early due to previous errors. (simulated)\n"
NOT_LOADED = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running. (simulated)\n"
)
# Option, long option, takes a value, what it does.
SETTINGS: tuple[tuple[str, str, bool, Callable[[Gpu, str], str]], ...] = (
    ("-pm", "--persistence-mode", True, settings.persistence),
    ("-e", "--ecc-config", True, settings.ecc),
    ("-p", "--reset-ecc-errors", True, settings.reset_ecc_errors),
    ("-c", "--compute-mode", True, settings.compute_mode),
    ("-pl", "--power-limit", True, settings.power_limit),
    ("-ac", "--applications-clocks", True, settings.application_clocks),
    ("-rac", "--reset-applications-clocks", False, settings.reset_application_clocks),
    ("-lgc", "--lock-gpu-clocks", True, settings.gpu_clocks),
    ("-rgc", "--reset-gpu-clocks", False, settings.reset_gpu_clocks),
    ("-lmc", "--lock-memory-clocks", True, settings.memory_clocks),
    ("-rmc", "--reset-memory-clocks", False, settings.reset_memory_clocks),
)


class Stop(Exception):
    """The end: a text for the user and the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Stop(f"ERROR: {message[0].upper()}{message[1:]}. Please run 'nvidia-smi -h'.\n", UNKNOWN_OPTION)


def parser() -> Parser:
    made = Parser(prog="nvidia-smi", description="nvidia-smi on simulated GPUs", allow_abbrev=False)
    made.add_argument("-i", "--id", metavar="ID", help="index, UUID or PCI bus id; a list with commas")
    made.add_argument("-L", "--list-gpus", action="store_true")
    made.add_argument("-q", "--query", action="store_true")
    made.add_argument("-x", "--xml-format", action="store_true")
    made.add_argument("--query-gpu", metavar="FIELDS")
    made.add_argument("--query-compute-apps", metavar="FIELDS")
    made.add_argument("--query-remapped-rows", metavar="FIELDS")
    made.add_argument("--format", default="csv")
    made.add_argument("--version", action="store_true")
    for short, long, takes, _do in SETTINGS:
        made.add_argument(short, long, **({} if takes else {"action": "store_const", "const": ""}))  # type: ignore[arg-type]
    return made


def sub_parser(command: str) -> Parser:
    made = Parser(prog=f"nvidia-smi {command}", allow_abbrev=False)
    made.add_argument("-i", "--id", metavar="ID")
    if command == "topo":
        made.add_argument("-m", "--matrix", action="store_true")
    else:
        made.add_argument("-s", "--status", action="store_true")
        made.add_argument("-e", "--errorcounters", action="store_true")
    return made


def handle_of(name: str) -> object:
    if name.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name))
    return (
        pynvml.nvmlDeviceGetHandleByUUID(name)
        if name.startswith("GPU-")
        else pynvml.nvmlDeviceGetHandleByPciBusId(name)
    )


def one(name: str) -> Gpu:
    try:
        handle = handle_of(name)
        return Gpu(handle, pynvml.nvmlDeviceGetIndex(handle))
    except (pynvml.NVMLError_InvalidArgument, pynvml.NVMLError_NotFound):
        raise Stop("No devices were found (simulated)\n", NO_DEVICES) from None
    except pynvml.NVMLError as error:
        text = bare(pynvml.nvmlErrorString(error.value))
        if error.value == pynvml.NVML_ERROR_GPU_IS_LOST:
            text += ".  Reboot the system to recover this GPU"
        raise Stop(f"Unable to determine the device handle for GPU{name}: {text} (simulated)\n", error.value) from None


def chosen(ids: str | None) -> list[Gpu]:
    names = [str(index) for index in range(pynvml.nvmlDeviceGetCount())] if ids is None else ids.split(",")
    return [one(name.strip()) for name in names]


def out(lines: Iterable[str]) -> int:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def listed(lines: Iterable[str]) -> int:
    """For outputs that other programs read: they say on stderr that they are simulated."""
    result = out(lines)
    sys.stderr.write("nvidia-smi: simulated GPUs\n")
    return result


def apply(gpus: list[Gpu], text: str, do: Callable[[Gpu, str], str]) -> int:
    for gpu in gpus:
        try:
            out([do(gpu, text)])
        except settings.SettingError as error:
            raise Stop(f"{error}\n{TERMINATING}", WRONG_ARGUMENT) from error
        except pynvml.NVMLError as error:
            problem = bare(pynvml.nvmlErrorString(error.value))
            what = do.__name__.replace("_", " ")
            raise Stop(
                f"Unable to set {what} for GPU {gpu.bus_id}: {problem}\n{TERMINATING}",
                error.value,
            ) from error
    return out(["All done. (simulated)"])


def version() -> list[str]:
    driver, cuda = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion_v2()
    library = ".".join(pynvml.nvmlSystemGetNVMLVersion().split(".")[1:3])
    return [
        f"NVIDIA-SMI version  : {driver} (simulated)",
        f"NVML version        : {library}",
        f"DRIVER version      : {driver}",
        f"CUDA Version        : {cuda // 1000}.{cuda % 1000 // 10}",
    ]


def run_sub(command: str, words: list[str]) -> int:
    options = sub_parser(command).parse_args(words)
    gpus = chosen(options.id)
    if command == "topo" and options.matrix:
        return listed(topology.matrix(gpus))
    if command == "nvlink" and (options.status or options.errorcounters):
        return listed((topology.link_states if options.status else topology.link_errors)(gpus))
    raise Stop(f"ERROR: No option was given to 'nvidia-smi {command}' (simulated: -m, -s, -e).\n", UNKNOWN_OPTION)


def run(words: list[str]) -> int:
    if words and words[0] in ("topo", "nvlink"):
        return run_sub(words[0], words[1:])
    options = parser().parse_args(words)
    gpus = chosen(options.id)
    for _short, long, _takes, do in SETTINGS:
        text = getattr(options, long[2:].replace("-", "_"))
        if text is not None:
            return apply(gpus, text, do)
    form = queries.Format(options.format)
    for asked, answer in (
        (options.query_gpu, queries.gpu_rows),
        (options.query_compute_apps, queries.compute_apps),
        (options.query_remapped_rows, queries.remapped_rows),
    ):
        if asked is not None:
            return listed(answer(asked, form, gpus))
    if options.list_gpus:
        return listed(f"GPU {gpu.index}: {gpu.ask('Name')} (UUID: {gpu.ask('UUID')})" for gpu in gpus)
    if options.query:
        return out((texts.xml if options.xml_format else texts.plain)(whole(gpus)))
    return out(version() if options.version else table(gpus))


def start() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
            raise Stop(NOT_LOADED, error.value) from None
        if error.value == pynvml.NVML_ERROR_NOT_FOUND:
            raise Stop("No devices were found (simulated)\n", NO_DEVICES) from None
        if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            raise Stop("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. (simulated)\n", 12) from None
        text = f"Failed to initialize NVML: {bare(pynvml.nvmlErrorString(error.value))} (simulated)\n"
        if error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            text += f"NVML library version: {'.'.join(pynvml.nvmlSystemGetNVMLVersion().split('.')[1:3])}\n"
        raise Stop(text, error.value) from None


def main(words: list[str]) -> int:
    try:
        start()
        try:
            return run(words)
        finally:
            pynvml.nvmlShutdown()
    except queries.QueryError as error:
        sys.stdout.write(f"{error}\n")
        return WRONG_ARGUMENT
    except Stop as stop:
        sys.stdout.write(str(stop))
        return stop.code
    except pynvml.NVMLError as error:
        sys.stdout.write(f"{bare(pynvml.nvmlErrorString(error.value))} (simulated)\n")
        return int(error.value)
