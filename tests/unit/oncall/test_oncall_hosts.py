"""How hosts are reached, from the words of an inventory; which ones a limit names."""

from __future__ import annotations

from typing import Any

import pytest
from rackserve.oncall.hosts import Host, HostError, choose, host_from, ssh_options

HOSTS = [
    Host("node1", ("gpu", "all"), "10.0.0.1"),
    Host("node2", ("gpu", "all"), "10.0.0.2"),
    Host("gw", ("gateway", "monitoring", "all"), "10.0.0.9"),
    Host("builder1", ("builder", "all"), "10.0.0.8"),
]


def test_a_host_is_reached_as_ansible_reaches_it() -> None:
    host = host_from(
        "node1",
        ["gpu"],
        {
            "ansible_host": "10.0.0.1",
            "ansible_user": "ops",
            "ansible_ssh_private_key_file": "/k/id",
            "ansible_ssh_common_args": "-o UserKnownHostsFile=/k/known -o IdentitiesOnly=yes -J jump@bastion",
            "ansible_become": True,
        },
    )
    wanted = Host(
        "node1", ("gpu",), "10.0.0.1", "ops", 22, "/k/id", "/k/known", "ssh -W %h:%p jump@bastion", True, True
    )
    assert host == wanted


def test_a_local_host_is_none_of_ours() -> None:
    assert host_from("builder1", ["builder"], {"ansible_connection": "local"}) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("-o 'ProxyCommand=nc %h %p' -oPort=2222", {"proxycommand": "nc %h %p", "port": "2222"}),
        ("-o ControlMaster=auto -o Port=1 -o Port=2", {"controlmaster": "auto", "port": "1"}),
        ("-o 'User ops' -q -i /k/id", {"user": "ops", "identityfile": "/k/id"}),
    ],
)
def test_options_of_ssh(text: str, found: dict[str, str]) -> None:
    assert ssh_options("h", text) == found


@pytest.mark.parametrize(("text", "words"), [("-o 'a", "close its quotes"), ("-F /x/config", "told to read /x/config")])
def test_what_cannot_be_followed_is_refused(text: str, words: str) -> None:
    with pytest.raises(HostError, match=words):
        ssh_options("h", text)


@pytest.mark.parametrize(
    ("limit", "names"),
    [
        ("", ["node1", "node2", "gw"]),
        ("node2", ["node2"]),
        ("gpu", ["node1", "node2"]),
        ("gpu:!node1", ["node2"]),
        ("!node1", ["node2", "gw"]),
        ("node*,gw", ["node1", "node2", "gw"]),
        ("builder", ["builder1"]),
    ],
)
def test_a_limit(limit: str, names: list[str]) -> None:
    assert [host.name for host in choose(HOSTS, limit)] == names


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("node9", "fits no host; there are node1"),
        ("gpu,!gpu", "leaves no host"),
        ("-x", "give names"),
        ("$(x)", "give"),
    ],
)
def test_a_limit_that_names_nobody(limit: str, words: str) -> None:
    with pytest.raises(HostError, match=words):
        choose(HOSTS, limit)


def test_an_inventory_without_members() -> None:
    given: list[Any] = [HOSTS[3]]
    with pytest.raises(HostError, match="no host in gpu"):
        choose(given)
