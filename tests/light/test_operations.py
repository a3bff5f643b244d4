"""Gated operations on light nodes: the real playbooks, real systemd and HAProxy, a stub in place of the engine.

RACKSERVE_OPERATIONS=light   asks for it (root; minutes): make test-operations
RACKSERVE_OPERATIONS_NODES, RACKSERVE_OPERATIONS_NET   light nodes (3), second octet of their addresses (88)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import stub_release
from light_lab import LightLab

pytestmark = pytest.mark.asked_by("RACKSERVE_OPERATIONS", "light")

NODES = int(os.environ.get("RACKSERVE_OPERATIONS_NODES", "3"))
NET = int(os.environ.get("RACKSERVE_OPERATIONS_NET", "88"))
CONFIRM = ("-e", "confirm=light")
VARIANTS = {"stub-next": "", "stub-broken": "broken", "stub-wrong": "wrong", "stub-slow": "slow"}


class Light(LightLab):
    """With releases to upgrade to."""

    def copy(self) -> None:
        super().copy()
        for number, (name, behaviour) in enumerate(VARIANTS.items(), 1):
            stub_release.add_variant(self.tree, name, number, behaviour)

    def recorded(self) -> set[str]:
        """The releases that nodes record."""
        return {Path(self.shell(node, "readlink /opt/rackserve/current").strip()).name for node in self.nodes()}

    def nodes(self) -> list[str]:
        return [name for name in self.hosts if name != "gw"]

    def running(self, node: str) -> str:
        """The release that the engine of a node runs from."""
        line = self.shell(node, "tr '\\0' ' ' < /proc/$(systemctl show -P MainPID 'vllm-stub-*')/cmdline")
        return Path(line.split()[0]).parents[1].name

    def pids(self) -> dict[str, str]:
        return {node: self.shell(node, "systemctl show -P MainPID 'vllm-stub-*'").strip() for node in self.nodes()}

    def records(self) -> list[dict[str, Any]]:
        """Run records, the newest first."""
        text = self.shell("gw", "for f in $(ls -r /var/lib/rackserve/runs/*.json); do cat $f; done")
        return [json.loads(line) for line in text.splitlines()]

    def drained(self) -> dict[str, str]:
        text = self.shell("gw", "cat /var/lib/rackserve/gateway/drained-by.json 2>/dev/null || echo '{}'")
        notes: dict[str, str] = json.loads(text)
        return notes


def release(name: str) -> tuple[str, str]:
    return "-e", json.dumps({"cluster_overrides": {"release": name}})


def tail(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout + done.stderr)[-4000:]


@pytest.fixture(scope="module")
def lab() -> Iterator[Light]:
    with Light(nodes=NODES, net=NET) as light:
        light.must("site")
        yield light


def test_up_and_back(lab: Light) -> None:
    refused = lab.playbook("roll-serving", *release("stub-next"))
    assert refused.returncode != 0
    lab.must("upgrade-release", *release("stub-next"))
    assert lab.recorded() == {"stub-next"} == {lab.running(node) for node in lab.nodes()}
    lab.must("site", *release("stub-next"))
    pids = lab.pids()
    lab.must("upgrade-release", *release("stub-next"))
    assert lab.pids() == pids, "a second run restarts nothing"
    lab.must("rollback-release", *release("stub-next"), *CONFIRM)
    assert lab.recorded() == {"stub"} == {lab.running(node) for node in lab.nodes()}
    assert [record["state"] for record in lab.records()[:3]] == ["done"] * 3
    lab.must("site")


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("stub-broken", "ended by itself"),
        ("stub-wrong", "answers wrongly"),
        ("stub-slow", "answers too slowly"),
    ],
)
def test_a_release_that_is_not_fit_is_taken_back(lab: Light, name: str, cause: str) -> None:
    before = lab.pids()
    done = lab.playbook("upgrade-release", *release(name))
    assert done.returncode != 0
    assert cause in " ".join(done.stdout.split()) and "its old files were put back" in done.stdout, tail(done)
    after = lab.pids()
    assert sum(before[node] != after[node] for node in before) == 1
    assert lab.recorded() == {"stub"} == {lab.running(node) for node in lab.nodes()}
    assert lab.drained() == {}
    assert lab.records()[0]["state"] == "failed"
    lab.must("site")


def upgrade_killed(lab: Light, log: Path, after_s: float) -> None:
    """An upgrade whose controller dies so long after it drained its first engine."""
    with log.open("w") as output:
        run = lab.start("upgrade-release", output, *release("stub-next"))
        deadline = time.monotonic() + 300
        while not lab.drained():
            assert run.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        time.sleep(after_s)
        lab.kill(run)


def test_an_upgrade_that_is_killed_is_finished_by_the_next(lab: Light, tmp_path: Path) -> None:
    upgrade_killed(lab, tmp_path / "killed.log", 1)
    assert set(lab.drained().values()) == {"upgrade-release"}
    lab.must("upgrade-release", *release("stub-next"))
    assert lab.recorded() == {"stub-next"} and lab.drained() == {}
    states = [record["state"] for record in lab.records()[:2]]
    assert states == ["done", "cut off"]
    assert lab.records()[0]["resumes"] == lab.records()[1]["id"]
    lab.must("rollback-release", *release("stub-next"), *CONFIRM)


def test_an_upgrade_that_is_killed_can_be_rolled_back(lab: Light, tmp_path: Path) -> None:
    upgrade_killed(lab, tmp_path / "killed.log", 3)
    lab.must("rollback-release", *CONFIRM, "-e", "to_release=stub")
    assert lab.recorded() == {"stub"} == {lab.running(node) for node in lab.nodes()}
    assert lab.drained() == {}
    lab.must("site")


def test_fewer_replicas_and_more_again(lab: Light) -> None:
    fewer = ("-e", json.dumps({"cluster_overrides": {"deployments": {"stub": {"replicas": NODES - 1}}}}))
    asked = ("-e", "deployment=stub")
    refused = lab.playbook("scale-deployment", *asked, *fewer)
    assert refused.returncode != 0 and "-e confirm=light" in refused.stdout
    lab.must("scale-deployment", *asked, *fewer, *CONFIRM)
    active = [lab.shell(node, "systemctl is-active 'vllm-stub-*' || true").strip() for node in lab.nodes()]
    assert active.count("active") == NODES - 1
    lab.must("scale-deployment", *asked)
    active = [lab.shell(node, "systemctl is-active 'vllm-stub-*' || true").strip() for node in lab.nodes()]
    assert active == ["active"] * NODES
    lab.must("site", "-e", "prove=full")


def test_the_machine_that_served_is_no_new_one(lab: Light) -> None:
    node = lab.nodes()[-1]
    done = lab.playbook("replace-host", "-e", f"host={node}", *CONFIRM)
    assert done.returncode != 0
    assert "it is the old machine, not a new one" in " ".join(done.stdout.split())
    assert set(lab.drained().values()) == {"replace-host"}
    lab.shell(node, "systemctl stop 'vllm-stub-*'; rm -f /opt/rackserve/current")
    lab.must("replace-host", "-e", f"host={node}", *CONFIRM)
    assert lab.drained() == {}
    lab.must("site")
