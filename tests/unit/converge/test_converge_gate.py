"""The gate: a running unit's files wait, and what runs is compared with what is wanted."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.rackserve.converge.contents import config_digest
from converge_support import FakeSystemd, go, put, snapshot

UNIT = "x.service"
UNIT_PATH = f"/etc/systemd/system/{UNIT}"


def documents(env: str = "A=1\n", excludes: str | None = None, running: Any = "environ", **unit: Any) -> Any:
    items: list[dict[str, Any]] = [
        {
            "id": "unit-x",
            "kind": "file",
            "path": UNIT_PATH,
            "gated_by": UNIT,
            "content": "[Service]\nEnvironment=RACKSERVE_CONFIG_SHA256={config_sha256}\n",
        },
        {"id": "env-x", "kind": "file", "path": "/etc/x.env", "content": env, "mode": "0640", "gated_by": UNIT},
        {"id": "run-x", "kind": "unit", "name": UNIT, "running_config": running, **unit},
    ]
    if excludes:
        items[1]["hash_excludes"] = excludes
    return [{"role": "vllm", "items": items}]


@pytest.fixture
def systemd(root: Path) -> FakeSystemd:
    (root / "etc/systemd/system").mkdir(parents=True)
    return FakeSystemd(x={"ActiveState": "inactive"})


def start(root: Path, systemd: FakeSystemd, state: str = "active") -> str:
    """Run the unit on the configuration that is on disk; its digest."""
    found = re.search(r"SHA256=(\w+)", (root / UNIT_PATH[1:]).read_text())
    assert found
    put(root, "/proc/77/environ", f"PATH=/bin\0RACKSERVE_CONFIG_SHA256={found.group(1)}\0")
    systemd.units[UNIT].update(ActiveState=state, MainPID="77")
    return found.group(1)


def test_an_inactive_unit_is_written_and_a_running_one_is_current(root: Path, systemd: FakeSystemd) -> None:
    assert go(root, documents(), run=systemd)["changed"]
    digest = start(root, systemd)
    wanted = [
        ("unit-x", b"[Service]\nEnvironment=RACKSERVE_CONFIG_SHA256={config_sha256}\n"),
        ("env-x", b"A=1\n"),
    ]
    joined = b"".join(f"{name}\0{len(data)}\0".encode() + data for name, data in wanted)
    assert digest == hashlib.sha256(joined).hexdigest()
    result = go(root, documents(), run=systemd)
    assert (result["changed"], result["stale"], result["not_judged"]) == (False, [], [])


@pytest.mark.parametrize("state", ["active", "activating", "deactivating", "reloading"])
def test_files_of_a_running_unit_wait(root: Path, systemd: FakeSystemd, state: str) -> None:
    go(root, documents(), run=systemd)
    running = start(root, systemd, state)
    before = snapshot(root)
    result = go(root, documents("A=2\n"), run=systemd)
    assert snapshot(root) == before
    assert (result["changed"], result["dirty_roles"], result["roles"]["vllm"]["differs"]) == (False, [], [])
    (stale,) = result["stale"]
    assert (stale["unit"], stale["role"]) == (UNIT, "vllm")
    assert stale["why"].startswith(
        f"waiting for the gate: {UNIT_PATH}, /etc/x.env; runs configuration {running[:12]}, "
    )


def test_the_gated_operation_writes_and_the_unit_stays_stale_until_restarted(root: Path, systemd: FakeSystemd) -> None:
    go(root, documents(), run=systemd)
    running = start(root, systemd)
    predicted = go(root, documents("A=2\n"), check=True, run=systemd, apply_gated=[UNIT])
    result = go(root, documents("A=2\n"), run=systemd, apply_gated=[UNIT])
    assert result == predicted
    assert result["roles"]["vllm"]["changed"] == ["unit-x", "env-x"]
    assert f"written, not yet restarted: {UNIT_PATH}, /etc/x.env" in result["stale"][0]["why"]
    again = go(root, documents("A=2\n"), run=systemd)
    assert again["changed"] is False
    assert again["stale"][0]["why"].startswith(f"runs configuration {running[:12]}, wanted ")
    assert start(root, systemd) != running
    assert go(root, documents("A=2\n"), run=systemd)["stale"] == []


def test_a_secret_changes_the_digest_and_never_shows(root: Path, systemd: FakeSystemd) -> None:
    wanted = documents("KEY={secret:key}\n")
    go(root, wanted, run=systemd, secrets={"key": "canary-one"})
    first = start(root, systemd)
    result = go(root, wanted, run=systemd, secrets={"key": "canary-two"}, apply_gated=[UNIT])
    assert "canary" not in repr(result)
    assert start(root, systemd) != first


def test_a_secret_that_looks_like_the_placeholder_stays_itself(root: Path, systemd: FakeSystemd) -> None:
    go(root, documents("KEY={secret:key}\n"), run=systemd, secrets={"key": "{config_sha256}{secret:key}"})
    assert (root / "etc/x.env").read_text() == "KEY={config_sha256}{secret:key}\n"


def test_excluded_lines_pass_the_gate_and_leave_the_digest(root: Path, systemd: FakeSystemd) -> None:
    go(root, documents("A=1\nserver a\n", "^server "), run=systemd)
    start(root, systemd)
    result = go(root, documents("A=1\nserver b\n", "^server "), run=systemd)
    assert (result["roles"]["vllm"]["changed"], result["stale"]) == (["env-x"], [])
    assert (root / "etc/x.env").read_text() == "A=1\nserver b\n"
    assert go(root, documents("A=2\nserver c\n", "^server "), run=systemd)["changed"] is False


def test_a_mode_alone_passes_the_gate(root: Path, systemd: FakeSystemd) -> None:
    go(root, documents(), run=systemd)
    start(root, systemd)
    (root / "etc/x.env").chmod(0o600)
    result = go(root, documents(), run=systemd)
    assert (result["roles"]["vllm"]["changed"], result["stale"]) == (["env-x"], [])


def test_links_and_absences_can_wait_too(root: Path, systemd: FakeSystemd) -> None:
    put(root, UNIT_PATH + ".d/old.conf", "")
    items = [
        {"id": "old", "kind": "absent", "path": UNIT_PATH + ".d/old.conf", "gated_by": UNIT},
        {"id": "link", "kind": "link", "path": "/etc/x", "target": "y", "gated_by": UNIT},
    ]
    systemd.units[UNIT]["ActiveState"] = "active"
    systemd.units[UNIT]["NeedDaemonReload"] = "yes"
    wanted = [{"role": "vllm", "items": items}]
    result = go(root, wanted, run=systemd)
    assert result["stale"][0]["why"] == f"waiting for the gate: {UNIT_PATH}.d/old.conf, /etc/x"
    assert (result["changed"], result["reload_needed"], systemd.verbs()) == (False, False, ["show"])
    systemd.units[UNIT]["ActiveState"] = "failed"
    result = go(root, wanted, run=systemd)
    assert (result["roles"]["vllm"]["changed"], result["reload_needed"]) == (["old", "link"], True)


def test_a_reload_waits_with_the_unit_it_would_change(root: Path, systemd: FakeSystemd) -> None:
    go(root, documents(), run=systemd)
    start(root, systemd)
    put(root, UNIT_PATH, "edited by hand\n")
    systemd.units[UNIT]["NeedDaemonReload"] = "yes"
    systemd.calls.clear()
    result = go(root, documents(), run=systemd)
    assert (result["changed"], systemd.verbs()) == (False, ["show"])
    assert result["stale"][0]["why"] == f"waiting for the gate: {UNIT_PATH}"


def test_a_refusal_is_reported_even_behind_the_gate(root: Path, systemd: FakeSystemd) -> None:
    systemd.units[UNIT]["ActiveState"] = "active"
    (root / "etc/x.env").symlink_to("passwd")
    result = go(root, documents(), check=True, run=systemd)
    assert [entry["id"] for entry in result["roles"]["vllm"]["differs"]] == ["env-x"]


@pytest.mark.parametrize(
    "environ,state,why",
    [
        ("PATH=/bin\0", "active", "runs no configuration recorded in RACKSERVE_CONFIG_SHA256, wanted "),
        ("RACKSERVE_CONFIG_SHA256=canary\0", "active", "runs no configuration recorded in RACKSERVE_CONFIG_SHA256, "),
        (None, "active", "has no main process to read RACKSERVE_CONFIG_SHA256 from"),
    ],
)
def test_a_unit_without_a_record_is_stale(
    root: Path, systemd: FakeSystemd, environ: str | None, state: str, why: str
) -> None:
    go(root, documents(), run=systemd)
    start(root, systemd, state)
    if environ is None:
        systemd.units[UNIT]["MainPID"] = "0"
    else:
        put(root, "/proc/77/environ", environ)
    (stale,) = go(root, documents(), run=systemd)["stale"]
    assert stale["why"].startswith(why)
    assert "canary" not in stale["why"]


def test_a_unit_on_its_way_up_is_not_judged_yet(root: Path, systemd: FakeSystemd) -> None:
    go(root, documents(), run=systemd)
    systemd.units[UNIT].update(ActiveState="activating", SubState="start-pre")
    result = go(root, documents(), run=systemd)
    assert result["stale"] == []
    assert result["not_judged"] == [
        {"role": "vllm", "id": "run-x", "why": "activating (start-pre) without a main process"}
    ]


def test_a_record_in_a_file(root: Path, systemd: FakeSystemd) -> None:
    wanted = documents(running="/run/x.sha256")
    go(root, wanted, run=systemd)
    digest = start(root, systemd)
    put(root, "/run/x.sha256", f"{digest}  since today\n")
    assert go(root, wanted, run=systemd)["stale"] == []
    put(root, "/run/x.sha256", "")
    (stale,) = go(root, wanted, run=systemd)["stale"]
    assert stale["why"].startswith("runs no configuration recorded in /run/x.sha256, wanted ")


def test_a_unit_that_should_run_and_does_not_is_inactive_not_stale(root: Path, systemd: FakeSystemd) -> None:
    result = go(root, documents(active=True), run=systemd)
    assert result["inactive"] == [{"unit": UNIT, "role": "vllm"}]
    assert (result["stale"], result["dirty_roles"]) == ([], ["vllm"])
    again = go(root, documents(active=True), run=systemd)
    assert (again["changed"], again["dirty_roles"]) == (False, ["vllm"])


def test_the_digest_sorts_by_path_and_separates_its_parts() -> None:
    files = [("/b", "b", b"2"), ("/a", "a", b"1")]
    assert config_digest(files) == config_digest(files[::-1])
    assert config_digest([("/a", "a", b"12"), ("/b", "b", b"")]) != config_digest(
        [("/a", "a", b"1"), ("/b", "b", b"2")]
    )
