"""Hub, links and their removal, by the exact commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_support import Commands, link_list, make_lab
from rackserve.lab import network
from rackserve.lab.spec import LabError

OWN_LINKS = "ip -json link show"
HUB_LINKS = "ip -n tlab -json link show"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "machine").mkdir()
    (tmp_path / "state").mkdir()
    return tmp_path / "machine"


def test_a_command_that_fails_is_quoted_with_what_it_said() -> None:
    run = Commands({"ip link add": (2, "on stdout", "File exists\n"), "nft": (1, "only out\n", "")})
    with pytest.raises(LabError, match=r"^ip link add x: File exists$"):
        network.must(run, "ip", "link", "add", "x")
    with pytest.raises(LabError, match=r"^nft -f x: only out$"):
        network.must(run, "nft", "-f", "x")


def test_links_and_namespaces_are_read(root: Path) -> None:
    run = Commands({OWN_LINKS: "", HUB_LINKS: link_list("lo", "br0")})
    assert network.links(run) == set()
    assert network.links(run, "tlab") == {"lo", "br0"}
    assert network.namespaces(root) == set()
    (root / "run/netns/tlab").mkdir(parents=True)
    assert network.namespaces(root) == {"tlab"}


def test_a_new_hub_is_built_and_hardened(tmp_path: Path, root: Path) -> None:
    lab = make_lab(tmp_path)
    run = Commands({OWN_LINKS: link_list("lo", "eth0"), HUB_LINKS: link_list("lo"), "ip": "", "nsenter": ""})
    done = network.ensure_hub(lab, run, set(), root)
    assert done == ["namespace tlab", "bridge br0", "link tlab0"]
    assert run.changing() == [
        "ip netns add tlab",
        "ip -n tlab link set lo up",
        "ip -n tlab link add br0 type bridge",
        "ip -n tlab addr add 10.99.0.1/24 dev br0",
        "ip -n tlab link set br0 up",
        "ip link add tlab0 type veth peer name up0 netns tlab",
        "ip -n tlab addr add 10.99.1.2/30 dev up0",
        "ip -n tlab link set up0 up",
        "ip addr add 10.99.1.1/30 dev tlab0",
        "ip link set tlab0 up",
        "ip route replace 10.99.0.0/24 via 10.99.1.2 dev tlab0",
        "nsenter --net=/run/netns/tlab sysctl -q -w net.ipv4.ip_forward=1",
        f"nsenter --net=/run/netns/tlab nft -f {lab.state_dir}/hub.nft",
    ]
    rules = (lab.state_dir / "hub.nft").read_text()
    assert "policy drop" in rules
    assert 'iifname "up0" oifname "br0" accept' in rules


def test_a_whole_hub_is_left_alone(tmp_path: Path, root: Path) -> None:
    run = Commands({OWN_LINKS: link_list("tlab0"), HUB_LINKS: link_list("br0", "up0")})
    assert network.ensure_hub(make_lab(tmp_path), run, {"tlab"}, root) == []
    assert run.changing() == []


def test_a_link_that_lost_its_other_end_is_made_anew_and_bridge_filters_are_off(tmp_path: Path, root: Path) -> None:
    (root / "proc/sys/net/bridge").mkdir(parents=True)
    (root / "proc/sys/net/bridge/bridge-nf-call-iptables").write_text("1\n")
    run = Commands({OWN_LINKS: link_list("eth0"), HUB_LINKS: link_list("br0", "up0"), "ip": "", "nsenter": ""})
    assert network.ensure_hub(make_lab(tmp_path), run, {"tlab"}, root) == ["link tlab0"]
    assert run.changing()[0] == "ip -n tlab link del up0"
    assert "nsenter --net=/run/netns/tlab sysctl -q -w net.bridge.bridge-nf-call-iptables=0" in run.calls


@pytest.mark.parametrize(
    ("present", "ports", "first"),
    [
        (set(), set(), "ip netns add tlab-node1"),
        ({"tlab-node1"}, set(), "ip netns del tlab-node1"),
        (set(), {"v-node1"}, "ip netns add tlab-node1"),
    ],
)
def test_a_host_without_its_whole_link_gets_a_new_one(
    tmp_path: Path, present: set[str], ports: set[str], first: str
) -> None:
    lab, run = make_lab(tmp_path), Commands({"ip": ""})
    assert network.ensure_host_link(lab, lab.hosts[1], run, present, ports) is True
    assert run.calls[0] == first
    assert run.calls[-7:] == [
        "ip netns add tlab-node1",
        "ip -n tlab link add v-node1 type veth peer name host0 netns tlab-node1",
        "ip -n tlab link set v-node1 master br0 up",
        "ip -n tlab-node1 link set lo up",
        "ip -n tlab-node1 addr add 10.99.0.11/24 dev host0",
        "ip -n tlab-node1 link set host0 up",
        "ip -n tlab-node1 route add 10.99.1.0/30 via 10.99.0.1",
    ]


def test_a_linked_host_is_left_alone(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    assert network.ensure_host_link(lab, lab.hosts[1], Commands(), {"tlab-node1"}, {"v-node1"}) is False


def test_removal_takes_our_namespaces_and_no_other(tmp_path: Path, root: Path) -> None:
    for name in ("tlab", "tlab-gw", "tlabother", "docker"):
        (root / "run/netns" / name).mkdir(parents=True)
    run = Commands({"ip netns del": "", "ip link del tlab0": "", OWN_LINKS: link_list("tlab0", "eth0")})
    assert network.remove(make_lab(tmp_path), run, root) == ["link tlab0", "namespace tlab", "namespace tlab-gw"]
    assert run.changing() == ["ip link del tlab0", "ip netns del tlab", "ip netns del tlab-gw"]


def test_removal_of_nothing_does_nothing(tmp_path: Path, root: Path) -> None:
    run = Commands({OWN_LINKS: link_list("eth0")})
    assert network.remove(make_lab(tmp_path), run, root) == []
