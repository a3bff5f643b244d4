"""The lab of `make demo` with another layout: deployed by the real playbooks, killed part by part, and watched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from load import Client
from rackserve.completion.client import Endpoint
from scenarios import Statuses

REPO = Path(__file__).resolve().parents[2]
INVENTORY = REPO / "inventories/lab"
RESULTS = REPO / "build/layouts.json"
DEPLOYMENT = "tiny-deepseek"
NODES = ("node1", "node2", "node3", "node4")
_DENSE = {"card": "tiny-dense", "path": "/srv/models/tiny-dense"}
_TWO = {"model": _DENSE, "hosts": ["node1", "node2"], "hosts_per_replica": 2, "replicas": 1}
# Server and spare slots are eight in all of them, so that the gateway's configuration stays the same.
LAYOUTS: dict[str, tuple[dict[str, Any], int]] = {
    "single": ({"layout": "single", "hosts": ["node1"], "replicas": 1}, 7),
    "data_parallel": ({**_TWO, "layout": "data_parallel", "data_parallel_size": 2}, 7),
    "multi_node": ({**_TWO, "layout": "multi_node", "tensor_parallel_size": 2}, 7),
    # The lab's own, and the last one: it leaves the lab as it was.
    "replica": ({}, 4),
}
# A router in front of two engines, on the gateway.
ROUTER = ({"model": _DENSE, "hosts": ["node1", "node2"], "replicas": 2, "router": "vllm-router"}, 6)
BACK_S = 600
# Of a unit's control group, on machines with cgroup v1 and v2; pid and name of each process.
MEMBERS = (
    "group=$(systemctl show -P ControlGroup {unit}); for top in /sys/fs/cgroup/systemd /sys/fs/cgroup; do"
    " if [ -f $top$group/cgroup.procs ]; then"
    ' while read pid; do echo "$pid $(cat /proc/$pid/comm)"; done < $top$group/cgroup.procs; break; fi; done'
)


@dataclass
class Outage:
    """What a kill did; seconds since it."""

    layout: str
    killed: str
    restarted: list[str] = field(default_factory=list)
    out_after_s: float = 0.0
    all_restarted_after_s: float = 0.0
    serves_after_s: float = 0.0


def write(outages: list[Outage]) -> None:
    """Write the outages down, and print them as a table."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(one) for one in outages], indent=1) + "\n")
    rows = [("layout", "killed", "units started anew", "out, s", "all anew, s", "serves, s")]
    for one in outages:
        times = (f"{value:.0f}" for value in (one.out_after_s, one.all_restarted_after_s, one.serves_after_s))
        rows.append((one.layout, one.killed, str(len(one.restarted)), *times))  # type: ignore[arg-type]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows)
    sys.stdout.write("\n" + "\n".join(table) + "\n")


class LayoutLab:
    """The lab with one of LAYOUTS, or with "router"."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        deployment, spares = {**LAYOUTS, "router": ROUTER}[name]
        patch = {"gateway": {"spare_slots": spares}, "deployments": {DEPLOYMENT: deployment}}
        self.overrides = ["-e", json.dumps({"cluster_overrides": patch})]
        self.plan: dict[str, Any] = {}

    def playbook(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook with this layout's description."""
        program = Path(sys.executable).parent / "ansible-playbook"
        environment = {**os.environ, "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        return subprocess.run(
            [str(program), "-i", str(INVENTORY / "hosts.yml"), f"playbooks/{name}.yml", *self.overrides, *arguments],
            cwd=REPO, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def must(self, name: str, *arguments: str) -> str:
        """Run a playbook that has to end well."""
        done = self.playbook(name, *arguments)
        assert done.returncode == 0, f"{name}:\n{(done.stdout + done.stderr)[-6000:]}"
        return done.stdout

    def deploy(self) -> float:
        """Stop what served before, then the real main job; seconds it took."""
        target = self.folder / f"{self.name}.json"
        self.must("show-plan", "-e", f"show_plan_output={target}")
        self.plan = json.loads(target.read_text())
        self.must("build-release")
        # Another layout is another description of the same engines: site.yml never stops what serves.
        for node in NODES:
            self.shell(
                node,
                "systemctl stop rackserve-group.service 2>/dev/null; systemctl stop 'vllm-*.service';"
                " for unit in /etc/systemd/system/vllm-*.service; do"
                ' [ -e "$unit" ] && systemctl disable -q "${unit##*/}"; done; true',
                timeout_s=300,
            )
        began_s = time.monotonic()
        done = self.playbook("site")
        if done.returncode != 0 and "roll-serving" in done.stdout:
            self.must("roll-serving")
        else:
            assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return time.monotonic() - began_s

    def ssh(self, host: str) -> list[str]:
        return ["/usr/bin/ssh", "-F", str(INVENTORY / ".state/ssh_config"), host]

    def shell(self, host: str, line: str, timeout_s: float = 60) -> str:
        """Run a shell line on a host; its output."""
        done = subprocess.run(
            [*self.ssh(host), line], capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"{host}: {line}: {done.stdout}{done.stderr}"
        return done.stdout

    @property
    def head(self) -> dict[str, Any]:
        """The first engine, which serves."""
        found: dict[str, Any] = self.plan["instances"][0]
        return found

    @property
    def group(self) -> list[dict[str, Any]]:
        """The units that live and die with it."""
        return [item for item in self.plan["instances"] if item["group"] == self.head["group"]]

    @property
    def slot(self) -> str:
        return str(self.head["gateway_target"]).rpartition("/")[2]

    @property
    def endpoint(self) -> Endpoint:
        """The gateway, with the operator's key."""
        secrets = yaml.safe_load((INVENTORY / "group_vars/all/secrets.yml").read_text())["rackserve_secrets"]
        gateway = self.plan["gateway"]
        return Endpoint(
            f"https://{gateway['address']}:{gateway['port']}",
            str(INVENTORY / ".state/gateway-ca.pem"),
            secrets["api_key_operator"],
            timeout_s=60,
        )

    def client(self) -> Client:
        """A client of the gateway."""
        return Client(self.endpoint, self.head["served_model_name"])

    def statuses(self) -> Statuses:
        """What the gateway says of its servers, all the time."""
        gateway = self.plan["gateway"]
        backend = str(self.head["gateway_target"]).partition("/")[0]
        return Statuses(self.ssh(gateway["host"]), gateway["stats_socket"], backend)

    def prove(self, within_s: float = BACK_S) -> None:
        """A whole answer of the first engine, through the gateway."""
        deadline = time.monotonic() + within_s
        client = self.client()
        while (answer := client.ask("plain", 8, server=self.slot)).error or answer.server != self.slot:
            assert time.monotonic() < deadline, f"{self.slot} does not answer: {answer}"
            time.sleep(1)

    def invocations(self) -> dict[str, str]:
        """{unit: invocation that runs, empty while none does} of the group."""
        found = {}
        for item in self.group:
            shown = self.shell(item["host"], f"systemctl show -p ActiveState,InvocationID {item['unit']}")
            told = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
            found[item["unit"]] = told.get("InvocationID", "") if told.get("ActiveState") == "active" else ""
        return found

    def joined(self) -> bool:
        """Whether each agent of the group says that all parts are joined, and to the same."""
        groups = [group for group in self.plan["groups"] if group["name"] == self.head["group"]]
        if not groups:
            return True
        pages = []
        for item in self.group:
            url = f"http://{item['address']}:{groups[0]['agent_port']}/"
            line = f"python3 -c \"import urllib.request as u; print(u.urlopen('{url}', timeout=5).read().decode())\""
            pages.append(json.loads(self.shell(item["host"], line))["joined"])
        return None not in pages and all(page == pages[0] for page in pages)

    def kill(self, item: dict[str, Any], what: str) -> None:
        """SIGKILL the main process of a unit, or one of its others by the start of its name."""
        line = f"kill -KILL $(systemctl show -P MainPID {item['unit']})"
        if what != "main":
            members = [
                row.split(None, 1) for row in self.shell(item["host"], MEMBERS.format(unit=item["unit"])).splitlines()
            ]
            [pid, *_] = [pid for pid, name in members if name.startswith("VLLM::")]
            line = f"kill -KILL {pid}"
        # What systemd and the watch allow one engine in an hour is not what is tried here.
        for part in self.group:
            forget = f"systemctl reset-failed {part['unit']}; rm -f /run/rackserve-engine-watch/*.json"
            self.shell(part["host"], forget)
        self.shell(item["host"], line)


def until(reached: Callable[[], bool], within_s: float, what: str) -> float:
    """Wait for it; the moment when it was so."""
    deadline = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.5)
    return time.monotonic()
