"""The same converged state looked after in several ways, and the floor below them; each is one run for `bench.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
BIN = REPO / ".venv-bench/bin"
KINDS = ("file", "directory", "link", "absent", "knob", "package", "user", "unit")


@dataclass
class Cost:
    """What a run took: seconds of wall time, of the controller's CPU, and when each step of a playbook began."""

    wall_s: float
    controller_cpu_s: float
    steps: list[tuple[float, str]] = field(default_factory=list)


class Ways:
    """Commands against one lab's nodes, all from one environment and one set of items."""

    def __init__(self, lab: Any, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.nodes = [host for host in lab.hosts if host.startswith("node")]
        self.items = folder / "items.json"
        self.count = self._write_items()
        self._write_pyinfra_inventory()

    def _write_items(self) -> int:
        """{host: items} that all ways can do: no secret, gate or optional item, nothing of others. How many a host."""
        self.lab.must("render-files", "-e", f"render_files_output={self.folder}")
        chosen: dict[str, list[dict[str, Any]]] = {}
        for node in self.nodes:
            found = json.loads((self.folder / node / "desired-state.json").read_text())
            plain = [item for item in found if not {"gated_by", "applied_by", "optional"} & set(item)]
            chosen[node] = _once([item for item in plain if item["kind"] in KINDS])
            for item in chosen[node]:
                if item["kind"] == "file":
                    item["content"] = (self.folder / node / item["path"].lstrip("/")).read_text()
        self.items.write_text(json.dumps(chosen))
        return len(chosen[self.nodes[0]])

    def _write_pyinfra_inventory(self) -> None:
        state = self.lab.inventory.parent / ".state"
        hosts = []
        for node in self.nodes:
            shown = subprocess.run(
                ["/usr/bin/ssh", "-G", "-F", str(state / "ssh_config"), node],
                capture_output=True,
                text=True,
                check=True,
            )
            settings = dict(line.split(" ", 1) for line in shown.stdout.splitlines() if " " in line)
            reach = {
                "ssh_hostname": settings["hostname"],
                "ssh_user": "root",
                "ssh_key": str(state / "id_ed25519"),
                "ssh_known_hosts_file": str(state / "known_hosts"),
                "ssh_strict_host_key_checking": "yes",
            }
            hosts.append((node, reach))
        (self.folder / "pyinfra_inventory.py").write_text(f"nodes = {hosts!r}\n")

    def run(self, way: str) -> Cost:
        """Run a way once. Exits where it fails, or where it found something to change."""
        if way == "floor":
            return self._floor()
        if way == "pyinfra":
            command = [str(BIN / "pyinfra"), "-y", str(self.folder / "pyinfra_inventory.py"), str(HERE / "deploy.py")]
            return self._timed(command, self.folder, {"BENCH_ITEMS": str(self.items)})
        ours = (self.lab.tree / "playbooks" / way).is_file()
        playbook = f"playbooks/{way}" if ours else str(HERE / f"{way.removeprefix('mitogen ')}.yml")
        command = [str(BIN / "ansible-playbook"), "-i", str(self.lab.inventory), playbook]
        if way == "check-health.yml":  # stub engines on a loaded machine: what it costs, not what it finds
            command += ["-e", "health_fail_on=never"]
        elif not ours:
            command += ["-e", f"bench_documents={self.items}"]
        mitogen = {"ANSIBLE_STRATEGY_PLUGINS": str(_mitogen()), "ANSIBLE_STRATEGY": "mitogen_linear"}
        return self._timed(command, self.lab.tree, mitogen if way.startswith("mitogen") else {})

    def _timed(self, command: list[str], cwd: Path, extra: dict[str, str]) -> Cost:
        environment = {**self.lab.environment(), **extra}
        before, started = os.times(), time.monotonic()
        done = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines, steps = [], []
        for line in done.stdout or ():
            lines.append(line)
            if line.startswith(("TASK [", "PLAY [", "PLAY RECAP")):
                steps.append((time.monotonic() - started, line.partition("[")[2].rpartition("]")[0] or "recap"))
        status, wall_s, after = done.wait(), time.monotonic() - started, os.times()
        recap = "".join(lines).partition("PLAY RECAP")[2]
        if status != 0 or "changed=" in recap.replace("changed=0 ", ""):
            sys.exit(f"{' '.join(command)} ended with {status} or changed something:\n{''.join(lines)[-3000:]}")
        cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
        return Cost(wall_s, cpu_s, steps)

    def _floor(self) -> Cost:
        """A python start on every node at the same time, over connections that are open already."""
        config = str(self.lab.inventory.parent / ".state/ssh_config")
        shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={self.folder}/%h"]
        lines = [["/usr/bin/ssh", "-F", config, *shared, node, "python3 -c 'import json'"] for node in self.nodes]
        for line in lines:
            subprocess.run([*line[:-1], "true"], check=True, stderr=subprocess.DEVNULL)
        before, started = os.times(), time.monotonic()
        for started_one in [subprocess.Popen(line) for line in lines]:
            if started_one.wait() != 0:
                sys.exit("floor: ssh failed")
        wall_s, after = time.monotonic() - started, os.times()
        cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
        return Cost(wall_s, cpu_s)


def _once(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items as those of one role: what several roles want is wanted once."""
    ours: dict[str, dict[str, Any]] = {}
    for item in items:
        said = {key: value for key, value in item.items() if key not in ("role", "id", "validate", "running_config")}
        ours.setdefault(json.dumps(said, sort_keys=True), {**said, "id": f"{item['role']}-{item['id']}"})
    return list(ours.values())


def _mitogen() -> Path:
    found = subprocess.run(
        [str(BIN / "python"), "-c", "import ansible_mitogen; print(ansible_mitogen.__path__[0])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return Path(found.stdout.strip()) / "plugins/strategy"
