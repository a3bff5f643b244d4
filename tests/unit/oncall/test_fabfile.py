"""The fabfile itself: what it reads of inventories, and that it talks only to hosts whose key is the noted one."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import paramiko
import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from invoke import Exit
from rackserve.oncall.hosts import Host
from rackserve.oncall.sweep import sweep

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def fab() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fabfile", REPO / "fabfile.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Server(paramiko.ServerInterface):
    """Lets in whoever has the key, and runs the command in a shell of this machine."""

    def __init__(self, channel_done: threading.Event) -> None:
        self.done = channel_done

    def check_channel_request(self, _kind: str, _chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def get_allowed_auths(self, _username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, _username: str, _key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        def run() -> None:
            # paramiko says yes to the request when this method has returned; a channel closed before that is an error.
            time.sleep(0.2)
            done = subprocess.run(command, shell=True, capture_output=True, check=False)  # noqa: S602 - a shell's job
            channel.sendall(done.stdout)
            channel.sendall_stderr(done.stderr)
            channel.send_exit_status(done.returncode)
            channel.close()

        threading.Thread(target=run, daemon=True).start()
        return True


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host on this machine that is reached by SSH; its key is noted."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    host_key = paramiko.RSAKey.generate(2048)
    paramiko.RSAKey.generate(2048).write_private_key_file(str(tmp_path / "id"))
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {host_key.get_name()} {host_key.get_base64()}\n")

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(host_key)
            try:
                transport.start_server(server=Server(threading.Event()))
            except (paramiko.SSHException, EOFError):
                transport.close()  # the client did not like the key

    threading.Thread(target=serve, daemon=True).start()
    key_file, known = str(tmp_path / "id"), str(tmp_path / "known")
    yield Host("node1", ("gpu",), "127.0.0.1", "root", port, key_file, known, "", True)
    listener.close()


def test_a_host_is_asked_over_ssh(fab: ModuleType, host: Host) -> None:
    found = sweep([host], fab.asker('echo "it\'s $((40 + 2))"; echo no >&2', 10), 20)["node1"]
    assert found.problem == ""
    assert found.text == "it's 42\n"


def test_a_command_without_output_that_fails_is_told(fab: ModuleType, host: Host) -> None:
    found = sweep([host], fab.asker("echo broken >&2; exit 3", 10), 20)["node1"]
    assert found.problem == "broken"


def test_a_host_with_another_key_is_not_talked_to(fab: ModuleType, host: Host, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for known in ("", f"[127.0.0.1]:{host.port} ssh-rsa {paramiko.RSAKey.generate(2048).get_base64()}\n"):
        Path(host.known_hosts).write_text(known)
        found = sweep([host], fab.asker(f"touch {marker}", 10), 20)["node1"]
        assert "host key" in found.problem.lower() or "not found in known_hosts" in found.problem
    assert not marker.exists()


def test_the_lab_is_read_as_ansible_reads_it(fab: ModuleType) -> None:
    source = fab.source_of(str(REPO / "inventories/lab"))
    hosts = {one.name: one for one in fab.read_inventory(source)}
    assert set(hosts) == {"gw", "node1", "node2", "node3", "node4"}
    node = hosts["node1"]
    assert (node.address, node.user, node.own_key_only) == ("10.77.0.11", "root", True)
    assert node.known_hosts == str(REPO / "inventories/lab/.state/known_hosts")
    assert node.key_file == str(REPO / "inventories/lab/.state/id_ed25519")
    assert "gpu" in node.groups and set(hosts["gw"].groups) >= {"gateway", "monitoring"}


def test_what_was_read_is_kept_until_the_inventory_changes(
    fab: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fab, "REPO", tmp_path)
    (tmp_path / "site/group_vars/all").mkdir(parents=True)
    source = tmp_path / "site/hosts.yml"
    source.write_text("x")
    read = [Host("n", ("gpu",), "a")]
    calls: list[Path] = []

    def reader(path: Path) -> list[Host]:
        calls.append(path)
        return read

    monkeypatch.setattr(fab, "read_inventory", reader)
    assert fab.inventory_hosts(str(source)) == fab.inventory_hosts(str(source)) == read
    assert len(calls) == 1
    (tmp_path / "site/group_vars/all/more.yml").write_text("y: 1")
    assert fab.inventory_hosts(str(source)) == read
    assert len(calls) == 2

    def broken(_: Path) -> list[Host]:
        raise ImportError("no ansible here")

    monkeypatch.setattr(fab, "read_inventory", broken)
    source.write_text("changed")
    assert fab.inventory_hosts(str(source)) == read
    assert "hosts are those of earlier" in capsys.readouterr().err
    (kept,) = (tmp_path / ".cache/oncall").iterdir()
    assert json.loads(kept.read_text())["hosts"] == [[*list(read[0])[:1], ["gpu"], *list(read[0])[2:]]]
    kept.unlink()
    with pytest.raises(Exit, match="no ansible here"):
        fab.inventory_hosts(str(source))


def test_an_encrypted_file_is_read_with_the_configured_password_or_left_out(
    fab: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    folder = tmp_path / "group_vars/all"
    folder.mkdir(parents=True)
    (tmp_path / "hosts.yml").write_text("all: {children: {gpu: {hosts: {n: {ansible_host: 10.0.0.1}}}}}\n")
    (folder / "way.yml").write_text("ansible_port: 2222\nansible_ssh_pass: '{{ vault_pass }}'\n")
    vault = VaultLib([("default", VaultSecret(b"secret"))])
    (folder / "secrets.yml").write_bytes(vault.encrypt("ansible_user: ada\nvault_pass: hidden\n"))

    def read() -> tuple[Host, str]:
        (host,) = fab.read_inventory(tmp_path / "hosts.yml")
        return host, capsys.readouterr().err

    host, said = read()
    assert (host.address, host.port, host.user) == ("10.0.0.1", 2222, "")
    assert len(said.splitlines()) == 1 and "secrets.yml: encrypted, and no vault password" in said

    before = fab.signature(tmp_path / "hosts.yml")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(password))
    assert fab.signature(tmp_path / "hosts.yml") != before
    monkeypatch.setattr("ansible.constants.DEFAULT_VAULT_PASSWORD_FILE", str(password))
    host, said = read()
    assert (host.user, said) == ("ada", "")

    monkeypatch.setattr("ansible.constants.DEFAULT_VAULT_PASSWORD_FILE", str(tmp_path / "none"))
    host, said = read()
    assert host.user == "" and "no vault password: " in said


def test_an_inventory_that_is_not_there(fab: ModuleType) -> None:
    with pytest.raises(Exit, match="no such inventory"):
        fab.source_of("inventories/none")
