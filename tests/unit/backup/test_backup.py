"""Backups: whole, provable, and without a secret."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path

import configuration_backup
import pytest
import rackserve_backup
from ansible.module_utils.testing import patch_module_args
from rackserve.backup import archive
from rackserve.backup.archive import BackupError, Folder, read_folders, refuse_secrets, verify, write

HEAD = {"cluster": "lab", "plan_hash": "abc", "by": "ada"}


def site(tmp_path: Path) -> Folder:
    folder = tmp_path / "site"
    for name, text in {
        "hosts.yml": "all: {}\n",
        "group_vars/all/cluster.yml": "cluster: {}\n",
        "group_vars/all/secrets.yml": "rackserve_secrets: {}\n",
        "group_vars/all/vault.yml": "$ANSIBLE_VAULT;1.1;AES256\n00\n",
        "group_vars/all/encrypted.yml": "$ANSIBLE_VAULT;1.1;AES256\n00\n",
        ".state/id_ed25519": "key",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "group_vars/all/link.yml").symlink_to("/etc/shadow")
    return Folder("site", folder, ["hosts.yml", "group_vars/**/*", ".state/*"])


def test_secret_files_are_left_out_and_named(tmp_path: Path) -> None:
    files, left = read_folders([site(tmp_path)])
    assert sorted(files) == ["site/group_vars/all/cluster.yml", "site/hosts.yml"]
    assert left == [
        "site/.state/id_ed25519",
        *(f"site/group_vars/all/{name}.yml" for name in ("encrypted", "secrets", "vault")),
    ]


def test_a_file_that_holds_a_secrets_value_stops_it() -> None:
    with pytest.raises(BackupError, match=r"stands in a\.yml, c\.yml: move it") as seen:
        refuse_secrets(
            {"a.yml": b"x the-secret-value", "b.yml": b"short", "c.yml": b"the-secret-value"},
            ["the-secret-value", "short"],
        )
    assert "the-secret-value" not in str(seen.value)


KEY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"
PEM = (
    f"-----BEGIN CERTIFICATE-----\nMIIDpublicpublicpublicpublic\n-----END CERTIFICATE-----\n"
    f"-----BEGIN PRIVATE KEY-----\n{KEY}\nshort=\n-----END PRIVATE KEY-----\n"
)


@pytest.mark.parametrize(
    "content",
    [
        f"tls_pem: |\n    {KEY}\n    short=\n",
        f'tls_pem: "x\\n{KEY}\\nshort="\n',
        "tls_key: |\n  -----BEGIN EC PRIVATE KEY-----\n  x\n",
        "word: 'it''s-a-secret'",
        'word: "a\\"quoted\\"one"',
        'word: "gr\\u00fcne-w\\u00f6rter"',
        "ansible_become_password: root\n",
        "n: {ansible_ssh_pass: 'x y'}\n",
        "[gpu]\nn ansible_password=abc\n",
        '{"ansible_become_pass": "abc"}',
    ],
)
def test_a_secret_is_found_as_files_write_it(content: str) -> None:
    with pytest.raises(BackupError, match=r"stands in a\.yml: move it"):
        refuse_secrets({"a.yml": content.encode()}, [PEM, "it's-a-secret", 'a"quoted"one', "grüne-wörter"])


@pytest.mark.parametrize(
    "content",
    [
        "-----BEGIN CERTIFICATE-----\nMIIDpublicpublicpublicpublic\n-----END CERTIFICATE-----\n",
        "ansible_become_password: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n",
        "ansible_become_password: '{{ vault_become }}'\nansible_ssh_pass:\nansible_password: \"\"\n",
        "# ansible_become_password: in the vault\nansible_ssh_password_mechanism: sshpass\n",
    ],
)
def test_what_is_no_secret_is_taken(content: str) -> None:
    refuse_secrets({"a.yml": content.encode()}, [PEM])


@pytest.mark.parametrize("name", ["hosts/n/../../x", "..", "/etc/passwd"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BackupError, match="would leave its folder"):
        write(tmp_path / "b.tar.gz", {name: b"x"}, HEAD, 5.0)
    assert list(tmp_path.iterdir()) == []
    index = write(tmp_path / "b.tar.gz", {"a..b": b"x"}, HEAD, 5.0)
    index["files"] = {name: index["files"]["a..b"]}
    with pytest.raises(BackupError, match="would leave its folder"):
        verify(changed(tmp_path / "made.tar.gz", {name: b"x"}, index))


def test_passwords_of_connections_are_looked_for() -> None:
    hostvars = {
        "n": {"ansible_become_password": "hunter2hunter2", "ansible_ssh_pass": "word", "ansible_user": "operator"}
    }
    assert rackserve_backup.backup_secrets(hostvars, {"key": "k"}) == ["hunter2hunter2", "k"]


def test_an_archive_is_proven(tmp_path: Path) -> None:
    target = tmp_path / "new/b.tar.gz"
    index = write(target, {"a/b.txt": b"x", "plan.json": b"{}"}, HEAD, 5.0)
    assert verify(target) == index
    assert (index["cluster"], sorted(index["files"]), index["made_at"]) == ("lab", ["a/b.txt", "plan.json"], 5)
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(BackupError, match="there already"):
        write(target, {}, HEAD, 5.0)


def changed(path: Path, files: dict[str, bytes], index: dict[str, object]) -> Path:
    with tarfile.open(path, "w:gz") as made:
        for name, content in {archive.INDEX: json.dumps(index).encode(), **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def test_one_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    index = write(tmp_path / "b.tar.gz", {"a": b"x", "b": b"y"}, HEAD, 5.0)
    for number, files in enumerate(({"a": b"x", "b": b"z"}, {"a": b"x"}, {"a": b"x", "b": b"y", "c": b"more"})):
        with pytest.raises(BackupError, match="is not whole"):
            verify(changed(tmp_path / f"{number}.tar.gz", files, index))
    with pytest.raises(BackupError, match="no backup of this version"):
        verify(changed(tmp_path / "other.tar.gz", {}, {"kind": "x"}))
    whole = (tmp_path / "b.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    for name in ("cut", "none"):
        with pytest.raises(BackupError, match="cannot be read"):
            verify(tmp_path / f"{name}.tar.gz")


def run(capsys: pytest.CaptureFixture[str], **options: object) -> dict[str, object]:
    with patch_module_args(options), pytest.raises(SystemExit):
        configuration_backup.main()
    result: dict[str, object] = json.loads(capsys.readouterr().out)
    return result


def test_the_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = site(tmp_path)
    asked = {"name": folder.name, "path": str(folder.path), "patterns": list(folder.patterns)}
    read = run(capsys, state="read", folders=[asked])
    files = read["files"]
    assert isinstance(files, dict) and base64.b64decode(files["site/hosts.yml"]) == b"all: {}\n"
    target = str(tmp_path / "b.tar.gz")
    options = {"state": "written", "path": target, "folders": [asked], "files": {"plan.json": "e30="}, "head": HEAD}
    assert run(capsys, **options, _ansible_check_mode=True)["changed"] is True
    assert not Path(target).exists()
    assert run(capsys, **options)["changed"] is True
    index = run(capsys, state="verified", path=target)["index"]
    assert isinstance(index, dict) and "plan.json" in index["files"]
    refused = run(
        capsys, **{**options, "path": target + "2", "files": {"x": "c2VjcmV0LXZhbHVl"}, "secrets": ["secret-value"]}
    )
    assert "stands in x" in str(refused["msg"])
    outside = run(capsys, **{**options, "path": target + "2", "files": {"../x": "e30="}}, _ansible_check_mode=True)
    assert "'../x' would leave its folder" in str(outside["msg"])
    assert "no base64" in str(run(capsys, **{**options, "path": target + "2", "files": {"x": "?"}})["msg"])


def test_what_hosts_sent_goes_below_their_names() -> None:
    hostvars = {"n": {"backup_configuration_host": {"files": {"var/a.json": "eA=="}}}, "m": {}}
    found = rackserve_backup.backup_files(hostvars, {"b": 1, "a": 2})
    assert found["hosts/n/var/a.json"] == "eA=="
    assert json.loads(base64.b64decode(found["plan.json"])) == {"a": 2, "b": 1}
