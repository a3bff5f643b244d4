"""A host's GPUs and processes as a test wants them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rackserve.gpu.guard import Gpu, NvmlError, Use

MIB = 2**20
UNIT = "vllm-x-0.service"
ARGUMENTS = ["--unit", UNIT, "--gpus", "0", "--needed-mib", "90042", "--settle-s", "0"]


def gpu(index: int = 0, used_mib: int = 4, uses: tuple[tuple[int, int | None], ...] = (), **changed: Any) -> Gpu:
    """An H20 whose driver keeps 600 MiB to itself; `uses` are (pid, MiB or None)."""
    total, reserved = changed.get("total_mib", 97871), changed.get("reserved_mib", 600)
    return Gpu(
        index,
        f"GPU-0000-{index}",
        total * MIB,
        reserved * MIB,
        used_mib * MIB,
        (total - reserved - used_mib) * MIB,
        [Use(pid, None if mib is None else mib * MIB) for pid, mib in uses],
    )


class Reader:
    """NVML as a list: each GPU, or the error code that asking for it gives."""

    def __init__(self, *gpus: Gpu | int) -> None:
        self.gpus = gpus

    def count(self) -> int:
        return len(self.gpus)

    def gpu(self, index: int) -> Gpu:
        found = self.gpus[index]
        if isinstance(found, int):
            raise NvmlError(found, f"code {found}")
        return found


def add_process(
    proc: Path, pid: int, command: str = "python3", cgroup: str = "/user.slice/session-3.scope", **changed: Any
) -> None:
    """An entry below `proc` that looks like /proc/<pid>."""
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text(changed.get("groups", f"0::{cgroup}\n"))
    (folder / "cmdline").write_bytes(changed.get("cmdline", command.encode() + b"\0train.py\0"))
    (folder / "comm").write_text(changed.get("comm", Path(command).name[:15]) + "\n")
    uid = changed.get("uid", os.getuid())
    (folder / "status").write_text(f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
