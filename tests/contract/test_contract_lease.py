"""A lease is held as long as a change lasts."""

from __future__ import annotations

from contract_support import PLAYBOOKS, here, read_yaml, walk_tasks


def test_a_lost_lease_ends_a_change_of_release_before_hosts_are_changed() -> None:
    path = next(path for path in PLAYBOOKS if path.stem == "move-release")
    plays = read_yaml(path)
    names = [play["name"] for play in plays]
    for before, after in (("Build the release", "Probe drift"), ("Ship the release", "Move engines")):
        between = plays[names.index(before) + 1 : names.index(after)]
        renewed = [task for task in walk_tasks(between, here(path)) if "lease" in task.data]
        assert renewed, f"the lease is not renewed between {before} and {after}"
