"""What a lab is, and which labs cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_support import make_lab
from rackserve.lab.spec import Host, LabError, check


def test_names_and_addresses_follow_from_the_description(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    gateway = lab.hosts[0]
    assert (lab.hub, lab.uplink_interface, lab.namespace(gateway)) == ("tlab", "tlab0", "tlab-gw")
    assert (lab.bridge_address, lab.machine_address, lab.hub_address) == ("10.99.0.1", "10.99.1.1", "10.99.1.2")
    assert lab.prefix_length == 24
    assert lab.client_key == tmp_path / "client/id_ed25519"
    assert lab.root_dir(gateway) == tmp_path / "state/hosts/gw/root"
    assert lab.pid_file(gateway) == tmp_path / "state/hosts/gw/supervisor.pid"


def test_a_sound_lab_passes(tmp_path: Path) -> None:
    check(make_lab(tmp_path))
    check(make_lab(tmp_path, hosts=()))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prefix": "Lab"}, "lab_host_prefix 'Lab' must match"),
        ({"prefix": "abcdefghijkl"}, "must match"),
        ({"prefix": "lab\n"}, "lab_host_prefix 'lab\\n' must match"),
        ({"subnet": "10.99.0.1/24"}, "lab_host_subnet / lab_host_uplink: 10.99.0.1/24 has host bits set"),
        ({"uplink": "here"}, "write a network such as"),
        ({"uplink": "10.99.1.0/29"}, "must be a /30"),
        ({"uplink": "10.99.0.0/30"}, "overlap; choose two ranges"),
        ({"hosts": (Host("Node", "10.99.0.9"),)}, "lab host name 'Node' must match"),
        ({"hosts": (Host("gw", "10.98.0.9"),)}, "address 10.98.0.9 is outside lab_host_subnet 10.99.0.0/24"),
        ({"hosts": (Host("gw", "10.99.0.1"),)}, "address 10.99.0.1 is taken by the bridge"),
        ({"hosts": (Host("a", "10.99.0.9"), Host("b", "10.99.0.9"))}, "lab host b: address 10.99.0.9 is taken by a"),
        ({"hosts": (Host("gw", "gw.example"),)}, "lab host gw: 'gw.example' is not an address"),
        ({"hosts": (Host("gw", "10.99.0.9", binds=("/m",)),)}, "lab host gw: bind '/m' must be /source:/target"),
        ({"hosts": (Host("gw", "10.99.0.9", binds=("/m:/a:rw",)),)}, "bind '/m:/a:rw' must be"),
    ],
)
def test_a_lab_that_cannot_be_is_refused_in_one_line(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(LabError) as refused:
        check(make_lab(tmp_path, **changes))
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
