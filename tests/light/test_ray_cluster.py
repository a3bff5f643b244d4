"""A Ray cluster on four light nodes: real systemd, real Ray, the role's own units; who has no token stays outside.

RACKSERVE_RAY=cluster   asks for it (minutes, root): make test-ray
RACKSERVE_RAY_NODES, RACKSERVE_RAY_NET   light nodes (4), second octet of their addresses (87)
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_lab import PORT, TOKEN_FILE, UNIT, RayLab

pytestmark = pytest.mark.asked_by("RACKSERVE_RAY", "cluster")

NODES = int(os.environ.get("RACKSERVE_RAY_NODES", "4"))
NET = int(os.environ.get("RACKSERVE_RAY_NET", "87"))
REPORT = Path(__file__).resolve().parents[2] / "build/ray-cluster.json"
JOIN_S = 900
# Runs as the engines' user on the head, like the driver in an engine's unit; prints the hosts that did work.
DRIVER = """
import socket
import ray

ray.init(address={address!r}, log_to_driver=False)

@ray.remote(num_cpus=0, num_gpus=1, scheduling_strategy="SPREAD")
def where():
    import time
    time.sleep(2)
    return socket.gethostname()

print(*sorted(set(ray.get([where.remote() for _ in range({tasks})]))))
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[RayLab]:
    """Nodes that serve the stub, and a Ray cluster beside it."""
    with RayLab(NODES, NET) as found:
        found.must("site")
        done = found.cluster()
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        yield found


def note(**row: object) -> None:
    """Add to the report, on disk at once."""
    seen = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps({**seen, **row}, indent=1) + "\n")


def head_of(lab: RayLab) -> str:
    return next(iter(lab.nodes))


def workers_of(lab: RayLab) -> list[str]:
    return list(lab.nodes)[1:]


def invocation(lab: RayLab, host: str) -> str:
    return lab.shell(host, f"systemctl show -P InvocationID {UNIT}").strip()


def drive(lab: RayLab, token_file: str, mode: str = "token") -> str:
    """Run the driver on the head; what it printed. RuntimeError where Ray refused it."""
    head = head_of(lab)
    source = DRIVER.format(address=f"{lab.nodes[head]}:{PORT}", tasks=2 * len(lab.nodes))
    lab.shell(head, f"cat > /tmp/driver.py <<'END'\n{source}\nEND\nchmod 0644 /tmp/driver.py")
    environment = f"RAY_AUTH_MODE={mode} RAY_AUTH_TOKEN_PATH={token_file} RAY_USAGE_STATS_ENABLED=0 HOME=/tmp"
    run = f"cd /tmp && runuser -u vllm -- env {environment} timeout 300 {lab.python_of(head)} /tmp/driver.py"
    return lab.shell(head, run, timeout_s=330).strip().splitlines()[-1]


@pytest.fixture
def tokens(lab: RayLab) -> dict[str, str]:
    """Files on the head that its engines' user may read: the right token, a wrong one, none."""
    head = head_of(lab)
    lab.shell(
        head, f"install -o vllm -m 0400 {TOKEN_FILE} /tmp/right; printf %064d 0 > /tmp/wrong; chmod 0444 /tmp/wrong"
    )
    return {"right": "/tmp/right", "wrong": "/tmp/wrong", "none": "/tmp/none"}


def test_all_nodes_join_and_the_right_token_works(lab: RayLab, tokens: dict[str, str]) -> None:
    seen = lab.info(head_of(lab), NODES)
    assert seen["complete"], seen["why"]
    assert (seen["nodes"], seen["gpus"]) == (NODES, 2.0 * NODES)
    assert drive(lab, tokens["right"]).split() == sorted(lab.nodes)


@pytest.mark.parametrize(("token", "mode"), [("wrong", "token"), ("none", "token"), ("none", "disabled")])
def test_without_the_token_nobody_is_let_in(lab: RayLab, tokens: dict[str, str], token: str, mode: str) -> None:
    with pytest.raises(RuntimeError, match=r"(?i)authentication|token"):
        drive(lab, tokens[token], mode)
    if mode == "token":
        seen = lab.info(head_of(lab), NODES, token_file=tokens[token])
        assert not seen["complete"]
        assert seen["nodes"] == 0


def test_the_token_is_the_units_alone(lab: RayLab) -> None:
    for host in lab.nodes:
        assert lab.shell(host, f"stat -c '%a %U' {TOKEN_FILE}").split() == ["400", "root"]
        token = lab.token()
        assert token not in lab.shell(host, f"systemctl cat {UNIT}; cat /proc/*/cmdline | tr '\\0' ' '")


def test_every_port_is_pinned_and_closed_to_others(lab: RayLab) -> None:
    """What Ray listens on is what the plan names, and a host outside of the cluster reaches none of it."""
    head = head_of(lab)
    listed = lab.shell(head, "ss -Hltnp | grep -E 'gcs_server|raylet|ray::|python3' | awk '{print $4}'").split()
    ports = {int(entry.rpartition(":")[2]) for entry in listed}
    assert {PORT, 6380, 6381, 6382} <= ports
    own = {PORT, 6380, 6381, 6382, 6383, 52365, 8000}
    assert {port for port in ports - own if not 20000 <= port <= 20199 and port < 32768} == set()
    for port in (PORT, 6380, 6381):
        with pytest.raises(RuntimeError):
            lab.shell("gw", f"timeout 5 bash -c '</dev/tcp/{lab.nodes[head]}/{port}'")


def test_a_rerun_changes_nothing(lab: RayLab) -> None:
    before = {host: invocation(lab, host) for host in lab.nodes}
    done = lab.cluster()
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    recap = done.stdout.partition("PLAY RECAP")[2]
    assert [line for line in recap.splitlines() if "changed=" in line and "changed=0" not in line] == []
    assert {host: invocation(lab, host) for host in lab.nodes} == before


def rejoin(lab: RayLab, killed: str, before: dict[str, str]) -> float:
    """Wait until the killed node runs anew and all are there; seconds that took."""
    began_s = time.monotonic()
    while invocation(lab, killed) == before[killed]:
        assert time.monotonic() - began_s < JOIN_S, f"{killed} does not start again"
        time.sleep(1)
    while True:
        # Members of an older session are counted until the head has given them up: only fresh ones run the driver.
        seen = lab.info(head_of(lab), NODES, wait_s=60)
        if seen["complete"]:
            return time.monotonic() - began_s
        assert time.monotonic() - began_s < JOIN_S, seen["why"]


def test_a_worker_that_is_killed_rejoins(lab: RayLab, tokens: dict[str, str]) -> None:
    victim = workers_of(lab)[-1]
    before = {host: invocation(lab, host) for host in lab.nodes}
    lab.shell(victim, f"kill -KILL $(systemctl show -P MainPID {UNIT})")
    note(worker_rejoins_s=round(rejoin(lab, victim, before), 1))
    after = {host: invocation(lab, host) for host in lab.nodes}
    assert [host for host in lab.nodes if after[host] != before[host]] == [victim]
    assert drive(lab, tokens["right"]).split() == sorted(lab.nodes)


def test_a_raylet_that_is_killed_ends_its_node_which_rejoins(lab: RayLab) -> None:
    victim = workers_of(lab)[0]
    before = {host: invocation(lab, host) for host in lab.nodes}
    lab.shell(victim, "pkill -KILL -x raylet")
    note(raylet_rejoins_s=round(rejoin(lab, victim, before), 1))


def test_the_head_that_is_killed_is_joined_by_all_again(lab: RayLab, tokens: dict[str, str]) -> None:
    """Its workers end by themselves when they have lost it, and systemd starts them until it is back."""
    before = {host: invocation(lab, host) for host in lab.nodes}
    lab.shell(head_of(lab), f"kill -KILL $(systemctl show -P MainPID {UNIT})")
    note(head_rejoined_s=round(rejoin(lab, head_of(lab), before), 1))
    assert drive(lab, tokens["right"]).split() == sorted(lab.nodes)
