"""The linter follows NCCL's parser: what that accepts passes, what that refuses is named with line, reason and fix."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rackserve.nccl.lint import errors, lint
from rackserve.nccl.parser import CHILDREN, MAX_ELEMENTS, as_int

from .host import FIXTURES, REPO

CLIENTS = REPO / "tests/fixtures/nccl-topology/refused-blueprint.xml"
FILES = sorted(path for path in FIXTURES.glob("*.xml") if not path.name.startswith("refused"))


def refusal(text: str | bytes) -> tuple[int, str, str] | None:
    found = [item for item in lint(text) if item["level"] == "error"]
    return (found[0]["line"], found[0]["reason"], found[0]["fix"]) if found else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_that_nccl_reads_pass(path: Any) -> None:
    assert refusal(path.read_bytes()) is None
    assert refusal(path.read_bytes().replace(b"\n", b"\r\n")) is None


def test_the_sample_of_the_blueprint_is_refused() -> None:
    found = lint(CLIENTS.read_bytes())
    assert found[0] == {
        "line": 1,
        "level": "error",
        "reason": "an XML declaration (expected >, got '?')",
        "fix": "delete the line <?xml ...?>",
    }
    rest = [(item["line"], item["reason"]) for item in found[1:]]
    assert (5, "several GPUs at one bus id: each GPU is a PCI device of its own") in rest
    assert (6, "<gpu> has no attribute localrank; it is ignored") in rest
    assert (14, "<nic> without <net> does nothing") in rest
    assert errors(found) == [f"line 1: {found[0]['reason']}; {found[0]['fix']}"]


HEAD = '<system version="1">\n'
REFUSED = [
    ('<?xml version="1.0"?>\n' + HEAD + "</system>", 1, "XML declaration"),
    (HEAD + '\t<cpu numaid="0"/>\n</system>', 2, "got a TAB"),
    ("\ufeff" + HEAD + "</system>", 1, "byte order mark"),
    (HEAD + "text</system>", 2, "expecting '<', got 't'"),
    (HEAD + '<cpu numaid="0">0</cpu></system>', 2, "expecting '<', got '0'"),
    ("<!DOCTYPE system>\n" + HEAD + "</system>", 1, "unterminated !DOCTYPE"),
    (HEAD + '<cpu numaid="0"\n affinity="1"/></system>', 2, "a line break inside the tag <cpu"),
    (HEAD + '<cpu\n numaid="0"/></system>', 2, "a line break inside the tag <cpu"),
    (HEAD + '<cpu numaid="0"\taffinity="1"/></system>', 2, "got a TAB"),
    (HEAD + '<cpu numaid="0"affinity="1"/></system>', 2, "got 'a'"),
    (HEAD + "<cpu numaid=0/></system>", 2, "no quotes"),
    (HEAD + '<cpu numaid = "0"/></system>', 2, "no quotes"),
    (HEAD + '<cpu numaid="0">\n</cpu ></system>', 3, "a space in the closing tag </cpu"),
    (HEAD + '<cpu numaid="0"/ ></system>', 2, "expected >, got a space"),
    (HEAD + "<!--a=b-->\n</system>", 2, "= in a comment's first word"),
    (HEAD + "<!-- no end\n</system>", 2, "unterminated comment"),
    (HEAD + '<cpu numaid="0">\n', 2, "<cpu> is not closed"),
    (HEAD, 1, "<system> is not closed"),
    (HEAD + '<cpu numaid="0">\n</pci></system>', 3, "</pci> closes <cpu> of line 2"),
    (HEAD + "</system>\n</system>", 3, "</system> closes nothing"),
    (HEAD + "</system>\n</cpu>", 3, "</cpu> closes nothing"),
    ("<system>\n</system>", 1, "no version"),
    ('<system version="2"/>', 1, "version 2 of <system>"),
    (HEAD + f'<cpu numaid="{"1" * 254}"/></system>', 2, "longer than 253"),
    (HEAD + f"<{'c' * 254}/></system>", 2, "longer than 253"),
    (HEAD + "<cpu/>\n" * 128 + "<cpu/></system>", 130, "more than 128 children"),
    (HEAD + ("<cpu>" + "<pci/>" * 50 + "</cpu>\n") * 5 + "</system>", 6, "more than 255 elements"),
    (HEAD + '<cpu numaid="0', 2, "the file ends inside a tag"),
]


@pytest.mark.parametrize(("text", "line", "reason"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_nccl_refuses(text: str, line: int, reason: str) -> None:
    found = refusal(text)
    assert found is not None and found[0] == line and reason in found[1] and found[2]


ACCEPTED = [
    ("", "detects everything"),
    ("\n \r\n", "detects everything"),
    ("<!-- only -->", "detects everything"),
    ("<!----><!--a--><!-- a=b > c -->" + HEAD + "</system>", ""),
    ("<system version='1' name='x'></system>\n", ""),
    ('<system version="0x1"/>', ""),
    ('<system  version="1"  />', ""),
    (HEAD + '<cpu numaid="0" affinity="ff\nff"/></system>', ""),
    (HEAD + '<cpu numaid="&quot;>"/></system>', ""),
    (HEAD + '<switch a="1"><port/></other></system>', "<switch> inside <system> is ignored"),
    (HEAD + '<gpu dev="0"/></system>', "<gpu> belongs into <pci>"),
    (HEAD + f'<cpu numaid="{"1" * 253}"/></system>', ""),
    (HEAD + "<cpu numaid='0' " + "".join(f"a{i}='1' " for i in range(17)) + "/></system>", "the 17th"),
    (
        HEAD
        + ("<cpu numaid='0'>" + "<pci/>" * 50 + "</cpu>\n") * 4
        + "<cpu numaid='0'>"
        + "<pci/>" * 49
        + "</cpu></system>",
        "",
    ),
]


@pytest.mark.parametrize(("text", "warning"), ACCEPTED, ids=lambda value: str(value)[:40])
def test_what_nccl_accepts(text: str, warning: str) -> None:
    found = lint(text)
    assert refusal(text) is None
    assert not warning or any(warning in f"{item['reason']}; {item['fix']}" for item in found)


@pytest.mark.parametrize(
    ("body", "warning"),
    [
        ('<cpu numaid="0" host_hash="0x1"/>', "host_hash belongs to one boot"),
        ("<cpu/>", "<cpu> has no numaid"),
        ('<cpu numaid="0"><pci busid="0000:1A:00.0" class="0x03"/></cpu>', "matches no device"),
        ('<cpu numaid="0"><pci busid="0000:1a:00.0"/></cpu>', "without class"),
        ('<cpu numaid="0"><pci class="1"><gpu dev="0" sm="89"/></pci></cpu>', "dev, sm of <gpu>"),
        ('<cpu numaid="0"><nic/></cpu>', "<nic> without <net>"),
        ('<cpu numaid="0"><nic><net name="a" speed="200"/></nic></cpu>', "read as Mb/s"),
        (f'<cpu numaid="0" affinity="{",".join(["1"] * 29)}"/>', "29 groups"),
        ('<cpu numaid="0"><pci busid="0000:1a:00.0" class="1"/><pci busid="0000:1a:00.0" class="1"/></cpu>', "twice"),
    ],
)
def test_what_does_nothing_or_harm_is_told(body: str, warning: str) -> None:
    found = lint(HEAD + body + "</system>")
    assert any(warning in item["reason"] for item in found)
    assert {item["level"] for item in found} == {"warning"}


names = st.sampled_from(["busid", "class", "numaid", "name", "count", "x"])
values = st.text(st.characters(codec="ascii", exclude_characters="'\"\0"), max_size=60)
gaps = st.sampled_from(["", " ", "\n", "\r\n", "  ", "\n\n", "<!-- note -->", "<!-- a=b > c -->\n"])


@st.composite
def elements(draw: st.DrawFn, name: str = "system", depth: int = 0) -> str:
    """An element as NCCL reads it, in any of the ways it may be written."""
    given = {key: draw(values) for key in draw(st.lists(names, max_size=4, unique=True))}
    if name == "system":
        given["version"] = "1"
    text = f"<{name}" + "".join(f" {key}={q}{v}{q}" for key, v in given.items() for q in [draw(st.sampled_from("'\""))])
    inside = CHILDREN.get(name, ())
    children = draw(st.lists(st.sampled_from(inside), max_size=3)) if inside and depth < 5 else []
    if not children and draw(st.booleans()):
        return text + draw(st.sampled_from(["/>", " />"]))
    parts = [draw(gaps) + draw(elements(child, depth + 1)) for child in children]
    return text + draw(st.sampled_from([">", " >"])) + "".join(parts) + draw(gaps) + f"</{name}>"


@given(gaps, elements(), gaps)
def test_whatever_is_written_by_the_rules_is_accepted(before: str, text: str, after: str) -> None:
    assert refusal(before + text + after) is None


BREAKS = st.sampled_from(["\t", "text", "</cpu >", "<!--a=b-->", "<?xml version='1.0'?>", "<!DOCTYPE x>", "<a b=c/>"])


@given(elements(), BREAKS, st.data())
def test_one_construct_that_nccl_does_not_know_is_enough(text: str, broken: str, data: st.DataObject) -> None:
    """Put behind any tag, outside comments, it is refused in its own line."""
    bare = re.sub(r"<!--.*?-->", "", re.sub(r"'[^']*'|\"[^\"]*\"", lambda m: re.sub(r"[<>]", "_", m[0]), text))
    ends = [match.end() for match in re.finditer(">", bare)][:-1] or [0]
    at = data.draw(st.sampled_from(ends))
    found = refusal(bare[:at] + broken + bare[at:])
    assert found is not None
    assert found[0] == bare.count("\n", 0, at) + 1


@given(st.binary(max_size=300))
def test_no_input_breaks_it(data: bytes) -> None:
    for item in lint(data):
        assert set(item) == {"line", "level", "reason", "fix"}
        assert 1 <= item["line"] <= data.count(b"\n") + 1 and item["reason"].isprintable()


def test_deep_nesting_of_what_is_ignored() -> None:
    assert refusal(HEAD + "<x>" * 50000 + "</y>" * 50000 + "</system>") is None


def test_the_most_elements() -> None:
    def body(count: int) -> str:
        return HEAD + "<cpu>" + "<pci>" * count + "</pci>" * count + "</cpu></system>"

    assert refusal(body(MAX_ELEMENTS - 2)) is None
    assert refusal(body(MAX_ELEMENTS - 1)) is not None


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("0x1f", 31), ("010", 8), ("08", 0), (" -1x", -1), ("", 0), ("x", 0), ("4294967297", 1), ("0x", 0)],
)
def test_numbers_are_read_as_c_reads_them(text: str, value: int) -> None:
    assert as_int(text) == value
