"""The repository's key, the filter over it, the module, and what the role's tasks promise."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import driver_check
import pytest
import rackserve_driver as filters
import yaml
from ansible.errors import AnsibleFilterError
from rackserve.driver.key import key_digest

ROLE = Path(__file__).resolve().parents[3] / "roles/nvidia_driver"
ASCII = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ\n-----END PGP PUBLIC KEY BLOCK-----\n"
BINARY = b"\x99\x01\x0d\x04key"


@pytest.mark.parametrize(("name", "data"), [("a.asc", ASCII), ("a.gpg", BINARY)])
def test_a_key_s_digest_is_that_of_its_bytes(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert key_digest(tmp_path / name) == hashlib.sha256(data).hexdigest()
    assert filters.FilterModule().filters()["repository_key_digest"](str(tmp_path / name)) == key_digest(
        tmp_path / name
    )


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.asc", BINARY, "no ASCII key"),
        ("a.asc", b"<html>404</html>", "no ASCII key"),
        ("a.gpg", ASCII, "no binary key"),
        ("a.gpg", b"", "no binary key"),
        ("a.gpg", b"text", "no binary key"),
        ("a.asc", ASCII.replace(b"PUBLIC", b"PRIVATE"), "private key"),
        ("a.asc", None, "No such file or directory; put the repository's public key there"),
    ],
)
def test_what_is_no_public_key_is_refused(name: str, data: bytes | None, words: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(AnsibleFilterError, match=f"nvidia_driver: .*{words}"):
        filters.repository_key_digest(tmp_path / name)


class Exit(Exception):
    """Carries what a module answers."""


def answer(monkeypatch: pytest.MonkeyPatch, root: Path, **given: Any) -> dict[str, Any]:
    class Module:
        def __init__(self, **_spec: Any) -> None:
            self.params = {"take_over": [], "prove": True, "root": str(root), **given}

        def get_bin_path(self, name: str) -> None:
            assert name == "nvidia-smi"

        def exit_json(self, **result: Any) -> None:
            raise Exit(result)

        def fail_json(self, **result: Any) -> None:
            raise Exit({"failed": True, **result})

    monkeypatch.setattr(driver_check, "AnsibleModule", Module)
    with pytest.raises(Exit) as said:
        driver_check.main()
    result: dict[str, Any] = said.value.args[0]
    json.dumps(result)
    return result


DRIVER = {"version": "580.65.06", "packages": {"nvidia-open": "580.65.06-1"}, "gpus": 1}


def test_the_module_answers_and_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = answer(monkeypatch, tmp_path, driver=DRIVER)
    assert said["changed"] is False
    assert said["install"] == ["nvidia-open=580.65.06-1"]
    assert [item["code"] for item in said["findings"]] == ["driver-not-loaded"]
    documented = set(yaml.safe_load(driver_check.RETURN))
    assert set(said) - {"changed"} == documented


def test_the_module_fails_where_it_cannot_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg/status").mkdir(parents=True)
    assert "cannot be read" in answer(monkeypatch, tmp_path, driver=DRIVER)["msg"]


def tasks(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml.safe_load((ROLE / f"tasks/{name}.yml").read_text())
    return loaded


def test_nothing_is_removed_or_moved_by_the_installation() -> None:
    install = next(task["ansible.builtin.apt"] for task in tasks("install") if "Install exactly" in task["name"])
    assert install["fail_on_autoremove"] is True
    assert install["state"] == "present"
    assert not {"allow_downgrade", "upgrade", "force"} & set(install)


def test_the_host_is_judged_before_anything_is_touched() -> None:
    assert tasks("main")[0]["ansible.builtin.import_tasks"] == "look.yml"
    assert list(tasks("look")[0]) == ["name", "driver_check", "register"]
    assert "ansible.builtin.assert" in tasks("look")[-1]
