"""Weights from host to host on the demo lab: what is missing comes from the host before, damage is found and mended.

RACKSERVE_WEIGHTS=full   asks for it (minutes); weights of the last nodes are taken away and damaged, engines serve on.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.asked_by("RACKSERVE_WEIGHTS", "full")

REPO = Path(__file__).resolve().parents[2]
INVENTORY = REPO / "inventories/lab"
FOLDER = "/srv/models/tiny-deepseek-v3"
STOPPED = (
    "systemctl list-units --all --plain --no-legend 'rackserve-relay-*' | wc -l; ls -d /run/rackserve-relay-* | wc -l"
)


def shell(host: str, line: str) -> str:
    command = ["/usr/bin/ssh", "-F", str(INVENTORY / ".state/ssh_config"), host, line]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout.strip()


def play(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).parent / "ansible-playbook")
    command = [program, "-i", str(INVENTORY / "hosts.yml"), f"playbooks/{name}.yml", *words]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False, timeout=900)


def must(name: str, *words: str) -> str:
    done = play(name, *words)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def manifest() -> Any:
    return json.loads((REPO / ".cache/models/tiny-deepseek-v3/manifest.json").read_text())


def pids() -> dict[str, str]:
    shown = "systemctl show --value --property=MainPID 'vllm-*.service'"
    return {host: shell(host, shown) for host in ("node1", "node2", "node3", "node4")}


def largest() -> str:
    files = manifest()["files"]
    return max(files, key=lambda name: files[name]["size"])


def test_missing_weights_come_from_the_host_before() -> None:
    before, name = pids(), largest()
    for host in ("node3", "node4"):
        shell(host, f"rm -f {FOLDER}/{name} {FOLDER}/READY {FOLDER}/READY.stat.json")
    output = must("copy-weights")
    assert " from node1" in output
    assert " from node3" in output
    digest = manifest()["files"][name]["sha256"]
    for host in ("node3", "node4"):
        assert shell(host, f"sha256sum {FOLDER}/{name}").split()[0] == digest
        assert shell(host, f"stat -c '%U %G %a' {FOLDER}/{name}") == "root vllm 644"
        assert shell(host, f"cat {FOLDER}/READY") == shell("node1", f"cat {FOLDER}/READY")
        assert shell(host, f"ls -A {FOLDER} | grep -c rackserve-relay") == "0"
    for host in before:
        assert shell(host, f"({STOPPED}) 2>/dev/null") == "0\n0"
        assert "10.77.0." not in shell(host, "nft list set inet rackserve relay4")
    assert pids() == before, "no engine was touched"
    assert not re.search(r"changed=[1-9]", must("site"))


def test_a_host_outside_of_the_limit_gives(name: str = "config.json") -> None:
    shell("node4", f"rm -f {FOLDER}/{name} {FOLDER}/READY")
    output = must("copy-weights", "--limit", "node4", "-e", '{"model_store_sources": ["node2"]}')
    assert " from node2" in output
    assert shell("node4", f"cat {FOLDER}/READY") == shell("node1", f"cat {FOLDER}/READY")


def test_one_damaged_file_is_mended_and_only_that(name: str = "config.json") -> None:
    before = pids()
    damage = f"touch -r {FOLDER}/{name} /tmp/when; printf x | dd of={FOLDER}/{name} bs=1 conv=notrunc status=none"
    shell("node2", f"{damage}; touch -r /tmp/when {FOLDER}/{name}")
    assert not re.search(r"changed=[1-9]", must("site")), "nobody wrote to it as far as its dates say"
    output = must("repair-weights")
    size = manifest()["files"][name]["size"]
    assert f"{size / (1 << 20):.0f} MiB in" in output
    assert shell("node2", f"sha256sum {FOLDER}/{name}").split()[0] == manifest()["files"][name]["sha256"]
    assert pids() == before


def test_a_cut_off_copy_goes_on() -> None:
    name = largest()
    size = manifest()["files"][name]["size"]
    shell("node4", f"mkdir -p {FOLDER}/.rackserve-relay")
    shell("node4", f"head -c {size // 2} {FOLDER}/{name} > {FOLDER}/.rackserve-relay/{name}.part")
    # Whole by its size, of another revision by its content.
    other = manifest()["files"]["config.json"]["size"]
    shell("node4", f"head -c {other} /dev/zero > {FOLDER}/.rackserve-relay/config.json; rm -f {FOLDER}/config.json")
    shell("node4", f"rm -f {FOLDER}/{name} {FOLDER}/READY")
    must("copy-weights")
    for one in (name, "config.json"):
        assert shell("node4", f"sha256sum {FOLDER}/{one}").split()[0] == manifest()["files"][one]["sha256"]


def test_rsync_remains_by_name() -> None:
    shell("node4", f"rm -f {FOLDER}/config.json {FOLDER}/READY")
    output = must("copy-weights", "-e", "model_store_transport=rsync")
    assert "Send from the controller what is missing" in output
    assert " from node" not in output
