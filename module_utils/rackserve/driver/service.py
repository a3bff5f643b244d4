"""Who uses a driver: units that serve, processes on the GPUs, loaded modules; and what updates it behind our back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..converge.dpkg import present
from ..converge.host import Host, Run
from ..preflight.findings import Finding, finding

# A module may be unloaded only after those before it.
MODULES = ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia_peermem", "nvidia_fs", "gdrdrv", "nvidia")
# The driver's own daemons, as /proc/<pid>/comm shows them: 15 characters.
_OWN = ("nvidia-persiste", "nv-fabricmanage")
_UNATTENDED = re.compile(r"^\s*APT::Periodic::Unattended-Upgrade\s+\"?(\d+)", re.MULTILINE)


def module_loaded(root: Path, name: str) -> bool:
    """Whether a module is loaded; one that is built into the kernel has no initstate."""
    return (root / f"sys/module/{name}/initstate").exists()


def loaded_modules(root: Path) -> list[str]:
    """The driver's loaded modules in the order in which they can be unloaded."""
    return [name for name in MODULES if module_loaded(root, name)]


def check_serving(root: Path, run: Run, units: Sequence[str]) -> list[Finding]:
    """An error for engines that run, and for each process that has a GPU's device open."""
    host = Host(root, run)
    host.load_units(list(units))
    running = [name for name in units if host.units[name].running]
    found = []
    if running:
        why = f"{', '.join(running)} runs; a driver changes only on a drained host"
        found.append(finding("error", "driver-in-service", "driver", why, "run playbooks/upgrade-driver.yml"))
    for pid, name in gpu_users(root):
        why = f"process {pid} ({name}) has a GPU open"
        found.append(finding("error", "driver-in-use", f"process {pid}", why, "stop it yourself, then run this again"))
    return found


def gpu_users(root: Path) -> list[tuple[int, str]]:
    """Processes that have /dev/nvidia* open, without the driver's own daemons: number and name."""
    found = []
    for folder in sorted(root.glob("proc/[0-9]*"), key=lambda path: int(path.name)):
        try:
            targets = [str(path.readlink()) for path in (folder / "fd").iterdir()]
            name = (folder / "comm").read_text().strip()
        except OSError:
            continue  # it ended meanwhile
        if name not in _OWN and any(target.startswith("/dev/nvidia") for target in targets):
            found.append((int(folder.name), name))
    return found


def check_unattended(root: Path) -> list[Finding]:
    """A note where the distribution's own updates run: they are left as they are and cannot move the driver."""
    host = Host(root, None)
    if not present(host.packages.get("unattended-upgrades")):
        return []
    folder = host.at("/etc/apt/apt.conf.d")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    said = [value for name in names for value in _UNATTENDED.findall(host.read_text(f"/etc/apt/apt.conf.d/{name}"))]
    if not said or said[-1] == "0":
        return []
    why = "unattended-upgrades runs here; the driver is held, pinned and in its blacklist, a new kernel is not"
    fix = "leave it, or blacklist linux-image in a file of the site; a reboot is refused while the kernel has no module"
    return [finding("note", "unattended-upgrades", "/etc/apt/apt.conf.d", why, fix)]
