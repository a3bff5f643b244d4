"""The rules: what they say, whom they admit, what they refuse to mean."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rackserve.firewall import FirewallError, admits, build_rules

ENGINE = {"name": "engine-0", "port": 8000, "proto": "tcp", "sources": ["10.0.0.10", "gw2"]}
SSH = {"name": "ssh", "port": 22, "proto": "tcp", "sources": ["10.9.0.0/24"]}
PEERS = [{"name": "gw2", "address": "fd00::2"}, {"name": "node1", "address": "10.0.0.11"}]


def build(inbound, mode="owned_ports", management=("10.9.0.0/24",), **options):
    return build_rules(inbound, mode, list(management), **options)


def test_owned_ports_accepts_the_listed_and_drops_the_rest_of_these_ports_only():
    built = build([ENGINE], peers=PEERS)
    assert built["policy"] == "accept"
    assert built["rules"] == [
        'iifname "lo" accept',
        "ct state established,related accept",
        'tcp dport 8000 ip saddr 10.0.0.10/32 accept comment "engine-0"',
        'tcp dport 8000 ip6 saddr fd00::2/128 accept comment "engine-0"',
        "tcp dport 8000 counter drop",
    ]


def test_management_is_always_part_of_a_filtered_ssh_port():
    built = build([SSH], management=["10.8.0.0/24", "fd01::/64"])
    for address in ("10.9.0.7", "10.8.0.7", "fd01::9", "::ffff:10.8.0.7"):
        assert admits(built["flows"], built["mode"], address, 22)
    assert not admits(built["flows"], built["mode"], "10.7.0.7", 22)
    assert admits(built["flows"], built["mode"], "10.7.0.7", 2222)


def test_filtering_ssh_without_any_management_network_is_refused():
    with pytest.raises(FirewallError, match="management_cidrs is empty"):
        build([SSH], management=[])
    with pytest.raises(FirewallError, match="management_cidrs is empty"):
        build([], mode="strict", management=[])
    assert build([ENGINE], management=[], peers=PEERS)["flows"]


def test_strict_lets_the_network_itself_work_and_admits_storage():
    built = build([], mode="strict", exempt=[{"name": "lustre", "port": 988, "proto": "tcp"}])
    text = "\n".join(built["rules"])
    for needed in (
        "icmp, ipv6-icmp",
        "udp sport 67",
        "udp sport 547",
        "tcp dport 988 meta nfproto ipv6 accept",
        "tcp dport 22 ip saddr 10.9.0.0/24 accept",
    ):
        assert needed in text
    assert built["policy"] == "drop"
    assert not admits(built["flows"], "strict", "10.0.0.1", 8000)


def test_the_same_port_of_two_flows_is_one_rule_with_collapsed_sources():
    built = build(
        [
            {"name": "a", "port": 9000, "sources": ["10.0.0.0/25"]},
            {"name": "b", "port": 9000, "sources": ["10.0.0.128/25", "10.0.0.5"]},
            {"name": "a", "port": 9000, "sources": []},
        ]
    )
    assert [(f["name"], f["sources"]) for f in built["flows"]] == [("a+b", ["10.0.0.0/24"])]


def test_ranges_and_pinned_peers():
    built = build(
        [{"name": "ray", "port": "20000-20199", "sources": ["10.0.0.0/24"]}], peers=PEERS, pin_interface="bond0"
    )
    assert 'iifname != "bond0" ip saddr 10.0.0.11/32 counter drop comment "peer, wrong interface"' in built["rules"]
    assert "tcp dport 20000-20199 counter drop" in built["rules"]


@pytest.mark.parametrize(
    ("flow", "told"),
    [
        ({"name": 'x" drop', "port": 1}, "characters"),
        ({"name": "x", "port": 0}, "outside"),
        ({"name": "x", "port": "9-3"}, "outside"),
        ({"name": "x", "port": "http"}, "no port"),
        ({"name": "x", "port": 5, "proto": "sctp"}, "neither"),
        ({"name": "x", "port": 5, "sources": ["nobody"]}, "no address"),
        ({"name": "x", "port": 5, "sources": "10.0.0.1"}, "write a list"),
    ],
)
def test_what_cannot_be_meant_is_refused(flow, told):
    with pytest.raises(FirewallError, match=told):
        build([flow])


def test_bad_mode_and_bad_interface_are_refused():
    with pytest.raises(FirewallError, match="none of"):
        build([], mode="open")
    with pytest.raises(FirewallError, match="no such name"):
        build([], peers=PEERS, pin_interface='x"')


ADDRESS = st.ip_addresses(v=4).map(str)


@settings(max_examples=60, deadline=None)
@given(st.lists(ADDRESS, max_size=6), ADDRESS, st.integers(1, 65535), st.integers(1, 65535))
def test_admission_is_membership(sources, caller, port, asked):
    built = build([{"name": "x", "port": port, "sources": sources}], management=["10.9.0.0/24"])
    expected = asked != port or caller in sources or (asked == 22 and caller.startswith("10.9.0."))
    assert admits(built["flows"], "owned_ports", caller, asked) is expected


def test_the_digest_follows_what_decides_a_packet():
    one = build([ENGINE], peers=PEERS)
    assert one["digest"] == build([dict(ENGINE)], peers=PEERS)["digest"]
    assert one["digest"] != build([{**ENGINE, "port": 8001}], peers=PEERS)["digest"]


def test_the_relay_is_open_to_its_sets_alone():
    for mode, end in (("owned_ports", "tcp dport 8690 counter drop"), ("strict", "counter drop")):
        rules = build([], mode=mode, relay_port=8690)["rules"]
        opened = [rule for rule in rules if "@relay" in rule]
        assert opened == [
            'tcp dport 8690 ip saddr @relay4 accept comment "weights-relay"',
            'tcp dport 8690 ip6 saddr @relay6 accept comment "weights-relay"',
        ]
        assert rules.index(end) > rules.index(opened[-1])
    built = build([])
    assert built["relay_sets"] == []
    assert not any("relay" in rule for rule in built["rules"])
