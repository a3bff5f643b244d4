"""Refuse the start of an engine whose GPUs are not free.

Runs on a host by itself, as root, with an interpreter that has pynvml:

    python3 -I guard.py --unit vllm-x-0.service --gpus 0,1 --needed-mib 74000

Exit status 0: the engine may start, one line. 1: refused, a line a reason on stderr. It looks and says; it never
signals a process, frees memory or resets a GPU. It is one file on purpose: it is copied to hosts as it is.
"""

from __future__ import annotations

import argparse
import importlib
import pwd
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple, Protocol

DRIVER_NOT_LOADED, NO_PERMISSION, LIBRARY_NOT_FOUND = 9, 4, 12
GPU_IS_LOST, RESET_REQUIRED, VERSION_MISMATCH = 15, 16, 18
NOT_SUPPORTED, FUNCTION_NOT_FOUND = 3, 13
NO_PYNVML = -1
_MIB = 2**20
_POLL_S = 1.0

_FIXES = {
    NO_PYNVML: "this interpreter has no pynvml: build and install the release again, nvidia-ml-py is in its lock",
    LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 is not there: install the driver's packages of this release",
    DRIVER_NOT_LOADED: "the kernel module nvidia is not loaded: modprobe nvidia; if it is not found, it was not built "
    "for this kernel, see dkms status and uname -r",
    VERSION_MISMATCH: "the library and the loaded kernel module are of different versions, as after an upgrade: see "
    "cat /proc/driver/nvidia/version; drain the host, then load the new module or reboot",
    GPU_IS_LOST: "it fell off the bus: see journalctl -k -g 'NVRM: Xid'; drain the host, power it off and on",
    RESET_REQUIRED: "see journalctl -k -g 'NVRM: Xid'; drain the host, then nvidia-smi --gpu-reset or a reboot, the "
    "operator's decision",
    NO_PERMISSION: "the guard may not open its devices: run it as root, and let the unit's DeviceAllow= name them",
}
_OTHER_FIX = "see nvidia-smi and journalctl -k -g NVRM on this host"


class NvmlError(Exception):
    """NVML refused: its return code, and its own words."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Use(NamedTuple):
    """A process on a GPU; `used_bytes` None where the driver does not say."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML sees it: total = used + free + what the driver reserved for itself."""

    index: int
    uuid: str
    total_bytes: int
    reserved_bytes: int
    used_bytes: int
    free_bytes: int
    uses: list[Use]


class Reader(Protocol):
    """Where GPUs are read from."""

    def count(self) -> int:
        """GPUs of the host. Raises NvmlError."""

    def gpu(self, index: int) -> Gpu:
        """One of them, by its index in PCI order. Raises NvmlError."""


class Nvml:
    """The driver's own library, by pynvml. Raises NvmlError when there is none to ask."""

    _LISTS = ("ComputeRunningProcesses_v3", "GraphicsRunningProcesses_v3", "MPSComputeRunningProcesses_v3")

    def __init__(self) -> None:
        try:
            self._nvml: Any = importlib.import_module("pynvml")
        except ImportError as error:
            raise NvmlError(NO_PYNVML, str(error)) from error
        self._ask("nvmlInit")

    def _ask(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, name)(*arguments)
        except self._nvml.NVMLError as error:
            raise NvmlError(error.value, str(error)) from error

    def count(self) -> int:
        """GPUs of the host."""
        return int(self._ask("nvmlDeviceGetCount"))

    def gpu(self, index: int) -> Gpu:
        """One GPU, its memory and everything that uses it."""
        handle = self._ask("nvmlDeviceGetHandleByIndex", index)
        uuid = self._ask("nvmlDeviceGetUUID", handle)
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle, self._nvml.nvmlMemory_v2)
        uses: dict[int, Use] = {}
        for position, name in enumerate(self._LISTS):
            try:
                listed = self._ask(f"nvmlDeviceGet{name}", handle)
            except NvmlError as error:
                if position and error.code in (NOT_SUPPORTED, FUNCTION_NOT_FOUND):
                    continue
                raise
            for process in listed:
                uses.setdefault(process.pid, Use(process.pid, process.usedGpuMemory))
        return Gpu(
            index,
            uuid.decode() if isinstance(uuid, bytes) else uuid,
            memory.total,
            memory.reserved,
            memory.used,
            memory.free,
            list(uses.values()),
        )


class Process(NamedTuple):
    """What /proc says of a user of a GPU; `names` are the ones it goes by, `unit` is empty outside of units."""

    pid: int
    names: tuple[str, ...]
    user: str
    unit: str
    cgroup: str
    used_bytes: int | None

    def __str__(self) -> str:
        used = "an unknown amount of memory" if self.used_bytes is None else f"{self.used_bytes // _MIB} MiB"
        where = f"unit {self.unit}" if self.unit else f"control group {self.cgroup or 'unknown'}"
        return f"process {self.pid} ({self.names[0]}) of user {self.user}, {used}, {where}"


def unit_of(cgroup: str) -> str:
    """The system's unit of a control group: the first part that is no slice, as systemd reads it.

    A user's own units lie below user@<uid>.service, so nobody can give himself the name of one of ours.
    """
    first = next((part for part in cgroup.split("/") if part and not part.endswith(".slice")), "")
    return first if first.endswith((".service", ".scope")) else ""


def read_process(proc: Path, use: Use) -> Process | None:
    """What ``proc`` (/proc) says of a process; None when it is not there."""
    folder = proc / str(use.pid)
    try:
        groups = (folder / "cgroup").read_text("utf-8", "replace").splitlines()
        words = (folder / "cmdline").read_bytes().split(b"\0")
        short = (folder / "comm").read_text("utf-8", "replace").strip()
        status = (folder / "status").read_text("utf-8", "replace").splitlines()
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return None
    paths = {name: path for name, path in (line.split(":", 2)[1:] for line in groups if line.count(":") > 1)}
    cgroup = paths.get("name=systemd") or paths.get("", "")
    names = dict.fromkeys([Path(words[0].decode("utf-8", "replace")).name, short])
    uid = next((int(line.split()[1]) for line in status if line.startswith("Uid:")), -1)
    return Process(
        use.pid,
        tuple(name for name in names if name) or ("?",),
        user_name(uid),
        unit_of(cgroup),
        cgroup,
        use.used_bytes,
    )


def user_name(uid: int) -> str:
    """An account's name; its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


class Request(NamedTuple):
    """Who wants to start: its GPUs, what it will demand of each, who else may be there."""

    unit: str
    gpus: Sequence[int]
    needed_mib: int = 0
    allowed_units: Sequence[str] = ()
    ignored_names: Sequence[str] = ()
    tolerance_mib: int = 512
    noun: str = "GPU"


class Refusal(NamedTuple):
    """One reason; `passing` where it may go away by itself, as memory of a process that just ended does."""

    line: str
    passing: bool = False


def inspect(request: Request, reader: Reader, proc: Path) -> list[Refusal]:
    """Every reason why the engine must not start now."""
    count = reader.count()
    refusals: list[Refusal] = []
    for index in request.gpus:
        if index >= count:
            why = f"the plan gives it {request.noun} {index}, NVML shows {count} from 0 on"
            fix = "look for the missing ones with nvidia-smi -L and lspci -d 10de:, or correct the hardware profile"
            refusals.append(Refusal(f"{request.unit}: {why}: {fix}"))
            continue
        try:
            gpu = reader.gpu(index)
        except NvmlError as error:
            refusals.append(nvml_refusal(request, error, [index]))
        else:
            refusals += judge(request, gpu, [(use, read_process(proc, use)) for use in gpu.uses])
    return refusals


def nvml_refusal(request: Request, error: NvmlError, gpus: Iterable[int]) -> Refusal:
    """NVML's refusal as a line."""
    which = ",".join(map(str, gpus))
    return Refusal(
        f"{request.unit}: {request.noun} {which} cannot be asked ({error}): {_FIXES.get(error.code, _OTHER_FIX)}"
    )


def judge(request: Request, gpu: Gpu, seen: list[tuple[Use, Process | None]]) -> list[Refusal]:
    """What speaks against one GPU; ``seen`` are its users with what /proc says of them."""
    where = f"{request.unit}: {request.noun} {gpu.index} ({gpu.uuid})"
    found: list[Refusal] = []
    ignored = set(request.ignored_names)
    for use, process in seen:
        if process is None:
            why = f"process {use.pid}, which has no entry in /proc"
            fix = "it is just ending or belongs to another PID namespace: see nvidia-smi on the machine itself"
            found.append(Refusal(f"{where} is held by {why}: {fix}", passing=True))
        elif process.unit not in (request.unit, *request.allowed_units) and not ignored.intersection(process.names):
            fix = "stop it yourself, rackserve never signals a process that is not its own"
            found.append(Refusal(f"{where} is held by {process}: {fix}"))
    held = unowned_mib(gpu)
    if held > request.tolerance_mib:
        why = f"{held} MiB are allocated that no process owns ({gpu.used_bytes // _MIB} MiB used in all)"
        fix = (
            f"an orphaned context; look with nvidia-smi -q -i {gpu.index} -d MEMORY,PIDS and fuser -v /dev/nvidia*; "
            "only a reset or a reboot frees it, the operator's decision"
        )
        found.append(Refusal(f"{where}: {why}: {fix}", passing=True))
    if not found:
        found += too_little(request, gpu, where, [process for _use, process in seen if process])
    return found


def unowned_mib(gpu: Gpu) -> int:
    """Memory that is allocated without a process, MiB; 0 where a process's share is not known."""
    shares = [use.used_bytes for use in gpu.uses]
    owned = sum(share for share in shares if share is not None)
    return 0 if None in shares else max(0, gpu.used_bytes - owned) // _MIB


def too_little(request: Request, gpu: Gpu, where: str, users: list[Process]) -> list[Refusal]:
    """A refusal where less is free than vLLM demands when it starts."""
    free, total, reserved = (value // _MIB for value in (gpu.free_bytes, gpu.total_bytes, gpu.reserved_bytes))
    if free >= request.needed_mib:
        return []
    why = f"{free} of {total} MiB are free, the engine demands {request.needed_mib} MiB when it starts"
    if users:
        held = "; ".join(map(str, users))
        fix = f"held by {held}: lower gpu_memory_utilization in the description, or free the memory"
    elif total - reserved < request.needed_mib:
        fix = "the hardware profile says more memory than this GPU has: correct its memory_mib, or replace the GPU"
    else:
        fix = f"look with nvidia-smi -q -i {gpu.index} -d MEMORY,PIDS, or lower gpu_memory_utilization"
    return [Refusal(f"{where}: {why}: {fix}", passing=True)]


def decide(
    request: Request,
    make_reader: Callable[[], Reader],
    proc: Path,
    settle_s: float = 0,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """The lines that refuse the start, none when it may go on. What may pass by itself is given ``settle_s``."""
    left_s = settle_s
    while True:
        try:
            refusals = inspect(request, make_reader(), proc)
        except NvmlError as error:
            refusals = [nvml_refusal(request, error, request.gpus)]
        if left_s <= 0 or not refusals or not all(refusal.passing for refusal in refusals):
            return ["".join(c if c.isprintable() else "?" for c in refusal.line) for refusal in refusals]
        sleep(_POLL_S)
        left_s -= _POLL_S


def read_arguments(words: Sequence[str] | None) -> tuple[Request, float]:
    """(request, seconds to settle) of a command line."""
    parser = argparse.ArgumentParser(prog="gpu-guard", description="Refuse an engine's start while its GPUs are held.")
    parser.add_argument("--unit", required=True, help="the unit that wants to start")
    parser.add_argument("--gpus", required=True, help="its GPUs in PCI order, as 0,1")
    parser.add_argument("--needed-mib", type=int, default=0, help="memory it demands of each GPU when it starts")
    parser.add_argument("--allow-unit", action="append", default=[], help="another unit that may use these GPUs")
    parser.add_argument("--ignore-process", action="append", default=[], help="name of a process that may hold a GPU")
    parser.add_argument("--tolerance-mib", type=int, default=512, help="memory that may belong to no process")
    parser.add_argument("--settle-s", type=float, default=10, help="how long memory may take to be given back")
    parser.add_argument("--simulated", action="store_true", help="the GPUs are simulated: say so in every line")
    given = parser.parse_args(words)
    try:
        gpus = [int(word) for word in given.gpus.split(",")]
    except ValueError:
        parser.error(f"--gpus {given.gpus}: write indices like 0,1")
    noun = "simulated GPU" if given.simulated else "GPU"
    request = Request(
        given.unit, gpus, given.needed_mib, given.allow_unit, given.ignore_process, given.tolerance_mib, noun
    )
    return request, given.settle_s


def main(
    words: Sequence[str] | None = None, make_reader: Callable[[], Reader] = Nvml, proc: Path = Path("/proc")
) -> int:
    """Decide, and say it."""
    request, settle_s = read_arguments(words)
    lines = decide(request, make_reader, proc, settle_s)
    if lines:
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        return 1
    which = ",".join(map(str, request.gpus))
    sys.stdout.write(
        f"{request.unit} may start: {request.noun} {which} free, {request.needed_mib} MiB demanded of each\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
