"""Roots, identities and supervisors of lab hosts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lab_support import CLIENT_KEY, HOST_KEY, Commands, make_lab
from rackserve.lab import hosts
from rackserve.lab.spec import Host, Lab, LabError

OBEDIENT = "#!/bin/bash\ntrap 'kill $!; exit 0' TERM\nsleep 20 &\nwait\n"
STUBBORN = "#!/bin/bash\ntrap '' TERM\nsleep 20\nsleep 20\n"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = make_lab(tmp_path)
    for host in lab.hosts:
        lab.root_dir(host).mkdir(parents=True)
    return lab


@pytest.fixture
def booted(lab: Lab, tmp_path: Path) -> Iterator[Callable[[Host, str], int]]:
    """booted(host, script): start the script as the host's supervisor; its pid. All are ended after the test."""
    pids: list[int] = []

    def start(host: Host, script: str) -> int:
        boot = tmp_path / "lab-boot"
        boot.write_text(script)
        boot.chmod(0o755)
        hosts.start(lab, host, boot, tmp_path)
        pids.append(int(lab.pid_file(host).read_text()))
        # A script's children tell that it has set its traps.
        wait_until(lambda: len(hosts.processes_of(pids[-1])) > 1)
        return pids[-1]

    yield start
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def wait_until(true: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """False for a process that is gone or waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def process_entry(root: Path, pid: int, parent: int, command: str = "x") -> None:
    entry = root / f"proc/{pid}"
    entry.mkdir(parents=True)
    (entry / "stat").write_text(f"{pid} (a (b) c) S {parent} 1 1 0\n")
    (entry / "cmdline").write_bytes(command.replace(" ", "\0").encode() + b"\0")


def test_mount_points_are_read(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/mounts").write_text("overlay /srv/a overlay rw 0 0\nproc /proc proc rw 0 0\n")
    assert hosts.mounts(tmp_path) == {"/srv/a", "/proc"}


def test_hosts_on_another_image_are_refused(lab: Lab, tmp_path: Path) -> None:
    table = tmp_path / "proc/mounts"
    table.parent.mkdir()
    line = "overlay {root} overlay rw,lowerdir={image},upperdir=/u 0 0\n"
    table.write_text(line.format(root=lab.root_dir(lab.hosts[0]), image=lab.image_dir) + "proc /proc proc rw 0 0\n")
    hosts.refuse_other_image(lab, list(lab.hosts), tmp_path)
    table.write_text(line.format(root=lab.root_dir(lab.hosts[1]), image=f"{lab.image_dir}d"))
    with pytest.raises(LabError, match="lab hosts node1 stand on an older image than abc; run make lab-down"):
        hosts.refuse_other_image(lab, list(lab.hosts), tmp_path)


def test_an_overlay_is_mounted_once(lab: Lab) -> None:
    gateway, run = lab.hosts[0], Commands({"mount": ""})
    folder = lab.host_dir(gateway)
    assert hosts.ensure_root(lab, gateway, run, set()) is True
    options = f"lowerdir={lab.image_dir},upperdir={folder}/upper,workdir={folder}/work"
    assert run.calls == [f"mount -t overlay overlay -o {options} {folder}/root"]
    assert all((folder / name).is_dir() for name in ("upper", "work", "root"))
    assert hosts.ensure_root(lab, gateway, Commands(), {f"{folder}/root"}) is False


def test_a_file_is_written_when_it_differs(tmp_path: Path) -> None:
    path = tmp_path / "deep/file"
    assert hosts.write(path, "a", 0o600) is True
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("a", 0o600)
    assert hosts.write(path, "a", 0o600) is False
    assert hosts.write(path, "b", 0o600) is True


def test_a_host_gets_its_identity_and_keeps_it(lab: Lab) -> None:
    gateway, run = lab.hosts[0], Commands(keygen=True)
    assert hosts.ensure_key(lab.client_key, "rackserve-lab", run) is True
    assert hosts.ensure_key(lab.client_key, "rackserve-lab", run) is False
    done = hosts.ensure_identity(lab, gateway, run)
    root = lab.root_dir(gateway)
    assert done == [
        "host key",
        "etc/hostname",
        "etc/hosts",
        "etc/ssh/ssh_host_ed25519_key",
        "etc/ssh/ssh_host_ed25519_key.pub",
        "root/.ssh/authorized_keys",
    ]
    assert (root / "etc/hostname").read_text() == "gw\n"
    assert "10.99.0.10 gw\n10.99.0.11 node1\n" in (root / "etc/hosts").read_text()
    assert (root / "root/.ssh/authorized_keys").read_text() == CLIENT_KEY
    assert (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text() == HOST_KEY
    assert (root / "root/.ssh").stat().st_mode & 0o777 == 0o700
    assert (root / "etc/ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert hosts.ensure_identity(lab, gateway, run) == []
    lab.client_key.with_suffix(".pub").write_text("another\n")
    assert hosts.ensure_identity(lab, gateway, run) == ["root/.ssh/authorized_keys"]


def test_key_generation_that_fails_is_reported(lab: Lab) -> None:
    with pytest.raises(LabError, match="no entropy"):
        hosts.ensure_key(lab.client_key, "c", Commands({"ssh-keygen": (1, "", "no entropy")}))


def test_a_supervisor_is_known_by_pid_and_command_line(lab: Lab, tmp_path: Path) -> None:
    gateway = lab.hosts[0]
    assert hosts.supervisor_pid(lab, gateway, tmp_path) is None
    lab.pid_file(gateway).write_text("no number\n")
    assert hosts.supervisor_pid(lab, gateway, tmp_path) is None
    lab.pid_file(gateway).write_text("41\n")
    assert hosts.supervisor_pid(lab, gateway, tmp_path) is None
    process_entry(tmp_path, 41, 1, "/bin/bash /opt/lab-boot gw tlab-gw")
    assert hosts.supervisor_pid(lab, gateway, tmp_path) == 41
    lab.pid_file(lab.hosts[1]).write_text("41\n")
    assert hosts.supervisor_pid(lab, lab.hosts[1], tmp_path) is None
    # Two labs of one machine name their hosts alike; a recycled pid must not let one stop the other's.
    process_entry(tmp_path, 43, 1, "/bin/bash /opt/lab-boot gw other-gw")
    lab.pid_file(gateway).write_text("43\n")
    assert hosts.supervisor_pid(lab, gateway, tmp_path) is None
    process_entry(tmp_path, 42, 1, "vim gw")
    lab.pid_file(gateway).write_text("42\n")
    assert hosts.supervisor_pid(lab, gateway, tmp_path) is None


def test_descendants_come_before_their_parents(tmp_path: Path) -> None:
    for pid, parent in ((10, 1), (11, 10), (12, 11), (13, 10), (20, 1)):
        process_entry(tmp_path, pid, parent)
    (tmp_path / "proc/99").mkdir()
    (tmp_path / "proc/self").mkdir()
    found = hosts.processes_of(10, tmp_path)
    assert sorted(found) == [10, 11, 12, 13]
    assert found[-1] == 10
    assert found.index(12) < found.index(11)


def test_a_supervisor_starts_outlives_its_caller_and_stops(lab: Lab, booted: Callable[[Host, str], int]) -> None:
    gateway = lab.hosts[0]
    pid = booted(gateway, OBEDIENT)
    assert hosts.supervisor_pid(lab, gateway) == pid
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    children = hosts.processes_of(pid)[:-1]
    assert hosts.stop(lab, ["gw", "node1"]) == ["gw"]
    wait_until(lambda: not any(alive(process) for process in [pid, *children]))
    assert hosts.supervisor_pid(lab, gateway) is None
    assert hosts.stop(lab, ["gw", "node1"]) == []


def test_the_supervisor_is_told_what_the_host_sees(lab: Lab, booted: Callable[[Host, str], int]) -> None:
    host = replace(lab.hosts[0], machine="h20-8", binds=("/m:/hardware", "/r:/srv/mirror"))
    pid = booted(host, OBEDIENT)
    told = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    assert told[-4:-1] == ["tlab", "--bind-ro=/m:/hardware", "--bind-ro=/r:/srv/mirror"]
    assert hosts.booted_otherwise(lab, host) is True
    hosts.record_boot(lab, host)
    assert hosts.booted_otherwise(lab, host) is False
    assert hosts.booted_otherwise(lab, replace(host, binds=())) is True
    lab.boot_record(host).write_text("{")
    assert hosts.booted_otherwise(lab, host) is True


def test_what_does_not_stop_is_killed_with_all_its_children(
    lab: Lab, booted: Callable[[Host, str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "STOP_TIMEOUT_S", 0.2)
    pid = booted(lab.hosts[0], STUBBORN)
    processes = hosts.processes_of(pid)
    assert hosts.stop(lab, ["gw"]) == ["gw"]
    wait_until(lambda: not any(alive(process) for process in processes))


def test_under_systemd_the_supervisor_is_a_unit(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script in {"systemd-run": f'echo "$@" >{tmp_path}/said', "systemctl": "echo 4242"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    hosts.start(lab, lab.hosts[0], Path("/opt/lab-boot"), tmp_path)
    assert lab.pid_file(lab.hosts[0]).read_text() == "4242\n"
    assert (tmp_path / "said").read_text().strip() == (
        "--quiet --collect --unit=tlab-gw -p Delegate=yes -p KillMode=mixed "
        f"/opt/lab-boot gw tlab-gw {lab.root_dir(lab.hosts[0])} tlab"
    )


@pytest.mark.parametrize(("greeting", "answers"), [(b"SSH-2.0-x\r\n", True), (b"HTTP/1.1\r\n", False), (b"", False)])
def test_only_an_ssh_greeting_counts(greeting: bytes, answers: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        assert hosts.answers_ssh("127.0.0.1", 2.0, port) is answers
        thread.join()


def test_a_silent_or_closed_port_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert hosts.answers_ssh("127.0.0.1", 0.05, port) is False
    assert hosts.answers_ssh("127.0.0.1", 0.05, port) is False


def test_waiting_ends_when_every_host_greets(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def second_time(address: str) -> bool:
        asked.append(address)
        return asked.count(address) == 2 or address.endswith(".10")

    monkeypatch.setattr(hosts, "answers_ssh", second_time)
    monkeypatch.setattr(hosts, "supervisor_pid", lambda *_: 1)
    hosts.wait_for_ssh(lab, list(lab.hosts), 5)
    assert asked == ["10.99.0.10", "10.99.0.11", "10.99.0.11"]
    hosts.wait_for_ssh(lab, [])


def test_waiting_names_a_dead_host_at_once_and_a_silent_one_at_the_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "answers_ssh", lambda _: False)
    monkeypatch.setattr(hosts, "supervisor_pid", lambda _, host: None if host.name == "node1" else 1)
    began = time.monotonic()
    with pytest.raises(LabError, match=r"lab host node1 does not answer ssh; see .*/hosts/node1/console\.log"):
        hosts.wait_for_ssh(lab, list(lab.hosts), 30)
    assert time.monotonic() - began < 5
    with pytest.raises(LabError, match="lab host gw does not answer ssh"):
        hosts.wait_for_ssh(lab, [lab.hosts[0]], 0.05)


def test_mounts_of_our_hosts_go_deepest_first(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    base = str(lab.root_dir(lab.hosts[0]))
    others = {"/", "/proc", f"{base}-other", str(lab.root_dir(lab.hosts[1]))}
    monkeypatch.setattr(hosts, "mounts", lambda: {base, f"{base}/srv/models", *others})
    run = Commands({"umount": ""})
    assert set(hosts.unmount(lab, ["gw"], run)) == {base, f"{base}/srv/models"}
    assert run.calls == [f"umount {base}/srv/models", f"umount {base}"]


def test_control_groups_are_removed_in_both_layouts(lab: Lab, tmp_path: Path) -> None:
    groups = tmp_path / "sys/fs/cgroup"
    for path in ("memory/tlab/gw/init.scope", "tlab/gw", "memory/other"):
        (groups / path).mkdir(parents=True)
    assert set(hosts.remove_cgroups(lab, tmp_path)) == {str(groups / "memory/tlab"), str(groups / "tlab")}
    assert not (groups / "tlab").exists()
    assert (groups / "memory/other").is_dir()
    assert hosts.remove_cgroups(lab, tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        "lab-boot",
        "image/usr/local/lib/rackserve-lab/simulated-hardware",
        "image/usr/local/lib/rackserve-lab/simulated-knobs",
        "image/usr/local/sbin/modprobe",
        "image/usr/local/sbin/rmmod",
    ],
)
def test_every_program_of_the_lab_is_a_valid_script(name: str) -> None:
    script = Path(__file__).resolve().parents[3] / "roles/lab_host/files" / name
    assert os.access(script, os.X_OK)
    subprocess.run(["/bin/bash", "-n", str(script)], check=True)


def test_a_container_without_its_supervisor_is_found(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    for pid, words in (("7", "systemd-nspawn\0--machine=tlab-gw"), ("8", "systemd-nspawn\0--machine=tlab-node1")):
        (tmp_path / "proc" / pid).mkdir(parents=True)
        (tmp_path / "proc" / pid / "cmdline").write_bytes(words.encode())
        (tmp_path / "proc" / pid / "stat").write_text(f"{pid} (x) S 1 1")
    assert hosts.orphans(lab, "gw", tmp_path) == [7]
    assert hosts.end_orphans(make_lab(tmp_path, prefix="nolab"), "gw") is False


def test_a_group_that_stays_busy_is_named(tmp_path: Path) -> None:
    (tmp_path / "group" / "inside").mkdir(parents=True)
    with pytest.raises(LabError, match=r"group: .*cgroup\.procs"):
        hosts.remove_group(tmp_path / "group", timeout_s=0)
    hosts.remove_group(tmp_path / "group" / "inside")
    hosts.remove_group(tmp_path / "group")
    assert not (tmp_path / "group").exists()
