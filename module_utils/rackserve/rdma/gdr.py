"""How adapters reach the memory of GPUs: DMA-BUF, the module nvidia_peermem, or not at all."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import NamedTuple

from ..preflight.findings import Finding, finding
from .sysfs import value

DMABUF_KERNEL = (5, 12)
_OPEN_MODULE = "Open Kernel Module"
_RELEASE = re.compile(r"(?:Linux version )?((\d+)\.(\d+)\S*)")
_WHERE = "memory of GPUs"


class Kernel(NamedTuple):
    """The running kernel's release, and (major, minor)."""

    release: str
    version: tuple[int, int]


def kernel(root: Path) -> Kernel | None:
    """The kernel that runs, by /proc; None where it does not say."""
    found = _RELEASE.match(value(root / "proc/sys/kernel/osrelease") or value(root / "proc/version") or "")
    return Kernel(found[1], (int(found[2]), int(found[3]))) if found else None


def open_module(root: Path) -> bool | None:
    """Whether the loaded driver is the one with open modules; None where nothing says it, as without a driver.

    A proprietary module taints the kernel with P, the open one does not.
    """
    version = value(root / "proc/driver/nvidia/version")
    if version:
        return _OPEN_MODULE in version
    taint = root / "sys/module/nvidia/taint"
    return "P" not in (value(taint) or "") if taint.is_file() else None


def peermem(root: Path) -> bool:
    """Whether a module for peer memory is there, by the two files that NCCL looks for."""
    files = [root / "sys/module/nvidia_peermem/version", *(root / "sys/kernel/mm/memory_peers").glob("nv_mem*/version")]
    return any(path.is_file() for path in files)


def read_gdr(root: Path) -> tuple[str, list[Finding]]:
    """(`dmabuf`, `peermem` or `none`, what could not be known). DMA-BUF comes first, as in NCCL."""
    refusal, unknown = _no_dmabuf(root)
    if not refusal and not unknown:
        return "dmabuf", []
    if peermem(root):
        return "peermem", []
    if unknown:
        fix = "read it on the host itself, with the driver loaded"
        return "none", [finding("warning", "rdma-unknown", _WHERE, f"unknown: {unknown}", fix)]
    if not _driver(root):
        return "none", []
    fix = "install the driver's open kernel modules (kernel 5.12 or newer), or modprobe nvidia-peermem"
    return "none", [finding("warning", "rdma-no-gdr", _WHERE, f"{refusal}, and nvidia_peermem is not loaded", fix)]


def _driver(root: Path) -> bool:
    return (root / "sys/module/nvidia").is_dir() or (root / "proc/driver/nvidia").is_dir()


def _no_dmabuf(root: Path) -> tuple[str, str]:
    """(why there is no DMA-BUF, what could not be read to know it); both empty where there is."""
    if not _driver(root):
        return "NVIDIA's driver is not loaded", ""
    is_open, running = open_module(root), kernel(root)
    if is_open is False:
        return "the loaded driver is the proprietary one, DMA-BUF needs the open kernel modules", ""
    if running and running.version < DMABUF_KERNEL:
        return f"DMA-BUF needs a kernel from 5.12 on, this is {running.release}", ""
    if running and _option(root, running.release, "CONFIG_DMA_SHARED_BUFFER") is False:
        return f"kernel {running.release} is built without CONFIG_DMA_SHARED_BUFFER", ""
    if is_open is None:
        return "", "neither proc/driver/nvidia/version nor sys/module/nvidia/taint says which kind of driver is loaded"
    return "", "" if running else "neither proc/sys/kernel/osrelease nor proc/version names the kernel"


def _option(root: Path, release: str, name: str) -> bool | None:
    """Whether an option of the kernel's configuration is set; None where the configuration is not there."""
    text = value(root / f"boot/config-{release}")
    if text is None:
        try:
            text = gzip.decompress((root / "proc/config.gz").read_bytes()).decode("ascii", "replace")
        except (OSError, EOFError):
            return None
    return re.search(rf"^{name}=[ym]$", text, re.MULTILINE) is not None


def peer_memory_missing(root: Path, wanted: str | None) -> list[Finding]:
    """Report where adapters cannot reach the memory of GPUs, so that every transfer goes through the CPU's.

    `dmabuf` needs a kernel from 5.12 on and the driver's open modules, `nvidia_peermem` the module of that name.
    """
    if wanted == "nvidia_peermem" and not (root / "sys/module/nvidia_peermem").is_dir():
        fix = "modprobe nvidia-peermem; it needs NVIDIA's driver and ib_core first"
        return [finding("error", "peer-memory", _WHERE, "nvidia_peermem is not loaded", fix)]
    if wanted != "dmabuf":
        return []
    running = kernel(root)
    if running and running.version < DMABUF_KERNEL:
        why = f"DMA-BUF needs a kernel from 5.12 on, this is {running.release}"
        return [finding("error", "peer-memory", _WHERE, why, "install a newer kernel, or set nvidia_peermem")]
    if open_module(root) is False:
        why = "DMA-BUF needs the driver's open kernel modules, the loaded one is proprietary"
        fix = "install the release's driver, or set rdma_fabric_peer_memory: nvidia_peermem"
        return [finding("error", "peer-memory", _WHERE, why, fix)]
    return []
