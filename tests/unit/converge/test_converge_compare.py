"""Every kind: equal is silent, different says why, and comparing touches nothing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.rackserve.converge import compare as compare_module
from ansible.module_utils.rackserve.converge.errors import ConvergeError, ItemError
from converge_support import FakeSystemd, go, one, put, snapshot

DPKG = """Package: haproxy
Status: hold ok installed
Version: 2.9.1-1
Description: x
 Package: not a field

Package: chrony
Status: deinstall ok config-files
Version: 4.3

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36

Package: libc6
Status: deinstall ok not-installed
Architecture: i386
Version: 2.36
"""


def differs(root: Path, item: dict[str, Any], **options: Any) -> str:
    """The reason of a one-item document, empty where it is as wanted; comparing must leave the tree alone."""
    before = snapshot(root)
    result = go(root, one(item), check=True, **options)
    assert snapshot(root) == before
    role = result["roles"]["vllm"]
    assert role["dirty"] == bool(role["differs"]) == (result["dirty_roles"] == ["vllm"])
    return role["differs"][0]["why"] if role["differs"] else ""


def test_file(root: Path) -> None:
    item = {"kind": "file", "path": "/etc/a", "content": "x\n", "mode": "0640", "owner": "me", "group": "me"}
    assert differs(root, item) == "missing"
    target = put(root, "/etc/a", "y\n", 0o600)
    assert differs(root, item) == "content differs; mode 0600, wanted 0640"
    put(root, "/etc/a", "x\n", 0o640)
    assert differs(root, item) == ""
    assert f"owner {os.geteuid()}, wanted 64100" in differs(root, {**item, "owner": "vllm"})
    assert differs(root, {**item, "owner": "nobody", "group": "none"}) == "owner nobody and group none not on this host"
    target.unlink()
    assert differs(root, {**item, "owner": "nobody"}) == "missing; owner nobody not on this host"
    target.symlink_to("passwd")
    assert "/etc/a is a symbolic link, wanted a file" in differs(root, item)
    target.unlink()
    target.mkdir()
    assert "/etc/a is a directory, wanted a file" in differs(root, item)


def test_file_larger_than_converge_reads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "READ_LIMIT_BYTES", 3)
    put(root, "/etc/a", "xxxx")
    result = go(root, one({"kind": "file", "path": "/etc/a", "content": "x\n"}), check=True)
    assert result["diff"][0]["before"] == "more than 16 MiB\n"
    assert differs(root, {"kind": "key", "path": "/etc/a", "sha256": "0" * 64}) == "is no key file"


def test_directory(root: Path) -> None:
    item = {"kind": "directory", "path": "/etc/d", "mode": "0750"}
    assert differs(root, item) == "missing"
    (root / "etc/d").mkdir(mode=0o700)
    assert differs(root, item) == "mode 0700, wanted 0750"
    (root / "etc/d").chmod(0o750)
    assert differs(root, item) == ""
    put(root, "/etc/f", "")
    assert "is a file, wanted a directory" in differs(root, {**item, "path": "/etc/f"})
    assert differs(root, {**item, "path": "/etc/f/below"}) == "missing"


def test_link(root: Path) -> None:
    item = {"kind": "link", "path": "/etc/l", "target": "releases/2"}
    assert differs(root, item) == "missing"
    (root / "etc/l").symlink_to("releases/1")
    assert differs(root, item) == "points to releases/1, wanted releases/2"
    assert differs(root, {**item, "target": "releases/1"}) == ""
    put(root, "/etc/f", "")
    assert "is a file, wanted a link" in differs(root, {**item, "path": "/etc/f"})


def test_absent(root: Path) -> None:
    assert differs(root, {"kind": "absent", "path": "/etc/gone"}) == ""
    (root / "etc/l").symlink_to("nowhere")
    assert differs(root, {"kind": "absent", "path": "/etc/l"}) == "present (symbolic link)"
    os.mkfifo(root / "etc/fifo")
    assert differs(root, {"kind": "absent", "path": "/etc/fifo"}) == "present (special file)"


@pytest.mark.parametrize(
    "present,value,why",
    [
        ("4096\n", "4096", ""),
        ("128\n", 4096, "128, wanted 4096"),
        ("4096\t131072\t6291456\n", "4096 131072  6291456", ""),
        ("always madvise [never]\n", "never", ""),
        ("always [madvise] never\n", "never", "madvise, wanted never"),
    ],
)
def test_knob(root: Path, present: str, value: Any, why: str) -> None:
    put(root, "/sys/kernel/mm/knob", present)
    assert differs(root, {"kind": "knob", "path": "/sys/kernel/mm/knob", "value": value}) == why


def test_knob_missing_or_unreadable(root: Path) -> None:
    assert "this kernel has no /sys/k" in differs(root, {"kind": "knob", "path": "/sys/k", "value": "1"})
    (root / "sys/d").mkdir(parents=True)
    assert "/sys/d cannot be read" in differs(root, {"kind": "knob", "path": "/sys/d", "value": "1"})


@pytest.mark.parametrize(
    "item,why",
    [
        ({"kind": "package", "name": "haproxy"}, ""),
        ({"kind": "package", "name": "haproxy", "version": "2.9.1-1"}, ""),
        ({"kind": "package", "name": "haproxy", "version": "3.0"}, "version 2.9.1-1, wanted 3.0"),
        ({"kind": "package", "name": "chrony"}, "not installed"),
        ({"kind": "package", "name": "nginx"}, "not installed"),
        ({"kind": "package", "name": "libc6"}, ""),
        ({"kind": "hold", "name": "haproxy"}, ""),
        ({"kind": "hold", "name": "libc6"}, "not held"),
        ({"kind": "hold", "name": "nginx"}, "not held"),
        ({"kind": "user", "name": "vllm"}, ""),
        ({"kind": "user", "name": "vllm", "uid": 64100, "group": "vllm", "groups": ["render", "vllm"]}, ""),
        ({"kind": "user", "name": "ray"}, "no such user"),
        (
            {"kind": "user", "name": "vllm", "uid": 7, "group": "render", "groups": ["me", "none"], "shell": "/bin/sh"},
            "uid 64100, wanted 7; shell /bin/false, wanted /bin/sh; primary group is not render; "
            "not in group me; not in group none",
        ),
    ],
)
def test_packages_and_users(root: Path, item: dict[str, Any], why: str) -> None:
    put(root, "/var/lib/dpkg/status", DPKG)
    assert differs(root, item) == why


def test_repository_and_key_are_only_compared(root: Path) -> None:
    path = "/etc/apt/sources.list.d/x.sources"
    repository = {"kind": "repository", "path": path, "content": "Types: deb\n"}
    assert differs(root, repository) == "missing"
    put(root, path, "Types: deb-src\n")
    assert differs(root, repository) == "content differs"
    put(root, path, "Types: deb\n", 0o600)
    assert differs(root, repository) == ""
    assert differs(root, {**repository, "mode": "0644"}) == "mode 0600, wanted 0644"
    key = {"kind": "key", "path": path, "sha256": hashlib.sha256(b"Types: deb\n").hexdigest()}
    assert differs(root, key) == ""
    assert ", wanted 0000" in differs(root, {**key, "sha256": "0" * 64})
    assert differs(root, {**key, "path": "/etc/none"}) == "missing"
    (root / path[1:]).unlink()
    (root / path[1:]).symlink_to("y")
    assert differs(root, repository) == "is a symbolic link, wanted a file"
    assert differs(root, key) == "is no key file"
    before = snapshot(root)
    result = go(root, one(repository))
    assert (result["changed"], result["dirty_roles"], snapshot(root)) == (False, ["vllm"], before)


def test_item_of_another_task_is_only_compared(root: Path) -> None:
    item = {"kind": "file", "path": "/etc/READY", "content": "1", "applied_by": "model_store"}
    before = snapshot(root)
    result = go(root, one(item))
    assert (result["changed"], result["dirty_roles"]) == (False, ["vllm"])
    assert snapshot(root) == before


def test_units_are_asked_about_in_one_call(root: Path) -> None:
    systemd = FakeSystemd(
        a={"ActiveState": "active", "UnitFileState": "enabled"}, b={"ActiveState": "failed", "UnitFileState": "static"}
    )
    items = [
        {"id": name, "kind": "unit", "name": f"{name}.service", "enabled": True, "active": True}
        for name in ("a", "b", "c")
    ]
    items.append({"id": "off", "kind": "unit", "name": "d.timer", "enabled": False, "active": False})
    result = go(root, [{"role": "vllm", "items": items}], check=True, run=systemd)
    assert systemd.verbs() == ["show"]
    assert systemd.calls[0][-4:] == ["a.service", "b.service", "c.service", "d.timer"]
    assert {entry["id"]: entry["why"] for entry in result["roles"]["vllm"]["differs"]} == {
        "b": "static, wanted enabled; failed, wanted active",
        "c": "not installed, wanted enabled; inactive (not-found), wanted active",
    }
    assert [entry["unit"] for entry in result["inactive"]] == ["b.service", "c.service"]
    assert result["roles"]["vllm"]["changed"] == ["b", "c"]


def test_unit_that_runs_but_should_not(root: Path) -> None:
    systemd = FakeSystemd(a={"ActiveState": "active"})
    why = differs(root, {"kind": "unit", "name": "a.service", "active": False}, run=systemd)
    assert why == "active, wanted inactive"


def test_no_unit_no_systemctl(root: Path) -> None:
    systemd = FakeSystemd()
    assert differs(root, {"kind": "absent", "path": "/etc/gone"}, run=systemd) == ""
    assert systemd.calls == []


@pytest.mark.parametrize(
    "answer,message", [((1, "", "no bus\n"), r"failed \(1\): no bus"), ((0, "", ""), "0 of 1 units")]
)
def test_systemd_that_does_not_answer(root: Path, answer: tuple[int, str, str], message: str) -> None:
    systemd = FakeSystemd()
    systemd.failing["show"] = answer
    with pytest.raises(ConvergeError, match=message):
        go(root, one({"kind": "unit", "name": "a.service", "active": True}), run=systemd)


def test_a_copied_tree_has_no_units_to_judge(root: Path) -> None:
    result = go(root, one({"kind": "unit", "name": "a.service", "active": True}), run=None)
    assert result["not_judged"] == [{"role": "vllm", "id": "it", "why": "no systemd to ask under this root"}]
    assert (result["changed"], result["inactive"]) == (False, [])


def test_links_of_a_copied_tree_stay_inside_it(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "srv").mkdir()
    (root / "etc/link").symlink_to("/srv")
    (root / "etc/up").symlink_to("../../../.." + str(outside))
    go(
        root,
        [
            {
                "role": "vllm",
                "items": [
                    {"id": "a", "kind": "file", "path": "/etc/link/a", "content": "x"},
                ],
            }
        ],
    )
    assert (root / "srv/a").read_text() == "x"
    assert differs(root, {"kind": "directory", "path": "/etc/up/d"}) == "missing"
    with pytest.raises(ItemError, match="its directory is missing"):
        go(root, one({"kind": "file", "path": "/etc/up/a", "content": "x"}))
    assert list(outside.iterdir()) == []
    (root / "etc/loop").symlink_to("loop")
    with pytest.raises(ConvergeError, match="too many symbolic links"):
        go(root, one({"kind": "file", "path": "/etc/loop/a", "content": "x"}))


def test_unreadable_sources_are_named(root: Path) -> None:
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").mkdir()
    with pytest.raises(ConvergeError, match="/etc/passwd: cannot be read"):
        go(root, one({"kind": "user", "name": "vllm"}))
    (root / "etc/group").unlink()
    assert differs(root, {"kind": "file", "path": "/etc/x", "content": "", "group": "vllm"}) == (
        "missing; group vllm not on this host"
    )


def test_a_name_no_filesystem_holds_is_an_item_error(root: Path) -> None:
    with pytest.raises(ItemError, match="cannot be read"):
        go(root, one({"kind": "file", "path": "/etc/" + "x" * 300, "content": ""}), check=True)


@pytest.mark.parametrize(
    "content,present,why",
    [
        ("k={secret:a}\n", "k=anything\n", ""),
        ("k={secret:a}\n", "k=\n", "content differs"),
        ("k={secret:a}\n", "k=x", "content differs"),
        ("{secret:a}", "x", ""),
        ("{secret:a}", "", "content differs"),
        ("{secret:a}:{secret:b}\n", "user:word\n", ""),
        ("{secret:a}:{secret:b}\n", "user;word\n", "content differs"),
        ("{secret:a}:{secret:b}\n", ":word\n", "content differs"),
        ("{secret:a}{secret:b}", "xy", ""),
        ("{secret:a}{secret:b}", "x", "content differs"),
        ("a\n", "a\n", ""),
    ],
)
def test_without_secrets_a_file_is_compared_around_them(root: Path, content: str, present: str, why: str) -> None:
    put(root, "/etc/a", present)
    assert differs(root, {"kind": "file", "path": "/etc/a", "content": content}, secrets=None) == why


def test_without_secrets_a_digest_that_needs_them_is_unknown_too(root: Path) -> None:
    gated = {"kind": "file", "gated_by": "x.service"}
    items = [
        {"id": "unit", "path": "/etc/x", "content": "SHA={config_sha256}\nend\n", **gated},
        {"id": "env", "path": "/etc/y", "content": "K={secret:k}\n", **gated},
    ]
    documents = [{"role": "vllm", "items": items}]
    go(root, documents, secrets={"k": "one"})
    assert go(root, documents, check=True, secrets=None)["dirty_roles"] == []
    put(root, "/etc/x", "SHA=\nend\n")
    assert go(root, documents, check=True, secrets=None)["roles"]["vllm"]["differs"][0]["id"] == "unit"


def test_accounts_by_number(root: Path) -> None:
    item = {"kind": "file", "path": "/etc/a", "content": "", "owner": str(os.geteuid()), "group": os.getegid()}
    put(root, "/etc/a", "")
    assert differs(root, item) == ""


def test_a_tree_without_accounts_or_packages(root: Path) -> None:
    (root / "etc/passwd").unlink()
    (root / "etc/dots").symlink_to("./../etc/./")
    put(root, "/etc/a", "x")
    assert differs(root, {"kind": "user", "name": "vllm"}) == "no such user"
    assert differs(root, {"kind": "hold", "name": "haproxy"}) == "not held"
    assert differs(root, {"kind": "file", "path": "/etc/dots/a", "content": "x"}) == ""
