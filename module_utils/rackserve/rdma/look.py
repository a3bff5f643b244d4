"""What a host shows of RDMA, in /sys, /proc and /dev."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from ..converge.host import Run
from ..preflight.findings import Finding, finding
from .sysfs import ETHERNET, INFINIBAND, Port, read_hcas, text

_LAYERS = {"infiniband": INFINIBAND, "roce": ETHERNET}
_CAP_SYS_RESOURCE = 1 << 24  # include/uapi/linux/capability.h


class Adapter(NamedTuple):
    """An adapter of the fabric's kind: the state of its best port, and that port's rate; 0 Gb/s unless it works."""

    name: str
    state: str
    rate_gbps: float
    device_file: bool


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
    for hca in read_hcas(root):
        ports = [port for port in hca.ports if port.link_layer == _LAYERS[kind]]
        if hca.soft or hca.has_physical or not ports:
            continue
        best = max(ports, key=_working_rate)
        state = f"{best.state or '?'}/{best.phys_state or '?'}"
        found.append(Adapter(hca.name, state, _working_rate(best), files.get(hca.name, False)))
    return found


def _working_rate(port: Port) -> float:
    return (port.rate_gbps or 0.0) if port.up else 0.0


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
