"""Playbooks and sample inventories."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
from contract_support import PLAYBOOKS, REPO, SAMPLES, here, read_yaml, walk_tasks

GROUPS = {"gpu", "gateway", "monitoring", "builder"}
# With --limit that leaves the gateway out these plays are skipped, which must lose nothing.
ONLY_ON_THE_GATEWAY = {
    "backup-configuration": "the archive is written on the controller, from what this run read",
    "converge-hosts": "site on some hosts without a gateway that answers; fab rerun adds it",
    "prove-service": "asks as a client does, changes nothing",
    "roll-gateway": "the gateway's own files: they wait for a run in which it takes part",
    "ship-release": "the router's release, for the gateway's own units",
    "smoke-test": "asks as a client does, changes nothing",
}
ASKED_OF_THE_GATEWAY = {"lease", "run_record", "gateway_servers"}


def test_every_playbook_is_sound_for_the_lab(tmp_path: Path) -> None:
    checked = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("--syntax-check", "-i", "inventories/lab/hosts.yml"),
            *map(here, PLAYBOOKS),
        ],
        cwd=REPO,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert {line.split("playbook: ")[1] for line in checked.stdout.splitlines() if "playbook: " in line} == set(
        map(here, PLAYBOOKS)
    )


@pytest.mark.parametrize("path", PLAYBOOKS, ids=here)
def test_playbooks_are_named_for_what_they_do(path: Path) -> None:
    assert re.fullmatch(r"site|diagnose|[a-z]+(-[a-z]+)+", path.stem)
    for play in read_yaml(path):
        assert play["name"][0].isupper()
        assert not (play.get("roles") and play.get("tasks")), "a play is a list of roles or a list of tasks"


@pytest.mark.parametrize("path", PLAYBOOKS, ids=here)
def test_no_play_gathers_facts_by_itself(path: Path) -> None:
    for play in read_yaml(path):
        if "hosts" in play:
            assert play.get("gather_facts") is False, play["name"]


def test_repaired_weights_are_read_again_so_that_health_stops_naming_them() -> None:
    """The check weights-damaged reads the last report: a later mark alone would not prove every file."""
    *_, last = read_yaml(REPO / "playbooks/repair-weights.yml")
    [task] = last["tasks"]
    asked = task["ansible.builtin.systemd_service"]
    assert asked == {"name": "rackserve-verify-weights.service", "state": "restarted", "no_block": True}
    assert "not ansible_check_mode" in task["when"]


def test_site_is_a_table_of_contents() -> None:
    for play in read_yaml(REPO / "playbooks/site.yml"):
        assert set(play) <= {"name", "ansible.builtin.import_playbook", "tags", "vars", "when"}


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_inventory_explains_its_four_groups(sample: str) -> None:
    path = REPO / "inventories" / sample / "hosts.yml"
    children = read_yaml(path)["all"]["children"]
    assert set(children) <= GROUPS
    assert {"gpu", "gateway"} <= set(children)
    for group in children:
        explained = re.search(rf"^ +{group}:\s+#\s*(\S.*)$", path.read_text("utf-8"), re.MULTILINE)
        assert explained, f"{group} has no comment saying what membership does"


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_decides_in_one_place(sample: str) -> None:
    path = REPO / "inventories" / sample / "group_vars/all/cluster.yml"
    assert set(read_yaml(path)) == {"cluster"}


def test_the_ladder_drains_by_what_it_decided() -> None:
    plays = {play["name"]: play for play in read_yaml(REPO / "playbooks/act-on-health.yml")}
    (task,) = plays["Act"]["tasks"]
    assert "act_on_health_step.others_out" in task["vars"]["vllm_others_out"]
    (step,) = [
        task for task in read_yaml(REPO / "playbooks/tasks/act-on-health.yml") if task["name"].startswith("Take")
    ]
    looks = [task for task in plays["Look at hosts"]["tasks"] if "health_action" in task]
    for task in (step, *looks):
        assert "/proc/sys/kernel/random/boot_id" in task["health_action"]["controller_boot"]
    (decided, *_) = plays["Decide"]["tasks"]
    assert "groups['gateway']" in decided["ansible.builtin.set_fact"]["act_on_health"]


def test_a_backup_looks_for_every_secret_that_ansible_knows() -> None:
    plays = {play["name"]: play for play in read_yaml(REPO / "playbooks/backup-configuration.yml") if "tasks" in play}
    (task,) = [one for one in plays["Write the archive"]["tasks"] if one["name"] == "Put everything together"]
    assert "hostvars | backup_secrets(rackserve_secrets" in task["configuration_backup"]["secrets"]


@pytest.mark.parametrize(
    ("groups", "host"),
    [
        ({"gateway": ["gw"], "gpu": ["node1", "node2"]}, "gw"),
        ({"gateway": [], "gpu": ["node1", "node2"]}, "node1"),
        ({"gpu": ["node1"]}, "node1"),
    ],
)
def test_lease_and_records_have_a_host_without_a_gateway(groups: dict[str, list[str]], host: str) -> None:
    expression = read_yaml(REPO / "playbooks/group_vars/all/run.yml")["rackserve_gateway_host"]
    strict = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)
    assert strict.from_string(expression).render(groups=groups) == host


def test_no_playbook_takes_the_first_gateway_of_a_group_that_may_be_empty() -> None:
    files = [*PLAYBOOKS, *(REPO / "playbooks/tasks").glob("*.yml")]
    assert [here(path) for path in files if "groups['gateway'] | first" in path.read_text("utf-8")] == []


@pytest.mark.parametrize("path", PLAYBOOKS, ids=here)
def test_a_limit_without_the_gateway_skips_no_lease_no_drain_and_no_record(path: Path) -> None:
    """Such plays run on every host of the operation and ask the gateway by delegation."""
    if path.stem in ONLY_ON_THE_GATEWAY:
        return
    plays = [play for play in read_yaml(path) if "hosts" in play]
    bound = [play["name"] for play in plays if "gateway" in str(play["hosts"]) and "gpu" not in str(play["hosts"])]
    assert bound == [], "skipped by --limit: run it on gpu:gateway, with run_once and delegate_to"
    for task in walk_tasks(plays, here(path)):
        if ASKED_OF_THE_GATEWAY & set(task.data):
            assert task.data.get("delegate_to") in (
                "{{ rackserve_gateway_host }}",
                "{{ vllm_gateway_host }}",
            ), task.where


def test_an_operation_on_one_host_refuses_a_limit_that_leaves_it_out() -> None:
    for path in PLAYBOOKS:
        plays = read_yaml(path)
        if any(play.get("ansible.builtin.import_playbook") == "give-work.yml" for play in plays):
            checked = [play for play in plays if play.get("ansible.builtin.import_playbook") == "check-operand.yml"]
            assert [play["vars"]["operand_takes_part"] for play in checked] == [True], here(path)


@pytest.mark.parametrize("operation", ["replace-host", "scale-deployment"])
def test_the_lease_is_renewed_after_hosts_were_converged(operation: str) -> None:
    imported = [play.get("ansible.builtin.import_playbook") for play in read_yaml(REPO / f"playbooks/{operation}.yml")]
    assert imported[imported.index("converge-hosts.yml") + 1] == "renew-lease.yml"
    assert imported.count("renew-lease.yml") == 2
