"""A network namespace with a second host before it, and a host whose systemd is played by the test."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import jinja2
import pytest

IP = shutil.which("ip") or "/usr/sbin/ip"
TEMPLATE = Path(__file__).resolve().parents[3] / "roles/firewall/templates/rackserve.nft.j2"


def render(built):
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - nft rules, no HTML
    return environment.from_string(TEMPLATE.read_text()).render(firewall_rules=built)


def call(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    return done.returncode, done.stdout, done.stderr


class Host:
    """A namespace; nft runs in it, systemd-run and systemctl are played: time passes when a test says so."""

    def __init__(self, name):
        self.name, self.peer = name, f"{name}p"
        self.restore, self.calls = None, []

    def nft(self, text):
        done = subprocess.run(
            [IP, "netns", "exec", self.name, "nft", "-f", "-"],
            input=text,
            text=True,
            capture_output=True,
            check=False,
            timeout=20,
        )
        assert done.returncode == 0, done.stderr

    def run(self, argv):
        self.calls.append(argv)
        if argv[0] == "nft":
            return call(IP, "netns", "exec", self.name, *argv)
        if argv[0] == "systemd-run":
            assert any(word.startswith("--on-active=") for word in argv), argv
            self.restore = argv[argv.index("nft") :]
            return 0, "", ""
        if argv[:2] == ["systemctl", "stop"]:
            if not self._waits():
                return 5, "", "Unit not loaded"
            self.restore = None
            return 0, "", ""
        assert argv[:2] == ["systemctl", "show"], argv
        return 0, "active\n" if self._waits() else "inactive\n", ""

    def let_the_time_pass(self):
        """Fire the timer."""
        call(IP, "netns", "exec", self.name, *self.restore)
        self.restore = None

    def _waits(self):
        return self.restore is not None

    def reaches(self, address, port, timeout_s=0.4):
        """Tell whether a connection from the other host to a listener here is answered."""
        code = (
            "import socket,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])),float(sys.argv[3]))\n"
            "sys.exit(0 if s.recv(2)==b'ok' else 3)"
        )
        return (
            call(IP, "netns", "exec", self.peer, "python3", "-S", "-c", code, address, str(port), str(timeout_s))[0]
            == 0
        )


LISTEN = """
import socket, sys, select
socks = [socket.create_server(("::", int(p)), family=socket.AF_INET6, dualstack_ipv6=True) for p in sys.argv[1:]]
print("up", flush=True)
while True:
    for s in select.select(socks, [], [])[0]:
        c, _ = s.accept(); c.sendall(b"ok"); c.close()
"""


@pytest.fixture
def host():
    name = f"rsfw{os.getpid() % 10000}"
    one = Host(name)
    setup = [
        f"{IP} netns add {name}",
        f"{IP} netns add {one.peer}",
        f"{IP} link add {name}v netns {name} type veth peer name {name}w netns {one.peer}",
        f"{IP} -n {name} link set lo up",
        f"{IP} -n {name} addr add 10.99.0.1/24 dev {name}v",
        f"{IP} -n {name} link set {name}v up",
        f"{IP} -n {name} addr add fd99::1/64 dev {name}v nodad",
        f"{IP} -n {one.peer} addr add 10.99.0.2/24 dev {name}w",
        f"{IP} -n {one.peer} addr add fd99::2/64 dev {name}w nodad",
        f"{IP} -n {one.peer} link set {name}w up",
    ]
    listener = None
    try:
        for line in setup:
            code, _, err = call(*line.split())
            assert code == 0, f"{line}: {err}"
        listener = subprocess.Popen(
            [IP, "netns", "exec", name, "python3", "-S", "-c", LISTEN, "22", "8000", "8001"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert listener.stdout.readline() == "up\n"
        yield one
    finally:
        if listener is not None:
            listener.kill()
            listener.wait(5)
            listener.stdout.close()
        for space in (name, one.peer):
            call(IP, "netns", "del", space)
