"""What faults keep running or stopped on a host: units, transient units, and files that fill a disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from .catalogue import FaultError
from .effects import Counters, Fill, Process
from .state import VOLATILE
from .values import MIB

Run = Callable[[list[str]], "tuple[int, str, str]"]

FULL = "rackserve-simulated-full"
PREFIX = "rackserve-simulated"
_FLOOR_MIB = 64
_GROW = (
    'every=$1; shift; while sleep "$every"; do for pair; do '
    'file=${pair#*:}; step=${pair%%:*}; echo $(($(cat "$file") + step)) >"$file"; done; done'
)


def ask(run: Run, command: list[str]) -> str:
    """Run a command that has to work; its output."""
    code, out, err = run(command)
    if code:
        said = (err or out).strip().splitlines()
        raise FaultError(f"{' '.join(command[:4])} failed: {said[-1] if said else f'exit status {code}'}")
    return out


def properties(run: Run, unit: str) -> dict[str, str]:
    """LoadState, ActiveState and MainPID of a unit."""
    out = ask(run, ["systemctl", "show", "--property=LoadState,ActiveState,MainPID", unit])
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


def is_active(run: Run, unit: str) -> bool:
    return properties(run, unit).get("ActiveState") in ("active", "activating", "reloading")


def unit_before(run: Run, unit: str) -> dict[str, str]:
    """What to go back to. Raises FaultError where there is no such unit."""
    seen = properties(run, unit)
    if seen.get("LoadState") == "not-found":
        raise FaultError(f"no unit {unit} on this host; install what brings it first")
    return {"LoadState": seen.get("LoadState", ""), "ActiveState": seen.get("ActiveState", "")}


def process_command(root: Path, unit: str, process: Process) -> tuple[Path, list[str]]:
    """The link that gives the process its name, and the command that starts it."""
    link = root / VOLATILE / "processes" / process.name
    return link, [
        "systemd-run", "--quiet", "--collect", "--service-type=exec", f"--unit={unit}", f"--uid={process.user}",
        "--description=simulated foreign process", str(link), "infinity",
    ]  # fmt: skip


def start_process(root: Path, run: Run, unit: str, process: Process) -> str:
    """Start the process; its pid."""
    link, command = process_command(root, unit, process)
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to("/bin/sleep")
    ask(run, command)
    return properties(run, unit).get("MainPID", "0")


def counters_command(root: Path, unit: str, counters: Sequence[Counters]) -> list[str]:
    """The command that makes counters grow, all at the pace of the first."""
    pairs = [f"{step}:{root / path}" for part in counters for path, step in part.files]
    return [
        "systemd-run", "--quiet", "--collect", f"--unit={unit}", "--description=simulated counters that grow",
        "/bin/sh", "-c", _GROW, "sh", str(counters[0].every_s), *pairs,
    ]  # fmt: skip


def stop(run: Run, unit: str) -> None:
    """Stop a transient unit; it is gone then."""
    ask(run, ["systemctl", "stop", unit])


def hold_down(run: Run, unit: str, action: str, layer: str) -> None:
    runtime = ["--runtime"] if layer == "volatile" else []
    ask(run, ["systemctl", "mask", "--now", *runtime, unit] if action == "mask" else ["systemctl", "stop", unit])


def let_go(run: Run, unit: str, before: dict[str, str]) -> None:
    """Bring a unit back to what it was."""
    if properties(run, unit).get("LoadState") == "masked" and before["LoadState"] != "masked":
        ask(run, ["systemctl", "unmask", unit])
        ask(run, ["systemctl", "unmask", "--runtime", unit])
    if before["ActiveState"] == "active" and not is_active(run, unit):
        ask(run, ["systemctl", "start", unit])


def free_mib(folder: Path) -> int:
    seen = os.statvfs(folder)
    return seen.f_bavail * seen.f_frsize // MIB


def device(folder: Path) -> int:
    return folder.stat().st_dev


def fill_file(root: Path, fill: Fill) -> Path:
    return root / fill.folder / f"{FULL}-{fill.left_mib}"


def fill_size_mib(root: Path, fill: Fill) -> int:
    """How much has to be written. Raises FaultError where the disk must not be filled."""
    folder = root / fill.folder
    if not folder.is_dir():
        raise FaultError(f"no folder /{fill.folder} on this host; make it or give another path")
    if device(folder) == device(root):
        raise FaultError(f"/{fill.folder} is on the root file system; give a folder on a file system of its own")
    size = max(0, free_mib(folder) - max(fill.left_mib, _FLOOR_MIB))
    if size > fill.most_mib:
        raise FaultError(f"/{fill.folder}: {size} MiB would have to be written, more than most_mib {fill.most_mib}")
    return size


def fill_disk(root: Path, fill: Fill) -> None:
    """Write one file that leaves only so much room."""
    size = fill_size_mib(root, fill)
    handle = os.open(fill_file(root, fill), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if size:
            os.posix_fallocate(handle, 0, size * MIB)
    except OSError as error:
        fill_file(root, fill).unlink()
        raise FaultError(f"cannot fill /{fill.folder}: {error.strerror}") from error
    finally:
        os.close(handle)
