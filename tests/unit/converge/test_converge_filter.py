"""desired_document: text or items in, one validated document out, the site's changes recorded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from rackserve_converge import FilterModule, desired_document

TEXT = """
- {id: a, kind: knob, path: /sys/a, value: "1"}
- {id: b, kind: file, path: /etc/b, content: "x", owner: root}
- {id: c, kind: absent, path: /etc/c}
"""


def test_text_items_and_documents_are_the_same() -> None:
    from_text = desired_document(TEXT, "vllm")
    assert [item["id"] for item in from_text["items"]] == ["a", "b", "c"]
    assert (from_text["role"], from_text["overrides"], from_text["extras"]) == ("vllm", [], [])
    assert desired_document(from_text["items"], "vllm") == from_text
    assert desired_document({"role": "vllm", "items": from_text["items"]}, "vllm") == from_text
    assert desired_document("", "vllm")["items"] == []


def test_extra_and_override() -> None:
    extra = [{"id": "d", "kind": "hold", "name": "haproxy"}, {"id": "e", "kind": "hold", "name": "x"}]
    override = {"b": {"content": "y", "owner": None}, "c": None, "e": None}
    document = desired_document(TEXT, "vllm", extra, override)
    assert [item["id"] for item in document["items"]] == ["a", "b", "d"]
    assert document["items"][1] == {"id": "b", "kind": "file", "path": "/etc/b", "content": "y"}
    assert (document["overrides"], document["extras"]) == (["b", "c", "e"], ["d"])


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("- {", "vllm"), "role vllm: the text is no YAML at line"),
        (("x", "vllm"), "must be a list of items"),
        (({"role": "ray", "items": []}, "vllm"), "role vllm: the document says role ray"),
        (({"item": []}, "vllm"), "unknown key item; known"),
        (([{"id": "a", "kind": "x"}], "vllm"), "role vllm, item a: unknown kind x"),
        (([], "vllm", [7]), "role vllm, item 0: must be a dict"),
        (([], "vllm", {"id": "a"}), "must be a dict"),
        (([], "vllm", [], {"a": None}), "vllm_items_override names a, but there is no such item"),
        (([], "vllm", [], ["a"]), "vllm_items_override must be a dict"),
        ((TEXT, "vllm", [], {"a": {"id": "z"}}), "vllm_items_override of a must be fields to change, or null"),
        (([object()], "vllm"), "not JSON serializable"),
    ],
)
def test_errors_name_the_place(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        desired_document(*arguments)
    assert message in str(caught.value)


def test_secrets_of_hands_out_only_what_the_documents_mention() -> None:
    filters = FilterModule().filters()
    document = filters["desired_document"](
        [{"id": "a", "kind": "file", "path": "/a", "mode": "0600", "content": "{secret:one}"}], "demo"
    )
    assert filters["secrets_of"]({"one": "1", "two": "2"}, [document]) == {"one": "1"}
    with pytest.raises(AnsibleFilterError, match="lacks one"):
        filters["secrets_of"]({"two": "2"}, [document])
    text = json.dumps([document])
    assert filters["probe_arguments"](text, {"one": "1", "two": "2"}) == {"documents": text, "secrets": {"one": "1"}}


@pytest.mark.parametrize(
    "changes,roles,groups",
    [
        ({}, None, []),
        ({}, [], []),
        ({"dirty_roles": ["vllm"]}, None, ["drifted", "drift_vllm"]),
        ({"dirty_roles": ["vllm"]}, ["firewall", "vllm"], ["drifted", "drift_firewall", "drift_vllm"]),
        ({"stale": [{"unit": "a"}]}, None, ["stale"]),
        ({"overrides": {"vllm": ["a"]}}, None, ["overridden"]),
    ],
)
def test_a_host_goes_to_the_plays_that_have_work(
    changes: dict[str, Any], roles: list[str] | None, groups: list[str]
) -> None:
    probe = {"dirty_roles": [], "stale": [], "overrides": {}, **changes}
    assert FilterModule().filters()["plays_of"](probe, roles) == groups


def test_only_hosts_with_work_are_sorted() -> None:
    probe = {"dirty_roles": [], "stale": [], "overrides": {}}
    hostvars = {
        "clean": {"rackserve_probe": probe},
        "dirty": {"rackserve_probe": {**probe, "dirty_roles": ["vllm"]}},
        "broken": {"rackserve_probe": {"failed": True, "msg": "x"}},
        "builder": {},
    }
    sort = FilterModule().filters()["hosts_with_work"]
    assert sort(hostvars) == ["dirty"]
    assert sort(hostvars, True) == ["clean", "dirty"]
    del hostvars["dirty"]
    assert sort(hostvars) == ["drifted"]
    assert sort({}) == ["drifted"]


def test_programs_are_read_as_they_are() -> None:
    texts = FilterModule().filters()["program_texts"](["watch/judge.py"])
    source = Path(__file__).resolve().parents[3] / "module_utils/rackserve/watch/judge.py"
    assert texts == {"watch/judge.py": source.read_text(encoding="utf-8")}
    with pytest.raises(AnsibleFilterError, match=r"missing\.py: No such file"):
        FilterModule().filters()["program_texts"](["watch/missing.py"])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file_sha256 = FilterModule().filters()["file_sha256"]
    (tmp_path / "manifest").write_bytes(b"{}\n")
    assert file_sha256(str(tmp_path / "manifest")) == hashlib.sha256(b"{}\n").hexdigest()
    with pytest.raises(AnsibleFilterError, match=r"file_sha256: .*/none: No such file or directory"):
        file_sha256(str(tmp_path / "none"))
