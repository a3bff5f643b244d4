"""A light lab: real systemd hosts and the real playbooks, with a stub in place of the engine.

    with LightLab(nodes=4) as lab:
        done = lab.site()

It stands beside the main lab: own prefix, addresses, keys and state folder; the image is shared. Needs root.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).parent))

import light_tree

DEFAULT_NET = 78
MAIN_STATE = Path("/var/lib/rackserve-lab")
# Every process of a run carries it, ssh's shared connections included, so that all of a run can be found.
MARK = "RACKSERVE_LIGHT_LAB"


class LightLab:
    """A lab of one gateway and `nodes` hosts with an engine each; `net` is the second octet of its addresses.

    `inventory` and `tree` (a copy of the repository, made by `up`) are for whoever runs more than the methods here.
    """

    deployment = "stub"
    builds = True

    def __init__(self, nodes: int = 4, net: int = DEFAULT_NET, keep: bool = False) -> None:
        prefix = "rslight" if net == DEFAULT_NET else f"rslight{net}"
        state = Path("/var/lib/rackserve-light" if net == DEFAULT_NET else f"/var/lib/rackserve-light{net}")
        self.place = light_tree.Site(nodes, prefix, net, state, MAIN_STATE / "images")
        self.state_dir, self.prefix, self.keep = state, prefix, keep
        self.tree = state / "tree"
        self.inventory = self.tree / light_tree.INVENTORY / "hosts.yml"
        self.management_cidr = light_tree.management_cidr(net)
        self.hosts = list(light_tree.names(self.place))
        self._lock: IO[str] | None = None

    def __enter__(self) -> LightLab:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.keep:
            self.down()

    def copy(self) -> None:
        """Bring `tree` to the repository's present files and write the inventory."""
        light_tree.copy(self.tree)
        light_tree.write_inventory(self.tree, self.place)

    def up(self, refresh: bool = True) -> None:
        """Boot bare hosts (finish what is half built) and build the stub release unless it stands already."""
        self._take()
        shutil.rmtree(self.state_dir / "controller-tmp", ignore_errors=True)
        if refresh or not self.inventory.is_file():
            self.copy()
        self.must("lab-up")
        if self.builds:
            self.must("build-release")

    def down(self) -> None:
        """Take hosts and network away; image, release, keys and secrets stay for the next one."""
        self.must("lab-down")
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def fresh(self) -> None:
        """Bare hosts again, with the same tree, release and secrets."""
        self.must("lab-down")
        self.must("lab-up")

    def site(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run site.yml to its end."""
        return self.playbook("site", *arguments)

    def must(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook; RuntimeError with its last lines where it fails."""
        done = self.playbook(name, *arguments)
        if done.returncode != 0:
            raise RuntimeError(f"{name} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
        return done

    def playbook(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the tree by its name; output as text."""
        command = self.command("ansible-playbook", f"playbooks/{name}.yml", *arguments)
        # The supervisors of hosts, which lab-up starts, live on: they are not the run's.
        environment = self.environment(marked=not name.startswith("lab-"))
        return subprocess.run(command, cwd=self.tree, env=environment, capture_output=True, text=True, check=False)

    def ansible(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the ansible command against the hosts."""
        command = self.command("ansible", *arguments)
        return subprocess.run(
            command, cwd=self.tree, env=self.environment(), capture_output=True, text=True, check=False
        )

    def start(self, name: str, output: IO[Any], *arguments: str) -> subprocess.Popen[Any]:
        """Start a playbook in its own process group and return at once."""
        command = self.command("ansible-playbook", f"playbooks/{name}.yml", *arguments)
        return subprocess.Popen(
            command, cwd=self.tree, env=self.environment(), stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def kill(self, run: subprocess.Popen[Any]) -> int:
        """SIGKILL everything of a run: its group, workers in groups of their own, ssh's shared connections. How many.

        As if the controller had lost its power: nothing of it can say goodbye to a host.
        """
        found = set()
        deadline = time.monotonic() + 10
        while True:
            alive = self.processes()
            if not alive and run.poll() is not None:
                return len(found)
            for pid in alive:
                found.add(pid)
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes of the killed run do not end: {sorted(alive)}")
            time.sleep(0.02)

    def processes(self) -> list[int]:
        """Processes of this lab's runs on this machine, by the mark in their environment; hosts are not among them."""
        mark = f"{MARK}={self.prefix}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    if state != "Z" and mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except (OSError, ValueError):
                    continue
        return found

    def shell(self, host: str, line: str, timeout_s: float = 60) -> str:
        """Run a shell line on a host; its output. RuntimeError on another exit status than 0."""
        config = self.inventory.parent / ".state/ssh_config"
        done = subprocess.run(
            ["/usr/bin/ssh", "-F", str(config), host, line],
            capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{host}: {line}: {done.stdout}{done.stderr}")
        return done.stdout

    def python(self, host: str, source: str, timeout_s: float = 120) -> str:
        """Run a Python program on a host; its output. RuntimeError where it fails."""
        config = self.inventory.parent / ".state/ssh_config"
        done = subprocess.run(
            ["/usr/bin/ssh", "-F", str(config), host, "python3 -"],
            input=source, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{host}: {done.stderr[-2000:]}")
        return done.stdout

    def upper(self, host: str) -> Path:
        """The folder that holds every change of a host's files since it was made."""
        return self.state_dir / "hosts" / host / "upper"

    def command(self, program: str, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).parent / program), "-i", str(self.inventory), *arguments]

    def environment(self, marked: bool = True) -> dict[str, str]:
        """The caller's with our configuration and the mark; what a killed run leaves here stays in the state folder."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        own = {
            "ANSIBLE_CONFIG": str(self.tree / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(self.state_dir / "controller-tmp"),
            "ANSIBLE_NOCOLOR": "1",
        }
        return {**kept, **own, **({MARK: self.prefix} if marked else {})}

    def _take(self) -> None:
        """One user at a time. RuntimeError where another has the lab."""
        if self._lock is not None:
            return
        self.state_dir.mkdir(parents=True, exist_ok=True)
        lock = (self.state_dir / "in-use.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            lock.close()
            raise RuntimeError(f"the light lab {self.prefix} is in use; take another net=, or wait") from taken
        self._lock = lock
