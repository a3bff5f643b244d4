"""A bad document is refused with one line that names role, item and key, and nothing is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.rackserve.converge.document import parse_documents
from ansible.module_utils.rackserve.converge.errors import DocumentError
from converge_support import go, one, snapshot

FILE = {"kind": "file", "path": "/etc/a", "content": "x\n"}
UNIT = {"id": "run", "kind": "unit", "name": "x.service", "running_config": "environ"}


def two(first: dict[str, Any], second: dict[str, Any], *roles: str) -> list[dict[str, Any]]:
    items = [{"id": "one", **first}, {"id": "two", **second}]
    if not roles:
        return [{"role": "vllm", "items": items}]
    return [{"role": role, "items": [item]} for role, item in zip(roles, items)]


BAD: dict[str, tuple[Any, str]] = {
    "no list": ({"role": "vllm"}, "must be a list"),
    "no dict": (["vllm"], "documents[0]: must be a dict"),
    "unknown document key": ([{"role": "vllm", "items": [], "itmes": []}], "unknown key itmes"),
    "no role": ([{"items": []}], "documents[0]: role must be"),
    "bad role": ([{"role": "vLLM", "items": []}], "documents[0]: role must be"),
    "no items": ([{"role": "vllm"}], "role vllm: items must be a list"),
    "role twice": ([{"role": "vllm", "items": []}] * 2, "role vllm: given twice"),
    "item no dict": ([{"role": "vllm", "items": ["x"]}], "role vllm, item 0: must be a dict"),
    "no id": ([{"role": "vllm", "items": [FILE]}], "role vllm, item 0: id must be"),
    "id twice": (
        [{"role": "vllm", "items": [{"id": "it", **FILE}, {"id": "it", "kind": "hold", "name": "x"}]}],
        "role vllm, item it: id is used twice",
    ),
    "no kind": (one({"path": "/a"}), "unknown kind; known: file"),
    "unknown kind": (one({"kind": "fiel"}), "unknown kind fiel"),
    "unknown key": (one({**FILE, "modes": "0644"}), "item it: file has no key modes; known: path"),
    "missing key": (one({"kind": "file", "path": "/a"}), "item it: file needs content"),
    "relative path": (one({**FILE, "path": "etc/a"}), "path must be an absolute path"),
    "dotted path": (one({**FILE, "path": "/etc/../a"}), "path must be an absolute path"),
    "root": (one({**FILE, "path": "/"}), "path must be an absolute path"),
    "newline in path": (one({**FILE, "path": "/etc/a\nb"}), "path must be one non-empty line"),
    "path no string": (one({**FILE, "path": 3}), "path must be a string"),
    "unquoted mode": (one({**FILE, "mode": 644}), 'mode must be a quoted octal mode such as "0644"'),
    "bad mode": (one({**FILE, "mode": "0688"}), "mode must be a quoted octal"),
    "bad owner": (one({**FILE, "owner": "a b"}), "owner must be a user or group name"),
    "surrogate": (one({**FILE, "content": "\udc00"}), "content must be text that UTF-8 can write"),
    "huge": (one({**FILE, "content": "x" * (8 * 2**20 + 1)}), "content is larger than 8 MiB"),
    "validate text": (one({**FILE, "validate": "haproxy -c"}), "validate must be a list of words"),
    "validate without file": (one({**FILE, "validate": ["haproxy", "-c"]}), 'must name the file to judge as "{}"'),
    "bad gate": (one({**FILE, "gated_by": "x"}), "gated_by must be a full unit name"),
    "template": (one({"kind": "unit", "name": "x@.service"}), "name must be a full unit name"),
    "option as unit": (one({"kind": "unit", "name": "--now.service"}), "name must be a full unit name"),
    "bad expression": (one({**FILE, "gated_by": "x.service", "hash_excludes": "("}), "is no regular expression"),
    "excludes without gate": (one({**FILE, "hash_excludes": "x"}), "hash_excludes means nothing without gated_by"),
    "gate and applied_by": (one({**FILE, "gated_by": "x.service", "applied_by": "y"}), "exclude each other"),
    "knob elsewhere": (
        one({"kind": "knob", "path": "/etc/x", "value": "1"}),
        "path of a knob must lie under /proc/sys/",
    ),
    "empty knob": (one({"kind": "knob", "path": "/sys/x", "value": " "}), "value must not be empty"),
    "enabled text": (one({"kind": "unit", "name": "x.service", "enabled": "yes"}), "enabled must be true or false"),
    "running_config": (one({**UNIT, "running_config": "env"}), "running_config must be environ or an absolute path"),
    "running without gate": (one(UNIT), "running_config needs files of this role with gated_by: x.service"),
    "bad package": (one({"kind": "package", "name": "HAProxy"}), "name must be a package name"),
    "bad uid": (one({"kind": "user", "name": "x", "uid": -1}), "uid must be a whole number"),
    "bad groups": (one({"kind": "user", "name": "x", "groups": "render"}), "groups must be a list"),
    "bad digest": (one({"kind": "key", "path": "/a", "sha256": "abc"}), "sha256 must be 64"),
    "same path": (two(FILE, FILE), "item two: /etc/a is also item one of role vllm; say it once"),
    "same path, roles": (
        two(FILE, {"kind": "absent", "path": "/etc/a"}, "vllm", "ray"),
        "item one of role vllm; say it",
    ),
    "roles disagree": (
        two({"kind": "directory", "path": "/a"}, {"kind": "directory", "path": "/a", "mode": "0700"}, "vllm", "ray"),
        "and the two differ",
    ),
    "under a file": (two(FILE, {"kind": "directory", "path": "/etc/a/b"}), "lies under /etc/a, which item one"),
    "under an absence": (
        two({"kind": "absent", "path": "/etc/d"}, {**FILE, "path": "/etc/d/x/y"}),
        "lies under /etc/d, which item one of role vllm wants as absent",
    ),
    "gate over roles": (
        two({**FILE, "gated_by": "x.service"}, {**FILE, "path": "/etc/b", "gated_by": "x.service"}, "vllm", "ray"),
        "keep all files gated by one unit in one role",
    ),
    "unknown secret": (one({**FILE, "content": "{secret:key}"}), "names secret key, which secrets does not hold"),
    "malformed secret": (one({**FILE, "content": "{secret:a b}"}), "malformed secret; write {secret:name}"),
    "digest without gate": (one({**FILE, "content": "{config_sha256}"}), "uses {config_sha256} without gated_by"),
}


@pytest.mark.parametrize("documents,message", BAD.values(), ids=BAD)
def test_bad_document_is_refused_before_anything_is_touched(root: Path, documents: Any, message: str) -> None:
    before = snapshot(root)
    with pytest.raises(DocumentError) as caught:
        go(root, documents)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert snapshot(root) == before


@pytest.mark.parametrize("secrets", [["a"], {"a": 1}, {"a": ""}, {"a": "\udc00"}])
def test_bad_secrets_are_refused_without_showing_one(root: Path, secrets: Any) -> None:
    with pytest.raises(DocumentError, match="secrets: "):
        go(root, [], secrets=secrets)


def test_applying_needs_secrets(root: Path) -> None:
    with pytest.raises(DocumentError, match="must be given to apply"):
        go(root, [], secrets=None)


def test_defaults_and_plain_forms() -> None:
    items = parse_documents(
        [
            {"role": "vllm", "overrides": [], "extras": [], "items": [{"id": "a", **FILE, "mode": "2750", "owner": 0}]},
            {"role": "ray", "items": [{"id": "k", "kind": "knob", "path": "/sys/k", "value": 4096}]},
        ]
    )
    assert items[0].spec["mode"] == 0o2750
    assert items[0].spec["owner"] == "0"
    assert items[0].spec["validate"] is None
    assert items[0].applied
    assert items[1].spec["value"] == "4096"


def test_roles_may_share_an_equal_directory_and_absences_may_nest() -> None:
    shared = {"kind": "directory", "path": "/etc/rackserve", "mode": "0755"}
    assert len(parse_documents(two(shared, shared, "vllm", "ray"))) == 2
    assert len(parse_documents(two({"kind": "absent", "path": "/a"}, {"kind": "absent", "path": "/a/b"}))) == 2
