"""What a host shows of RDMA, in /sys, /proc and /dev."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from ..converge.host import Run
from ..preflight.findings import Finding, finding

_LAYERS = {"infiniband": "InfiniBand", "roce": "Ethernet"}
_DMABUF_KERNEL = (5, 12)
_OPEN_MODULE = "Open Kernel Module"
_CAP_SYS_RESOURCE = 1 << 24  # include/uapi/linux/capability.h


class Adapter(NamedTuple):
    """An adapter of the fabric's kind: the state of its best port, and that port's rate; 0 Gb/s unless it works."""

    name: str
    state: str
    rate_gbps: float
    device_file: bool


def text(path: Path) -> str:
    """A small file's text; empty where there is none."""
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""


def missing_modules(root: Path, modules: Iterable[str]) -> list[str]:
    """Those of `modules` that are not loaded."""
    return [name for name in modules if not (root / "sys/module" / name.replace("-", "_")).is_dir()]


def adapters(root: Path, kind: str) -> list[Adapter]:
    """Adapters with a port of that kind; software devices and virtual functions of a card here are left out."""
    files = {
        text(entry / "ibdev"): (root / "dev/infiniband" / entry.name).exists()
        for entry in (root / "sys/class/infiniband_verbs").glob("uverbs*")
    }
    found = []
    for entry in sorted((root / "sys/class/infiniband").glob("*"), key=lambda path: path.name):
        device = entry / "device"
        ports = [port for port in entry.glob("ports/*") if text(port / "link_layer") == _LAYERS[kind]]
        if not device.exists() or (device / "physfn").exists() or not ports:
            continue
        state, rate = max((_port(port) for port in ports), key=lambda seen: seen[1])
        found.append(Adapter(entry.name, state, rate, files.get(entry.name, False)))
    return found


def _port(port: Path) -> tuple[str, float]:
    state, link = (text(port / name).partition(":")[2].strip() for name in ("state", "phys_state"))
    rate = text(port / "rate").split(maxsplit=1)
    works = state == "ACTIVE" and link == "LinkUp"
    return f"{state or '?'}/{link or '?'}", float(rate[0]) if works and rate else 0.0


def peer_memory_missing(root: Path, wanted: str | None) -> list[Finding]:
    """Report where adapters cannot reach the memory of GPUs, so that every transfer goes through the CPU's.

    `dmabuf` needs a kernel from 5.12 on and the driver's open modules, `nvidia_peermem` the module of that name.
    """
    where = "memory of GPUs"
    if wanted == "nvidia_peermem" and not (root / "sys/module/nvidia_peermem").is_dir():
        fix = "modprobe nvidia-peermem; it needs NVIDIA's driver and ib_core first"
        return [finding("error", "peer-memory", where, "nvidia_peermem is not loaded", fix)]
    if wanted != "dmabuf":
        return []
    release = text(root / "proc/sys/kernel/osrelease")
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers and (int(numbers[1]), int(numbers[2])) < _DMABUF_KERNEL:
        why = f"DMA-BUF needs a kernel from 5.12 on, this is {release}"
        return [finding("error", "peer-memory", where, why, "install a newer kernel, or set nvidia_peermem")]
    version = text(root / "proc/driver/nvidia/version")
    if version and _OPEN_MODULE not in version:
        why = "DMA-BUF needs the driver's open kernel modules, the loaded one is proprietary"
        fix = "install the release's driver, or set rdma_fabric_peer_memory: nvidia_peermem"
        return [finding("error", "peer-memory", where, why, fix)]
    return []


def limits_bounded(root: Path) -> bool:
    """Whether the host's first process has a limit of locked memory and may not raise it, as in some containers."""
    capable = re.search(r"^CapBnd:\s+([0-9a-f]+)", text(root / "proc/1/status"), re.MULTILINE)
    unlimited = re.search(r"^Max locked memory\s+\S+\s+unlimited", text(root / "proc/1/limits"), re.MULTILINE)
    return capable is not None and not int(capable[1], 16) & _CAP_SYS_RESOURCE and not unlimited


def locked_memory_limits(root: Path, run: Run, units: Collection[str]) -> dict[str, str]:
    """Unit to the bytes, or `unlimited`, that its main process may lock; units that do not run are left out."""
    limits: dict[str, str] = {}
    for unit in units:
        _, out, _ = run(["systemctl", "show", "-p", "MainPID", "--value", unit])
        pid = out.strip()
        if pid.isdigit() and int(pid):
            line = re.search(r"^Max locked memory\s+(\S+)", text(root / "proc" / pid / "limits"), re.MULTILINE)
            if line:
                limits[unit] = line[1]
    return limits


def interrupts_moved(root: Path, pinned: Collection[str]) -> list[Finding]:
    """Report irqbalance where it runs at boot and is not told to leave the pinned adapters' interrupts alone."""
    enabled = list((root / "etc/systemd/system").glob("*.wants/irqbalance.service"))
    if not pinned or not enabled or "--banmod=mlx5_core" in text(root / "etc/default/irqbalance"):
        return []
    why = f"it moves the interrupts of {', '.join(sorted(pinned))}, which the site sends to fixed CPUs"
    fix = "add --banmod=mlx5_core to its options in /etc/default/irqbalance, or empty rdma_fabric_irq_affinity"
    return [finding("warning", "irqbalance-moves", "irqbalance.service", why, fix)]
