"""Runbooks: a page for every operation, a place for every code, and no command that is not there."""

from __future__ import annotations

import re

import pytest
from contract_support import PLAYBOOKS, REPO, ROLES, here
from finding_codes import CODE, all_codes, codes_of
from rackserve.health.catalogue import BY_ID

FOLDER = REPO / "docs/runbooks"
PAGES = {path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.md"))}
HEADS = ("You see", "It means", "Type", "Expect", "If not")
# Imported by others, never typed.
PARTS = {
    "begin-operation", "check-operand", "compile-plan", "converge-hosts", "end-operation", "give-work", "make-release",
    "move-release", "probe-drift", "renew-lease", "report-run", "roll-engines", "roll-gateway", "ship-release",
}  # fmt: skip
OPERATIONS = {path.stem for path in PLAYBOOKS} - PARTS
FAB = {"status", "logs", "gpus", "rerun", "bundle"}
TAGS = {role.name for role in ROLES}
COMMAND = re.compile(r"^\$ (.*)$", re.MULTILINE)


def operations_of(page: str) -> set[str]:
    """The playbooks that a page is for: its own name, or those that its line "Operations:" names."""
    listed = re.search(r"^Operations: (.*)$", PAGES[page], re.MULTILINE)
    return {page, *re.findall(r"`([a-z-]+)`", listed[1] if listed else "")}


def test_every_operation_has_a_page() -> None:
    covered = {name for page in PAGES for name in operations_of(page)}
    assert sorted(OPERATIONS - covered) == []


@pytest.mark.parametrize("page", sorted(set(PAGES) - {"README"}))
def test_a_page_says_what_you_see_mean_type_expect_and_what_if_not(page: str) -> None:
    places = [PAGES[page].find(f"**{head}.**") for head in HEADS]
    assert -1 not in places, [head for head, place in zip(HEADS, places, strict=True) if place < 0]
    assert places == sorted(places)
    assert COMMAND.search(PAGES[page]), "nothing to type"
    assert f"({page}.md)" in PAGES["README"], "the index does not name it"


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_command_of_a_page_is_there(page: str) -> None:
    named = set(re.findall(r"playbooks/([a-z-]+)\.yml", PAGES[page]))
    assert sorted(named - OPERATIONS - PARTS) == []
    words = set(re.findall(r"\bfab ([a-z]+)\b", PAGES[page]))
    assert sorted(words - FAB) == []
    for tags in re.findall(r"--tags[ =]([a-z_,]+)", PAGES[page]):
        assert sorted(set(tags.split(",")) - TAGS) == []
    for command in COMMAND.findall(PAGES[page]):
        assert command.split()[0] in {"ansible-playbook", "fab", "make"}, command
    for target in re.findall(r"\]\(([^)#:]+\.md)", PAGES[page]):
        assert (FOLDER / target).resolve().is_file(), target


def explained() -> set[str]:
    return {word for text in PAGES.values() for word in re.findall(r"`([a-z0-9-]+)`", text) if CODE.fullmatch(word)}


def test_every_code_of_a_finding_is_in_some_page() -> None:
    shown = set(re.findall(r"\[([a-z0-9]+(?:-[a-z0-9]+)+)\]", (REPO / "docs/bad-input.md").read_text("utf-8")))
    known = {**all_codes(), **dict.fromkeys(shown, "docs/bad-input.md")}
    assert len(known) > 150
    missing = {code: where for code, where in known.items() if code not in explained()}
    assert missing == {}


def test_every_check_of_health_is_in_some_page() -> None:
    everything = "\n".join(PAGES.values())
    assert [name for name in BY_ID if f"`{name}`" not in everything] == []


def test_the_reader_of_codes_sees_them(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("codes") / "x.py"
    path.write_text(
        'findings.error("one-code", where, "why not", "fix-it")\n'
        'finding("warning", "two-code", "a-b", "c", "d")\n'
        'findings.add(severity, "three-code", w, y, f)\n'
        'other("no-code")\nfinding("error", name, "not-this", "x", "y")\n'
    )
    assert codes_of(path) == {"one-code", "two-code", "three-code"}
    assert here(FOLDER) == "docs/runbooks"
