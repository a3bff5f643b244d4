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
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
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
            asked = {"take_over": [], "prove": True, "upgrade": False, "units": [], "boot": False}
            self.params = {**asked, "root": str(root), **given}

        def get_bin_path(self, name: str) -> None:
            assert name in ("nvidia-smi", "nvidia-persistenced", "ldconfig")

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


def commands(name: str) -> list[str]:
    """The commands of a task file, words joined."""
    found = [task.get("ansible.builtin.command", {}).get("argv", []) for task in tasks(name)]
    return [argv if isinstance(argv, str) else " ".join(argv) for argv in found if argv]


def test_nothing_is_removed_or_moved_by_the_installation() -> None:
    install = next(task["ansible.builtin.apt"] for task in tasks("install") if "Install exactly" in task["name"])
    assert install["fail_on_autoremove"] is True
    assert install["state"] == "present"
    assert not {"allow_downgrade", "upgrade", "force"} & set(install)


def test_the_host_is_judged_before_anything_is_touched() -> None:
    assert tasks("main")[0]["ansible.builtin.import_tasks"] == "look.yml"
    assert list(tasks("look")[0]) == ["name", "driver_check", "register"]
    assert "ansible.builtin.assert" in tasks("look")[1]


def test_a_downgrade_is_allowed_in_one_place_and_to_the_release_s_versions() -> None:
    allowing = [path.name for path in sorted(ROLE.rglob("*.yml")) if "--allow-downgrades" in path.read_text("utf-8")]
    assert allowing == ["main.yml"]
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text("utf-8"))
    assert "--allow-downgrades" in variables["__nvidia_driver_apt"]
    assert "nvidia_driver_judged.install" in variables["__nvidia_driver_changes"]
    users = [path.stem for path in sorted(ROLE.glob("tasks/*.yml")) if "__nvidia_driver_apt" in path.read_text("utf-8")]
    assert users == ["apt", "fetch"]
    assert all("--simulate" in line or "--download-only" in line for line in commands("fetch"))


def test_a_driver_is_replaced_only_after_it_was_seen_that_nothing_uses_it() -> None:
    first, second = tasks("replace")[:2]
    assert first["driver_check"]["units"] == "{{ nvidia_driver_engine_units }}"
    assert second["ansible.builtin.assert"]["that"] == "__nvidia_driver_seen.findings | finding_errors | length == 0"
    assert tasks("replace")[-1]["ansible.builtin.import_tasks"] == "prove.yml"


def test_a_host_is_rebooted_only_with_leave_and_when_the_driver_will_be_there() -> None:
    kinds = [next(key for key in task if "." in key or key == "driver_check") for task in tasks("reboot")]
    assert kinds == [
        "ansible.builtin.fail",
        "driver_check",
        "ansible.builtin.assert",
        "ansible.builtin.command",
        "ansible.builtin.reboot",
    ]
    assert tasks("reboot")[0]["when"] == "not nvidia_driver_allow_reboot"
    assert tasks("reboot")[1]["driver_check"]["boot"] is True
    others = [path.stem for path in sorted(ROLE.glob("tasks/*.yml")) if "builtin.reboot:" in path.read_text("utf-8")]
    assert others == ["reboot"]


def test_what_apt_would_remove_beyond_what_is_given_up_is_found() -> None:
    """The expression of the role, on what apt-get --simulate prints."""
    refusal = next(task for task in tasks("fetch") if "Refuse" in task["name"])
    printed = ["Inst nvidia-open [1] (2 site [amd64])", "Remv libcuda1:amd64 [1]", "Remv old [1]", "Conf x (2)"]
    known = {"__nvidia_driver_simulated": {"stdout_lines": printed}, "__nvidia_driver_given_up": ["old"]}
    assert expression(refusal["vars"]["__nvidia_driver_lost"], known) == ["libcuda1"]


def test_apt_is_given_one_transaction() -> None:
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text("utf-8"))
    judged = {"install": ["a=2"], "remove": ["other"], "replaced": ["old"]}
    known: dict[str, Any] = {"nvidia_driver_judged": judged, "nvidia_driver_lock_timeout_s": 120}
    for name in ("__nvidia_driver_given_up", "__nvidia_driver_changes", "__nvidia_driver_apt"):
        known[name] = expression(variables[name], known)
    assert known["__nvidia_driver_apt"][-4:] == ["install", "a=2", "other-", "old-"]
    assert {"--yes", "--no-install-recommends"} < set(known["__nvidia_driver_apt"])
    kept = {"__nvidia_driver_unloaded": {"results": [{"rc": 0}, {"rc": 1, "item": "nvidia"}, {"skipped": True}]}}
    assert [item["item"] for item in expression(variables["__nvidia_driver_kept"], kept)] == ["nvidia"]


def expression(text: str, known: dict[str, Any]) -> Any:
    """What an expression of the role comes to."""
    return Templar(loader=DataLoader(), variables=known).template(trust_as_template(text))
