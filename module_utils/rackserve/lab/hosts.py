"""Lab hosts: an overlay on the shared image, an identity, a supervisor process, ssh that answers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from .network import must
from .spec import Host, Lab, LabError, Run

BOOT_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


def mounts(root: Path = Path("/")) -> set[str]:
    """Mount points of this machine."""
    return {line.split()[1] for line in (root / "proc/mounts").read_text().splitlines()}


def refuse_other_image(lab: Lab, hosts: list[Host], root: Path = Path("/")) -> None:
    """Raise LabError when mounted hosts stand on another image than the wanted one: it cannot be changed below them."""
    mine = {str(lab.root_dir(host)): host.name for host in hosts}
    other = []
    for line in (root / "proc/mounts").read_text().splitlines():
        _, point, kind, options = line.split()[:4]
        if point in mine and kind == "overlay" and f"lowerdir={lab.image_dir}" not in options.split(","):
            other.append(mine[point])
    if other:
        raise LabError(
            f"lab hosts {', '.join(sorted(other))} stand on an older image than {lab.image_dir.name}; "
            "run make lab-down, then this again"
        )


def ensure_root(lab: Lab, host: Host, run: Run, mounted: set[str]) -> bool:
    """Mount the host's own overlay over the image; its upper folder is the exact record of what changed there."""
    target = lab.root_dir(host)
    if str(target) in mounted:
        return False
    folder = lab.host_dir(host)
    for name in ("upper", "work", "root"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={lab.image_dir},upperdir={folder}/upper,workdir={folder}/work"
    must(run, "mount", "-t", "overlay", "overlay", "-o", options, str(target))
    return True


def write(path: Path, text: str, mode: int) -> bool:
    """Write a file when its content differs. True when it did."""
    if path.is_file() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return True


def ensure_key(path: Path, comment: str, run: Run) -> bool:
    """Make an ssh key pair unless it is there. True when it was made."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    must(run, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))
    return True


def ensure_identity(lab: Lab, host: Host, run: Run) -> list[str]:
    """Name, addresses of the others, ssh keys. A changed client key reaches running hosts at once."""
    root = lab.root_dir(host)
    names = "".join(f"{other.address} {other.name}\n" for other in lab.hosts)
    keys = lab.host_dir(host) / "ssh_host_ed25519_key"
    done = ["host key"] if ensure_key(keys, host.name, run) else []
    files = {
        "etc/hostname": (f"{host.name}\n", 0o644),
        "etc/hosts": (f"127.0.0.1 localhost\n::1 localhost\n{names}", 0o644),
        "etc/ssh/ssh_host_ed25519_key": (keys.read_text(), 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": (keys.with_suffix(".pub").read_text(), 0o644),
        "root/.ssh/authorized_keys": (lab.client_key.with_suffix(".pub").read_text(), 0o600),
    }
    done += [path for path, (text, mode) in files.items() if write(root / path, text, mode)]
    (root / "root/.ssh").chmod(0o700)
    return done


def supervisor_pid(lab: Lab, host: Host, root: Path = Path("/")) -> int | None:
    """The running supervisor's pid; None when there is none. A recycled pid is told apart by its command line."""
    try:
        pid = int(lab.pid_file(host).read_text())
        command = (root / f"proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except (OSError, ValueError):
        return None
    mine = any(part.endswith("lab-boot") for part in command) and lab.namespace(host) in command
    return pid if mine else None


def boot_options(host: Host) -> dict[str, object]:
    """What a host is booted with beyond its root and its network."""
    return {"machine": host.machine, "binds": list(host.binds)}


def booted_otherwise(lab: Lab, host: Host) -> bool:
    """True when the running host was booted with other options than it should have, or nothing says with which."""
    try:
        return bool(json.loads(lab.boot_record(host).read_text()) != boot_options(host))
    except (OSError, ValueError):
        return True


def record_boot(lab: Lab, host: Host) -> None:
    lab.boot_record(host).write_text(json.dumps(boot_options(host), indent=1) + "\n")


def start(lab: Lab, host: Host, boot: Path, root: Path = Path("/")) -> None:
    """Start the supervisor as a process that outlives us."""
    command = [str(boot), host.name, lab.namespace(host), str(lab.root_dir(host)), lab.prefix]
    command += [f"--bind-ro={bind}" for bind in host.binds]
    if (root / "run/systemd/system").is_dir():
        unit = f"--unit={lab.prefix}-{host.name}"
        command = ["systemd-run", "--quiet", "--collect", unit, "-p", "Delegate=yes", "-p", "KillMode=mixed", *command]
    log = lab.host_dir(host) / "console.log"
    with log.open("ab") as console:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True, cwd="/"
        )
    pid = process.pid
    if command[0] == "systemd-run":
        process.wait()
        shown = subprocess.run(
            ["systemctl", "show", "-P", "MainPID", f"{lab.prefix}-{host.name}.service"],  # noqa: S607 - systemd's own
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        pid = int(shown.stdout)
    lab.pid_file(host).write_text(f"{pid}\n")


def answers_ssh(address: str, timeout_s: float = 1.0, port: int = 22) -> bool:
    """True when an ssh server greets at the address."""
    try:
        with socket.create_connection((address, port), timeout=timeout_s) as connection:
            connection.settimeout(timeout_s)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def wait_for_ssh(lab: Lab, waiting: list[Host], timeout_s: float = BOOT_TIMEOUT_S) -> None:
    """Wait until every host greets; LabError names those that do not, and where their console is."""
    deadline = time.monotonic() + timeout_s
    left = list(waiting)
    while left:
        left = [host for host in left if not answers_ssh(host.address)]
        if not left:
            return
        dead = [host.name for host in left if supervisor_pid(lab, host) is None]
        if dead or time.monotonic() > deadline:
            host = dead[0] if dead else left[0].name
            raise LabError(f"lab host {host} does not answer ssh; see {lab.state_dir}/hosts/{host}/console.log")
        time.sleep(0.1)


def stop(lab: Lab, names: list[str]) -> list[str]:
    """Power hosts off: TERM to the supervisors, wait together, KILL what is left. Names of those that were running."""
    running: dict[str, int] = {}
    for name in names:
        pid = supervisor_pid(lab, Host(name, ""))
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            running[name] = pid
    deadline = time.monotonic() + STOP_TIMEOUT_S
    left = dict(running)
    while left and time.monotonic() < deadline:
        for name, pid in list(left.items()):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            if supervisor_pid(lab, Host(name, "")) is None:
                del left[name]
        time.sleep(0.1)
    for pid in left.values():
        for member in processes_of(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
    return sorted({*running, *(name for name in names if end_orphans(lab, name))})


def processes_of(pid: int, root: Path = Path("/")) -> list[int]:
    """A process and all its descendants, children before parents."""
    children: dict[int, list[int]] = {}
    for entry in (root / "proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found[::-1]


def orphans(lab: Lab, name: str, root: Path = Path("/")) -> list[int]:
    """Containers of a host, with all they run, that a killed supervisor left behind; to ask when none supervises."""
    found: list[int] = []
    for entry in (root / "proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if words[0].endswith("systemd-nspawn") and f"--machine={lab.prefix}-{name}" in words:
                    found += processes_of(int(entry.name), root)
    return found


def end_orphans(lab: Lab, name: str) -> bool:
    """End what a killed supervisor left of a host. True when there was something."""
    left = orphans(lab, name)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while orphans(lab, name) and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(left)


def unmount(lab: Lab, names: list[str], run: Run) -> list[str]:
    """Unmount the overlays (and whatever was left mounted below them), deepest first."""
    prefixes = [str(lab.state_dir / "hosts" / name / "root") for name in names]
    mine = [point for point in mounts() if any(point == p or point.startswith(f"{p}/") for p in prefixes)]
    for point in sorted(mine, key=len, reverse=True):
        must(run, "umount", point)
    return mine


def remove_cgroups(lab: Lab, root: Path = Path("/")) -> list[str]:
    """Remove the empty control groups that the supervisors made."""
    done: list[str] = []
    top = root / "sys/fs/cgroup"
    for own in [*top.glob(f"*/{lab.prefix}"), *top.glob(lab.prefix)]:
        for folder, _, _ in os.walk(own, topdown=False):
            remove_group(Path(folder))
        done.append(str(own))
    return done


def remove_group(folder: Path, timeout_s: float = 10.0) -> None:
    """Remove an empty control group; one whose killed processes are still leaving is busy for a moment."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            folder.rmdir()
        except OSError as busy:
            if time.monotonic() > deadline:
                raise LabError(
                    f"{folder}: {busy.strerror}; a process of the lab is left, see its cgroup.procs"
                ) from busy
            time.sleep(0.1)
        else:
            return
