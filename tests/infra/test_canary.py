"""No secret where none may be: on hosts, in processes, in what a run prints, in the repository."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from canary import Needles, ProcessWatch, canaries, namespace, parents, search_host, search_stream, search_text
from conftest import REPO, STATE, ansible, case
from isolation import ALL, PREFIX, ssh


@pytest.fixture(scope="module")
def needles(secrets: dict[str, str]) -> Needles:
    keys = [STATE / name for name in ("id_ed25519", "simulated-archive-key.asc")]
    return canaries(secrets, [path for path in keys if path.exists()])


# Files and processes that have to hold a secret: where, which, and the mode and owner that close it to others.
MEANT = (
    ("gw", "/etc/rackserve/gateway/keys.map", "api_key_*", "0640 root:haproxy"),
    ("gw", "/etc/rackserve/gateway/engine-key.map", "engine_api_key", "0640 root:haproxy"),
    ("gw", "/etc/rackserve/gateway/tls.pem", "gateway_tls_pem", "0640 root:haproxy"),
    ("node*", "/etc/rackserve/vllm/*.secret.env", "engine_api_key", "0600 root:root"),
    ("node*", "/run/credentials/rackserve-engine-watch.service/*", "engine_api_key", "0400 vllm:root"),
    # vLLM takes its key from the environment alone; root and its own user read that.
    ("node*", "environ of vllm-*.service", "engine_api_key", "vllm"),
)


def test_secrets_are_on_hosts_where_they_are_meant_to_be_and_nowhere_else(needles: Needles) -> None:
    """Every file of the host, all of its journal, its units, and the processes it runs."""
    met = set()
    for host in ALL:
        found = search_host(ssh(host), needles)
        assert found["counts"]["files"] > 200 and found["counts"]["processes"] > 5, found["counts"]
        for hit in found["hits"]:
            rules = [
                rule
                for rule in MEANT
                if all(map(fnmatch, (host, hit["where"], hit["secret"], hit.get("owner", "")), rule))
            ]
            assert rules, f"{host}: {hit}"
            met |= set(rules)
    assert met == set(MEANT)


def lab_processes(plan: dict[str, Any]) -> Callable[[int], bool]:
    hosts = {f"net:[{Path(f'/run/netns/{PREFIX}-{host}').stat().st_ino}]" for host in plan["slices"]}
    mine = os.getpid()
    return lambda pid: namespace(pid) in hosts or mine in list(parents(pid))[1:]


def engine_environment(pid: int, part: str, secret: str) -> bool:
    cgroup = Path(f"/proc/{pid}/cgroup").read_text("utf-8")
    return part == "environ" and secret == "engine_api_key" and bool(re.search(r"/vllm-[\w-]+\.service", cgroup))


def test_the_process_watch_finds_what_it_is_for(plan: dict[str, Any]) -> None:
    canary = {"decoy": ["decoy-31b1f3a9c4d2"]}
    with ProcessWatch(canary, lab_processes(plan), engine_environment) as watch:
        subprocess.run(["/bin/sh", "-c", "sleep 0.5 # decoy-31b1f3a9c4d2"], check=True)
        subprocess.run(["/bin/sleep", "0.5"], env={"KEY": "decoy-31b1f3a9c4d2"}, check=True)
    assert {hit.split(" of ")[0] for hit in watch.hits} == {"decoy in cmdline", "decoy in environ"}


# A file with a secret that the host does not have: a diff of it must not show what is in it.
NEW_SECRET_FILE = {
    "id": "canary",
    "kind": "file",
    "path": "/etc/rackserve/vllm/canary",
    "mode": "0600",
    "content": "key={secret:engine_api_key}\n",
}
RUNS = (
    ("site", "--diff", "-e", "full=true"),
    ("site", "--check", "--diff", "-e", json.dumps({"vllm_items_extra": [NEW_SECRET_FILE]})),
    ("roll-serving", "--check", "--diff", "-e", "roll_all=true"),
    # Fails: what a module was given is printed then.
    ("site", "-e", "acceptance_base_url=https://127.0.0.1:9", "-e", "acceptance_wait_s=1"),
)


@pytest.mark.parametrize(
    "words",
    [case(words, name=f"{words[0]} {words[1]}", quick="--check" in words) for words in RUNS],
)
def test_a_run_shows_no_secret_at_the_highest_verbosity(
    words: tuple[str, ...], plan: dict[str, Any], needles: Needles
) -> None:
    """Neither in what it prints nor in arguments or environments of processes, here or on any host."""
    with ProcessWatch(needles, lab_processes(plan), engine_environment) as watch:
        done = ansible("ansible-playbook", f"playbooks/{words[0]}.yml", "-vvvvvv", *words[1:])
    output = done.stdout + done.stderr
    assert "PLAY RECAP" in output and len(output) > 20_000
    assert search_text(output, needles) == set()
    assert watch.hits == set()
    assert len(watch.seen) > 20
    if "vllm_items_extra" in words[-1]:
        assert NEW_SECRET_FILE["path"] in output


def test_the_repository_holds_no_secret(needles: Needles) -> None:
    """Every object that git keeps, every file that is not ignored, and every report a run left behind."""
    objects = ["git", "-C", str(REPO), "cat-file", "--batch", "--batch-all-objects", "--unordered", "--buffer"]
    with subprocess.Popen(objects, stdout=subprocess.PIPE) as process:
        found, size = search_stream(process.stdout, needles)
    assert process.returncode == 0 and size > 1_000_000
    assert found == set()
    listed = ["git", "-C", str(REPO), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    files = [REPO / name for name in names if name] + list((REPO / "build").rglob("*"))
    for path in files:
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as stream:
                assert search_stream(stream, needles)[0] == set(), path
