"""Playbooks and sample inventories."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from contract_support import PLAYBOOKS, REPO, SAMPLES, here, read_yaml

GROUPS = {"gpu", "gateway", "monitoring", "builder"}


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
