"""What ssh, sudo and Ansible say, as they said it on a lab host, turned into one line."""

from __future__ import annotations

import pytest
from rackserve.preflight.reach import LeftOut, codes, explain, transport_text

HOST = {"ansible_host": "10.0.0.1", "ansible_user": "joe", "ansible_ssh_common_args": "-o UserKnownHostsFile=/kh -v"}
UNREACHED = {
    "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @ Host key verification failed.": "host-key-changed",
    "No ED25519 host key is known for 10.0.0.1\nHost key verification failed.": "host-key-unknown",
    "WARNING: UNPROTECTED PRIVATE KEY FILE! Permissions 0644 for '/k' are too open.": "key-file-open",
    "Warning: Identity file /k not accessible: No such file or directory.\njoe@h: Permission denied (publickey).": (
        "key-file-missing"
    ),
    "joe@10.0.0.1: Permission denied (publickey).": "login-refused",
    "Connection timed out during banner exchange": "ssh-silent",
    "Timeout, server 10.0.0.1 not responding.": "ssh-silent",
    "ssh: connect to host 10.0.0.1 port 22: Connection refused": "ssh-down",
    "ssh: connect to host 10.0.0.1 port 22: No route to host": "no-answer",
    "ssh: connect to host 10.0.0.1 port 22: Connection timed out": "no-answer",
    "ssh: Could not resolve hostname h: Name or service not known": "name-unknown",
    "kex_exchange_identification: Connection closed by remote host": "ssh-closed",
}
REACHED = {
    "Task failed: Missing sudo password": "no-sudo",
    "sudo: a password is required": "no-sudo",
    "role vllm, item x: /etc/x cannot be read (Permission denied); run as root": "not-root",
    "The module interpreter '/usr/bin/python3.7' was not found.": "python-missing",
    "ansible-core requires a minimum of Python version 3.8. Current version: 3.7.3 (default)": "python-too-old",
    "Task failed: Timed out after 6 second(s).": "host-slow",
    "The command action failed to execute in the expected time frame (6) and was terminated": "host-slow",
    "OSError: [Errno 28] No space left on device": "no-space",
    "OSError: [Errno 30] Read-only file system: '/var/x'": "read-only",
}


@pytest.mark.parametrize(("message", "code"), UNREACHED.items(), ids=UNREACHED.values())
def test_the_way_to_a_host(message: str, code: str) -> None:
    found = explain(message, "h", HOST, reached=False)
    assert found is not None
    assert (found["code"], found["where"]) == (code, "h (10.0.0.1 port 22)")
    assert "{" not in found["why"] + found["fix"]


@pytest.mark.parametrize(("message", "code"), REACHED.items(), ids=REACHED.values())
def test_on_a_host(message: str, code: str) -> None:
    found = explain(message, "h", HOST, reached=True)
    assert found is not None
    assert found["code"] == code
    assert "{" not in found["why"] + found["fix"]


def test_what_was_said_stands_in_the_line() -> None:
    def line(message: str, reached: bool, **more: object) -> str:
        found = explain(message, "h", {**HOST, **more}, reached)
        assert found is not None
        return f"{found['where']}: {found['why']}; {found['fix']}"

    assert "within 6 s" in line("Timed out after 6 second(s).", True)
    assert "its Python is 3.7.3" in line(
        "it requires a minimum of Python version 3.8. Current version: 3.7.3 (x)", True
    )
    assert "there is no /usr/bin/python9" in line("/bin/sh: 1: /usr/bin/python9: not found", True)
    assert "refuses user joe" in line("Permission denied (publickey)", False)
    assert "noted in /kh" in line("Host key verification failed.", False)
    assert line("REMOTE HOST IDENTIFICATION HAS CHANGED", False, ansible_port=2200).startswith(
        "h (10.0.0.1 port 2200): "
    )
    assert "-R [10.0.0.1]:2200" in line("REMOTE HOST IDENTIFICATION HAS CHANGED", False, ansible_port=2200)


def test_words_that_nobody_knows_are_left_alone() -> None:
    assert explain("something else", "h", {}, reached=False) is None
    # A module that speaks of a file system is not a host that cannot be worked on.
    assert explain("Connection refused", "h", {}, reached=True) is None


def test_only_what_came_before_the_module_is_searched() -> None:
    assert transport_text({"msg": "x: No space left on device"}, reached=True) == ""
    assert (
        transport_text({"msg": "x", "module_stderr": "No space left on device"}, True) == "x\nNo space left on device"
    )
    assert transport_text({"msg": "Missing sudo password"}, reached=True) == "Missing sudo password"
    assert transport_text({"msg": "anything"}, reached=False) == "anything"
    assert transport_text({}, reached=False) == ""


def test_who_was_left_out() -> None:
    left = LeftOut()
    assert left.line(3) == ""
    left.note("b", "no-answer")
    left.note("a", "disk-full")
    left.note("b", "later")
    assert left.line(0) == ""
    assert left.line(3) == (
        "LEFT AS IT WAS from there on: a (disk-full), b (no-answer). 3 other host(s) went on. Mend what stands above, "
        "then run the same again."
    )


def test_codes_of_a_message() -> None:
    text = "The description has errors:\nerror [unknown-key] cluster.x: y\ndisk-full: /opt: z; w\ndisk-full: /srv: z; w"
    assert codes(text) == codes(text.splitlines()) == "unknown-key, disk-full"
    assert codes("no code here") == ""
