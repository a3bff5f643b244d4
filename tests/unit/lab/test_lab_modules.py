"""The modules lab_hosts and lab_image and the filter lab_host_list."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lab_hosts
import lab_image
import pytest
import rackserve_lab
from ansible.errors import AnsibleFilterError
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.lab import build
from ansible.module_utils.rackserve.lab.spec import Lab
from ansible.module_utils.testing import patch_module_args
from lab_support import Commands

Answer = tuple[int, dict[str, Any]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """call(main, arguments, **internal): (exit status, answer) of a module."""

    def run(main: Callable[[], None], arguments: dict[str, Any], **internal: Any) -> Answer:
        given = arguments | {f"_ansible_{name}": value for name, value in internal.items()}
        with patch_module_args(given), pytest.raises(SystemExit) as ended:
            main()
        return int(str(ended.value.code)), json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def lab_arguments(tmp_path: Path) -> dict[str, Any]:
    return {
        "prefix": "tlab",
        "hosts": [{"name": "gw", "address": "10.99.0.10"}],
        "subnet": "10.99.0.0/24",
        "uplink": "10.99.1.0/30",
        "state_dir": str(tmp_path / "state"),
        "image_dir": str(tmp_path / "image"),
        "control_dir": str(tmp_path / "cp"),
        "boot": str(tmp_path / "lab-boot"),
        "client_dir": str(tmp_path / "client"),
    }


@pytest.fixture
def image_arguments(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "files").mkdir()
    return {
        "images_dir": str(tmp_path / "images"),
        "suite": "bookworm",
        "installed": ["systemd"],
        "offered": ["haproxy"],
        "masked_units": ["a.timer"],
        "enabled_units": ["b.service"],
        "files": str(tmp_path / "files"),
    }


@pytest.mark.parametrize("done", [{}, {"gw": ["root", "booted"]}])
def test_lab_hosts_says_what_it_did(
    call: Callable[..., Answer], lab_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch, done: dict[str, Any]
) -> None:
    seen: list[tuple[Any, ...]] = []

    def up(lab: Lab, _run: object, boot: Path, *limits: int) -> dict[str, Any]:
        seen.append((lab.namespace(lab.hosts[0]), lab.state_dir, boot, limits))
        return done

    monkeypatch.setattr(build, "up", up)
    status, answer = call(lab_hosts.main, lab_arguments)
    assert (status, answer["changed"], answer["done"]) == (0, bool(done), done)
    state, boot = Path(lab_arguments["state_dir"]), Path(lab_arguments["boot"])
    assert seen == [("tlab-gw", state, boot, (16384, 7168))]


def test_lab_hosts_absent_removes(
    call: Callable[..., Answer], lab_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "down", lambda lab, _run: [f"namespace {lab.hub}"])
    status, answer = call(lab_hosts.main, lab_arguments | {"state": "absent"})
    assert (status, answer["changed"], answer["done"]) == (0, True, ["namespace tlab"])


def test_lab_hosts_fails_with_the_refusal(call: Callable[..., Answer], lab_arguments: dict[str, Any]) -> None:
    status, answer = call(lab_hosts.main, lab_arguments | {"uplink": "10.99.1.0/24"})
    assert (status, answer["failed"]) == (1, True)
    assert answer["msg"].startswith("lab_host_uplink 10.99.1.0/24 must be a /30")


def test_lab_hosts_does_nothing_in_check_mode(call: Callable[..., Answer], lab_arguments: dict[str, Any]) -> None:
    status, answer = call(lab_hosts.main, lab_arguments, check_mode=True)
    assert status == 0
    assert answer["skipped"] is True
    assert not Path(lab_arguments["state_dir"]).exists()


def test_lab_image_is_built_once_and_foretold_by_check_mode(
    call: Callable[..., Answer], image_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_command(_: AnsibleModule, command: list[str]) -> tuple[int, str, str]:
        if command[0] == "mmdebstrap":
            (Path(command[-1]) / "srv/packages").mkdir(parents=True)
        return Commands({"mmdebstrap": "", "env -C": "", "chroot": ""})(command)

    monkeypatch.setattr(AnsibleModule, "run_command", run_command)
    foretold = call(lab_image.main, image_arguments, check_mode=True)
    assert not Path(image_arguments["images_dir"]).exists()
    built = call(lab_image.main, image_arguments)
    assert (foretold[1]["changed"], foretold[1]["path"]) == (built[1]["changed"], built[1]["path"])
    assert built[1]["changed"] is True
    assert Path(built[1]["path"]).is_dir()
    assert call(lab_image.main, image_arguments)[1]["changed"] is False
    assert call(lab_image.main, image_arguments, check_mode=True)[1]["changed"] is False


def test_lab_image_fails_with_what_the_builder_said(
    call: Callable[..., Answer], image_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AnsibleModule, "run_command", lambda *_: (25, "", "no mirror"))
    status, answer = call(lab_image.main, image_arguments)
    assert status == 1
    assert answer["msg"].endswith("no mirror")


def test_the_filter_lists_named_and_light_hosts() -> None:
    listed = rackserve_lab.FilterModule().filters()["lab_host_list"]({"gw": "10.99.0.10"}, "1", "10.99.0.0/24")
    assert listed == [{"name": "gw", "address": "10.99.0.10"}, {"name": "light1", "address": "10.99.0.254"}]


def test_the_filter_gives_hosts_their_machines() -> None:
    machines = {"gw": "", "node1": "h20-8"}
    listed = rackserve_lab.lab_host_list(
        {"gw": "10.99.0.3", "node1": "10.99.0.2"}, 1, "10.99.0.0/29", machines, "h100-sxm-8"
    )
    assert [host.get("machine") for host in listed] == [None, "h20-8", "h100-sxm-8"]
    bound = rackserve_lab.lab_host_binds(listed, {"h20-8": "/a", "h100-sxm-8": "/b"}, "/mirror", "gw")
    assert [host["binds"][0].split(":")[0] for host in bound] == ["/mirror", "/a", "/b"]
    with pytest.raises(AnsibleFilterError, match="lab host light1: machine h100-sxm-8 was not built"):
        rackserve_lab.lab_host_binds(listed, {"h20-8": "/a"}, "", "gw")


def test_the_filter_finds_modules_of_the_controller() -> None:
    assert rackserve_lab.lab_host_python_file("json").endswith("/json/__init__.py")
    with pytest.raises(AnsibleFilterError, match="no_such_module is not in the controller's environment"):
        rackserve_lab.lab_host_python_file("no_such_module")


def test_lab_hosts_are_told_what_they_see(
    call: Callable[..., Answer], lab_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Lab] = []
    monkeypatch.setattr(build, "up", lambda lab, *_: seen.append(lab) or {})
    host = {**lab_arguments["hosts"][0], "machine": "h20-8", "binds": ["/m:/hardware"]}
    call(lab_hosts.main, lab_arguments | {"hosts": [host]})
    assert (seen[0].hosts[0].machine, seen[0].hosts[0].binds) == ("h20-8", ("/m:/hardware",))


def test_the_filter_says_when_there_is_no_room() -> None:
    with pytest.raises(AnsibleFilterError, match="lab_host_extra_nodes 9"):
        rackserve_lab.lab_host_list({}, 9, "10.99.0.0/29")
