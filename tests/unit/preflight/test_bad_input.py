"""The table of bad input: each entry that the compiler judges says its one line; the document is made of the table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]
sys.path.append(str(REPO / "tests/infra"))

import bad_input  # noqa: E402 - needs the path above

TABLE = bad_input.load()
BOOKS = bad_input.read_books()
COMPILED = [case for case in TABLE.described if case.compiled]
DOCUMENT = REPO / "docs/bad-input.md"


@pytest.mark.parametrize("case", COMPILED, ids=lambda case: case.id)
def test_the_compiler_says_this_line_and_no_other(case: bad_input.Case) -> None:
    assert bad_input.compiled_lines(case, BOOKS) == [case.says]


def test_the_samples_themselves_are_right() -> None:
    for sample in {case.sample for case in COMPILED}:
        assert bad_input.compiled_lines(bad_input.Case("none", "", "", sample=sample), BOOKS) == []


def test_an_empty_description_and_merged_inventories_are_told_by_their_cause_alone() -> None:
    expected = {case.id: case for case in TABLE.described}
    cluster, groups, addresses = bad_input.site("lab")
    for nothing in ({}, None):
        plan = bad_input.compile_plan(nothing, groups, addresses, BOOKS)
        assert bad_input.plan_errors(plan) == [expected["no-description"].says]
    groups, addresses = {**groups, "gateway": ["gw", "ws-01"]}, {**addresses, "ws-01": "10.9.9.9"}
    sources = {host: "/b" if host == "ws-01" else "/a" for host in addresses}
    (line,) = bad_input.plan_errors(bad_input.compile_plan(cluster, groups, addresses, BOOKS, sources=sources))
    assert line.startswith("error [inventories-merged] ")


def test_every_entry_is_shown_and_named_once() -> None:
    cases = TABLE.described + TABLE.on_hosts
    assert len(cases) >= 40
    assert len({case.id for case in cases}) == len(cases)
    assert [case.id for case in TABLE.described if not (case.compiled or case.run)] == []
    assert {case.batch for case in TABLE.on_hosts} == set(TABLE.batches)
    seats = [(case.batch, case.host) for case in TABLE.on_hosts]
    assert len(set(seats)) == len(seats), "cases of one run need a host each"
    assert {case.run["inventory"] for case in TABLE.described if "inventory" in case.run} == set(TABLE.inventories)


def test_every_line_says_how_to_mend_it_in_one_line() -> None:
    for case in TABLE.described + TABLE.on_hosts:
        assert "\n" not in case.says
        assert case.says.count(" ") >= 5, case.id


def test_the_line_is_found_as_callbacks_print_it_and_not_in_part() -> None:
    case = bad_input.Case("x", "", "port-taken: port <n>: it's a (test)")
    for printed in ("    port-taken: port 8000: it's a (test)", "msg: 'port-taken: port 8000: it''s a (test)'"):
        assert case.pattern().search(f"before\n{printed}\nafter")
    assert not case.pattern().search("port-taken: port 8000: it's a (test) and more")
    assert not case.pattern().search("port-taken: port 8000: it's a [test]")


def test_the_document_is_made_of_the_table(request: pytest.FixtureRequest) -> None:
    text = DOCUMENT.read_text("utf-8")
    made = bad_input.document(text, TABLE)
    if request.config.getoption("--update-golden"):
        DOCUMENT.write_text(made, "utf-8")
        return
    assert text == made, "run this test with --update-golden and read the diff"
    with pytest.raises(ValueError, match="lacks one of the lines"):
        bad_input.document("no marks", TABLE)


def test_an_inventory_of_the_lab_with_a_fault(tmp_path: Path) -> None:
    hosts = bad_input.write_inventory(
        tmp_path / "a",
        hosts={"gw": {"ansible_port": 1}},
        files={"group_vars/x.yml": "a: 1\n"},
        modes={"hosts.yml": "0600"},
    )
    read = bad_input.yaml.safe_load(hosts.read_text())["all"]["children"]
    assert read["gateway"]["hosts"]["gw"]["ansible_port"] == 1
    assert "ansible_host" in read["gateway"]["hosts"]["gw"]
    assert hosts.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "a").rglob("*.yml")] != ["hosts.yml"]
