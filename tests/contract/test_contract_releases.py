"""Every release set of the library can work, says where its values come from and counts no proof it does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from contract_support import REPO, here, read_yaml
from rackserve.hardware.provenance import check_provenance
from rackserve.plan.findings import Findings
from rackserve.plan.schema import validate
from rackserve.plan.sets.check import check_set
from rackserve.plan.sets.proof import set_id
from rackserve.plan.sets.schema import RELEASE

SETS = sorted((REPO / "files/releases").glob("*.yml"))
DECISIONS = {"device", "built", "distributions", "options", "lock", "engine_command", "proven_on"}


def checked(path: Path) -> tuple[dict[str, Any], Findings]:
    findings = Findings()
    release: dict[str, Any] = validate(RELEASE, read_yaml(path), here(path), findings)
    if not findings.items:
        check_set(release, here(path), findings)
    return release, findings


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_a_set_can_work(path: Path) -> None:
    assert checked(path)[1].items == []


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_every_value_has_a_source_or_says_unverified(path: Path) -> None:
    values = {key: value for key, value in read_yaml(path).items() if key not in DECISIONS and value is not None}
    assert check_provenance(values) == []


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_a_record_of_a_proof_is_of_this_set_and_of_known_hardware(path: Path) -> None:
    release = checked(path)[0]
    known = {profile.stem for profile in (REPO / "files/hardware").glob("*.yml")}
    for record in release["proven_on"]:
        assert record["set"] == set_id(release), "the set was changed since: prove it again, or take the record out"
        assert record["hardware"] in known


def test_the_page_lists_every_set() -> None:
    rows = [line for line in (REPO / "docs/releases.md").read_text("utf-8").splitlines() if line.count("|") == 9]
    assert {row.split("`")[1] for row in rows if "`" in row} == {path.stem for path in SETS}


def test_a_newer_set_exists_for_each_kind() -> None:
    """Upgrade and rollback need two sets of a kind that differ."""
    kinds: dict[str, set[str]] = {}
    for path in SETS:
        release = checked(path)[0]
        kinds.setdefault(release["device"], set()).add(set_id(release))
    assert {device: len(ids) >= 2 for device, ids in kinds.items()} == {"cpu": True, "cuda": True}
