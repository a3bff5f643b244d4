"""Applying: what lands, in which order, and what is left when something fails in the middle."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.rackserve.converge import kernel as kernel_module
from ansible.module_utils.rackserve.converge import write as write_module
from ansible.module_utils.rackserve.converge.errors import ConvergeError, ItemError
from converge_support import RELOAD, FakeSystemd, go, one, put, snapshot

UNIT_PATH = "/etc/systemd/system/x.service"
SECRET = "canary-8f1e"


def test_everything_lands_in_a_safe_order_and_a_second_run_changes_nothing(root: Path) -> None:
    put(root, "/proc/sys/net/core/somaxconn", "128\n")
    put(root, "/etc/old/sub/note", "x")
    systemd = FakeSystemd()
    (root / "etc/systemd/system").mkdir(parents=True)
    items: list[dict[str, Any]] = [
        {"id": "run", "kind": "unit", "name": "x.service", "enabled": True},
        {"id": "off", "kind": "unit", "name": "y.service", "enabled": False},
        {"id": "old", "kind": "absent", "path": "/etc/old"},
        {"id": "old-sub", "kind": "absent", "path": "/etc/old/sub"},
        {"id": "old-note", "kind": "absent", "path": "/etc/old/sub/note"},
        {"id": "knob", "kind": "knob", "path": "/proc/sys/net/core/somaxconn", "value": "4096"},
        {
            "id": "env",
            "kind": "file",
            "path": "/etc/r/x/env",
            "content": "K={secret:k}\n",
            "mode": "0640",
            "owner": "me",
        },
        {"id": "unit", "kind": "file", "path": UNIT_PATH, "content": "[Service]\n"},
        {"id": "link", "kind": "link", "path": "/etc/r/current", "target": "x"},
        {"id": "deep", "kind": "directory", "path": "/etc/r/x", "mode": "0750"},
        {"id": "dir", "kind": "directory", "path": "/etc/r", "mode": "2755"},
    ]
    systemd.units["y.service"] = {"UnitFileState": "enabled"}
    documents = [{"role": "vllm", "items": items}]
    predicted = go(root, documents, check=True, run=systemd, secrets={"k": SECRET})
    result = go(root, documents, run=systemd, secrets={"k": SECRET})
    assert result["roles"]["vllm"]["changed"] == [item["id"] for item in items]
    assert result == predicted
    assert result["reload_needed"] is True
    assert systemd.calls[2:] == [
        RELOAD,
        ["systemctl", "enable", "x.service"],
        ["systemctl", "disable", "y.service"],
        systemd.calls[-1],
    ]
    assert (root / "etc/r/x/env").read_text() == f"K={SECRET}\n"
    assert stat.S_IMODE((root / "etc/r/x/env").stat().st_mode) == 0o640
    assert stat.S_IMODE((root / "etc/r").stat().st_mode) == 0o2755
    assert (root / "etc/r/current").readlink() == Path("x")
    assert (root / "proc/sys/net/core/somaxconn").read_text() == "4096\n"
    assert not (root / "etc/old").exists()
    assert SECRET not in repr(result)
    before = snapshot(root)
    again = go(root, documents, run=systemd, secrets={"k": SECRET})
    assert (again["changed"], again["diff"], again["dirty_roles"], again["reload_needed"]) == (False, [], [], False)
    assert snapshot(root) == before


def test_a_changed_secret_is_a_change(root: Path) -> None:
    item = {"kind": "file", "path": "/etc/a", "content": "k={secret:k}\n"}
    for value in (SECRET, f"{SECRET}-longer", "short"):
        assert go(root, one(item), secrets={"k": value})["changed"]
        assert (root / "etc/a").read_text() == f"k={value}\n"
        assert not go(root, one(item), secrets={"k": value})["changed"]


def test_metadata_alone_leaves_the_bytes_and_the_inode(root: Path) -> None:
    target = put(root, "/etc/a", "x\n", 0o666)
    inode = target.stat().st_ino
    result = go(root, one({"kind": "file", "path": "/etc/a", "content": "x\n"}))
    assert (target.stat().st_ino, stat.S_IMODE(target.stat().st_mode)) == (inode, 0o644)
    assert result["diff"][0]["before"] == "mode: 0666\n"
    (root / "etc/d").mkdir(mode=0o700)
    go(root, one({"kind": "directory", "path": "/etc/d"}))
    assert stat.S_IMODE((root / "etc/d").stat().st_mode) == 0o755


def test_a_link_is_swapped(root: Path) -> None:
    (root / "etc/l").symlink_to("one")
    go(root, one({"kind": "link", "path": "/etc/l", "target": "two"}))
    assert (root / "etc/l").readlink() == Path("two")


@pytest.mark.parametrize(
    "item,message",
    [
        (
            {"kind": "file", "path": "/etc/l", "content": "x"},
            "/etc/l is a symbolic link, wanted a file; move it away by hand",
        ),
        ({"kind": "directory", "path": "/etc/l"}, "/etc/l is a symbolic link, wanted a directory"),
        (
            {"kind": "file", "path": "/etc/a", "content": "x", "owner": "ray"},
            "owner ray not on this host; create the account",
        ),
        ({"kind": "knob", "path": "/sys/none", "value": "1"}, "this kernel has no /sys/none"),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_touched(root: Path, item: dict[str, Any], message: str) -> None:
    (root / "etc/l").symlink_to("passwd")
    documents = one(item)
    documents[0]["items"].insert(0, {"id": "first", "kind": "file", "path": "/etc/first", "content": ""})
    before = snapshot(root)
    with pytest.raises(ItemError, match="role vllm, item it: ") as caught:
        go(root, documents)
    assert message in str(caught.value)
    assert caught.value.partial["changed"] is False
    assert snapshot(root) == before


def test_a_failure_in_the_middle_keeps_what_was_done_and_says_so(root: Path) -> None:
    put(root, "/etc/full/x", "")
    documents = one({"kind": "absent", "path": "/etc/full"})
    documents[0]["items"].insert(0, {"id": "first", "kind": "file", "path": "/etc/first", "content": "x"})
    with pytest.raises(ItemError, match=r"item it: /etc/full: .*empty directories only") as caught:
        go(root, documents)
    assert caught.value.partial["changed"] is True
    assert caught.value.partial["roles"]["vllm"]["changed"] == ["first"]
    assert (root / "etc/first").read_text() == "x"


def test_a_missing_parent_is_named(root: Path) -> None:
    with pytest.raises(ItemError, match="its directory is missing, add a directory item"):
        go(root, one({"kind": "file", "path": "/etc/no/a", "content": ""}))


def test_a_knob_the_kernel_does_not_take(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "/sys/k", "1\n")
    monkeypatch.setattr(kernel_module, "write_knob", lambda _path, _value: None)
    with pytest.raises(ItemError, match="the kernel keeps /sys/k at 1, wanted 2"):
        go(root, one({"kind": "knob", "path": "/sys/k", "value": "2"}))


def test_a_knob_is_never_created(root: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_module.write_knob(root / "etc/none", "1")
    assert not (root / "etc/none").exists()


def validated(root: Path, systemd: FakeSystemd, program: Any, **item: Any) -> dict[str, Any]:
    systemd.programs["judge"] = program
    return go(
        root,
        one(
            {
                "kind": "file",
                "path": "/etc/a.cfg",
                "content": "k={secret:k}\n",
                "validate": ["judge", "-f", "{}"],
                **item,
            }
        ),
        run=systemd,
        secrets={"k": SECRET, "pem": f"-----BEGIN\n{SECRET}-line\n-----END"},
    )


def test_validate_judges_the_real_bytes_under_the_real_name(root: Path) -> None:
    seen: list[tuple[str, str, int]] = []

    def judge(words: list[str]) -> tuple[int, str, str]:
        path = Path(words[2])
        seen.append((path.name, path.read_text(), stat.S_IMODE(path.stat().st_mode)))
        return 0, "", ""

    (root / "run").mkdir()
    validated(root, FakeSystemd(), judge)
    assert seen == [("a.cfg", f"k={SECRET}\n", 0o600)]
    assert list((root / "run").iterdir()) == []
    assert (root / "etc/a.cfg").read_text() == f"k={SECRET}\n"


def test_validate_that_refuses_lets_nothing_land_and_shows_no_secret(root: Path) -> None:
    put(root, "/etc/a.cfg", "old\n")
    answer = f"{SECRET}-line is wrong\nat k={SECRET}"
    with pytest.raises(ItemError) as caught:
        validated(root, FakeSystemd(), lambda words: (3, answer, f"in {words[2]}"))
    assert "judge refuses /etc/a.cfg (3), nothing written: " in str(caught.value)
    assert "[secret] is wrong | at k=[secret] | in /etc/a.cfg" in str(caught.value)
    assert SECRET not in str(caught.value) + repr(caught.value.partial)
    assert (root / "etc/a.cfg").read_text() == "old\n"


def test_long_output_keeps_its_end(root: Path) -> None:
    with pytest.raises(ItemError) as caught:
        validated(root, FakeSystemd(), lambda _words: (1, "x" * 2000 + "the end", ""))
    assert str(caught.value).endswith("the end")
    assert len(str(caught.value)) < 800


def test_validate_needs_a_host(root: Path) -> None:
    with pytest.raises(ItemError, match="validate needs the running host"):
        go(root, one({"kind": "file", "path": "/etc/a", "content": "", "validate": ["x", "{}"]}), run=None)
    go(root, one({"kind": "file", "path": UNIT_PATH.replace("system/", ""), "content": ""}), check=True, run=None)


def test_a_write_cut_short_leaves_the_old_file_and_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = put(root, "/etc/a", "old\n")
    put(root, "/etc/.a.rackserve-new", "left by a killed run")

    def no_space(_handle: int, _data: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", no_space)
        with pytest.raises(ItemError, match="/etc/a: No space left on device"):
            go(root, one({"kind": "file", "path": "/etc/a", "content": "new\n"}))
    assert target.read_text() == "old\n"
    assert sorted(path.name for path in (root / "etc").iterdir()) == ["a", "group", "passwd"]


def test_the_owner_is_set_before_the_file_is_visible(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chowned: list[tuple[int, int, bool]] = []
    monkeypatch.setattr(os, "fchown", lambda _handle, uid, gid: chowned.append((uid, gid, (root / "etc/a").exists())))
    go(root, one({"kind": "file", "path": "/etc/a", "content": "x", "owner": "vllm", "group": "vllm"}))
    assert chowned == [(64100, 64100, False)]


@pytest.mark.parametrize(
    "before,mode,hidden", [("public\n", "0644", False), ("public\n", "0640", True), (SECRET, "0644", True)]
)
def test_a_diff_shows_text_only_of_public_files(root: Path, before: str, mode: str, hidden: bool) -> None:
    put(root, "/etc/a", before)
    item = {"kind": "file", "path": "/etc/a", "content": "new\n", "mode": mode}
    diff = go(root, one(item), check=True, secrets={"k": SECRET})["diff"][0]
    assert diff["after"].startswith("sha256 ") == hidden == diff["before"].startswith("sha256 ")
    assert diff["before_header"] == diff["after_header"] == "/etc/a (vllm: it)"
    assert SECRET not in repr(diff)


def test_a_large_diff_shows_digests(root: Path) -> None:
    item = {"kind": "file", "path": "/etc/a", "content": "x" * 300_000}
    assert go(root, one(item), check=True)["diff"][0]["after"].startswith("sha256 ")


def test_systemctl_that_fails(root: Path) -> None:
    systemd = FakeSystemd(x={"UnitFileState": "disabled"})
    systemd.failing["enable"] = (1, "", "Unit x.service is masked.\n")
    with pytest.raises(ConvergeError, match=r"systemctl enable x.service failed \(1\): Unit x.service is masked"):
        go(root, one({"kind": "unit", "name": "x.service", "enabled": True}), run=systemd)


def test_a_unit_that_cannot_be_enabled(root: Path) -> None:
    systemd = FakeSystemd(x={"UnitFileState": "static"})
    with pytest.raises(ItemError, match=r"x.service stays static, wanted enabled; give it an \[Install\] section"):
        go(root, one({"kind": "unit", "name": "x.service", "enabled": True}), run=systemd)


def test_enabled_until_the_next_boot_is_not_enabled(root: Path) -> None:
    systemd = FakeSystemd(x={"UnitFileState": "enabled-runtime"})
    assert go(root, one({"kind": "unit", "name": "x.service", "enabled": True}), check=True, run=systemd)["changed"]
    assert go(root, one({"kind": "unit", "name": "x.service", "enabled": False}), check=True, run=systemd)["changed"]


@pytest.mark.parametrize(
    "item",
    [
        {"kind": "unit", "name": "x.service", "enabled": False},
        {"kind": "file", "path": UNIT_PATH, "content": "[Service]\n"},
        {"kind": "file", "path": UNIT_PATH + ".d/10-limits.conf", "content": "[Service]\n"},
    ],
)
def test_a_run_killed_before_its_reload_is_finished_by_the_next(root: Path, item: dict[str, Any]) -> None:
    if item["kind"] == "file":
        put(root, item["path"], item["content"])
    systemd = FakeSystemd(x={"NeedDaemonReload": "yes"})
    predicted = go(root, one(item), check=True, run=systemd)
    result = go(root, one(item), run=systemd)
    assert result == predicted
    assert (result["changed"], result["reload_needed"], result["roles"]["vllm"]["changed"]) == (True, True, ["it"])
    assert "systemd has not read" in result["roles"]["vllm"]["differs"][0]["why"]
    assert systemd.verbs().count("daemon-reload") == 1
    assert not go(root, one(item), run=systemd)["changed"]


def test_a_template_unit_file_reloads_without_being_asked_about(root: Path) -> None:
    (root / "etc/systemd/system").mkdir(parents=True)
    systemd = FakeSystemd()
    result = go(root, one({"kind": "file", "path": "/etc/systemd/system/x@.service", "content": ""}), run=systemd)
    assert (result["reload_needed"], systemd.calls) == (True, [RELOAD])
