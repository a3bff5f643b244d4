"""A lease is held as long as a change lasts."""

from __future__ import annotations

import pytest
from contract_support import PLAYBOOKS, read_yaml


@pytest.mark.parametrize(
    ("before", "after"), [("Build the release", "Probe drift"), ("Ship the release", "Move engines")]
)
def test_a_lost_lease_ends_a_change_of_release_before_hosts_are_changed(before: str, after: str) -> None:
    plays = read_yaml(next(path for path in PLAYBOOKS if path.stem == "move-release"))
    names = [play["name"] for play in plays]
    between = plays[names.index(before) + 1 : names.index(after)]
    assert "renew-lease.yml" in [play.get("ansible.builtin.import_playbook") for play in between]
