"""`fab` on the lab: one table of all hosts, also where a host's Python is gone; bundles hold no secret."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from conftest import REPO

Shell = Callable[[str, str], str]
NODE = "node3"


def fab(*words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("fab"))
    return subprocess.run(
        [program, *words], cwd=REPO, input=said, capture_output=True, text=True, timeout=120, check=False
    )


def test_status_shows_every_host_and_what_serves() -> None:
    done = fab("status", "-i", "inventories/lab")
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert {"gw", "node1", "node2", "node3", "node4"} <= set(rows), done.stdout + done.stderr
    for name in ("node1", "node2", "node3", "node4"):
        assert rows[name].split()[1] == "1/1", done.stdout
        assert "UP" in rows[name].split(), done.stdout


def test_status_names_what_is_out(shell: Shell) -> None:
    shell(NODE, "systemctl stop rackserve-host-health.timer")
    try:
        done = fab("status", "-i", "inventories/lab", "-l", NODE)
        assert done.returncode == 1
        assert f"{NODE}: rackserve-host-health.timer inactive" in done.stdout, done.stdout
    finally:
        shell(NODE, "systemctl start rackserve-host-health.timer")


def test_a_host_without_python_is_still_shown(shell: Shell) -> None:
    python = shell(NODE, "readlink -f /usr/bin/python3").strip()
    shell(NODE, f"chmod a-x {python}")
    try:
        done = fab("status", "-i", "inventories/lab", "-l", NODE)
        assert "1/1" in done.stdout, done.stdout + done.stderr
        logs = fab("logs", NODE, "-i", "inventories/lab", "--lines", "5")
        assert logs.returncode == 0 and logs.stdout.strip(), logs.stderr
    finally:
        shell(NODE, f"chmod a+x {python}")


def test_gpus_are_shown() -> None:
    done = fab("gpus", "-i", "inventories/lab", "-l", NODE)
    assert sum(line.startswith(f"{NODE} ") and "H20" in line for line in done.stdout.splitlines()) == 8, done.stdout


def test_rerun_shows_its_command_and_does_nothing_without_a_yes() -> None:
    done = fab("rerun", "-i", "inventories/lab", "-l", NODE, said="no\n")
    assert done.returncode == 1
    assert f"playbooks/site.yml --limit {NODE}" in done.stdout
    assert "PLAY" not in done.stdout


def test_a_bundle_has_every_host_and_no_secret(secrets: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "bundle.tar.gz"
    done = fab("bundle", "-i", "inventories/lab", "--output", str(target))
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(target) as archive:
        texts = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        read = {name.split("/", 1)[1]: file.read().decode() for name, file in texts.items() if file}
    for host in ("gw", "node1", "node2", "node3", "node4"):
        assert {f"{host}/host.txt", f"{host}/units.txt", f"{host}/kernel.log"} <= set(read)
    assert "vllm" in read["node1/engines.log"]
    assert [name for name, text in read.items() if any(value in text for value in secrets.values())] == []
