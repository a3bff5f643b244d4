"""Bad input on the lab: site.yml says the line of each case, fails, and leaves the hosts as they were."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import bad_input
import pytest
from bad_input import Case, write_inventory
from conftest import INVENTORY, LAB_HOSTS, REPO, STATE, Run, run_shell
from conftest import case as parameter
from upper import changes, snapshot

TABLE = bad_input.load()
RUN_AGAIN = [case for case in TABLE.described if case.run]
ALL_HOSTS = ["gw", "node1", "node2", "node3", "node4"]
# Batches that CI runs; `make test-lab` runs all.
QUICK = {"dead-host", "machine"}
SHELL_FOLDER = "/run/bad-input"
SHARD = "model-00002-of-00003.safetensors"
WORK = "/etc/sysctl.d/60-rackserve.conf"


class Outcome(NamedTuple):
    """What a run printed, its exit status, and what it changed on each host that took part."""

    text: str
    status: int
    changed: dict[str, list[str]]


def fill(value: Any, tmp: Path) -> Any:
    """``value`` with {tmp} replaced in every text."""
    return json.loads(json.dumps(value).replace("{tmp}", str(tmp)))


@pytest.fixture(scope="module")
def tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faults on the controller: another ansible.cfg, other host keys, sources with a missing and with a wrong shard."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.cfg").write_text("")
    known = [line.split(maxsplit=1) for line in (STATE / "known_hosts").read_text().splitlines()]
    swapped = zip(known, known[1:] + known[:1])
    (folder / "other_known_hosts").write_text("".join(f"{own[0]} {other[1]}\n" for own, other in swapped))
    for name in ("incomplete", "corrupt"):
        shutil.copytree(REPO / ".cache/models/tiny-deepseek-v3", folder / name)
    (folder / "incomplete" / SHARD).unlink()
    with (folder / "corrupt" / SHARD).open("r+b") as shard:
        shard.seek(2_000_000)
        byte = shard.read(1)
        shard.seek(2_000_000)
        shard.write(bytes([byte[0] ^ 1]))
    return folder


def uppers(hosts: list[str]) -> dict[str, dict[str, Any]]:
    """What is on the disks of ``hosts``."""
    return {host: snapshot(LAB_HOSTS / host / "upper") for host in hosts}


def run_site(playbook: Run, hosts: list[str], *arguments: str, **settings: Any) -> Outcome:
    """Run site.yml; compare the disks of ``hosts`` before and after."""
    before = uppers(hosts)
    done = playbook("site", *arguments, **settings)
    after = uppers(hosts)
    changed = {host: changes(before[host], after[host]) for host in hosts}
    return Outcome(done.stdout + done.stderr, done.returncode, changed)


def expect_line(case: Case, text: str) -> None:
    """The line of ``case`` stands in ``text``."""
    assert case.pattern().search(text), f"{case.id}: not said: {case.says}\n{text[-6000:]}"


def findings_of(host: str, text: str) -> list[str]:
    """The codes of all lines of findings that stand where ``host`` failed."""
    failed = re.split(r"^(?:fatal|failed): \[", text, flags=re.MULTILINE)[1:]
    own = [part.partition("\nPLAY")[0] for part in failed if part.startswith((f"{host}]", f"{host} "))]
    return re.findall(r"^ *([a-z]+(?:-[a-z0-9]+)+): .+; .+$", "\n".join(own), re.MULTILINE)


@pytest.fixture(scope="module")
def before_all() -> dict[str, dict[str, Any]]:
    """The disks before the first case of the controller."""
    return uppers(ALL_HOSTS)


@pytest.mark.parametrize("case", RUN_AGAIN, ids=lambda case: case.id)
@pytest.mark.usefixtures("before_all")
def test_what_the_controller_finds(case: Case, playbook: Run, tmp: Path) -> None:
    run = fill(case.run, tmp)
    arguments, inventory = [str(part) for part in run.get("arguments", ())], INVENTORY
    if "inventory" in run:
        inventory = write_inventory(tmp / "inventories" / run["inventory"], **TABLE.inventories[run["inventory"]])
    if "also" in run:
        arguments += [f"--inventory={REPO / run['also']}"]
    done = playbook("site", *arguments, inventory=inventory, **run.get("environment", {}))
    assert done.returncode != 0
    expect_line(case, done.stdout + done.stderr)
    assert "Compare the host with it" not in done.stdout


def test_none_of_these_changed_a_host(before_all: dict[str, dict[str, Any]]) -> None:
    after = uppers(ALL_HOSTS)
    assert {host: changes(before_all[host], after[host]) for host in ALL_HOSTS} == {host: [] for host in ALL_HOSTS}


@pytest.fixture(scope="module")
def batch(playbook: Run, tmp: Path) -> Callable[[str], Outcome]:
    """Run a batch of cases once: faults in, site.yml, faults out."""

    @cache
    def run(name: str) -> Outcome:
        settings, cases = TABLE.batches[name], [case for case in TABLE.on_hosts if case.batch == name]
        hosts = [case.host for case in cases] if settings.limit is None else (settings.limit or ALL_HOSTS)
        variables = {case.host: fill(case.variables, tmp) for case in cases}
        inventory = write_inventory(tmp / "inventories" / name, lab=True, hosts=variables)
        arguments = ["--limit", ",".join(hosts), *map(str, settings.arguments)]
        if settings.overrides:
            arguments += ["-e", json.dumps({"cluster_overrides": fill(settings.overrides, tmp)})]
        begun: list[Case] = []
        try:
            for case in cases:
                begun.append(case)
                run_shell(case.host, f"set -e; mkdir {SHELL_FOLDER}; {case.prepare or ':'}")
            if name == "dead-host":
                run_shell("node1", f"chmod 0600 {WORK}")
            # A connection that is open already would hide that a new one is impossible.
            own = {"ANSIBLE_SSH_CONTROL_PATH_DIR": str(tmp / f"cp-{name}")}
            return run_site(playbook, hosts, *arguments, inventory=inventory, **own)
        finally:
            for case in begun:
                run_shell(case.host, f"{case.undo or ':'}; rm -r {SHELL_FOLDER}")

    return run


@pytest.mark.parametrize(
    "case",
    [parameter(one, name=one.id, quick=one.batch in QUICK) for one in TABLE.on_hosts],
)
def test_what_is_found_on_a_host(case: Case, batch: Callable[[str], Outcome]) -> None:
    outcome = batch(case.batch)
    assert outcome.status != 0
    expect_line(case, outcome.text)
    # One line: no other finding beside it. (What model_store itself says has no code.)
    code = case.says.partition(":")[0]
    assert findings_of(case.host, outcome.text) == ([code] if ": " in case.says and " " not in code else [])
    assert outcome.changed[case.host] == []
    # Of this host nothing went further than the line.
    (recap,) = [line for line in outcome.text.splitlines() if line.startswith(f"{case.host} ") and "ok=" in line]
    assert "changed=0" in recap
    assert "failed=1" in recap or "unreachable=1" in recap


def test_one_dead_host_does_not_stop_the_others(batch: Callable[[str], Outcome]) -> None:
    outcome = batch("dead-host")
    assert outcome.status == 4
    said = "LEFT AS IT WAS from there on: node2 (no-answer). 4 other host(s) went on. Mend what stands above, then run"
    assert said in outcome.text
    # node1 had something to mend; it was, gw keeps the record of that, and there is nothing else anywhere.
    assert run_shell("node1", f"stat -c %a {WORK}").strip() == "644"
    assert [line.partition(":")[0] for line in outcome.changed["node1"]] == [WORK.lstrip("/")]
    assert {host: outcome.changed[host] for host in ("node3", "node4")} == {"node3": [], "node4": []}
    (folder, record) = [line.partition(":")[0] for line in outcome.changed["gw"]]
    assert folder == "var/lib/rackserve/runs"
    assert record.startswith(f"{folder}/") and record.endswith(".json")
    assert "TASK [acceptance" in outcome.text


def test_the_lab_is_as_before(playbook: Run) -> None:
    done = playbook("site")
    assert done.returncode == 0, done.stdout[-4000:]
    assert all("changed=0" in line for line in done.stdout.splitlines() if "unreachable=" in line)
