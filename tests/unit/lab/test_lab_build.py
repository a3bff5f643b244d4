"""The whole lab: up, up again, half built, down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lab_support import HOST_KEY, Commands, link_list, make_lab
from rackserve.lab import build, hosts, machine, network
from rackserve.lab.spec import Host, Lab, LabError

HUB_LINKS = "ip -n tlab -json link show"
OWN_LINKS = "ip -json link show"


class Machine:
    """What this test's machine holds, in place of the real one's namespaces, mounts and processes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.namespaces: set[str] = set()
        self.mounts: set[str] = set()
        self.running: dict[str, int] = {}
        self.stopped: list[str] = []
        monkeypatch.setattr(machine, "refuse", lambda *_: None)
        monkeypatch.setattr(network, "namespaces", lambda *_: set(self.namespaces))
        monkeypatch.setattr(hosts, "mounts", lambda *_: set(self.mounts))
        monkeypatch.setattr(hosts, "supervisor_pid", lambda _, host: self.running.get(host.name))
        monkeypatch.setattr(hosts, "start", lambda _, host, _boot: self.running.update({host.name: 1}))
        monkeypatch.setattr(hosts, "stop", self.stop)
        monkeypatch.setattr(hosts, "answers_ssh", lambda _: True)
        monkeypatch.setattr(hosts, "remove_cgroups", lambda _: ["/sys/fs/cgroup/tlab"])

    def stop(self, _: Lab, names: list[str]) -> list[str]:
        ended = sorted(name for name in names if self.running.pop(name, None))
        self.stopped += ended
        return ended

    def complete(self, lab: Lab) -> None:
        """Everything of the lab but files and processes."""
        self.namespaces = {lab.hub, *(lab.namespace(host) for host in lab.hosts)}
        self.mounts = {str(lab.root_dir(host)) for host in (*lab.hosts, build.BUILDER)}


def commands(*bridge_ports: str, hub: bool = True) -> Commands:
    """A machine whose hub stands and has these ports."""
    table = {"ip": "", "mount": "", "umount": "", "nsenter": ""}
    table[HUB_LINKS] = link_list("lo", *(["br0", "up0"] if hub else []), *bridge_ports)
    table[OWN_LINKS] = link_list("eth0", *(["tlab0"] if hub else []))
    return Commands(table, keygen=True)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_bare_machine_gets_the_whole_lab(tmp_path: Path, fake: Machine) -> None:
    lab = make_lab(tmp_path)
    done = build.up(lab, commands(hub=False), Path("/lab-boot"), 0, 0)
    assert done["network"] == ["namespace tlab", "bridge br0", "link tlab0"]
    assert done["client"] == ["key", "known_hosts", "ssh_config"]
    assert done["builder"] == ["root"]
    assert done["gw"][:3] == ["link", "root", "host key"]
    assert done["gw"][-1] == "booted"
    assert fake.running == {"gw": 1, "node1": 1}
    assert fake.stopped == []


def test_a_second_run_does_nothing(tmp_path: Path, fake: Machine) -> None:
    lab = make_lab(tmp_path)
    build.up(lab, commands(hub=False), Path("/lab-boot"), 0, 0)
    fake.complete(lab)
    run = commands("v-gw", "v-node1")
    assert build.up(lab, run, Path("/lab-boot"), 0, 0) == {}
    assert run.changing() == []


def test_a_host_that_lost_its_link_is_started_afresh(tmp_path: Path, fake: Machine) -> None:
    lab = make_lab(tmp_path)
    build.up(lab, commands(hub=False), Path("/lab-boot"), 0, 0)
    fake.complete(lab)
    done = build.up(lab, commands("v-gw"), Path("/lab-boot"), 0, 0)
    assert done == {"node1": ["stopped a half-built host", "link", "booted"]}
    fake.mounts.remove(str(lab.root_dir(lab.hosts[0])))
    done = build.up(lab, commands("v-gw", "v-node1"), Path("/lab-boot"), 0, 0)
    assert done == {"gw": ["stopped a half-built host", "root", "booted"]}


def test_a_host_booted_with_another_machine_is_booted_afresh(tmp_path: Path, fake: Machine) -> None:
    lab = make_lab(tmp_path)
    build.up(lab, commands(hub=False), Path("/lab-boot"), 0, 0)
    fake.complete(lab)
    gateway, node = lab.hosts
    simulating = make_lab(tmp_path, hosts=(gateway, replace(node, machine="h20-8", binds=("/m:/hardware",))))
    again = {"node1": ["stopped: other machine or binds", "booted"]}
    assert build.up(simulating, commands("v-gw", "v-node1"), Path("/lab-boot"), 0, 0) == again
    assert build.up(simulating, commands("v-gw", "v-node1"), Path("/lab-boot"), 0, 0) == {}
    assert build.up(lab, commands("v-gw", "v-node1"), Path("/lab-boot"), 0, 0) == again
    lab.boot_record(gateway).unlink()
    assert set(build.up(lab, commands("v-gw", "v-node1"), Path("/lab-boot"), 0, 0)) == {"gw"}


def test_hosts_see_their_hardware_and_one_the_mirror() -> None:
    listed = build.with_light_nodes([{"name": "gw", "address": "10.99.0.6"}], 1, "10.99.0.0/29", "h20-8")
    gateway, light = build.with_binds(listed, {"h20-8": "/machines/h20-8-0123"}, "/mirror/4567", "gw")
    assert gateway == {"name": "gw", "address": "10.99.0.6", "binds": ["/mirror/4567:/srv/mirror"]}
    assert light["machine"] == "h20-8"
    assert light["binds"] == ["/machines/h20-8-0123:/usr/local/lib/rackserve-lab/hardware"]
    assert build.with_binds(listed, {"h20-8": "/m"}, "", "gw")[0]["binds"] == []
    with pytest.raises(LabError, match=r"lab host light1: machine h20-8 was not built; see files/hardware/h20-8\.yml"):
        build.with_binds(listed, {}, "", "gw")


def test_a_refusal_comes_before_anything_is_touched(
    tmp_path: Path, fake: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise LabError("too small")

    monkeypatch.setattr(machine, "refuse", refuse)
    with pytest.raises(LabError, match="too small"):
        build.up(make_lab(tmp_path), Commands(), Path("/lab-boot"), 0, 0)
    with pytest.raises(LabError, match="lab_host_prefix"):
        build.up(make_lab(tmp_path, prefix=""), Commands(), Path("/lab-boot"), 0, 0)
    assert list(tmp_path.iterdir()) == []
    assert fake.running == {}


def test_clients_know_every_host_by_name_and_address(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    for host in lab.hosts:
        lab.host_dir(host).mkdir(parents=True)
        (lab.host_dir(host) / "ssh_host_ed25519_key.pub").write_text(HOST_KEY)
    files = build.client_files(lab)
    known = files[lab.client_dir / "known_hosts"].splitlines()
    assert known == ["gw,10.99.0.10 ssh-ed25519 AAAAhost", "node1,10.99.0.11 ssh-ed25519 AAAAhost"]
    config = files[lab.client_dir / "ssh_config"]
    assert "Host node1\n  HostName 10.99.0.11\n" in config
    assert "Host gw 10.99.0.10 node1 10.99.0.11\n" in config
    assert f"IdentityFile {lab.client_key}\n" in config
    assert "StrictHostKeyChecking yes" in config


def test_light_nodes_take_free_addresses_from_the_top() -> None:
    named = [{"name": "gw", "address": "10.99.0.6"}]
    assert build.with_light_nodes(named, 0, "10.99.0.0/29") == named
    assert build.with_light_nodes(named, 2, "10.99.0.0/29")[1:] == [
        {"name": "light1", "address": "10.99.0.5"},
        {"name": "light2", "address": "10.99.0.4"},
    ]


def test_light_nodes_never_take_the_bridge_address() -> None:
    full = build.with_light_nodes([{"name": "gw", "address": "10.99.0.6"}], 4, "10.99.0.0/29")
    assert {host["address"] for host in full} == {f"10.99.0.{last}" for last in range(2, 7)}
    with pytest.raises(LabError, match=r"lab_host_extra_nodes 5: 10\.99\.0\.0/29 has room for 4 more"):
        build.with_light_nodes([{"name": "gw", "address": "10.99.0.6"}], 5, "10.99.0.0/29")


def test_a_subnet_that_is_none_is_refused() -> None:
    with pytest.raises(LabError, match=r"lab_host_subnet: .*write a network such as"):
        build.with_light_nodes([], 1, "lab")


def test_shared_connections_are_ended(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    assert build.close_connections(lab, Commands()) == []
    lab.control_dir.mkdir()
    for name in ("tlab-10.99.0.10", "tlab-10.99.0.11", "foreign-10.99.0.10"):
        (lab.control_dir / name).touch()
    run = Commands({"ssh -O exit": (255, "", "nobody is there")})
    assert build.close_connections(lab, run) == ["connection tlab-10.99.0.10", "connection tlab-10.99.0.11"]
    assert run.calls[0] == f"ssh -O exit -S {lab.control_dir}/tlab-10.99.0.10 tlab-10.99.0.10"
    assert [entry.name for entry in lab.control_dir.iterdir()] == ["foreign-10.99.0.10"]


def test_down_takes_away_what_was_built_even_hosts_no_longer_named(tmp_path: Path, fake: Machine) -> None:
    lab = make_lab(tmp_path, hosts=(Host("gw", "10.99.0.10"), Host("old", "10.99.0.20")))
    build.up(lab, commands(hub=False), Path("/lab-boot"), 0, 0)
    fake.complete(lab)
    lab.image_dir.mkdir(parents=True)
    now = make_lab(tmp_path, hosts=())
    run = commands()
    done = build.down(now, run)
    assert fake.stopped == ["gw", "old"]
    assert {"host gw", "host old", "namespace tlab-old", "link tlab0", "folder hosts/old"} <= set(done)
    assert "cgroup /sys/fs/cgroup/tlab" in done
    assert sorted(call for call in run.calls if call.startswith("umount")) == sorted(
        f"umount {point}" for point in fake.mounts
    )
    assert list((lab.state_dir / "hosts").iterdir()) == []
    assert lab.image_dir.is_dir()


def test_down_without_a_lab_does_nothing(tmp_path: Path, fake: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "remove_cgroups", lambda _: [])
    assert fake.namespaces == set()
    assert build.down(make_lab(tmp_path), commands(hub=False)) == []
