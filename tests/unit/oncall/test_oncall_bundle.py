"""Bundles: no secret in any file, every host accounted for; and what may be run again."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from rackserve.oncall import rerun
from rackserve.oncall.bundle import contents, script, write
from rackserve.oncall.hosts import Host, HostError
from rackserve.oncall.sweep import Answer

ENGINE, OPERATOR = "engine0key0value", "operator-key-value"
NODE = f"""
@@rackserve secrets
{ENGINE}

@@rackserve engines.log
started with {ENGINE}
asked with Bearer abcdefgh1234

@@rackserve ../../etc/passwd
x

@@rackserve end
"""
GATEWAY = f"""
@@rackserve secrets
{OPERATOR}
{ENGINE}

@@rackserve host.txt
{OPERATOR} seen
"""


def test_secrets_of_one_host_are_taken_out_of_all() -> None:
    found = contents({"n1": Answer(NODE), "gw": Answer(GATEWAY), "n2": Answer("", f"refused {OPERATOR}")})
    text = json.dumps(found)
    assert ENGINE not in text and OPERATOR not in text and "abcdefgh1234" not in text
    assert found["n1/engines.log"].startswith("started with [redacted]")
    assert set(found) == {"n1/engines.log", "gw/host.txt", "gw/problem.txt", "n2/problem.txt", "manifest.json"}
    manifest = json.loads(found["manifest.json"])
    assert (manifest["kind"], manifest["version"]) == ("rackserve-diagnosis", 1), "what diagnose reads"
    hosts = manifest["hosts"]
    assert [hosts[name]["lost"] for name in ("n1", "gw", "n2")] == ["", "the answer breaks off", "refused [redacted]"]
    assert hosts["n1"]["sources"] == [{"file": "n1/engines.log", "name": "engines.log", "kind": "engine"}]


def test_the_archive_is_its_owners_alone_and_never_replaces_one(tmp_path: Path) -> None:
    target = tmp_path / "b.tar.gz"
    left = tmp_path / "b.tar.gz.part"
    left.write_text("of a run that was killed")
    assert write(target, "top", {"n1/a.txt": "x\n"}, 1.0) > 0
    assert target.stat().st_mode & 0o777 == 0o600
    with tarfile.open(target) as archive:
        member = archive.extractfile("top/n1/a.txt")
        assert member and member.read() == b"x\n"
    with pytest.raises(FileExistsError):
        write(target, "top", {}, 1.0)
    assert sorted(tmp_path.iterdir()) == [target, left]


def test_the_collecting_script_runs_here() -> None:
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run([bash, "-n", "-c", script("1 day ago")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ValueError, match="give a time"):
        script("'; rm x")


HOSTS = [Host("node1", ("gpu",), "a"), Host("node2", ("gpu",), "b")]


def test_what_is_run_again_is_shown_and_asked_for() -> None:
    words = rerun.command("inventories/x/hosts.yml", HOSTS, "node2", True)
    assert words == [
        *("ansible-playbook", "-i", "inventories/x/hosts.yml", "playbooks/site.yml"),
        *("--limit", "node2", "--check", "--diff"),
    ]
    gateway = Host("gw", ("gateway",), "c")
    assert rerun.command("x", [*HOSTS, gateway], "node2", False)[-1] == "node2,gw"
    assert rerun.command("x", [*HOSTS, gateway], "gw,node2", False)[-1] == "gw,node2"
    told: list[str] = []
    assert rerun.agreed(words, lambda _: "yes", told.append)
    assert told[0] == " ".join(words)
    assert not rerun.agreed(words, lambda _: "y", told.append)

    def nobody(_: str) -> str:
        raise EOFError

    assert not rerun.agreed(words, nobody, told.append)
    with pytest.raises(HostError):
        rerun.command("x", HOSTS, "node7", False)
