"""A light lab whose release carries real Ray: the stub serves beside it, role ray runs with literal variables."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import light_tree
import stub_release
import yaml
from light_lab import LightLab

RAY = "ray==2.60.0"
NAME, GPUS, PORT = "trial-0", 2, 6379
UNIT = f"ray-{NAME}.service"
TOKEN_FILE = "/etc/rackserve/ray/token"
PLAYBOOK = """\
---
- name: Compile the plan
  ansible.builtin.import_playbook: compile-plan.yml

- name: Run a Ray cluster
  hosts: gpu
  gather_facts: false
  vars:
    ray_cluster: "{{ ray_trial | combine({'part': 'head' if inventory_hostname == ray_trial.head else 'worker'}) }}"
    ray_instances: []
  tasks:
    - name: Run the role ray
      ansible.builtin.include_role:
        name: ray
"""


def wheels(folder: Path) -> dict[str, str]:
    """Ray and what it needs, brought into `folder` unless they are there: {locked entry: sha256}."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--only-binary", ":all:", "--python-version", "3.11", "--platform", "manylinux2014_x86_64",
            "--dest", str(folder), RAY,
        ],
        check=True,
    )  # fmt: skip
    found = {}
    for path in sorted(folder.glob("*.whl")):
        name, version = path.name.split("-")[:2]
        found[f"{name.replace('_', '-')}=={version}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class RayLab(LightLab):
    """Light hosts, and the playbook `ray-trial` that makes them a Ray cluster of `hosts` without the gateway."""

    def copy(self) -> None:
        """The repository, the stub release with Ray in its lock, and the ports that a cluster needs."""
        super().copy()
        lock = self.tree / stub_release.LOCK
        brought = wheels(self.state_dir / "ray-wheels")
        for path in (self.state_dir / "ray-wheels").glob("*.whl"):
            target = self.tree / ".cache/wheelhouse" / path.name
            if not target.exists():
                target.hardlink_to(path)
        entries = [f"{entry} --hash=sha256:{digest}" for entry, digest in brought.items()]
        lock.write_text(lock.read_text() + "\n".join(entries) + "\n")
        (self.tree / "playbooks/ray-trial.yml").write_text(PLAYBOOK)
        flows = [{"name": "ray-trial", "port": "1024-65535", "proto": "tcp", "sources": list(self.place.hosts())}]
        variables = self.tree / light_tree.INVENTORY / "group_vars/gpu/ray-trial.yml"
        variables.parent.mkdir(parents=True, exist_ok=True)
        variables.write_text(yaml.safe_dump({"firewall_inbound_extra": flows}))

    @property
    def nodes(self) -> dict[str, str]:
        """{node: address}, the head first."""
        return self.place.hosts()

    def variables(self) -> list[str]:
        """What the plan would say of the cluster; simulated GPUs are numbers only."""
        [head, *_] = self.nodes
        parts = [{"host": name, "address": address} for name, address in self.nodes.items()]
        cluster = {
            "name": NAME, "unit": UNIT, "head": head, "address": self.nodes[head], "hosts": list(self.nodes),
            "nodes": parts, "gpus_per_host": GPUS, "gpu_ids": {name: [] for name in self.nodes}, "env": {},
            "token_secret": "ray_token",
            "ports": {
                "port": PORT, "node_manager_port": 6380, "object_manager_port": 6381, "runtime_env_agent_port": 6382,
                "dashboard_agent_listen_port": 52365, "metrics_export_port": 6383,
                "worker_port_min": 20000, "worker_port_max": 20199,
            },
        }  # fmt: skip
        # Two shared processors for all nodes: what takes a second on a server takes a minute here.
        slow = {"RAY_agent_register_timeout_ms": "300000", "RAY_raylet_start_wait_time_s": "300"}
        given: dict[str, Any] = {
            "ray_trial": cluster,
            "ray_secrets": {"ray_token": self.token()},
            "ray_env": slow,
            "ray_cpus": 1,
            "ray_object_store_mib": 80,
            "ray_answer_timeout_s": 60,
            "ray_join_timeout_s": 900,
        }
        return ["-e", json.dumps(given)]

    def token(self) -> str:
        """The cluster's token, the same for the life of the lab."""
        path = self.state_dir / "ray-token"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(hashlib.sha256(str(self.state_dir.stat().st_ino).encode()).hexdigest())
        return path.read_text()

    def cluster(self) -> subprocess.CompletedProcess[str]:
        """Run role ray on all nodes."""
        return self.playbook("ray-trial", *self.variables())

    def python_of(self, host: str) -> str:
        """The release's Python on a host."""
        return self.shell(host, "readlink -f /opt/rackserve/current").strip() + "/bin/python3"

    def info(self, host: str, nodes: int, wait_s: float = 0, token_file: str = TOKEN_FILE) -> dict[str, Any]:
        """What ray_cluster_info says on a host."""
        [head, *_] = self.nodes
        options = {
            "python": self.python_of(host), "address": f"{self.nodes[head]}:{PORT}", "token_file": token_file,
            "nodes": nodes, "gpus": nodes * GPUS, "timeout_s": 60, "wait_s": wait_s, "must": False,
        }  # fmt: skip
        done = self.ansible(host, "-m", "ray_cluster_info", "-a", json.dumps(options), "-o")
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("=> ") + 3 :])
        return found
